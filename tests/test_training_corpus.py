"""The training corpus: what it holds, that it can be gone on with, and that trivial features say nothing."""

import shutil
from itertools import islice

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import training_corpus
from audio import load_audio
from clip_reader import ClipReader
from config import BONAFIDE, SAMPLE_RATE, SPOOF
from data_generator import training_batches
from data_utils import read_dataset
from errors import UserError
from measurements import measure_clip
from recipes.resnet_wild import RECIPE
from sampling import grouped_epoch
from speech_engines import ENGINES, GRAMMAR, Engine, as_recorded, sentences
from splits import with_extra
from training_corpus import GROUPS, METHODS, main, plan, recordings, trivial_auc

CHEAP = "frozen_phase,mel_with_phase"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, speech_like):
    """Three pages of two recordings and a fake, one more page that lies in dev."""
    folder = tmp_path_factory.mktemp("set")
    lines = ["path,label,attack,speaker,split,page"]
    for page in range(4):
        for clip in range(3):
            rng = np.random.default_rng((page, clip))
            waveform = 0.1 * (page + 1) * speech_like(1.2 + 0.2 * clip, seed=10 * page + clip)
            waveform += 10 ** -(2 + page / 2) * rng.standard_normal(len(waveform))
            sf.write(folder / f"{page}{clip}.wav", np.clip(waveform, -1, 1), SAMPLE_RATE, subtype="PCM_16")
            label = "spoof,tts" if clip == 2 else "bonafide,-"
            lines.append(f"{page}{clip}.wav,{label},s{page},{'dev' if page == 3 else 'train'},site/{page}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def corpus(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "corpus"
    assert main([str(dataset), "--out", str(folder), "--methods", CHEAP, "--jobs", "1"]) == 0
    return folder


def bytes_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.flac")}


def test_every_command_reads_it_and_a_copy_keeps_page_speaker_and_split(corpus, dataset):
    table = read_dataset(corpus).usable()
    assert (table["label"] == BONAFIDE).sum() == 8 and (table["label"] == SPOOF).sum() == 16
    assert set(table["attack"]) == {"-", *CHEAP.split(",")}
    listed = pd.read_csv(corpus / "manifest.csv").set_index("path")
    for _, copy in listed.iterrows():
        original = listed.loc[f"recorded/{copy['source']}.flac"]
        assert copy[["speaker", "split", "page"]].equals(original[["speaker", "split", "page"]])
    assert set(listed["kind"]) == {"bonafide", "vocoder", "imitation"}


def test_recordings_are_kept_as_they_are_and_copies_look_like_them(corpus, dataset):
    for path in (corpus / "recorded").iterdir():
        original = load_audio(dataset / f"{path.name[:2]}.wav")
        np.testing.assert_array_equal(load_audio(path), original)
        recorded = measure_clip(path)[0]
        for method in CHEAP.split(","):
            copy = measure_clip(corpus / method / path.name)[0]
            assert copy["seconds"] == recorded["seconds"] and copy["sample_rate"] == SAMPLE_RATE
            assert copy["rms_db"] == pytest.approx(recorded["rms_db"], abs=0.3)
            assert copy["peak_db"] <= recorded["peak_db"] + 0.01


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_to_the_same_bytes(corpus, dataset, tmp_path, jobs):
    again = tmp_path / "again"
    shutil.copytree(corpus, again)
    for path in sorted(again.rglob("*.flac"))[::3]:
        path.unlink()
    (again / "manifest.csv").unlink()
    assert main([str(dataset), "--out", str(again), "--methods", CHEAP, "--jobs", jobs]) == 0
    assert bytes_of(again) == bytes_of(corpus)
    assert (again / "manifest.csv").read_bytes() == (corpus / "manifest.csv").read_bytes()


def test_more_methods_add_files_and_change_none(corpus, dataset, tmp_path):
    more = tmp_path / "more"
    shutil.copytree(corpus, more)
    assert main([str(dataset), "--out", str(more), "--methods", "psola", "--limit", "3", "--jobs", "1"]) == 0
    before, after = bytes_of(corpus), bytes_of(more)
    assert before.items() <= after.items() and len(after) == len(before) + 3
    assert len(pd.read_csv(more / "manifest.csv")) == len(after)


def test_what_is_there_keeps_its_line_when_there_are_fewer_recordings(dataset, tmp_path, monkeypatch):
    """What is spoken takes the look of another recording then; the files that are there do not change."""
    voice = Engine(lambda seconds, rng: rng.normal(0, 0.1, round(seconds * SAMPLE_RATE)), "robots", "sh")
    monkeypatch.setitem(ENGINES, "voice", voice)
    arguments = [str(dataset), "--out", str(tmp_path / "c"), "--methods", "none", "--engines", "voice", "--jobs", "1"]
    assert main([*arguments, "--spoken", "12"]) == 0
    before = (tmp_path / "c" / "manifest.csv").read_text(encoding="utf-8")
    assert main([*arguments, "--spoken", "13", "--limit", "3"]) == 0
    after = (tmp_path / "c" / "manifest.csv").read_text(encoding="utf-8")
    assert set(before.splitlines()) < set(after.splitlines())
    assert len(after.splitlines()) == len(before.splitlines()) + 1


def test_a_split_and_some_methods_a_clip(dataset, tmp_path):
    arguments = [str(dataset), "--out", str(tmp_path / "c"), "--methods", f"{CHEAP},psola", "--per-clip", "1"]
    assert main([*arguments, "--split", "dev", "--jobs", "1"]) == 0
    listed = pd.read_csv(tmp_path / "c" / "manifest.csv")
    assert set(listed["page"]) == {"site/3"} and listed["label"].value_counts().to_dict() == {"bonafide": 2, "spoof": 2}


def test_a_bad_file_is_reported_and_the_others_are_made(dataset, tmp_path, capsys):
    bad = tmp_path / "bad"
    shutil.copytree(dataset, bad)
    (bad / "00.wav").write_bytes(b"no sound")
    sf.write(bad / "01.wav", 0.1 * np.ones(8000), SAMPLE_RATE)
    code = main([str(bad), "--out", str(tmp_path / "c"), "--methods", "frozen_phase", "--jobs", "1"])
    shown = capsys.readouterr()
    assert code == 1 and "00.wav" in shown.out + shown.err and "01.wav: 0.50 s long" in shown.out + shown.err
    assert len(read_dataset(tmp_path / "c").usable()) == 2 * 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "wrold"], "unknown method 'wrold'; valid: all, none, classic, neural, fargan, released, world"),
        (["--engines", "hal"], "unknown engine 'hal'"),
        (["--jobs", "0"], "at least 1"),
        (["--seed", "2"], "made with seed 1"),
    ],
)
def test_what_cannot_be_done_is_one_line(corpus, dataset, arguments, message):
    with pytest.raises(UserError, match=message):
        main([str(dataset), "--out", str(corpus), "--methods", "none", *arguments])


