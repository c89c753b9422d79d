"""From cm_scores of a development set to a threshold, an "uncertain" band and log-likelihood ratios.

`fit_calibration` finds llr = a * cm_score + b (natural logarithm, positive = bona fide) by logistic
regression; `operating_point` is what a model card keeps, said in spoof_logit = -cm_score. Both take dev
scores alone: an operating point chosen on the test set would flatter the detector.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from config import BONAFIDE, SPOOF
from metrics import collapsed, compute_eer, error_curves

ERROR_LIMIT = 0.01  # the error rate of the outer thresholds
SEPARABLE_PENALTY = 1e-3  # on the slope per standard deviation; only where dev is free of errors


def fit_calibration(scores: ArrayLike, labels: ArrayLike, prior: float = 0.5) -> tuple[float, float]:
    """Slope a and offset b of llr = a * cm_score + b, by logistic regression with the classes weighted.

    `prior` is the share of spoof the weights stand for; 0.5 weighs both classes alike, which is what
    Cllr measures. Constant scores give (0, 0), no information. Where a threshold separates the classes
    the likelihood has no maximum, so the slope is held back by a small penalty.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    _, frr, far = error_curves(scores, labels)
    separable = bool(np.isin(frr + far, [0.0, 2.0]).any())  # right side up or reversed
    if collapsed(scores):
        return 0.0, 0.0
    mean, deviation = scores.mean(), scores.std()
    x = (scores - mean) / deviation  # scale-free, so that one stopping rule fits every network
    sign = np.where(labels == BONAFIDE, 1.0, -1.0)
    weight = np.where(labels == BONAFIDE, (1 - prior) / (sign > 0).sum(), prior / (sign < 0).sum())
    prior_log_odds = np.log((1 - prior) / prior)
    penalty = SEPARABLE_PENALTY if separable else 0.0

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, offset = parameters
        margin = sign * (slope * x + offset + prior_log_odds)
        residual = -weight * sign * expit(-margin)
        value = weight @ np.logaddexp(0, -margin) + penalty * slope**2 / 2
        return value, np.array([residual @ x + penalty * slope, residual.sum()])

    slope, offset = minimize(loss, [1.0, 0.0], jac=True, method="BFGS", options={"gtol": 1e-9}).x
    return float(slope / deviation), float(offset - slope * mean / deviation)


def log_likelihood_ratio(scores: ArrayLike, calibration: dict[str, Any]) -> np.ndarray:
    """Calibrated log-likelihood ratios of cm_scores, from the `calibration` of an operating point."""
    return calibration["a"] * np.asarray(scores, dtype=np.float64) + calibration["b"]


def operating_point(dev_scores: ArrayLike, dev_labels: ArrayLike, band: float = ERROR_LIMIT) -> dict[str, Any]:
    """Threshold, uncertain band and calibration for a model card, thresholds in spoof_logit (JSON-friendly).

    The band runs between the thresholds where FRR and FAR on dev are `band`. Calling spoof only at or above it
    rejects at most that share of dev's bona fide; calling bona fide only below it passes at most that of its spoof.
    """
    curves = error_curves(dev_scores, dev_labels)
    eer, eer_score = compute_eer(dev_scores, dev_labels)
    scores = curves.thresholds[1:]
    at_eer = eer_score
    if eer == 0:  # every threshold in the gap between the classes is free of errors: share the margin
        at_eer = (eer_score + scores[np.searchsorted(scores, eer_score) + 1]) / 2
    below_all = np.nextafter(scores[0], -np.inf)  # the finite stand-in for -inf

    def of_far(limit: float) -> float:
        return -float(max(curves.thresholds[np.argmax(curves.far <= limit)], below_all))

    def of_frr(limit: float) -> float:
        return -float(max(curves.thresholds[np.flatnonzero(curves.frr <= limit)[-1]], below_all))

    a, b = fit_calibration(dev_scores, dev_labels)
    if a < 0:  # worse than chance on dev: a probability that falls as the logit rises would contradict the verdict
        a = b = 0.0
    labels = np.asarray(dev_labels)
    threshold, edges = -float(at_eer), (of_far(band), of_frr(band))
    return {
        "threshold": threshold,
        "rule": "spoof if spoof_logit >= threshold",
        "threshold_far_1_percent": of_far(ERROR_LIMIT),
        "threshold_frr_1_percent": of_frr(ERROR_LIMIT),
        "uncertain": [min(threshold, *edges), max(threshold, *edges)],
        "uncertain_rule": f"between the thresholds of {100 * band:g} % FRR and {100 * band:g} % FAR",
        "calibration": {
            "a": a,
            "b": b,
            "domain": "llr = a * cm_score + b with cm_score = -spoof_logit; natural logarithm, positive = "
            "bona fide; fitted with both classes weighted alike (prior 0.5)",
        },
        "dev_eer": eer,
        "dev_bonafide": int((labels == BONAFIDE).sum()),
        "dev_spoof": int((labels == SPOOF).sum()),
    }
