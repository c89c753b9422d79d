"""Metrics of a detector, as pure functions on arrays of scores and labels.

Scores are cm_scores (higher = more bona fide), labels are 0 = bona fide and 1 = spoof. A trial whose
score is at or below a threshold is called spoof, so FRR (bona fide called spoof) rises and FAR (spoof
called bona fide) falls with the threshold. Every rate is taken by groups of tied scores: how ties are
ordered cannot change a figure, and constant scores give an EER of 0.5. Rates are shares, not percent.

Detection costs (min DCF of ASVspoof 5, t-DCF of 2019 and of 2021) share one linear form and one class.
Command line: evaluate.py.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from config import BONAFIDE, LABELS, SPOOF
from errors import UserError

P_SPOOF, P_TARGET, P_NONTARGET = 0.05, 0.9405, 0.0095  # priors of every ASVspoof edition
SHOWN_ATTACKS = 26  # thirteen lines of text in two columns, or one figure: one screen in all


class ErrorCurves(NamedTuple):
    """Error rates at -inf and at every distinct score, thresholds rising."""

    thresholds: np.ndarray
    frr: np.ndarray
    far: np.ndarray


class DetectionCost(NamedTuple):
    """cost(threshold) = (constant + miss * FRR + false_alarm * FAR) / norm."""

    constant: float
    miss: float
    false_alarm: float
    norm: float

    def at(self, frr: ArrayLike, far: ArrayLike) -> np.ndarray:
        return (self.constant + self.miss * np.asarray(frr) + self.false_alarm * np.asarray(far)) / self.norm


class AsvRates(NamedTuple):
    """Error rates of the speaker verifier at its own EER threshold; all a t-DCF needs to know of it."""

    eer: float
    threshold: float
    false_accept: float  # share of non-target trials accepted
    miss: float  # share of target trials rejected
    spoof_miss: float  # share of spoofed trials rejected


# track 1 of ASVspoof 5: a miss costs 1, a false alarm 10; divided by the cheaper of the two constant answers
ASVSPOOF5_COST = DetectionCost(0.0, 1 - P_SPOOF, 10 * P_SPOOF, min(1 - P_SPOOF, 10 * P_SPOOF))
ASVSPOOF5_LLR_THRESHOLD = -float(np.log((1 - P_SPOOF) / (10 * P_SPOOF)))  # Bayes threshold, -ln 1.9


def _trials(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise UserError(f"scores {scores.shape} and labels {labels.shape} must be two lists of one length")
    if not np.isfinite(scores).all():
        raise UserError("scores contain nan or inf; every score must be a finite number")
    bonafide, spoof = int((labels == BONAFIDE).sum()), int((labels == SPOOF).sum())
    if bonafide + spoof != len(labels):
        raise UserError("labels must be 0 (bona fide) or 1 (spoof)")
    if not bonafide or not spoof:
        raise UserError(f"both classes are needed, found {bonafide} bona fide and {spoof} spoof trials")
    return scores, labels


def _tied_counts(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores in rising order, with the number of bona fide and of spoof trials at each."""
    scores, labels = _trials(scores, labels)
    distinct, group = np.unique(scores, return_inverse=True)
    counts = (np.bincount(group[labels == label], minlength=len(distinct)) for label in (BONAFIDE, SPOOF))
    return distinct, *counts


def error_curves(scores: ArrayLike, labels: ArrayLike) -> ErrorCurves:
    """FRR and FAR at -inf (all called bona fide) and at every distinct score."""
    distinct, bonafide, spoof = _tied_counts(scores, labels)
    rejected = np.concatenate([[0], np.cumsum(bonafide)])
    accepted = np.concatenate([[0], np.cumsum(spoof[::-1])])[::-1]
    thresholds = np.concatenate([[-np.inf], distinct])
    return ErrorCurves(thresholds, rejected / bonafide.sum(), accepted / spoof.sum())