def test_files_of_two_neural_vocoders_do_not_mix(dataset, tmp_path, monkeypatch):
    words = [str(dataset), "--out", str(tmp_path / "c"), "--methods", "none", "--jobs", "1"]
    monkeypatch.setattr(training_corpus, "VOCODER_FILE", tmp_path / "hifi_gan.keras")
    assert main(words) == 0
    (tmp_path / "hifi_gan.keras").write_bytes(b"the first")
    assert main(words) == 0  # none of its copies is there yet
    (tmp_path / "hifi_gan.keras").write_bytes(b"another")
    with pytest.raises(UserError, match="was made with another"):
        main(words)
    (tmp_path / "c" / "settings.json").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="does not say how this corpus was made"):
        main(words)


def test_a_copy_with_a_hole_is_reported_and_left_out(dataset, tmp_path, monkeypatch, capsys):
    broken = METHODS["frozen_phase"]._replace(make=lambda waveform, rng, partner: waveform * np.nan)
    monkeypatch.setitem(METHODS, "frozen_phase", broken)
    words = [str(dataset), "--out", str(tmp_path / "c"), "--methods", "frozen_phase", "--jobs", "1"]
    assert main(words) == 1
    shown = capsys.readouterr()
    assert "frozen_phase makes samples of it that are no numbers" in shown.out + shown.err
    assert set(read_dataset(tmp_path / "c").usable()["attack"]) == {"-"}


