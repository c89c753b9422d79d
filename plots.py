"""Plots of scores and of training, each written as one PNG file.

Every function takes plain arrays or tables and a path; figure_style.py says how figures look.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from config import BONAFIDE, LABELS, SPOOF
from figure_style import (
    BLACK,
    BLUE,
    CLASS_COLOURS,
    CLASS_NAMES,
    GREEN,
    LINE_STYLES,
    ORANGE,
    SKY,
    YELLOW,
    curve_style,
    figure_with_axes,
    new_figure,
    save_figure,
    tidy,
)
from metrics import auc, compute_eer, error_curves, hardest_attacks

NO_LINE_BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
CURVE_CLIPS = 10  # of an attack; the curve of fewer is a few steps that say nothing
DET_TICKS = (0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99)
Trials = Mapping[str, tuple[ArrayLike, ArrayLike]]  # name -> (cm_scores, labels)


def det_curve(trials: Trials, path: Path, title: str = "Detection error trade-off") -> Path:
    """DET curves (FAR against FRR, both on normal-deviate axes) of one or more named sets of trials."""
    from scipy.special import ndtri

    figure, axes = figure_with_axes(5.6, 6.0)
    lowest, highest = 0.01, 0.65
    for number, (name, (scores, labels)) in enumerate(trials.items()):
        _, frr, far = error_curves(scores, labels)
        counts = np.bincount(np.asarray(labels), minlength=2)
        # a rate of 0 lies at minus infinity: draw it at half a trial
        x = np.clip(far, 0.5 / counts[SPOOF], 1 - 0.5 / counts[SPOOF])
        y = np.clip(frr, 0.5 / counts[BONAFIDE], 1 - 0.5 / counts[BONAFIDE])
        lowest = min(lowest, x.min(), y.min())
        eer = compute_eer(scores, labels)[0]
        highest = max(highest, min(1.1 * eer, 0.995))  # scores of the wrong direction must show too
        axes.plot(ndtri(x), ndtri(y), label=f"{name}: EER {100 * eer:.2f} %", **curve_style(number))
    lowest = max(0.7 * lowest, DET_TICKS[0] / 2)  # a little room left of the last step
    ticks = [tick for tick in DET_TICKS if lowest <= tick <= highest]
    limits = ndtri([lowest, highest])
    axes.plot(limits, limits, color="0.6", linewidth=0.8, zorder=1)  # equal error rates
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ndtri(ticks), [f"{100 * tick:g}" for tick in ticks])
    axes.set(xlim=limits, ylim=limits, box_aspect=1, title=title)
    axes.set_xlabel("false acceptance rate: spoof called bona fide (%)")
    axes.set_ylabel("false rejection rate: bona fide called spoof (%)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return save_figure(figure, path)


def roc_curve(trials: Trials, path: Path, title: str = "Receiver operating characteristic") -> Path:
    """ROC curves: bona fide accepted against spoof accepted, of one or more named sets of trials."""
    figure, axes = figure_with_axes(5.6, 6.0)
    for number, (name, (scores, labels)) in enumerate(trials.items()):
        _, frr, far = error_curves(scores, labels)
        label = f"{name}: AUC {auc(scores, labels):.4f}"
        axes.plot(100 * far, 100 * (1 - frr), label=label, **curve_style(number))
    axes.plot([0, 100], [0, 100], color="0.6", linewidth=0.8, zorder=1, label="chance: AUC 0.5")
    axes.set(xlim=(-1, 101), ylim=(-1, 101), box_aspect=1, title=title)
    axes.set_xlabel("spoof accepted as bona fide (%)")
    axes.set_ylabel("bona fide accepted (%)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return save_figure(figure, path)


def score_histogram(
    scores: ArrayLike, labels: ArrayLike, path: Path, thresholds: Mapping[str, float] | None = None
) -> Path:
    """Histogram of cm_scores by class, each class adding up to 100 %, with named thresholds."""
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    figure, axes = figure_with_axes(7.0, 4.4)
    low, high = scores.min(), scores.max()
    if high - low < 1e-9:  # constant scores still need a bin with a width
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 81)
    for label, colour, hatch in zip((BONAFIDE, SPOOF), CLASS_COLOURS, ("", "////"), strict=True):
        part = scores[labels == label]
        axes.hist(
            part,
            bins=edges,
            weights=np.full(len(part), 100 / len(part)),
            histtype="stepfilled",
            facecolor=to_rgba(colour, 0.35),
            edgecolor=colour,
            hatch=hatch,
            linewidth=1.2,
            label=f"{CLASS_NAMES[label]} ({len(part):,})",
        )
    for number, (name, threshold) in enumerate((thresholds or {}).items()):
        style = LINE_STYLES[(number + 1) % len(LINE_STYLES)]
        axes.axvline(threshold, color=BLACK, linestyle=style, linewidth=1.4, label=f"{name}: {threshold:.3g}")
    axes.set_xlabel("cm_score = −spoof_logit (natural-log units; higher = more bona fide)")
    axes.set_ylabel("trials of the class per bin (%)")
    axes.set_title("Scores by class")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return save_figure(figure, path)


def confusion_matrix(confusion: Mapping[str, Mapping[str, int]], path: Path, title: str = "Decisions") -> Path:
    """Truth against verdict, from the `confusion` of `threshold_metrics`: all trials, and both classes weighted alike.

    On the right each class makes half of the set: the shares of a class stay, the shares of all do not.
    """
    counts = np.array([[confusion[truth][verdict] for verdict in LABELS] for truth in LABELS])
    shares = counts / counts.sum(axis=1, keepdims=True)  # of the true class
    figure = new_figure(8.6, 4.4)
    as_is, balanced = figure.subplots(1, 2, sharey=True)
    as_is_text = [f"{n:,}\n{100 * share:.2f} %" for n, share in zip(counts.flat, shares.flat, strict=True)]
    accuracy = 100 * np.trace(counts) / counts.sum()
    _matrix(as_is, shares, as_is_text, f"as it is: {accuracy:.2f} % right", "count, share of the true class")
    balanced_text = [f"{50 * share:.2f} %" for share in shares.flat]
    accuracy = 50 * np.trace(shares)
    image = _matrix(balanced, shares, balanced_text, f"balanced: {accuracy:.2f} % right", "share of all")
    as_is.set_ylabel("truth")
    figure.suptitle(title)
    figure.colorbar(image, ax=[as_is, balanced], label="share of the true class (%)", shrink=0.8)
    return save_figure(figure, path)


def _matrix(axes: Axes, shares: np.ndarray, texts: list[str], title: str, what: str) -> AxesImage:
    """Two by two cells, coloured by the share of the true class."""
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    for (row, column), text in zip(np.ndindex(2, 2), texts, strict=True):
        colour = "white" if shares[row, column] > 0.65 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=13)
    axes.set_xticks([0, 1], CLASS_NAMES)
    axes.set_yticks([0, 1], CLASS_NAMES)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(f"called ({what})")
    return image


def attack_bars(
    per_attack: Mapping[str, Mapping[str, Any]],
    eer: float,
    path: Path,
    title: str = "EER of every attack",
    trained_on: Collection[str] | None = None,
) -> Path:
    """EER of every attack with its interval, the hardest on top; told apart by whether training knew them."""
    names = hardest_attacks(per_attack)
    title += f"\nthe {len(names)} hardest of {len(per_attack)}" if len(names) < len(per_attack) else ""
    figure, axes = figure_with_axes(7.0, 1.7 + 0.34 * len(names))
    known = set(names if trained_on is None else trained_on)
    kinds = [
        ("every attack" if trained_on is None else "attack of the training data", SKY, "", known),
        ("attack that training never heard", YELLOW, "///", set(names) - known),
    ]
    for label, colour, hatch, members in kinds:
        places = [place for place, name in enumerate(names) if name in members]
        if places:
            values = [100 * per_attack[names[place]]["eer"] for place in places]
            fill = to_rgba(colour, 0.6)
            axes.barh(places, values, height=0.6, color=fill, edgecolor=colour, hatch=hatch, label=label)
    furthest = 100 * eer
    for place, name in enumerate(names):
        value = per_attack[name]["eer"]
        low, high = per_attack[name].get("eer_interval", (value, value))
        if high > low:
            reach = 100 * np.array([[max(value - low, 0)], [max(high - value, 0)]])
            axes.errorbar(100 * value, place, xerr=reach, fmt="none", ecolor=BLACK, capsize=3, linewidth=1.2)
        beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{100 * value:.1f}", (100 * max(value, high), place), **beside, fontsize=9, bbox=NO_LINE_BEHIND)
        furthest = max(furthest, 100 * value, 100 * high)
    axes.axvline(
        100 * eer, color=BLACK, linestyle="--", linewidth=1.2, zorder=2, label=f"all attacks: {100 * eer:.1f} %"
    )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set(xlim=(0, 1.15 * max(1.0, furthest)), xlabel="EER against all bona fide clips (%)", title=title)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return save_figure(figure, path)


def _history_panel(
    axes: Axes, history: pd.DataFrame, columns: Mapping[str, tuple[str, str, str]], unit: str, factor: float
) -> None:
    """Draw the columns of the history that exist; columns maps name -> (legend text, colour, marker)."""
    for column, (text, colour, marker) in columns.items():
        if column in history and history[column].notna().any():
            values = factor * history[column].astype(float)
            axes.plot(history["epoch"], values, color=colour, marker=marker, markersize=3.5, label=text)
    axes.set_ylabel(unit)
    axes.legend(loc="best", framealpha=0.9, fontsize=8)


def best_row(history: pd.DataFrame) -> Any:
    """Index of the epoch that training keeps: lowest dev EER, among equal ones lowest dev loss."""
    keys = [name for name in ("dev_eer", "dev_loss") if name in history]
    return history.sort_values(keys, kind="stable").index[0]


def learning_curves(history: pd.DataFrame, path: Path) -> Path:
    """Loss, dev EER, accuracy and learning rate by epoch; a panel whose columns are missing is left out.

    `history` has one row an epoch, with epoch, stage and any of the columns named below
    (EER and accuracy as shares). The epoch of the best dev EER is marked, and so is each new stage.
    """
    panels = [
        ({"loss": ("training", BLUE, "o"), "dev_loss": ("dev", ORANGE, "s")}, "loss (nats)", 1.0),
        ({"dev_eer": ("dev", ORANGE, "s")}, "EER (%)", 100.0),
        ({"accuracy": ("training", BLUE, "o"), "dev_accuracy": ("dev", ORANGE, "s")}, "accuracy (%)", 100.0),
        ({"learning_rate": ("learning rate", GREEN, "^")}, "learning rate", 1.0),
    ]
    present = [p for p in panels if any(c in history and history[c].notna().any() for c in p[0])]
    figure = new_figure(7.0, 1.2 + 1.9 * max(len(present), 1))
    axes_list = figure.subplots(max(len(present), 1), 1, sharex=True, squeeze=False)[:, 0]
    epochs = history["epoch"].to_numpy()
    starts = epochs[1:][np.diff(history["stage"].to_numpy()) != 0] if "stage" in history else []
    for axes, (columns, unit, factor) in zip(axes_list, present, strict=False):
        tidy(axes)
        for start in starts:
            axes.axvline(start - 0.5, color="0.5", linestyle=":", linewidth=1.2)
        _history_panel(axes, history, columns, unit, factor)
        if "learning_rate" in columns:
            axes.set_yscale("log")
        if "dev_eer" in columns:
            best = best_row(history)
            epoch, eer = history.loc[best, "epoch"], 100 * history.loc[best, "dev_eer"]
            axes.plot(epoch, eer, "*", color=BLACK, markersize=11, label=f"best: {eer:.2f} %, epoch {epoch}")
            axes.set_ylim(bottom=0)
            axes.legend(loc="best", framealpha=0.9, fontsize=8)
    axes_list[-1].set_xlabel("epoch" + (" (dotted line: next stage)" if len(starts) else ""))
    axes_list[-1].set_xlim(epochs.min() - 0.6, epochs.max() + 0.6)
    axes_list[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.align_ylabels()
    axes_list[0].set_title("Learning curves")
    return save_figure(figure, path)


def draw_evaluation(
    table: pd.DataFrame, report: Mapping[str, Any], folder: Path, trained_on: Collection[str] | None = None
) -> list[Path]:
    """DET, ROC, histogram, confusion matrix and, of several, attacks of scores and the report `evaluate` gave of them.

    `trained_on` are the attacks of the training data, where they are known.
    """
    scores, labels = table["score"].to_numpy(dtype=np.float64), table["label"].to_numpy()
    trials = {"all": (scores, labels)}
    attacks = report["per_attack"]
    heard_enough = {name: row for name, row in attacks.items() if row["trials"] >= CURVE_CLIPS}
    shown = hardest_attacks(heard_enough, 3) if len(attacks) > 1 else []
    for attack in shown:
        chosen = (labels == BONAFIDE) | (table["attack"].astype(str).to_numpy() == attack)
        trials[attack] = scores[chosen], labels[chosen]
    decision = report["decision"]
    thresholds = {"EER threshold": report["eer_threshold"]}
    if decision["threshold"] != report["eer_threshold"]:
        thresholds["decision threshold"] = decision["threshold"]
    folder = Path(folder)
    title = f"Decisions at score {decision['threshold']:.3g}"
    note = ""
    if 0 < len(shown) < len(attacks):
        hardest = f"the {len(shown)} hardest of {len(heard_enough)}" if len(shown) < len(heard_enough) else "those"
        enough = f" with {CURVE_CLIPS} clips or more" if len(heard_enough) < len(attacks) else ""
        note = f"\nall attacks, and {hardest}{enough}"
    drawn = [
        det_curve(trials, folder / "det.png", f"Detection error trade-off{note}"),
        roc_curve(trials, folder / "roc.png", f"Receiver operating characteristic{note}"),
        score_histogram(scores, labels, folder / "scores.png", thresholds),
        confusion_matrix(decision["confusion"], folder / "confusion.png", title),
    ]
    if len(attacks) > 1:
        bars = folder / "attacks.png"
        drawn.append(attack_bars(attacks, report["eer"], bars, trained_on=trained_on))
    return drawn


def dev_curves(histories: Mapping[str, pd.DataFrame], path: Path) -> Path:
    """Dev EER by epoch of several named runs, the best epoch of each marked."""
    figure, axes = figure_with_axes(7.0, 4.4)
    for number, (name, history) in enumerate(histories.items()):
        eer, best = 100 * history["dev_eer"].astype(float), best_row(history)
        style = curve_style(number)
        axes.plot(history["epoch"], eer, marker="o", markersize=3.5, label=f"{name}: best {eer[best]:.2f} %", **style)
        axes.plot(history.loc[best, "epoch"], eer[best], "*", color=style["color"], markersize=13)
    axes.set(xlabel="epoch", ylabel="dev EER (%)", title="Dev EER while training (star: best epoch)")
    axes.set_ylim(0, 1.08 * max(1.0, *(100 * history["dev_eer"].max() for history in histories.values())))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return save_figure(figure, path)


def comparison_chart(table: pd.DataFrame, path: Path) -> Path:
    """Systems of compare.py from the best down: EER with its interval, and the EER of every attack."""
    attacks = sorted(name for name in table.columns if name.startswith("attack_"))
    count = len(table)
    figure = new_figure(6.5 + 0.55 * len(attacks), 1.6 + 0.6 * count)
    left, *rest = figure.subplots(
        1, 1 + bool(attacks), sharey=True, squeeze=False, width_ratios=[4, 1 + 0.55 * len(attacks)][: 1 + bool(attacks)]
    )[0]
    tidy(left)
    places, eer = np.arange(count), 100 * table["eer"].to_numpy()
    reach = np.stack([eer - 100 * table["eer_low"], 100 * table["eer_high"] - eer]).clip(min=0)
    left.barh(places, eer, height=0.55, color=SKY)
    left.errorbar(eer, places, xerr=reach, fmt="none", ecolor=BLACK, capsize=3, linewidth=1.2)
    for place, value, high in zip(places, eer, 100 * table["eer_high"], strict=True):
        left.text(max(value, high), place, f"  {value:.1f}", va="center", fontsize=9)
    sizes = [f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n / 1e3:.0f} K" for n in table["parameters"]]
    macs = ["" if np.isnan(n) else f", {n / 1e6:,.0f} MMAC" for n in table["multiply_adds"]]
    names = [f"{recipe}\n{size}{mac}" for recipe, size, mac in zip(table["recipe"], sizes, macs, strict=True)]
    left.set_yticks(places, names, fontsize=9)
    left.set(xlim=(0, 1.18 * max(1.0, 100 * table["eer_high"].max())), title="all attacks")
    left.set_xlabel(f"{table['split'].iloc[0]} EER (%), interval {table['interval'].iloc[0]}")
    left.invert_yaxis()
    for right in rest:
        _attack_grid(figure, right, table[attacks].rename(columns=lambda name: name.removeprefix("attack_")))
    return save_figure(figure, path)


def _attack_grid(figure: Figure, axes: Axes, eer: pd.DataFrame) -> None:
    """EER of every attack (columns) for every system (rows) in numbers and colour."""
    grid = 100 * eer.to_numpy(dtype=np.float64)
    highest = max(10.0, float(np.nanmax(grid)))
    image = axes.imshow(grid, cmap="Blues", vmin=0, vmax=highest, aspect="auto")
    for (row, column), value in np.ndenumerate(grid):
        colour = "white" if value > 0.65 * highest else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(eer.shape[1]), eer.columns, rotation=45, ha="right")
    axes.tick_params(labelleft=False, left=False)
    axes.set_title("by attack")
    figure.colorbar(image, ax=axes, label="EER (%)")
