"""Figures of a dataset: classes, attacks, speakers, measurements, spectra, shortcuts.

Every function takes tables or arrays and returns a figure for html_page.Page or save_figure. However many attacks
there are, `top_attacks` keeps the figures readable: the 20 most frequent ones and all others as one.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from config import BONAFIDE, SAMPLE_RATE, SPOOF
from figure_style import (
    BLACK,
    CLASS_COLOURS,
    CLASS_NAMES,
    GREEN,
    LINE_STYLES,
    PURPLE,
    SKY,
    YELLOW,
    figure_with_axes,
    new_figure,
    tidy,
)
from file_index import stem_and_suffix
from measurements import HERTZ, MEASUREMENTS, Spectra

SHOWN_ATTACKS = 20
OTHERS = " others"
LONGEST_NAME = 22  # characters of an attack in a figure
BINS = (12, 50)  # of a histogram, fewest and most: the root of the number of clips between
NARROW = 0.01  # s, dB, % or Hz: not worth a picture
ONE_BIN = 40  # percent: where so many clips are in one bin, a logarithmic axis shows the others
SPLIT_COLOURS = {"train": SKY, "dev": YELLOW, "eval": GREEN, "-": PURPLE}
CLASSES = {
    BONAFIDE: (CLASS_NAMES[BONAFIDE], CLASS_COLOURS[BONAFIDE]),
    SPOOF: (CLASS_NAMES[SPOOF], CLASS_COLOURS[SPOOF]),
    -1: ("no label", "0.45"),
}


def split_name(split: str) -> str:
    """What a split is called in text and figures."""
    return "undivided" if split == "-" else split


def measurement_name(name: str) -> str:
    """A measurement with its unit."""
    title, unit = MEASUREMENTS[name]
    return f"{title} ({unit})" if unit else title


def top_attacks(table: pd.DataFrame) -> pd.Series:
    """The attack that a figure shows for every row: its name if it is among the 20 most frequent, else "others"."""
    counts = table.loc[table["label"] == SPOOF, "attack"].value_counts()
    shown = counts.index[:SHOWN_ATTACKS]
    others = f"{len(counts) - len(shown)}{OTHERS}"
    short = {a: a if len(a) <= LONGEST_NAME else f"{a[: LONGEST_NAME - 1]}…" for a in shown}
    names = {a: a if list(short.values()).count(short[a]) > 1 else short[a] for a in shown}
    return table["attack"].map(names).where(table["attack"].isin(shown), others)


def is_others(shown: str) -> bool:
    """Whether a name of `top_attacks` stands for all the attacks that are not shown."""
    return shown.endswith(OTHERS)


def attack_order(names: Iterable[str], counts: pd.Series) -> list[str]:
    """Names of `top_attacks` from the most frequent to the least, the others last."""
    return sorted(names, key=lambda name: (is_others(name), -counts[name], name))


def _present(table: pd.DataFrame) -> list[tuple[int, str, str]]:
    """Label, name and colour of every class that has rows."""
    return [(label, *CLASSES[label]) for label in CLASSES if (table["label"] == label).any()]


def class_bars(counts: pd.DataFrame) -> Figure:
    """Clips of every split and class; `counts` has split, label, listed (rows) and found (files)."""
    figure, axes = figure_with_axes(7.0, 0.9 + 0.36 * len(counts))
    places = np.arange(len(counts))
    for place, row in zip(places, counts.itertuples(), strict=True):
        axes.barh(place, row.found, height=0.7, color=CLASSES[row.label][1])
        of = f" of {row.listed:,} listed" if row.listed > row.found else ""
        axes.text(row.found, place, f"  {row.found:,}{of}", va="center", fontsize=9)
    names = [f"{split_name(row.split)}: {CLASSES[row.label][0]}" for row in counts.itertuples()]
    axes.set_yticks(places, names)
    axes.set(xlabel="clips", xlim=(0, 1.3 * counts["found"].max()))
    axes.invert_yaxis()
    return figure


def attack_bars(table: pd.DataFrame) -> Figure:
    """Spoof clips of each of the most frequent attacks, by split."""
    spoof = table[(table["label"] == SPOOF).to_numpy()]
    counts = pd.crosstab(top_attacks(table)[spoof.index], spoof["split"])
    counts = counts.loc[attack_order(counts.index, counts.sum(axis=1))]
    others = [name for name in counts.index if is_others(name)]
    rest = [f"{name} with {counts.loc[name].sum():,} clips not shown" for name in others]
    counts = counts.drop(index=others)
    figure, axes = figure_with_axes(7.0, 1.1 + 0.24 * len(counts))
    left = np.zeros(len(counts))
    for split in [name for name in SPLIT_COLOURS if name in counts]:
        axes.barh(
            counts.index,
            counts[split],
            left=left,
            height=0.75,
            color=SPLIT_COLOURS[split],
            edgecolor="white",
            linewidth=0.5,
            label=split_name(split),
        )
        left += counts[split].to_numpy()
    for place, count in enumerate(left):
        axes.text(count, place, f"  {count:,.0f}", va="center", fontsize=9)
    axes.set(xlim=(0, 1.12 * left.max()), ylim=(len(counts) - 0.4, -0.6))
    axes.set_xlabel("; ".join(["spoof clips", *rest]))
    if counts.shape[1] > 1:
        figure.legend(loc="outside upper right", ncols=4, frameon=False)
    return figure


def speaker_curves(table: pd.DataFrame) -> Figure:
    """Clips of every speaker, from the most to the least frequent, by class."""
    figure, axes = figure_with_axes(7.0, 3.4)
    for number, (label, name, colour) in enumerate(_present(table)):
        counts = table.loc[table["label"] == label, "speaker"].value_counts().to_numpy()
        ranks = np.arange(1, len(counts) + 1)
        style = LINE_STYLES[number]
        axes.plot(
            ranks, counts, color=colour, linestyle=style, marker=".", markersize=4, label=f"{name}: {len(counts):,}"
        )
    axes.set(xlabel="speakers, those with most clips first", ylabel="clips of the speaker", yscale="log")
    axes.set_ylim(0.8, 1.3 * table["speaker"].value_counts().max())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(title="speakers")
    return figure


def histograms(table: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Distribution of each named measurement by class, every class adding up to 100 %; dashes: medians."""
    rows = -(-len(names) // 2)
    figure = new_figure(8.6, 0.5 + 2.4 * rows)
    grid = figure.subplots(rows, min(2, len(names)), squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        _histogram(tidy(axes), table, name)
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    handles, labels = grid[0].get_legend_handles_labels()
    told = "dashed: median; the outermost bars hold all that lies beyond"
    figure.legend(handles, labels, title=told, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _histogram(axes: Axes, table: pd.DataFrame, name: str) -> None:
    values = table[name].to_numpy()
    low, high = np.quantile(values, [0.002, 0.998])  # single outliers must not squeeze the rest
    if high - low < NARROW:
        low, high = low - 0.5, high + 0.5
    bins = int(np.clip(np.sqrt(len(values)), *BINS))
    edges = np.linspace(low, high, bins + 1)
    for label, text, colour in _present(table):
        part = values[(table["label"] == label).to_numpy()]
        axes.hist(
            np.clip(part, low, high),
            bins=edges,
            weights=np.full(len(part), 100 / len(part)),
            histtype="stepfilled",
            facecolor=to_rgba(colour, 0.3),
            edgecolor=colour,
            hatch="////" if label == SPOOF else "",
            linewidth=1.2,
            label=f"{text} ({len(part):,})",
        )
        axes.axvline(np.median(part), color=colour, linestyle="--", linewidth=1.4)
    axes.set(xlabel=measurement_name(name), ylabel="clips of the class (%)")
    if axes.get_ylim()[1] > ONE_BIN:
        axes.set_ylim(max(0.05, 50 / len(table)), 100)  # not below half a clip
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylabel("clips of the class (%), log")


def file_kind(table: pd.DataFrame) -> pd.Series:
    """Sample rate, channels and suffix of every row's file, in words."""
    sides = {1: "mono", 2: "stereo"}
    kinds = [
        f"{rate / 1000:g} kHz, {sides.get(int(channels), f'{channels:g} channels')}, {stem_and_suffix(path)[1][1:]}"
        for rate, channels, path in zip(table["sample_rate"], table["channels"], table["path"], strict=True)
    ]
    return pd.Series(kinds, index=table.index, dtype=object)


def format_bars(table: pd.DataFrame) -> Figure:
    """Share of each class by sample rate, channels and suffix of its files."""
    shares = 100 * pd.crosstab(file_kind(table), table["label"], normalize="columns")
    shares = shares.loc[shares.max(axis=1).sort_values(ascending=False, kind="stable").index[:SHOWN_ATTACKS]]
    figure, axes = figure_with_axes(7.0, 1.2 + 0.45 * len(shares))
    classes = _present(table)
    height = 0.8 / len(classes)
    for number, (label, name, colour) in enumerate(classes):
        places = np.arange(len(shares)) + (number - (len(classes) - 1) / 2) * height
        axes.barh(places, shares[label], height=0.9 * height, color=colour, label=name)
        for place, share in zip(places, shares[label], strict=True):
            axes.text(share, place, f"  {share:.1f} %", va="center", fontsize=8)
    axes.set_yticks(np.arange(len(shares)), shares.index)
    axes.set(xlabel="files of the class (%)", xlim=(0, 116))
    axes.invert_yaxis()
    axes.legend(loc="lower right", framealpha=0.9)
    return figure


def mean_spectra(spectra: Spectra) -> Figure:
    """Mean spectrum of each class with the spread of its clips, and below it spoof less bona fide."""
    means = {label: spectra.statistics(label) for label in CLASSES}
    both = means[BONAFIDE][0] > 1 and means[SPOOF][0] > 1
    figure = new_figure(7.4, 5.4 if both else 3.4)
    panels = figure.subplots(2 if both else 1, 1, sharex=True, squeeze=False, height_ratios=(3, 2)[: 1 + both])[:, 0]
    kilohertz = HERTZ / 1000
    for number, (label, (count, mean, spread)) in enumerate(means.items()):
        if count:
            name, colour = CLASSES[label]
            panels[0].plot(kilohertz, mean, color=colour, linestyle=LINE_STYLES[number], label=f"{name} ({count:,})")
            panels[0].fill_between(kilohertz, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    tidy(panels[0]).set(ylabel="power (dB of the clip's power)", xlim=(0, SAMPLE_RATE / 2000))
    panels[0].legend(title="mean and standard deviation")
    if both:
        (n0, mean0, spread0), (n1, mean1, spread1) = means[BONAFIDE], means[SPOOF]
        difference, error = mean1 - mean0, 1.96 * np.sqrt(spread0**2 / n0 + spread1**2 / n1)
        tidy(panels[1]).axhline(0, color="0.4", linewidth=0.8)
        panels[1].fill_between(kilohertz, difference - error, difference + error, color="0.75", linewidth=0)
        panels[1].plot(kilohertz, difference, color=BLACK, linewidth=1.2)
        panels[1].set(ylabel="spoof − bona fide (dB)")
    panels[-1].set_xlabel("frequency (kHz)")
    figure.align_ylabels()
    return figure


def attack_spectra(spectra: Spectra, attacks: dict[str, list[str]]) -> Figure:
    """Mean spectrum of every attack less that of bona fide; `attacks`: shown name -> the attacks it stands for."""
    reference = spectra.statistics(BONAFIDE)[1]
    grid = np.stack([spectra.statistics(SPOOF, members)[1] - reference for members in attacks.values()])
    limit = float(np.clip(np.quantile(np.abs(grid), 0.99), 3, 30))
    figure, axes = figure_with_axes(7.6, 1.3 + 0.24 * len(attacks))
    axes.grid(False)
    image = axes.imshow(
        grid,
        aspect="auto",
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        interpolation="nearest",
        extent=(0, SAMPLE_RATE / 2000, len(grid) - 0.5, -0.5),
    )
    axes.set_yticks(range(len(grid)), attacks, fontsize=9)
    axes.set_xlabel("frequency (kHz)")
    figure.colorbar(image, ax=axes, label="attack − bona fide (dB)", extend="both")
    return figure


def shortcut_bars(ranked: pd.DataFrame, joint: pd.DataFrame) -> Figure:
    """EER of each measurement alone and of the classifier of all, with 95 % intervals; 50 % is chance."""
    alone = ranked[(ranked["split"] == "all").to_numpy()]
    names = [MEASUREMENTS[name][0] for name in alone["measurement"]]
    names += [f"all together: {name}" for name in joint["tested_on"]]
    figures = pd.concat([alone[["eer", "eer_low", "eer_high"]], joint[["eer", "eer_low", "eer_high"]]])
    eer, low, high = 100 * figures.to_numpy(dtype=np.float64).T
    figure, axes = figure_with_axes(8.2, 1.2 + 0.32 * len(names))
    places = np.arange(len(names)) + 0.5 * (np.arange(len(names)) >= len(alone))
    axes.barh(places, eer, height=0.65, color=[SKY] * len(alone) + [GREEN] * len(joint))
    measured = np.isfinite(low)
    reach = np.stack([eer - low, high - eer]).clip(min=0)[:, measured]
    axes.errorbar(eer[measured], places[measured], xerr=reach, fmt="none", ecolor=BLACK, capsize=3, linewidth=1.1)
    axes.axvline(50, color="0.4", linestyle="--", linewidth=1)
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # keeps the dashes off the digits
    for place, value, end in zip(places, eer, np.fmax(eer, high), strict=True):
        axes.text(end + 1, place, f"{value:.1f}", va="center", fontsize=9, bbox=paper)
    axes.set_yticks(places, names)
    axes.set(xlabel="EER (%); dashed: chance; a short bar is a shortcut", xlim=(0, 66), ylim=(places[-1] + 0.6, -0.6))
    return figure


def shortcut_grid(grid: pd.DataFrame) -> Figure:
    """EER of every measurement (columns) against bona fide for every attack (rows); dark: tells it apart."""
    percent = 100 * grid.to_numpy(dtype=np.float64)
    figure, axes = figure_with_axes(8.6, 2.0 + 0.25 * len(grid))
    axes.grid(False)
    image = axes.imshow(percent, cmap="Blues_r", vmin=0, vmax=50, aspect="auto")
    for (row, column), value in np.ndenumerate(percent):
        colour = "white" if value < 17 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_yticks(range(len(grid)), grid.index, fontsize=9)
    axes.set_xticks(range(grid.shape[1]), [MEASUREMENTS[name][0] for name in grid], rotation=40, ha="right", fontsize=9)
    figure.colorbar(image, ax=axes, label="EER (%)")
    return figure
