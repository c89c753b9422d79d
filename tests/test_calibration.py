"""Calibration and operating point: golden figures, definitions, dev sets without errors or information."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import metrics
from calibration import fit_calibration, log_likelihood_ratio, operating_point
from score_files import read_scores


def _gaussian(seed: int = 0, distance: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(distance, 1, 150), rng.normal(-distance, 1, 400)])
    return scores, np.repeat([0, 1], [150, 400])


def test_golden_calibration(shared_data: Path) -> None:
    dev, test = (read_scores(shared_data / f"scores/AASIST_LA_{split}.txt") for split in ("dev", "eval"))
    point = operating_point(dev["score"], dev["label"])
    fit = point["calibration"]
    assert (fit["a"], fit["b"]) == pytest.approx((1.1579, -0.3905), abs=5e-5)
    assert point["threshold"] == pytest.approx(0.2721, abs=5e-5)
    assert metrics.cllr(test["score"], test["label"]) == pytest.approx(0.155, abs=5e-4)
    assert metrics.act_dcf(test["score"], test["label"]) == pytest.approx(0.107, abs=5e-4)
    llr = log_likelihood_ratio(test["score"], fit)
    assert metrics.cllr(llr, test["label"]) == pytest.approx(0.135, abs=5e-4)
    assert metrics.act_dcf(llr, test["label"]) == pytest.approx(0.0885, abs=5e-5)


@pytest.mark.parametrize("prior", [0.05, 0.5, 0.9])
def test_fit_equals_scikit_learn_with_weighted_classes(prior: float) -> None:
    scores, labels = _gaussian()
    share = {0: 1 - prior, 1: prior}
    weight = np.array([share[k] / (labels == k).sum() for k in labels])
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit(scores[:, None], labels == 0, sample_weight=weight * len(labels))
    slope, offset = fit_calibration(scores, labels, prior)
    prior_log_odds = np.log((1 - prior) / prior)
    assert slope == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert offset == pytest.approx(model.intercept_[0] - prior_log_odds, abs=1e-3)


@given(st.floats(0.05, 20), st.floats(-50, 50))
def test_calibration_undoes_scale_and_shift(scale: float, shift: float) -> None:
    scores, labels = _gaussian()
    slope, offset = fit_calibration(scores, labels)
    slope_2, offset_2 = fit_calibration(scale * scores + shift, labels)
    expected = slope * scores + offset
    np.testing.assert_allclose(slope_2 * (scale * scores + shift) + offset_2, expected, atol=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_separable_dev_scores_stay_finite(sign: int) -> None:
    scores, labels = sign * np.array([-3.0, -2, 2, 3]), np.array([1, 1, 0, 0])
    slope, offset = fit_calibration(scores, labels)
    assert np.isfinite([slope, offset]).all()
    assert 0 < sign * slope < 50


def test_constant_scores_carry_no_information() -> None:
    point = operating_point([2.0, 2, 2], [0, 1, 1])
    assert (point["calibration"]["a"], point["calibration"]["b"]) == (0.0, 0.0)
    assert point["dev_eer"] == 0.5
    assert point["uncertain"][0] <= point["threshold"] <= point["uncertain"][1]


def test_threshold_lies_in_the_middle_of_an_error_free_gap() -> None:
    assert operating_point([-3.0, -2, 4, 5], [1, 1, 0, 0])["threshold"] == -1.0


@given(st.integers(0, 1000), st.floats(0, 3))
def test_operating_point_keeps_its_promises_on_dev(seed: int, distance: float) -> None:
    """Ordered band around the threshold, at most 1 % errors outside it, strict JSON."""
    scores, labels = _gaussian(seed, distance)
    point = operating_point(scores, labels)
    low, high = point["uncertain"]
    assert low <= point["threshold"] <= high
    logit, spoof = -scores, labels == 1
    assert (logit[~spoof] >= high).mean() <= 0.01  # bona fide called spoof for certain
    assert (logit[spoof] < low).mean() <= 0.01  # spoof called bona fide for certain
    assert (logit[~spoof] >= point["threshold_frr_1_percent"]).mean() <= 0.01
    assert (logit[spoof] < point["threshold_far_1_percent"]).mean() <= 0.01
    frr, far = metrics.error_rates(scores, labels, -point["threshold"])
    assert (frr + far) / 2 == pytest.approx(point["dev_eer"])
    assert json.loads(json.dumps(point, allow_nan=False)) == point


def test_scores_worse_than_chance_give_no_evidence_rather_than_reversed():
    scores, labels = np.array([-2.0, -1.0, 0.5, 0.0, 1.0, 2.0]), np.repeat([0, 1], 3)
    assert fit_calibration(scores, labels)[0] < 0
    point = operating_point(scores, labels)
    np.testing.assert_array_equal(log_likelihood_ratio(scores, point["calibration"]), 0)
