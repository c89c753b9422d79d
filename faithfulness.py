"""Is an explanation true? Two tests over a set of clips, for every method that fits the model.

    checks = check_methods(model, clips, list(METHODS), seed=1)     # clips: waveforms with their labels

Deletion: the cells that a method names first are removed (turned down to the clip's background), and the logit
moves away from the verdict, or the method is wrong. Against it stand regions of the same shape, moved at random in
time and frequency, and the loudest cells: a method that does not beat those names nothing but where the sound is.
Known segments: in recorded speech one stretch is re-synthesised (same level, joined by cross-fades), by the methods of
resynthesis.py in turn until one turns the verdict. What speaks for spoof should lie there: its share of the evidence
stands against its share of time, and the AUC says how well relevance over time tells the frames inside from those
outside (0.5 is chance). Intervals are 95 % by bootstrap over clips, and not given of fewer than five.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from backend import keras
from config import BONAFIDE, SAMPLE_RATE
from figure_style import BLACK, curve_style, figure_with_axes
from inference import input_samples, operating_point
from metrics import auc
from relevance import METHODS, clip_logits
from resynthesis import CHAINS, match_long_term_spectrum
from sound_cells import SoundCells

SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # of the cells, removed
DRAWS = 3  # random places of every region
LOUDEST = "loudest cells"
FADE = SAMPLE_RATE // 50  # of a joint
SEGMENT = (0.3, 0.45)  # of a clip's length
SHORTEST = 1.0  # seconds of a clip in which a segment is re-synthesised
FEW = 5  # clips or stretches: fewer say nothing
REPLICATES = 2000

Rank = Callable[[SoundCells], np.ndarray]  # relevance in logits, (rows, columns) or (rows, 1)


@dataclass
class Check:
    """What the tests measured of one method, a row for every clip."""

    method: str
    named: list[np.ndarray] = field(default_factory=list)  # logit change at SHARES, away from the verdict
    random: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # what an explanation took
    inside: list[float] = field(default_factory=list)  # share of the evidence for spoof in the known segment
    length: list[float] = field(default_factory=list)  # share of time of that segment
    auc: list[float] = field(default_factory=list)

    def advantage(self) -> np.ndarray:
        """Named minus random regions, mean over SHARES: logits (clips,)."""
        return (np.stack(self.named) - np.stack(self.random)).mean(axis=1)

    def finding(self) -> str:
        """Whether the explanations are better than chance in each of the tests, a sentence for each."""
        low, high = interval(self.advantage())
        if len(self.named) < FEW:
            removal = f"only {len(self.named)} clips, too few to say whether it names what counts."
        elif low > 0:
            removal = "removing what it names moves the logit more than random regions do."
        elif high < 0:
            removal = "removing what it names moves the logit LESS than random regions do; do not use it."
        else:
            removal = "no better than random regions on these clips; do not rely on it here."
        return f"{self.method}: {removal} {self._place()}"

    def _place(self) -> str:
        if len(self.auc) < FEW:
            return f"Only {len(self.auc)} re-synthesised stretches with evidence: too few to say whether it finds them."
        low, high = interval(self.auc)
        if low > 0.5:
            return "It finds re-synthesised stretches."
        if high < 0.5:
            return "It names OTHER places than re-synthesised stretches; do not use it to find a place."
        return "It finds re-synthesised stretches no better than chance."


def interval(values: Sequence[float] | np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean over clips, by bootstrap."""
    values = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(values), (REPLICATES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def check_methods(
    model: keras.Model, clips: Iterable[tuple[np.ndarray, int]], methods: Sequence[str], seed: int = 1
) -> list[Check]:
    """Both tests for methods by name and for the loudest cells, on waveforms (samples,) with their labels."""
    ranks: dict[str, Rank] = {name: lambda sound, name=name: METHODS[name](model, sound) for name in methods}
    checks = {name: Check(name) for name in [*ranks, LOUDEST]}
    rng = np.random.default_rng(seed)
    samples, threshold = input_samples(model), operating_point(model)["threshold"]
    chains = list(CHAINS.values())
    for number, (waveform, label) in enumerate(clips):
        sound = SoundCells(waveform[:samples])
        logit = clip_logits(model, [sound.with_share(1.0)])[0]
        direction = 1.0 if logit >= threshold else -1.0
        for name, rank in ranks.items():
            started = time.perf_counter()
            relevance = direction * rank(sound)
            checks[name].seconds.append(time.perf_counter() - started)
            _delete(model, sound, relevance, direction, logit, rng, checks[name])
        _delete(model, sound, sound.loudness(), direction, logit, rng, checks[LOUDEST])
        if label == BONAFIDE and logit < threshold and len(waveform) >= SHORTEST * SAMPLE_RATE:
            turn = number % len(chains)
            for chain in chains[turn:] + chains[:turn]:
                edited, segment = resynthesise_segment(waveform[:samples], chain, rng)
                if clip_logits(model, [edited])[0] >= threshold:  # then it was the segment that turned the verdict
                    sound = SoundCells(edited)
                    for name, rank in [*ranks.items(), (LOUDEST, SoundCells.loudness)]:
                        _locate(sound, rank(sound), segment, checks[name])
                    break
    return list(checks.values())


# ---------------------------------------------------------------- deletion


def _delete(
    model: keras.Model,
    sound: SoundCells,
    relevance: np.ndarray,
    direction: float,
    logit: float,
    rng: np.random.Generator,
    check: Check,
) -> None:
    regions = named_regions(np.broadcast_to(relevance, sound.shape))
    named = direction * (logit - clip_logits(model, map(sound.without, regions)))
    moved = (move_region(region, rng) for _ in range(DRAWS) for region in regions)
    random = direction * (logit - clip_logits(model, map(sound.without, moved)))
    check.named.append(named)
    check.random.append(random.reshape(DRAWS, len(SHARES)).mean(axis=0))


def named_regions(relevance: np.ndarray) -> list[np.ndarray]:
    """The cells (rows, columns) of highest relevance, bool, one array for each of SHARES."""
    order = np.argsort(-relevance, axis=None, kind="stable")
    regions = []
    for share in SHARES:
        region = np.zeros(relevance.size, bool)
        region[order[: max(1, round(share * relevance.size))]] = True
        regions.append(region.reshape(relevance.shape))
    return regions


def move_region(region: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A region (rows, columns) somewhere else: the same shape, going round at the edges."""
    return np.roll(region, [int(rng.integers(size)) for size in region.shape], axis=(0, 1))


# ---------------------------------------------------------------- known segments


def resynthesise_segment(
    waveform: np.ndarray, chain: Callable, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[float, float]]:
    """One stretch of a clip (samples,) through a chain of resynthesis.py; the clip and the stretch in seconds.

    The whole clip is re-synthesised and the stretch cut from it, so that no chain starts or ends at a joint.
    """
    size = len(waveform)
    length = int(rng.uniform(*SEGMENT) * size)
    start = int(rng.integers(FADE, size - length - FADE))
    share = np.zeros(size, np.float32)
    share[start : start + length] = 1
    ramp = np.hanning(2 * FADE + 1).astype(np.float32)
    share = np.convolve(share, ramp / ramp.sum(), mode="same")  # cross-fades of 40 ms around both ends
    copy = match_long_term_spectrum(chain(waveform, rng), waveform)
    stretch = slice(start, start + length)
    level = np.sqrt(np.mean(waveform[stretch] ** 2) / (np.mean(copy[stretch] ** 2) + 1e-12))
    edited = (1 - share) * waveform + share * level * copy
    return edited.astype(np.float32), (start / SAMPLE_RATE, (start + length) / SAMPLE_RATE)


def _locate(sound: SoundCells, relevance: np.ndarray, segment: tuple[float, float], check: Check) -> None:
    over_time = relevance.sum(axis=1)  # logits (rows,)
    inside = (sound.time >= segment[0]) & (sound.time < segment[1])
    evidence = np.maximum(over_time, 0)
    if not inside.any() or inside.all() or not evidence.any():
        return
    check.inside.append(float(evidence[inside].sum() / evidence.sum()))
    check.length.append(float(inside.mean()))
    check.auc.append(auc(-over_time, inside.astype(int)))  # a cm_score is low where it speaks for spoof


# ---------------------------------------------------------------- what is shown


def summary(checks: Sequence[Check]) -> pd.DataFrame:
    """A row for every method: logit changes, seconds, and how the known segments were met."""
    rows = []
    for check in checks:
        named, random = np.mean(check.named, axis=0), np.mean(check.random, axis=0)
        tenth = SHARES.index(0.1)
        row = {
            "method": check.method,
            "clips": len(check.named),
            "named 10 %": round(float(named[tenth]), 2),
            "random 10 %": round(float(random[tenth]), 2),
            "named - random, all shares": _with_interval(check.advantage()),
            "s a clip": round(float(np.mean(check.seconds)), 2) if check.seconds else float("nan"),
            "segments": len(check.auc),
        }
        if check.auc:
            row["evidence inside %"] = _with_interval(100 * np.array(check.inside), 0)
            row["time inside %"] = round(100 * float(np.mean(check.length)))
            row["AUC of frames"] = _with_interval(check.auc)
        rows.append(row)
    return pd.DataFrame(rows)


def _with_interval(values: Sequence[float] | np.ndarray, digits: int = 2) -> str:
    if len(values) < FEW:
        return f"{np.mean(values):.{digits}f}"
    low, high = interval(values)
    return f"{np.mean(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def deletion_curves(checks: Sequence[Check]) -> Figure:
    """Share of the cells removed against the logit's change: named regions of every method, and random ones."""
    figure, axes = figure_with_axes(7.0, 4.6)
    percent = 100 * np.array(SHARES)
    for number, check in enumerate(checks):
        named, style = np.stack(check.named), curve_style(number)
        axes.plot(percent, named.mean(axis=0), marker="o", markersize=3, label=check.method.replace("_", " "), **style)
        if len(named) >= FEW:
            low, high = np.transpose([interval(column) for column in named.T])
            axes.fill_between(percent, low, high, color=style["color"], alpha=0.15, linewidth=0)
    random = np.stack([np.stack(check.random) for check in checks]).mean(axis=(0, 1))
    axes.plot(percent, random, color=BLACK, linestyle=":", linewidth=1.8, label="random, same shapes")
    axes.axhline(0, color="0.6", linewidth=0.8, zorder=1)
    axes.set(xlabel="cells removed (%)", ylabel="logit's change, away from the verdict", xlim=(0, percent[-1] + 1))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure
