"""Golden figures of real score files, brute-force definitions, and invariants of the metrics."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

import metrics
from errors import UserError
from score_files import read_asv_scores, read_scores

LA = "LA/ASVspoof2019_LA_asv_scores/ASVspoof2019.LA.asv.{}.gi.trl.scores.txt"


@pytest.fixture(scope="module")
def tables(shared_data: Path) -> dict:
    names = {"b02": "B02_LFCC-GMM_LA_eval", "aasist": "AASIST_LA_eval", "aasist_dev": "AASIST_LA_dev"}
    return {key: read_scores(shared_data / "scores" / f"{name}.txt") for key, name in names.items()}


@pytest.fixture(scope="module")
def asv(shared_data: Path) -> dict[str, metrics.AsvRates]:
    return {k: metrics.asv_rates(**read_asv_scores(shared_data / LA.format(k))) for k in ("dev", "eval")}


GOLDEN = {  # EER %, threshold, AUC, t-DCF 2019, t-DCF 2021, min DCF, min Cllr (FACTS 5.2)
    "b02": (8.089825, 1.030046, 0.975791, 0.211053, 0.260546, 0.197372, 0.277515),
    "aasist": (0.828729, 3.784748, 0.999295, 0.026348, 0.087428, 0.023115, 0.037876),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_figures_of_real_score_files(name: str, tables: dict, asv: dict) -> None:
    scores, labels = tables[name]["score"], tables[name]["label"]
    eer, threshold = metrics.compute_eer(scores, labels)
    curves = metrics.error_curves(scores, labels)
    found = (
        100 * eer,
        threshold,
        metrics.auc(scores, labels),
        metrics.min_cost(curves, metrics.tdcf_cost_2019(asv["eval"])),
        metrics.min_cost(curves, metrics.tdcf_cost_2021(asv["eval"])),
        metrics.min_dcf(scores, labels),
        metrics.min_cllr(scores, labels),
    )
    assert found == pytest.approx(GOLDEN[name], abs=5.1e-7)  # the digits printed, in the last place


def test_golden_figures_of_the_verifier(asv: dict) -> None:
    expected = (0.024577837, -5.680051, 0.024604675, 0.024581006, 0.239347547)
    assert tuple(asv["eval"]) == pytest.approx(expected, abs=6e-10)
    assert asv["dev"].eer == pytest.approx(0.024265, abs=5e-7)
    assert asv["dev"].threshold == pytest.approx(-3.548998, abs=5e-7)


def test_golden_dev_figures_use_the_dev_verifier(tables: dict, asv: dict) -> None:
    scores, labels = tables["aasist_dev"]["score"], tables["aasist_dev"]["label"]
    eer, threshold = metrics.compute_eer(scores, labels)
    cost = metrics.tdcf_cost_2019(asv["dev"])
    assert 100 * eer == pytest.approx(0.4709, abs=5e-5)
    assert threshold == pytest.approx(-0.2721, abs=5e-5)
    assert metrics.min_cost(metrics.error_curves(scores, labels), cost) == pytest.approx(0.01587, abs=5e-6)


def test_dev_threshold_on_eval(tables: dict) -> None:
    _, threshold = metrics.compute_eer(tables["aasist_dev"]["score"], tables["aasist_dev"]["label"])
    frr, far = metrics.error_rates(tables["aasist"]["score"], tables["aasist"]["label"], threshold)
    assert (round(100 * frr, 2), round(100 * far, 2)) == (0.15, 8.76)


@pytest.mark.parametrize("name", ["s1_gauss", "s2_ties", "s4_inverted", "x2_constant"])
def test_organisers_figures(name: str, shared_data: Path) -> None:
    """On untied scores ours are the organisers'; with ties only what does not depend on their order is."""
    folder = shared_data / "metrics"
    theirs = json.loads((folder / "figures.json").read_text())[name]
    table = read_scores(folder / f"{name}.txt")
    scores, labels = table["score"].to_numpy(), table["label"].to_numpy()
    asv = metrics.asv_rates(**read_asv_scores(folder / "asv_scores.txt"))
    old, new = theirs["asvspoof2021"], theirs["asvspoof5"]
    expected = [old[k] for k in ("asv_eer", "asv_threshold", "Pfa_asv", "Pmiss_asv", "Pmiss_spoof_asv")]
    assert tuple(asv) == pytest.approx(expected, abs=1e-6)
    assert metrics.cllr(scores, labels) == pytest.approx(new["cllr"], abs=1e-6)
    assert metrics.act_dcf(scores, labels) == pytest.approx(new["actDCF"], abs=1e-6)

    eer, threshold = metrics.compute_eer(scores, labels)
    curves = metrics.error_curves(scores, labels)
    costs = {
        "min_tDCF_legacy": metrics.tdcf_cost_2019(asv),
        "min_tDCF_v2": metrics.tdcf_cost_2021(asv),
        "minDCF": metrics.ASVSPOOF5_COST,
    }
    found = {key: metrics.min_cost(curves, cost) for key, cost in costs.items()}
    if name in ("s1_gauss", "s4_inverted"):
        assert (eer, threshold) == pytest.approx((old["eer"], old["eer_threshold"]), abs=1e-6)
        assert eer == pytest.approx(new["eer"], abs=1e-6)
        assert found == pytest.approx({key: (old | new)[key] for key in costs}, abs=1e-6)
        cost_2021 = costs["min_tDCF_v2"]
        expected = (old["C0"], old["C1"], old["C2"])
        assert (cost_2021.constant, cost_2021.miss, cost_2021.false_alarm) == pytest.approx(expected, abs=1e-6)
    elif name == "s2_ties":
        assert eer == pytest.approx(_brute_eer(scores, labels))
        # their curves pass between tied trials, where no threshold does: a miss more and a spoof fewer
        assert eer < old["eer"]
    else:
        assert (eer, metrics.auc(scores, labels)) == (0.5, 0.5)
        assert all(value == pytest.approx(1.0) for value in found.values())


def _brute_eer(scores: np.ndarray, labels: np.ndarray) -> float:
    """The definition read out loud, in whole numbers."""
    bonafide, spoof = scores[labels == 0], scores[labels == 1]
    best = None
    for threshold in sorted(set(scores.tolist())):
        rejected, passed = int((bonafide <= threshold).sum()), int((spoof > threshold).sum())
        distance = abs(rejected * len(spoof) - passed * len(bonafide))
        if best is None or distance < best[0]:
            best = distance, (rejected / len(bonafide) + passed / len(spoof)) / 2
    return best[1]


@st.composite
def trials(draw: st.DrawFn, values: st.SearchStrategy | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, at least one trial of each class."""
    values = values or st.integers(-6, 6).map(float)
    bonafide = draw(st.lists(values, min_size=1, max_size=25))
    spoof = draw(st.lists(values, min_size=1, max_size=25))
    return np.array(bonafide + spoof), np.repeat([0, 1], [len(bonafide), len(spoof)])


@given(trials())
def test_curves_and_minima_equal_brute_force(data: tuple) -> None:
    scores, labels = data
    bonafide, spoof = scores[labels == 0], scores[labels == 1]
    assert metrics.compute_eer(scores, labels)[0] == pytest.approx(_brute_eer(scores, labels))
    curves = metrics.error_curves(scores, labels)
    rates = [((bonafide <= t).mean(), (spoof > t).mean()) for t in [-np.inf, *sorted(set(scores))]]
    np.testing.assert_allclose(np.column_stack(curves[1:]), rates, atol=1e-12)
    expected = min(1.9 * frr + far for frr, far in rates)
    assert metrics.min_dcf(scores, labels) == pytest.approx(expected)
    above = (bonafide[:, None] > spoof).mean() + 0.5 * (bonafide[:, None] == spoof).mean()
    assert metrics.auc(scores, labels) == pytest.approx(above)
    assert metrics.auc(scores, labels) == pytest.approx(roc_auc_score(labels == 0, scores))


@given(trials(), st.randoms(use_true_random=False))
def test_order_of_trials_changes_nothing(data: tuple, random) -> None:
    scores, labels = data
    order = list(range(len(scores)))
    random.shuffle(order)
    assert metrics.compute_eer(scores[order], labels[order]) == metrics.compute_eer(scores, labels)


@given(trials())
def test_monotone_maps_change_no_ranking_metric(data: tuple) -> None:
    scores, labels = data
    mapped = np.exp(scores / 3) * 7 - 2
    assert metrics.compute_eer(mapped, labels)[0] == metrics.compute_eer(scores, labels)[0]
    for metric in (metrics.auc, metrics.min_dcf, metrics.min_cllr):
        assert metric(mapped, labels) == pytest.approx(metric(scores, labels))


@given(trials())
def test_swapping_sign_and_classes(data: tuple) -> None:
    """The mirror image has the same EER; of two thresholds equally close the other may be taken."""
    scores, labels = data
    eer, mirrored = metrics.compute_eer(scores, labels)[0], metrics.compute_eer(-scores, 1 - labels)[0]
    largest_tie = max(np.mean(scores[labels == k] == s) for k in (0, 1) for s in scores)
    assert 0 <= eer <= 1
    assert abs(eer - mirrored) <= largest_tie
    assert metrics.auc(-scores, 1 - labels) == pytest.approx(metrics.auc(scores, labels))
    assert metrics.auc(-scores, labels) == pytest.approx(1 - metrics.auc(scores, labels))
    assert metrics.cllr(-scores, 1 - labels) == pytest.approx(metrics.cllr(scores, labels))


@given(trials())
def test_min_cllr_is_the_isotonic_one_and_a_lower_bound(data: tuple) -> None:
    scores, labels = data
    found = metrics.min_cllr(scores, labels)
    assert 0 <= found <= min(1, metrics.cllr(scores, labels)) + 1e-9
    posterior = IsotonicRegression().fit(scores, labels == 0).predict(scores)
    with np.errstate(divide="ignore"):
        llr = np.log(posterior) - np.log1p(-posterior) - np.log((labels == 0).sum() / (labels == 1).sum())
    costs = np.logaddexp(0, -llr[labels == 0]).mean() + np.logaddexp(0, llr[labels == 1]).mean()
    assert found == pytest.approx(costs / 2 / np.log(2), abs=1e-7)


@given(trials(), st.integers(-7, 7), st.booleans())
def test_threshold_metrics_equal_scikit_learn(data: tuple, threshold: int, balanced: bool) -> None:
    scores, labels = data
    found = metrics.threshold_metrics(scores, labels, threshold, balanced)
    called = (scores <= threshold).astype(int)
    sizes = np.bincount(labels)
    weights = 1 / sizes[labels] if balanced else None
    expected = precision_recall_fscore_support(labels, called, labels=[0, 1], sample_weight=weights, zero_division=0)
    for label, name in enumerate(("bonafide", "spoof")):
        values = [found[name][key] or 0.0 for key in ("precision", "recall", "f1")]
        assert values == pytest.approx([expected[k][label] for k in range(3)])
    assert found["accuracy"] == pytest.approx(np.average(called == labels, weights=weights))
    assert found["balanced_accuracy"] == pytest.approx(1 - (found["frr"] + found["far"]) / 2)


def test_collapsed() -> None:
    assert metrics.collapsed([0.3, 0.3, 0.3])
    assert metrics.collapsed(np.float32([2.5, 2.5 + 2.4e-7]))
    assert not metrics.collapsed([0.3, 0.31])
    assert metrics.compute_eer([1.0, 1, 1], [0, 1, 1]) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0, 2.0], [0, 0], "both classes are needed, found 2 bona fide and 0 spoof"),
        ([1.0, np.nan], [0, 1], "nan or inf"),
        ([1.0, 2.0], [0, 2], "labels must be 0"),
        ([1.0, 2.0, 3.0], [0, 1], "one length"),
    ],
)
def test_unusable_trials_are_refused(scores: list, labels: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        metrics.compute_eer(scores, labels)


def test_tdcf_of_a_verifier_that_stops_every_spoof_is_refused() -> None:
    rates = metrics.asv_rates(target=[5, 6, 7.0], nontarget=[1, 2, 6.5], spoof=[-9, -8.0])
    for cost in (metrics.tdcf_cost_2019, metrics.tdcf_cost_2021):
        with pytest.raises(UserError, match="undefined"):
            cost(rates)


def _gaussian(rng: np.random.Generator, bonafide: int = 80, spoof: int = 120) -> tuple:
    scores = np.concatenate([rng.normal(1, 1, bonafide), rng.normal(-1, 1, spoof)])
    return scores, np.repeat([0, 1], [bonafide, spoof])


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_interval_contains_the_estimate(seed: int) -> None:
    scores, labels = _gaussian(np.random.default_rng(seed))
    intervals = metrics.bootstrap_intervals(
        scores, labels, costs={"dcf": metrics.ASVSPOOF5_COST}, replicates=200, level=0.999
    )
    estimates = {
        "eer": metrics.compute_eer(scores, labels)[0],
        "auc": metrics.auc(scores, labels),
        "dcf": metrics.min_dcf(scores, labels),
    }
    for name, (low, high) in intervals.items():
        assert low <= estimates[name] <= high


@pytest.mark.parametrize("decimals", [0, 1, 12])  # heavy ties, some, none
def test_replicates_equal_a_full_count(decimals: int) -> None:
    """Runs of one class stand in for their scores: half a trial of error at most, none on costs and AUC."""
    rng = np.random.default_rng(3)
    scores, labels = _gaussian(rng)
    scores = scores.round(decimals)
    speaker = rng.integers(0, 12, len(scores))
    run, one_score = metrics._runs(scores, labels)
    draws = metrics._resampled_counts(run, labels, speaker, np.random.default_rng(5))
    again = np.random.default_rng(5)
    for _ in range(40):
        drawn = np.bincount(again.integers(0, 12, 12), minlength=12)[speaker]
        copies = np.repeat(np.arange(len(scores)), drawn)
        bonafide, spoof = next(draws)
        eer = metrics._eer_from_runs(bonafide, spoof, one_score)
        heaviest = max(drawn.max() / bonafide.sum(), drawn.max() / spoof.sum())
        expected = metrics.compute_eer(scores[copies], labels[copies])[0]
        assert abs(eer - expected) <= heaviest / 2 + 1e-12
        full = metrics.auc(scores[copies], labels[copies])
        assert metrics._auc_from_counts(bonafide, spoof) == pytest.approx(full)


def test_intervals_repeat_with_their_seed() -> None:
    scores, labels = _gaussian(np.random.default_rng(0))
    one, two, other = (metrics.bootstrap_intervals(scores, labels, replicates=50, seed=seed) for seed in (1, 1, 2))
    assert one == two != other


def test_speakers_with_one_class_only_still_give_an_interval() -> None:
    scores, labels = _gaussian(np.random.default_rng(0))
    speakers = np.where(labels == 0, "real speaker", "voice")  # half of all draws lack a class
    low, high = metrics.bootstrap_intervals(scores, labels, speakers=speakers, replicates=20)["eer"]
    assert low == high == pytest.approx(metrics.compute_eer(scores, labels)[0], abs=0.01)


def test_golden_intervals(shared_data: Path) -> None:
    """AASIST's 0.829 %: trials about [.734, .950], speakers about [.604, 1.149], both Monte Carlo figures."""
    protocol = shared_data / "LA/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.eval.trl.txt"
    table = read_scores(shared_data / "scores/AASIST_LA_eval.txt", protocol)
    scores, labels = table["score"], table["label"]
    over_trials = metrics.bootstrap_intervals(scores, labels)["eer"]
    over_speakers = metrics.bootstrap_intervals(scores, labels, speakers=table["speaker"])["eer"]
    assert 100 * np.array(over_trials) == pytest.approx([0.734, 0.950], abs=0.025)
    assert 100 * np.array(over_speakers) == pytest.approx([0.604, 1.149], abs=0.06)
