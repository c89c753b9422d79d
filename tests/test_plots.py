"""Every plot is written as a PNG that shows something, also for the scores that break naive axes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import plots
from evaluate import evaluate
from figure_style import BLUE, GREEN, ORANGE
from metrics import threshold_metrics


def _scores(distance: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(distance, 1, 60), rng.normal(-distance, 1, 90)]), np.repeat([0, 1], [60, 90])


def _pixels(path: Path) -> np.ndarray:
    assert path.read_bytes().startswith(b"\x89PNG")
    return np.asarray(Image.open(path).convert("RGB"))


def _shows(path: Path, colour: str) -> bool:
    """Whether the image has clearly visible pixels of a colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(_pixels(path).astype(int) - rgb).max(axis=-1) < 12).sum()) > 30


CASES = {
    "good": _scores(),
    "separated": _scores(20),
    "reversed": _scores(-2),
    "constant": (np.zeros(10), np.repeat([0, 1], 5)),
    "two trials": (np.array([1.0, 0.0]), np.array([0, 1])),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", CASES)
def test_score_plots(case: str, tmp_path: Path) -> None:
    scores, labels = CASES[case]
    named = {"all": (scores, labels), "one attack": (scores * 2, labels)}
    assert _shows(plots.det_curve(named, tmp_path / "new" / "det.png"), BLUE)
    assert _shows(plots.roc_curve(named, tmp_path / "roc.png"), ORANGE)
    histogram = plots.score_histogram(scores, labels, tmp_path / "h.png", {"here": 0.5, "there": -0.5})
    assert _shows(histogram, BLUE)
    assert _shows(histogram, ORANGE)
    confusion = threshold_metrics(scores, labels, 0.0)["confusion"]
    assert np.ptp(_pixels(plots.confusion_matrix(confusion, tmp_path / "c.png"))) > 200


def test_draw_evaluation(tmp_path: Path) -> None:
    scores, labels = _scores()
    attack = np.where(labels == 0, "-", np.where(np.arange(len(labels)) % 2, "A01", "A02"))
    table = pd.DataFrame({"score": scores, "label": labels, "attack": attack, "utterance_id": range(len(labels))})
    drawn = plots.draw_evaluation(table, evaluate(table, threshold="0.5", bootstrap=0), tmp_path)
    assert [path.name for path in drawn] == ["det.png", "roc.png", "scores.png", "confusion.png", "attacks.png"]
    assert all(_pixels(path).shape[0] > 300 for path in drawn)


def test_attacks_of_few_clips_have_no_curve_of_their_own(tmp_path: Path, monkeypatch) -> None:
    scores, labels = _scores()
    spoof = np.flatnonzero(labels)
    attack = np.full(len(labels), "-", dtype=object)
    for name, part in zip(("many", "few", "enough"), (spoof[13:], spoof[:3], spoof[3:13]), strict=True):
        attack[part] = name
    table = pd.DataFrame({"score": scores, "label": labels, "attack": attack, "utterance_id": range(len(labels))})
    drawn = {}
    monkeypatch.setattr(plots, "det_curve", lambda trials, path, title: drawn.update(trials=trials, title=title))
    plots.draw_evaluation(table, evaluate(table, threshold="0.5", bootstrap=0), tmp_path)
    assert set(drawn["trials"]) == {"all", "many", "enough"}
    assert drawn["title"].endswith("all attacks, and those with 10 clips or more")


def test_attack_bars_tell_new_attacks_from_known_ones(tmp_path: Path) -> None:
    rows = {f"A{k:02}": {"eer": 0.01 * k, "eer_interval": (0.0, 0.02 * k)} for k in range(1, 9)}
    drawn = {
        name: plots.attack_bars(rows, 0.1, tmp_path / f"{name}.png", trained_on=known)
        for name, known in {"unknown": None, "all": list(rows), "some": ["A07"], "none": []}.items()
    }
    pale = {"known": "#99d2f2", "new": "#f0c466"}  # bars are drawn at 60 %
    seen = {name: (_shows(path, pale["known"]), _shows(path, pale["new"])) for name, path in drawn.items()}
    assert seen == {"unknown": (True, False), "all": (True, False), "some": (True, True), "none": (False, True)}
    rows = {name: {"eer": row["eer"]} for name, row in rows.items()}  # a run measured without intervals
    assert _shows(plots.attack_bars(rows, 0.1, tmp_path / "bare.png"), pale["known"])


def test_the_balanced_matrix_is_that_of_equal_classes(tmp_path: Path) -> None:
    few = {"bonafide": {"bonafide": 9, "spoof": 1}, "spoof": {"bonafide": 300, "spoof": 700}}
    equal = {"bonafide": {"bonafide": 900, "spoof": 100}, "spoof": {"bonafide": 300, "spoof": 700}}
    pictures = [_pixels(plots.confusion_matrix(c, tmp_path / f"{i}.png")) for i, c in enumerate((few, equal))]
    halves = [picture[:, : picture.shape[1] // 2] for picture in pictures], [p[:, p.shape[1] // 2 :] for p in pictures]
    assert not np.array_equal(*halves[0])
    np.testing.assert_array_equal(*halves[1])


def test_the_best_epoch_is_the_one_the_loss_prefers_among_equal_ones(tmp_path: Path, monkeypatch) -> None:
    history = _history(3).assign(dev_eer=[0.3, 0.1, 0.1], dev_loss=[0.9, 0.5, 0.4])
    told = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: told.append(figure))
    plots.learning_curves(history, tmp_path / "x.png")
    labels = [text for axes in told[0].axes for text in axes.get_legend_handles_labels()[1]]
    assert "best: 10.00 %, epoch 3" in labels


def _history(epochs: int = 6) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    falling = np.exp(-epoch / 3)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "stage": (epoch > epochs / 2).astype(int),
            "loss": falling,
            "dev_loss": falling + 0.1,
            "dev_eer": falling / 2,
            "learning_rate": 1e-3 * falling,
            "accuracy": 1 - falling / 2,
            "dev_accuracy": 1 - falling / 1.9,
        }
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("columns", "epochs"),
    [
        (None, 1),
        (None, 6),
        (["epoch", "loss"], 1),
        (["epoch", "stage", "loss", "dev_eer"], 6),
        (["epoch", "learning_rate"], 6),
        (["epoch"], 1),
    ],
)
def test_learning_curves_draw_what_there_is(columns: list[str] | None, epochs: int, tmp_path: Path) -> None:
    history = _history(epochs) if columns is None else _history(epochs)[columns]
    path = plots.learning_curves(history, tmp_path / "learning.png")
    assert _shows(path, BLUE) == ("loss" in history)
    assert _shows(path, GREEN) == ("learning_rate" in history)


def test_learning_curves_pass_over_missing_values(tmp_path: Path) -> None:
    history = _history()
    history.loc[[0, 3], "dev_eer"] = np.nan
    history["dev_accuracy"] = np.nan
    assert _shows(plots.learning_curves(history, tmp_path / "learning.png"), ORANGE)


@pytest.mark.filterwarnings("error")
def test_curves_of_several_runs(tmp_path: Path) -> None:
    histories = {"one": _history(), "of one epoch": _history(1), "perfect": _history(3).assign(dev_eer=0.0)}
    path = plots.dev_curves(histories, tmp_path / "dev.png")
    assert all(_shows(path, colour) for colour in (BLUE, ORANGE, GREEN))


def test_pyplot_and_its_global_state_stay_unloaded() -> None:
    code = "import sys, plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(plots.__file__).parent, check=False).returncode == 0