def compute_eer(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Equal error rate and its threshold: the mean of FRR and FAR at the score where they are closest.

    Of two scores equally close the lower one counts, as in the organisers' scripts.
    """
    distinct, bonafide, spoof = _tied_counts(scores, labels)
    rejected, passed = np.cumsum(bonafide), spoof.sum() - np.cumsum(spoof)
    # |FRR - FAR| in whole numbers: rounding must not decide between thresholds equally close
    index = int(np.argmin(np.abs(rejected * spoof.sum() - passed * bonafide.sum())))
    return float(rejected[index] / bonafide.sum() + passed[index] / spoof.sum()) / 2, float(distinct[index])


def _auc_from_counts(bonafide: np.ndarray, spoof: np.ndarray) -> float:
    below = np.cumsum(spoof) - spoof / 2  # a tie counts half
    return float(bonafide @ below / bonafide.sum() / spoof.sum())


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC: the chance that a bona fide trial scores above a spoof one, ties counting half."""
    return _auc_from_counts(*_tied_counts(scores, labels)[1:])


def collapsed(scores: ArrayLike) -> bool:
    """Whether the scores are all one value (up to float32 rounding): such a network decides nothing."""
    scores = np.asarray(scores, dtype=np.float64)
    return bool(np.ptp(scores) <= 1e-6 * max(1.0, np.abs(scores).max()))


def min_cost(curves: ErrorCurves, cost: DetectionCost) -> float:
    """The least cost over all thresholds."""
    return float(cost.at(curves.frr, curves.far).min())


def min_dcf(scores: ArrayLike, labels: ArrayLike) -> float:
    """Minimum detection cost of ASVspoof 5, track 1."""
    return min_cost(error_curves(scores, labels), ASVSPOOF5_COST)


def act_dcf(llr: ArrayLike, labels: ArrayLike) -> float:
    """Detection cost of ASVspoof 5 at its Bayes threshold, scores read as log-likelihood ratios."""
    return float(ASVSPOOF5_COST.at(*error_rates(llr, labels, ASVSPOOF5_LLR_THRESHOLD)))


def error_rates(scores: ArrayLike, labels: ArrayLike, threshold: float) -> tuple[float, float]:
    """FRR and FAR at one threshold."""
    scores, labels = _trials(scores, labels)
    called_spoof = scores <= threshold
    return float(called_spoof[labels == BONAFIDE].mean()), float(1 - called_spoof[labels == SPOOF].mean())


def cllr(llr: ArrayLike, labels: ArrayLike) -> float:
    """Cost of the log-likelihood ratios in bits: 0 is perfect, 1 is what "no information" costs."""
    llr, labels = _trials(llr, labels)
    bonafide, spoof = llr[labels == BONAFIDE], llr[labels == SPOOF]
    return float(np.logaddexp(0, -bonafide).mean() + np.logaddexp(0, spoof).mean()) / 2 / np.log(2)


def min_cllr(scores: ArrayLike, labels: ArrayLike) -> float:
    """Cllr after the best monotone map from scores to log-likelihood ratios (isotonic regression)."""
    from scipy.optimize import isotonic_regression  # half of this file's import time, for one function

    _, bonafide, spoof = _tied_counts(scores, labels)
    total = bonafide + spoof
    posterior = isotonic_regression(bonafide / total, weights=total).x
    with np.errstate(divide="ignore"):
        llr = np.log(posterior) - np.log1p(-posterior) - np.log(bonafide.sum() / spoof.sum())
    # where a class has no trial, its cost may be infinite and must not be multiplied by zero
    costs = [
        (counts[counts > 0] @ np.logaddexp(0, sign * llr[counts > 0])) / counts.sum()
        for counts, sign in ((bonafide, -1), (spoof, 1))
    ]
    return float(sum(costs)) / 2 / np.log(2)


def asv_rates(target: ArrayLike, nontarget: ArrayLike, spoof: ArrayLike) -> AsvRates:
    """Error rates of a speaker verifier at its EER threshold; here a score at the threshold is accepted."""
    target, nontarget, spoof = (np.asarray(x, dtype=np.float64) for x in (target, nontarget, spoof))
    labels = np.repeat([BONAFIDE, SPOOF], [len(target), len(nontarget)])
    eer, threshold = compute_eer(np.concatenate([target, nontarget]), labels)
    shares = (np.mean(nontarget >= threshold), np.mean(target < threshold), np.mean(spoof < threshold))
    return AsvRates(eer, threshold, *map(float, shares))


def tdcf_cost_2019(asv: AsvRates) -> DetectionCost:
    """The "legacy" t-DCF of ASVspoof 2019: a miss costs 1 and a false accept 10, for ASV and detector."""
    miss = P_TARGET * (1 - asv.miss) - P_NONTARGET * 10 * asv.false_accept
    false_alarm = 10 * P_SPOOF * (1 - asv.spoof_miss)
    if miss <= 0 or false_alarm <= 0:
        raise UserError("t-DCF 2019 is undefined with these ASV scores: they reject targets or stop every spoof")
    return DetectionCost(0.0, miss, false_alarm, min(miss, false_alarm))


def tdcf_cost_2021(asv: AsvRates) -> DetectionCost:
    """The revised t-DCF of ASVspoof 2021 (miss 1, false accept 10, accepted spoof 10)."""
    constant = P_TARGET * asv.miss + 10 * P_NONTARGET * asv.false_accept
    miss = P_TARGET - constant
    false_alarm = 10 * P_SPOOF * (1 - asv.spoof_miss)
    if miss <= 0 or false_alarm <= 0:
        raise UserError("t-DCF 2021 is undefined with these ASV scores: they reject targets or stop every spoof")
    return DetectionCost(constant, miss, false_alarm, constant + min(miss, false_alarm))


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def threshold_metrics(scores: ArrayLike, labels: ArrayLike, threshold: float, balanced: bool = False) -> dict[str, Any]:
    """What a threshold does: confusion counts, FRR, FAR, accuracy, and precision, recall, F1 of each class.

    With `balanced` both classes weigh the same, whatever their number, in accuracy, precision and F1.
    A precision is None where nothing was called that class.
    """
    scores, labels = _trials(scores, labels)
    cells = np.bincount(2 * labels.astype(int) + (scores <= threshold), minlength=4)
    counts = cells.reshape(2, 2)  # (truth, verdict)
    weights = counts / counts.sum(axis=1, keepdims=True) if balanced else counts
    metrics: dict[str, Any] = {
        "threshold": float(threshold),
        "balanced": balanced,
        "accuracy": float(np.trace(weights) / weights.sum()),
        "balanced_accuracy": float(np.mean(np.diag(counts) / counts.sum(axis=1))),
        "frr": float(counts[BONAFIDE, SPOOF] / counts[BONAFIDE].sum()),
        "far": float(counts[SPOOF, BONAFIDE] / counts[SPOOF].sum()),
        "confusion": {t: dict(zip(LABELS, map(int, counts[i]), strict=True)) for i, t in enumerate(LABELS)},
    }
    for label, name in enumerate(LABELS):
        hits, truth, called = weights[label, label], weights[label].sum(), weights[:, label].sum()
        metrics[name] = {
            "precision": _ratio(hits, called),
            "recall": _ratio(hits, truth),
            "f1": _ratio(2 * hits, truth + called),
        }
    return metrics


def hardest_attacks(per_attack: Mapping[str, Mapping[str, Any]], count: int = SHOWN_ATTACKS) -> list[str]:
    """The attacks of highest EER, from `per_attack` of an evaluation, the hardest first."""
    return sorted(per_attack, key=lambda name: -per_attack[name]["eer"])[:count]


def _runs(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run of every trial, and whether a run is one score; a run is a stretch of scores of one class.

    Only the ends of runs can be minima of a cost or change the AUC, and a good detector has few: 570 runs
    stand for the 71,145 distinct scores of AASIST on ASVspoof 2019 LA.
    """
    distinct, group = np.unique(scores, return_inverse=True)
    has_bonafide, has_spoof = (np.bincount(group[labels == k], minlength=len(distinct)) > 0 for k in (0, 1))
    mixed = has_bonafide & has_spoof  # tied across the classes: always a run of its own
    starts = mixed[1:] | mixed[:-1] | (has_spoof[1:] != has_spoof[:-1])
    run = np.concatenate([[0], np.cumsum(starts)])
    return run[group], np.bincount(run) == 1


def _eer_from_runs(bonafide: np.ndarray, spoof: np.ndarray, one_score: np.ndarray) -> float:
    """EER of one resampling, from its counts in every run; at most half a trial from a full count.

    FRR - FAR never falls, so a binary search finds the run where it changes sign. Within a run of one class
    the other class's rate stands still, and the crossing lies on it.
    """
    frr, far = np.cumsum(bonafide) / bonafide.sum(), 1 - np.cumsum(spoof) / spoof.sum()
    index = min(int(np.searchsorted(frr - far, 0)), len(frr) - 1)
    if not one_score[index]:
        return float(far[index] if bonafide[index] else frr[index])
    before = (frr[index - 1], far[index - 1]) if index else (0.0, 1.0)
    after = frr[index], far[index]
    nearer = before if index and before[1] - before[0] <= after[0] - after[1] else after
    return float(sum(nearer)) / 2


def _resampled_counts(
    run: np.ndarray, labels: np.ndarray, speaker: np.ndarray | None, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Counts of bona fide and spoof trials in every run, endlessly, each from one resampling."""
    members = [run[labels == label] for label in (BONAFIDE, SPOOF)]
    if speaker is None:
        shares = [np.bincount(m, minlength=run.max() + 1) / len(m) for m in members]
        while True:  # trials are drawn within each class, as the protocol sets the class sizes
            yield tuple(rng.multinomial(len(m), p) for m, p in zip(members, shares, strict=True))
    n_runs, n_speakers = int(run.max()) + 1, int(speaker.max()) + 1
    # a speaker's trials in one run always come together, so they are counted once: (speaker, run, trials)
    together = [
        np.unique(speaker[labels == label] * n_runs + m, return_counts=True)
        for label, m in zip((BONAFIDE, SPOOF), members, strict=True)
    ]
    cells = [(*np.divmod(cell, n_runs), trials) for cell, trials in together]
    while True:  # a drawn speaker brings all its trials, bona fide and spoof
        drawn = np.bincount(rng.integers(0, n_speakers, n_speakers), minlength=n_speakers)
        yield tuple(np.bincount(r, weights=drawn[s] * trials, minlength=n_runs) for s, r, trials in cells)


def bootstrap_intervals(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    speakers: ArrayLike | None = None,
    costs: Mapping[str, DetectionCost] | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of `eer`, `auc` and the minimum of each named cost.

    Without `speakers` trials are resampled within each class. With them whole speakers are: the trials of
    one speaker succeed and fail together, so that interval is the honest one. A draw of speakers that
    lacks a class is drawn again.
    """
    scores, labels = _trials(scores, labels)
    run, one_score = _runs(scores, labels)
    speaker = None if speakers is None else np.unique(np.asarray(speakers), return_inverse=True)[1]
    draws = _resampled_counts(run, labels, speaker, np.random.default_rng(seed))
    costs = costs or {}
    values = np.empty((replicates, 2 + len(costs)))
    for row in values:
        bonafide, spoof = next(draws)
        while not bonafide.any() or not spoof.any():
            bonafide, spoof = next(draws)
        row[:2] = _eer_from_runs(bonafide, spoof, one_score), _auc_from_counts(bonafide, spoof)
        frr = np.concatenate([[0.0], np.cumsum(bonafide) / bonafide.sum()])
        far = np.concatenate([[1.0], 1 - np.cumsum(spoof) / spoof.sum()])
        row[2:] = [cost.at(frr, far).min() for cost in costs.values()]
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(["eer", "auc", *costs])}