def test_a_recording_alone_on_its_page_has_no_partner_of_another_page(dataset):
    table = recordings([dataset], None)
    alone = table[(table["page"] != "site/1") | ~table["page"].duplicated()].reset_index(drop=True)
    pages = alone.set_index("path")["page"]
    clips = [clip for clip in plan(alone, ["world_conversion"], None, [], 0, 1) if clip.row[2] != "-"]
    assert len(clips) == 7 and all(pages[clip.source] == pages[clip.partner] for clip in clips)
    assert sum(clip.source == clip.partner for clip in clips) == 1


def test_trivial_features_of_an_attack_of_one_page_are_unknown(corpus, tmp_path):
    listed = pd.read_csv(corpus / "manifest.csv")
    listed["path"] = [str(corpus / path) for path in listed["path"]]
    first = listed["page"] == "site/0"
    listed[first | (listed["label"] == "spoof")].to_csv(tmp_path / "manifest.csv", index=False)
    table = read_dataset(tmp_path).usable()
    table = table[(table["page"] == "site/0") | (table["attack"] == "mel_with_phase")]
    assert np.isnan(trivial_auc(table)["frozen_phase"])


def test_trivial_features_want_pages_to_be_tried_on(corpus, tmp_path):
    listed = pd.read_csv(corpus / "manifest.csv").assign(page="one")
    listed["path"] = [str(corpus / path) for path in listed["path"]]
    listed.to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(UserError, match="all clips here are of one"):
        main(["--check", str(tmp_path)])


