"""Splits keep their promises whatever the table: no shared speaker, no held-out attack in train."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from config import BONAFIDE, SPOOF, TABLE_COLUMNS
from data_utils import read_dataset
from errors import UserError
from splits import PAGE_FOLDS, SPLIT_ORDER, SPLITS, split_table, stratified_sample, with_extra

ANY_TABLE_SCHEMES = ("random-70-15-15", "random-80-10-10")


def make_table(rows):
    """Build a table from (label, attack, speaker, split); the index is shuffled on purpose."""
    table = pd.DataFrame(rows, columns=["label", "attack", "speaker", "split"])
    table["utterance_id"] = [f"u{i}" for i in range(len(table))]
    table["path"] = [f"/x/{u}.flac" for u in table["utterance_id"]]
    table = table.assign(dataset="made", page="-", kind="-", family="-", source="-")
    table.index = np.random.default_rng(0).permutation(len(table)) + 7
    return table[list(TABLE_COLUMNS)]


def crossed(speakers, attacks, clips=2, split="-"):
    """Give every speaker bona fide clips and clips of every attack."""
    return [
        (BONAFIDE if attack == "-" else SPOOF, attack, speaker, split)
        for speaker in speakers
        for attack in ("-", *attacks)
        for _ in range(clips)
    ]


def la_like(official=True):
    name = (lambda s: s) if official else (lambda s: "-")
    return make_table(
        crossed([f"t{i}" for i in range(6)], [f"A0{i}" for i in range(1, 7)], split=name("train"))
        + crossed([f"d{i}" for i in range(4)], [f"A0{i}" for i in range(1, 7)], split=name("dev"))
        + crossed([f"e{i}" for i in range(4)], ["A07", "A08"], split=name("eval"))
    )


@st.composite
def tables(draw):
    row = st.tuples(
        st.sampled_from(["-", "-", "A", "B", "C", "D", "unknown"]),
        st.sampled_from(["s1", "s2", "s3", "s4", "s5", "-"]),
        st.sampled_from(["train", "dev", "eval", "-"]),
        st.sampled_from([f"p{number}" for number in range(12)]),
    )
    drawn = draw(st.lists(row, min_size=1, max_size=120))
    table = make_table([(BONAFIDE if a == "-" else SPOOF, a, speaker, split) for a, speaker, split, _ in drawn])
    return table.assign(page=[page for *_, page in drawn]) if draw(st.booleans()) else table


def members(table, column, only=None):
    rows = table if only is None else table[table["label"] == only]
    return {s: set(rows.loc[rows["split"] == s, column]) for s in SPLIT_ORDER}


def disjoint(sets, ignore=()):
    used = [s - set(ignore) for s in sets.values()]
    return sum(map(len, used)) == len(set().union(*used))


@settings(deadline=None, max_examples=150)
@given(tables(), st.sampled_from(list(SPLITS)), st.integers(0, 5))
def test_every_split_copies_rows_and_repeats_itself(table, scheme, seed):
    before = table.copy()
    try:
        out = split_table(table, scheme, seed)
    except UserError as error:
        assert "\n" not in str(error) and "choose" in str(error)
        return
    finally:
        pd.testing.assert_frame_equal(table, before)
    # no row invented, none twice, nothing but the split changed
    assert set(out["utterance_id"]) <= set(table["utterance_id"]) and out["utterance_id"].is_unique
    same = [c for c in TABLE_COLUMNS if c != "split"]
    pd.testing.assert_frame_equal(out[same], table.loc[out.index, same], check_index_type=False)
    assert scheme == "official" or set(out["split"]) <= set(SPLIT_ORDER)
    assert out.attrs["split_note"].startswith(f"{scheme}: ") and "\n" not in out.attrs["split_note"]
    pd.testing.assert_frame_equal(out, split_table(table, scheme, seed))


@settings(deadline=None, max_examples=100)
@given(tables(), st.sampled_from(ANY_TABLE_SCHEMES), st.integers(0, 5))
def test_random_splits_keep_proportions_in_every_stratum(table, scheme, seed):
    out = split_table(table, scheme, seed)
    assert len(out) == len(table)
    shares = dict(zip(SPLIT_ORDER, [int(n) / 100 for n in scheme.split("-")[1:]], strict=True))
    for _, stratum in out.groupby(["label", "attack"]):
        for side, share in shares.items():
            assert abs((stratum["split"] == side).sum() - share * len(stratum)) <= 1


@settings(deadline=None, max_examples=100)
@given(tables(), st.integers(0, 5))
def test_speaker_disjoint_shares_no_speaker(table, seed):
    table = table[table["speaker"] != "-"]
    assume(len(table))
    try:
        out = split_table(table, "speaker-disjoint", seed)
    except UserError as error:
        assert "would have no" in str(error)
        return
    assert len(out) == len(table) and disjoint(members(out, "speaker"))


@settings(deadline=None, max_examples=150)
@given(tables(), st.integers(0, 5))
def test_attack_held_out_shares_no_attack_and_no_known_speaker(table, seed):
    try:
        out = split_table(table, "attack-held-out", seed)
    except UserError:
        return
    attacks, speakers = members(out, "attack", SPOOF), members(out, "speaker")
    assert not attacks["train"] & attacks["dev"]
    if (table["split"] == "eval").any():  # the official eval stays as it is, to the row
        kept = set(table.loc[table["split"] == "eval", "utterance_id"])
        assert set(out.loc[out["split"] == "eval", "utterance_id"]) == kept
        assert not speakers["train"] & speakers["dev"] - {"-"}
    else:
        assert disjoint(attacks) and disjoint(speakers, "-")
        assert all(attacks.values())


def test_attack_held_out_on_the_official_division():
    table = la_like()
    out = split_table(table, "attack-held-out", seed=3)
    attacks, speakers = members(out, "attack", SPOOF), members(out, "speaker")
    assert len(attacks["dev"]) == 2 and len(attacks["train"]) == 4
    assert attacks["eval"] == {"A07", "A08"}
    assert all(s.startswith("t") for s in speakers["train"]) and all(s.startswith("d") for s in speakers["dev"])
    bonafide = out[out["label"] == BONAFIDE]
    assert bonafide["split"].value_counts().to_dict() == {"train": 12, "dev": 8, "eval": 8}
    dropped = 6 * 2 * 2 + 4 * 4 * 2  # train's speakers with 2 held-out attacks, dev's with 4 training attacks
    assert len(out) == len(table) - dropped and f"{dropped} rows dropped" in out.attrs["split_note"]
    assert "No speaker and no attack is in two splits" in out.attrs["split_note"]
    drawn = {tuple(sorted(members(split_table(table, "attack-held-out", s), "attack", SPOOF)["dev"])) for s in range(9)}
    assert len(drawn) > 1  # the seed chooses the attacks


def test_attack_held_out_without_any_official_division():
    out = split_table(la_like(official=False), "attack-held-out")
    attacks = members(out, "attack", SPOOF)
    assert {side: len(a) for side, a in attacks.items()} == {"train": 4, "dev": 2, "eval": 2}
    assert "no official eval" in out.attrs["split_note"]


def test_attack_held_out_divides_by_clip_where_speakers_are_unknown():
    rows = [(label, attack, "-", "-") for _, attack, _, _ in crossed("ab", "ABC", 20) for label in [int(attack != "-")]]
    out = split_table(make_table(rows), "attack-held-out")
    assert disjoint(members(out, "attack", SPOOF))
    assert "by clip" in out.attrs["split_note"] and "unknown" in out.attrs["split_note"]


def test_official_says_what_it_shares():
    note = split_table(la_like(), "official").attrs["split_note"]
    assert "train and dev share the attacks A01, A02" in note and "speakers" not in note


def test_random_says_that_it_leaks():
    note = split_table(la_like(), "random-70-15-15").attrs["split_note"]
    assert "Leaks: train and dev share" in note and "speakers" in note
    assert all("leaks" in SPLITS[scheme] for scheme in ANY_TABLE_SCHEMES)


def test_speaker_disjoint_comes_near_its_shares():
    rng = np.random.default_rng(5)  # 54 speakers of uneven size, as In-the-Wild has
    rows = []
    for i, size in enumerate(rng.integers(20, 1500, 54)):
        rows += [(int(label), "unknown" if label else "-", f"p{i}", "-") for label in rng.random(size) < rng.random()]
    out = split_table(make_table(rows), "speaker-disjoint")
    for label in (BONAFIDE, SPOOF):
        share = out.loc[out["label"] == label, "split"].value_counts(normalize=True)
        assert share["train"] == pytest.approx(0.70, abs=0.05) and share["dev"] == pytest.approx(0.15, abs=0.05)


@pytest.mark.parametrize(
    ("rows", "scheme", "message"),
    [
        (crossed("abc", "A"), "attack-held-out", "1 named attacks outside eval \\(A\\), at least 3"),
        (crossed("abc", ["unknown"]), "attack-held-out", "0 named attacks outside eval \\(none\\)"),
        (
            crossed("abc", "A", split="train") + crossed("d", "A", split="eval"),
            "attack-held-out",
            "at least 2",
        ),
        (crossed(["a", "-"], "AB"), "speaker-disjoint", "speaker of 6 of 12 rows is unknown; choose --split random"),
        (crossed("ab", "AB"), "speaker-disjoint", "eval would have no bona fide rows"),
        (crossed("ab", "AB"), "official", "this dataset has none; choose --split random-70-15-15"),
        ([(-1, "-", "-", "eval")], "random-70-15-15", "1 rows have no label; choose official"),
        (crossed("ab", "AB"), "70-15-15", "'70-15-15' is unknown; valid: official, random-70-15-15"),
        ([], "official", "no rows"),
    ],
)
def test_impossible_splits_say_what_to_choose(rows, scheme, message):
    with pytest.raises(UserError, match=message):
        split_table(make_table(rows), scheme)


@settings(deadline=None, max_examples=100)
@given(tables(), st.floats(0.01, 1.0), st.integers(0, 5))
def test_stratified_sample(table, fraction, seed):
    sample = stratified_sample(table, fraction, seed)
    sizes = table.groupby(["label", "attack"]).size()
    kept = sample.groupby(["label", "attack"]).size()
    assert kept.index.equals(sizes.index)
    assert ((kept - fraction * sizes).abs() <= 0.5 + 1e-9).where(kept > 1, True).all() and (kept >= 1).all()
    positions = table.index.get_indexer(sample.index)
    assert (np.diff(positions) > 0).all()  # the old order, nothing twice
    pd.testing.assert_frame_equal(sample, stratified_sample(table, fraction, seed))


def test_stratified_sample_bounds():
    table = la_like()
    pd.testing.assert_frame_equal(stratified_sample(table, 1.0), table)
    assert not stratified_sample(table, 0.5, 1).equals(stratified_sample(table, 0.5, 2))
    for fraction in (0, 1.5, -1, float("nan")):
        with pytest.raises(UserError, match="above 0 and at most 1"):
            stratified_sample(table, fraction)


def test_a_negative_seed_is_refused():
    for call in (
        lambda: split_table(la_like(), "random-70-15-15", -1),
        lambda: stratified_sample(la_like(), 0.5, -1),
    ):
        with pytest.raises(UserError, match="seed -1"):
            call()


def test_the_real_la_held_out(shared_data):
    table = read_dataset(shared_data / "LA").table
    out = split_table(table, "attack-held-out")
    count = out.groupby(["split", "label"]).size().to_dict()
    assert count == {
        ("train", BONAFIDE): 2_580,
        ("train", SPOOF): 4 * 3_800,
        ("dev", BONAFIDE): 2_548,
        ("dev", SPOOF): 2 * 3_716,
        ("eval", BONAFIDE): 7_355,
        ("eval", SPOOF): 63_882,
    }
    assert "No speaker and no attack is in two splits" in out.attrs["split_note"]
    for scheme in ("random-70-15-15", "speaker-disjoint"):
        assert len(split_table(table, scheme)) == 121_461


# ---------------------------------------------------------------- pages


def paged(pages=12, split="-"):
    """Every page has recordings; every third has no attack, every other an attack of its own."""
    table = make_table([(BONAFIDE if i % 2 else SPOOF, "-" if i % 2 else "A", "-", split) for i in range(10 * pages)])
    page = np.arange(10 * pages) // 10
    table["label"] = np.where(page % 3 == 0, BONAFIDE, table["label"])
    table["attack"] = np.where(table["label"] == SPOOF, [f"A{p}" for p in page], "-")
    return table.assign(page=[f"p{p}" for p in page])


@pytest.mark.parametrize("seed", range(5))
def test_page_folds_share_no_page_and_judge_every_clip_once(seed):
    table = pd.concat([paged(), make_table([(SPOOF, "A", "-", "eval")]).assign(page="p0", utterance_id="e")])
    judged = []
    for fold in range(1, PAGE_FOLDS + 1):
        out = split_table(table, f"pages-{fold}-of-{PAGE_FOLDS}", seed)
        assert len(out) == len(table) and disjoint({s: v for s, v in members(out, "page").items() if s != "eval"})
        assert list(out.loc[out["split"] == "eval", "utterance_id"]) == ["e"]  # whatever its page
        assert set(out.loc[out["split"] == "dev", "label"]) == {BONAFIDE, SPOOF}
        judged += list(out.loc[out["split"] == "dev", "utterance_id"])
    assert sorted(judged) == sorted(paged()["utterance_id"])


def test_unknown_pages_are_refused():
    with pytest.raises(UserError, match=r"the page of 4 rows is unknown; choose --split official"):
        split_table(make_table(crossed(["s"], ["A"], split="train")), "pages-1-of-4")


@pytest.mark.parametrize("official", [True, False])
def test_extra_clips_never_come_from_recordings_that_judge(official):
    scheme = "official" if official else "pages-2-of-4"
    table = paged()
    table["split"] = np.where(np.arange(len(table)) % 4 == 0, "dev", "train")  # pages on both sides
    whole = split_table(table, scheme)
    tables = {name: whole[whole["split"] == name] for name in SPLIT_ORDER}
    copies = table.assign(label=SPOOF, attack="vocoder", utterance_id="copy of " + table["utterance_id"])
    train = with_extra(tables, copies, official)
    extra = train[train["extra"]]
    pd.testing.assert_frame_equal(
        train.loc[~train["extra"], list(TABLE_COLUMNS)], tables["train"].reset_index(drop=True)
    )
    of = set(extra["utterance_id"].str.removeprefix("copy of "))
    assert of == set(tables["train"]["utterance_id"])  # all that may, none that must not
    assert train.attrs == tables["train"].attrs


def test_speech_in_the_look_of_a_recording_that_judges_is_left_out_as_well():
    whole = split_table(paged(), "pages-2-of-4")
    tables = {name: whole[whole["split"] == name] for name in SPLIT_ORDER}
    recordings = whole.assign(source=whole["utterance_id"])
    spoken = recordings.assign(page="engine:flite", label=SPOOF, attack="flite")
    kept = with_extra(tables, pd.concat([recordings, spoken]), official=False)
    kept = kept[kept["extra"]]
    assert set(kept["source"]) == set(tables["train"]["utterance_id"])
    assert (kept["page"] == "engine:flite").sum() == len(tables["train"])


def test_without_pages_all_that_was_made_of_the_judged_dataset_is_left_out():
    whole = split_table(la_like(), "random-70-15-15")
    tables = {name: whole[whole["split"] == name] for name in SPLIT_ORDER}
    copies = whole.assign(label=SPOOF, attack="vocoder", page="made")  # a corpus names the dataset, here "made"
    others = whole.assign(page="elsewhere")
    assert with_extra(tables, pd.concat([copies, others]), official=False)["extra"].sum() == len(others)
    with pytest.raises(UserError, match=r"extra: all .* made of recordings of the dataset that dev or eval are of"):
        with_extra(tables, copies, official=False)
