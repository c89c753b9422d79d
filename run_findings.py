"""What the figures of a run say, in sentences: every one is computed, and left out where it does not hold.

    for sentence in learning(history, best): ...

Inputs are what a run folder holds: rows of history.csv, the dicts of `evaluate`, tables of scores. report.py shows them
under its figures.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from config import BONAFIDE, LABELS, SPOOF
from figure_style import CLASS_NAMES
from metrics import error_curves, hardest_attacks
from plots import best_row

LEVEL = 0.03  # a dev loss within 3 % of another is as good
CONFIDENT = 0.9  # a probability that leaves no doubt
Report = Mapping[str, Any]  # what `evaluate` gives


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def interval_of(report: Report, key: str = "eer") -> tuple[tuple[float, float], str] | None:
    """The 95 % interval to believe of a figure, and over what it is; None if none was computed."""
    for kind in ("speakers", "trials"):
        if key in report.get("intervals", {}).get(kind, {}):
            return tuple(report["intervals"][kind][key]), kind
    return None


def with_interval(share: float, low: float = np.nan, high: float = np.nan) -> str:
    """A share in percent with its interval, if there is one."""
    return percent(share) + ("" if np.isnan(low) else f" [{100 * low:.1f}, {100 * high:.1f}]")


def eer_with_interval(report: Report) -> str:
    found = interval_of(report)
    return with_interval(report["eer"], *(found[0] if found else ()))


# ---------------------------------------------------------------- training


def learning(history: pd.DataFrame, best: Mapping[str, Any] | None) -> list[str]:
    """Which epoch was kept, and what dev says about training longer; `best` is the kept row, if it is known."""
    ranked = history.loc[best_row(history)]
    epochs, last = len(history), history.iloc[-1]
    sentences = [f"Best epoch {int(ranked['epoch'])} of {epochs}: dev EER {percent(ranked['dev_eer'])}."]
    if best is not None and best["epoch"] != ranked["epoch"]:
        sentences.append(f"Kept was the {best['epoch']} epochs' weights: dev EER {percent(best['dev_eer'])}.")
    if epochs > 1:
        least = history.loc[history["dev_loss"].idxmin()]
        where = f"in epoch {int(least['epoch'])}"
        before = history["dev_loss"].iloc[:-1].min()
        if last["dev_loss"] < (1 - LEVEL) * before:
            sentences.append(
                f"Dev loss was still falling when training ended ({before:.3f} before the last epoch, "
                f"{last['dev_loss']:.3f} after it): more epochs may help."
            )
        elif last["dev_loss"] > (1 + LEVEL) * least["dev_loss"] and last["loss"] < least["loss"]:
            sentences.append(
                f"Dev loss was least {where} ({least['dev_loss']:.3f}) and ended at {last['dev_loss']:.3f}, while "
                f"training loss went on falling ({least['loss']:.3f} to {last['loss']:.3f}): the network began to "
                "learn the training clips by heart."
            )
        else:
            sentences.append(
                f"Dev loss was least {where} ({least['dev_loss']:.3f}) and ended at {last['dev_loss']:.3f}."
            )
        rises = history["dev_eer"].diff()
        if rises.max() > 0.03:
            at = int(rises.idxmax())
            a, b = history.iloc[at - 1], history.iloc[at]
            sentences.append(
                f"Dev EER swings: it rose from {percent(a['dev_eer'])} to {percent(b['dev_eer'])} "
                f"in epoch {int(b['epoch'])}, so a difference of a few percent between epochs means little."
            )
    return sentences


def new_attacks(dev: Report, eval_: Report, attacks: Mapping[str, list[str]]) -> list[str]:
    """How far dev foretold eval, and whether the attacks explain it; `attacks` by split."""
    sentences = []
    ratio = eval_["eer"] / dev["eer"] if dev["eer"] else np.inf if eval_["eer"] else 1.0
    if ratio > 1.5:
        more = f", {ratio:.1f} times as many errors" if np.isfinite(ratio) else ""
        sentences.append(f"Dev flatters: EER {percent(dev['eer'])} on dev, {percent(eval_['eer'])} on eval{more}.")
    elif ratio < 1 / 1.5:
        sentences.append(f"Eval is easier than dev: EER {percent(eval_['eer'])} after {percent(dev['eer'])} on dev.")
    else:
        sentences.append(f"Dev foretold eval well: EER {percent(dev['eer'])} there, {percent(eval_['eer'])} on eval.")
    trained = set(attacks["train"])
    for name in ("dev", "eval"):
        of_split = set(attacks[name])
        if trained and of_split:
            known = len(of_split & trained)
            how_many = {0: "None", len(of_split): "All"}.get(known, f"{known}")
            sentences.append(f"{how_many} of the {len(of_split)} attacks of {name} occurred in training.")
    return sentences


# ---------------------------------------------------------------- scores and decisions


def verdicts(report: Report, split: str) -> str:
    """What the threshold does to a hundred clips of each class."""
    decision = report["decision"]
    return (
        f"Of 100 bona fide clips of {split}, {100 * decision['frr']:.1f} are called spoof; of 100 spoof clips, "
        f"{100 * decision['far']:.1f} pass as bona fide."
    )


def ranking(report: Report, scores: pd.DataFrame) -> list[str]:
    """What the scores could do at any threshold."""
    sentences = [
        f"Of a bona fide and a spoof clip drawn at random, the bona fide one has the higher score in "
        f"{percent(report['auc'])} of the cases."
    ]
    _, frr, far = error_curves(scores["score"], scores["label"])
    for limit in (0.01, 0.05):
        lost = frr[np.argmax(far <= limit)]  # far falls: the first is the cheapest
        sentences.append(f"To let at most {percent(limit, 0)} of spoofs pass, {percent(lost)} of bona fide are lost.")
    return sentences


def threshold(report: Report) -> str:
    """Whether the threshold lies where it should, judged afterwards."""
    decision, own = report["decision"], report["eer_threshold"]
    if decision["threshold"] == own:
        return f"The threshold {own:.3g} is where these clips' own errors meet, so it flatters."
    side, much = ("low", "spoofs pass") if decision["threshold"] < own else ("high", "bona fide are rejected")
    worse = max(decision["far"], decision["frr"]) - report["eer"]
    return (
        f"The threshold {decision['threshold']:.3g} from dev is too {side} here: both errors would meet at {own:.3g} "
        f"with {percent(report['eer'])} each; as it is, {100 * worse:.1f} points more of the {much}."
    )


def balance(report: Report) -> str:
    """Why two confusion matrices."""
    counts = np.array([[report["decision"]["confusion"][t][v] for v in LABELS] for t in LABELS])
    shares = counts / counts.sum(axis=1, keepdims=True)
    accuracy, balanced = np.trace(counts) / counts.sum(), np.trace(shares) / 2
    bonafide = counts[BONAFIDE].sum() / counts.sum()
    called = counts[:, SPOOF].sum()
    spoof_alone = "No clip is called spoof."
    if called:
        precision = counts[SPOOF, SPOOF] / called, shares[SPOOF, SPOOF] / shares[:, SPOOF].sum()
        spoof_alone = (
            f"A clip called spoof is one in {percent(precision[0])} of the cases here, in {percent(precision[1])} if "
            "both classes are equally frequent."
        )
    return (
        f"Left: the clips as they are, {percent(bonafide, 0)} of them bona fide, {percent(accuracy)} judged right. "
        "Right: the same verdicts with every clip kept and each class weighted to half of the set, so the rates within "
        f"a class stay and only what depends on the mixture changes: {percent(balanced)} right. {spoof_alone}"
    )


def attacks(report: Report, trained_on: Collection[str], split: str) -> list[str]:
    """Which attack costs most, which least, and what training has to do with it."""
    rows = report["per_attack"]
    order = hardest_attacks(rows, len(rows))
    worst, best = order[0], order[-1]
    passing = {name: row["far"] * row["trials"] for name, row in rows.items()}
    sentences = [f"Hardest on {split}: {worst}, EER {_attack_eer(rows[worst])}."]
    if total := round(sum(passing.values())):
        most = max(passing, key=passing.get)
        it = "it" if most == worst else most
        share = passing[most] / total
        sentences.append(
            f"Of {total:,} spoofs that pass the threshold {it} makes {passing[most]:,.0f} ({percent(share, 0)})."
        )
    else:
        sentences.append("No spoof passes the threshold.")
    sentences.append(f"Easiest: {best}, EER {_attack_eer(rows[best])}.")
    chance = [name for name in order if rows[name].get("eer_interval", (0, 0))[1] >= 0.5]
    if chance:
        sentences.append(f"The interval reaches 50 %, which is guessing, for {', '.join(chance)}.")
    known, new = ([rows[name]["eer"] for name in order if (name in trained_on) == wanted] for wanted in (True, False))
    if known and new:
        sentences.append(
            f"Mean EER {percent(np.mean(known))} on the {len(known)} attacks that training held, "
            f"{percent(np.mean(new))} on the {len(new)} others."
        )
    return sentences


def _attack_eer(row: Mapping[str, Any]) -> str:
    return with_interval(row["eer"], *row.get("eer_interval", ()))


def wrong_clips(wrong: pd.DataFrame, trials: pd.DataFrame) -> list[str]:
    """How many errors there are, how sure the model was of them, and whether they sit in few speakers."""
    sentences = []
    for label, name in enumerate(CLASS_NAMES):
        part = wrong[wrong["label"] == label]
        count = int((trials["label"] == label).sum())
        if part.empty:
            sentences.append(f"No {name} clip is on the wrong side of the threshold.")
            continue
        doubt = part["spoof_probability"] if label == BONAFIDE else 1 - part["spoof_probability"]
        sure = int((doubt > CONFIDENT).sum())
        sentences.append(
            f"{len(part):,} of {count:,} {name} clips are wrong, {sure or 'none'} of them with a probability above "
            f"{percent(CONFIDENT, 0)} for the wrong class."
        )
    speakers = wrong["speaker"][wrong["speaker"] != "-"]
    if len(wrong) > 3 and len(speakers) == len(wrong):
        most = speakers.value_counts()
        share, of_clips = most.iloc[0] / len(wrong), (trials["speaker"] == most.index[0]).mean()
        sentences.append(
            f"The errors sit with {len(most)} of {trials['speaker'].nunique()} speakers, most with {most.index[0]}: "
            f"{most.iloc[0]} ({percent(share, 0)}), who speaks {percent(of_clips, 0)} of the clips."
        )
    return sentences


def band(report: Report, point: Mapping[str, Any], scores: pd.DataFrame) -> list[str]:
    """What the uncertain band and the probabilities from dev are worth on these scores."""
    low, high = point["uncertain"]
    logits = -scores["score"].to_numpy()
    inside = (logits >= low) & (logits < high)
    right = (logits >= point["threshold"]) == (scores["label"] == SPOOF).to_numpy()
    sentences = [f"{percent(inside.mean(), 0)} of the clips fall into the uncertain band."]
    if 0 < inside.sum() < len(inside):
        sentences.append(
            f"Inside it {percent(right[inside].mean())} are judged right, outside {percent(right[~inside].mean())}."
        )
    if "calibrated" in report:
        cost = report["calibrated"]["cllr"]
        worth = (
            "worse than giving no probability at all (1 bit)"
            if cost >= 1
            else f"at best, with a calibration made on these clips, it would be {report['min_cllr']:.2f}"
        )
        sentences.append(f"The calibrated probabilities cost {cost:.2f} bits (0 is perfect): {worth}.")
    return sentences


# ---------------------------------------------------------------- time


def speed(history: pd.DataFrame, measured: Mapping[str, float | None] | None) -> list[str]:
    """Where the time went."""
    sentences = []
    if "seconds" in history:
        first, others = history["seconds"].iloc[0], history["seconds"].iloc[1:]
        if len(others) and first > 1.5 * others.median():
            sentences.append(
                f"The first epoch took {first:.0f} s and the others {others.median():.0f} s (median): it decodes the "
                "clips, measures the speed and compiles the network."
            )
    if measured and measured["input"] is not None:
        name, other = ("input", "training") if measured["input"] < measured["training"] else ("training", "input")
        words = {"input": "reading the clips", "training": "the network's training step"}
        ratio = measured[other] / measured[name]
        sentences.append(
            f"{words[name].capitalize()} limits the speed: {words[other]} alone is {ratio:.1f} times as fast."
        )
    return sentences