def test_a_folder_of_something_else_is_left_alone(dataset, tmp_path):
    (tmp_path / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(UserError, match="holds other files"):
        main([str(dataset), "--out", str(tmp_path)])


def test_a_method_that_is_not_installed_is_refused_by_name(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(METHODS, "world", METHODS["world"]._replace(needs="no_such_module"))
    with pytest.raises(UserError, match=r"method world: world needs no_such_module; see requirements-corpus\.txt"):
        main([str(dataset), "--out", str(tmp_path / "c"), "--methods", "world"])
    for group in ("classic", "psola,classic", "all"):
        words = [str(dataset), "--out", str(tmp_path / group), "--methods", group, "--per-clip", "1", "--limit", "1"]
        assert main([*words, "--jobs", "1"]) == 0
        assert "left out: world needs no_such_module" in capsys.readouterr().out
        assert len(read_dataset(tmp_path / group).usable()) == 2  # the recording and a copy
    for name in GROUPS["neural"]:
        monkeypatch.setitem(METHODS, name, METHODS[name]._replace(needs="no_such_file"))
    with pytest.raises(UserError, match=r"method neural: hifi_gan_plain needs no_such_file, .*neural_vocoder\.py"):
        main([str(dataset), "--out", str(tmp_path / "neural"), "--methods", "neural"])


def test_speech_gets_the_look_of_a_recording_and_a_page_of_its_own(dataset, tmp_path, monkeypatch, speech_like):
    def speak(seconds, rng):
        return speech_like(seconds + 1, seed=int(rng.integers(100))).astype(np.float32)

    monkeypatch.setitem(ENGINES, "robot", Engine(speak, "robots", "sh"))
    arguments = ["--methods", "none", "--engines", "robot", "--spoken", "5", "--jobs", "1"]
    assert main([str(dataset), "--out", str(tmp_path / "c"), *arguments]) == 0
    listed = pd.read_csv(tmp_path / "c" / "manifest.csv").set_index("path")
    spoken = listed[listed["attack"] == "robot"]
    assert len(spoken) == 5 and set(spoken["page"]) == {"engine:robot"} and spoken["speaker"].nunique() == 5
    for path, row in spoken.iterrows():
        made, model = (measure_clip(tmp_path / "c" / p)[0] for p in (path, f"recorded/{row['source']}.flac"))
        assert made["seconds"] == model["seconds"]
        assert made["rms_db"] == pytest.approx(model["rms_db"], abs=0.5)


def test_as_recorded_takes_silence_and_background(speech_like):
    rng = np.random.default_rng(0)
    recording = 2e-4 * rng.standard_normal(32_000)
    recording[8000:24_000] += 0.3 * speech_like(1.0)
    out = as_recorded(speech_like(3.0, seed=8).astype(np.float32), recording.astype(np.float32), rng)
    for part in (slice(0, 7500), slice(24_500, 32_000)):
        assert 20 * np.log10(out[part].std() / recording[part].std()) == pytest.approx(0, abs=3)
    assert out[8000:24_000].std() > 30 * out[:7500].std()


@pytest.mark.parametrize("language", GRAMMAR)
def test_sentences_are_long_enough_and_various(language):
    texts = {sentences(language, 4.0, np.random.default_rng(seed)) for seed in range(50)}
    assert len(texts) == 50 and min(map(len, texts)) >= 4 * 15
    assert all(text[0].isupper() and text[-1] in ".!?" and "|" not in text for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flite", "espeak", "festival", "hibari", "piper", "kokoro"])
def test_an_engine_speaks_the_same_for_the_same_seed(name):
    if not ENGINES[name].is_here:
        pytest.skip(f"needs {ENGINES[name].needs}")
    first, second, other = (ENGINES[name].speak(2.0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.dtype == np.float32 and len(first) > 1.5 * SAMPLE_RATE and 0.01 < np.abs(first).max() < 2
    if name != "piper":  # its network draws noise of its own
        np.testing.assert_array_equal(first, second)
    assert len(first) != len(other) or not np.allclose(first, other)


@pytest.mark.slow
def test_trivial_features_do_not_tell_copies_from_recordings(shared_data, tmp_path):
    """Not in the files of a corpus, and hardly in what recipe resnet_wild feeds to a network."""
    arguments = ["--limit", "90", "--methods", f"{CHEAP},lpc_vocoder,psola", "--per-clip", "1", "--jobs", "2"]
    assert main([str(shared_data / "wild"), "--out", str(tmp_path / "c"), *arguments]) == 0
    table = read_dataset(tmp_path / "c").usable()
    assert 0.35 < trivial_auc(table)["all"] < 0.65

    tables = {"train": read_dataset(shared_data / "wild").usable()}
    tables |= dict.fromkeys(("dev", "eval"), tables["train"].iloc[:0])
    whole = with_extra(tables, table, official=False)
    order, _ = grouped_epoch(whole, RECIPE.training, 0)
    fed = whole.iloc[order[:480]].copy()
    batches = islice(training_batches(ClipReader(whole), RECIPE, 0), len(fed) // RECIPE.training.batch_size)
    (tmp_path / "fed").mkdir()
    paths = [tmp_path / "fed" / f"{number}.wav" for number in range(len(fed))]
    for path, waveform in zip(paths, (waveform for batch in batches for waveform in np.array(batch[0])), strict=True):
        sf.write(path, waveform, SAMPLE_RATE, subtype="FLOAT")
    as_fed = trivial_auc(fed.assign(path=list(map(str, paths)), attack="any"))["all"]
    assert as_fed < trivial_auc(tables["train"].sample(480, random_state=1).assign(attack="any"))["all"] - 0.08
    assert 0.35 < as_fed < 0.65

    for path in table.loc[table["label"] == SPOOF, "path"]:  # a class that is louder is found at once
        waveform = load_audio(path)
        sf.write(path, 0.2 * waveform / np.abs(waveform).max(), SAMPLE_RATE, subtype="PCM_16")
    assert trivial_auc(table)["all"] > 0.85
