"""What a verdict is worth, in words for somebody who has never seen one: the texts of the web page.

from verdict_words import domain, meaning
f"Spoof probability {rounded(result['spoof_probability'])}, {domain(card, result)}. {meaning(result)}"

Everything is Markdown. `result` is what predict_waveform gives, `card` what read_card does.
"""

import re
from typing import Any

from backend import keras
from inference import NO_OPERATING_POINT, judge, operating_point

VERDICTS = {  # in words and a sign, never by colour alone
    "bonafide": (":material/mic:", "Sounds recorded"),
    "spoof": (":material/smart_toy:", "Sounds synthetic"),
    "uncertain": (":material/help:", "Undecided"),
}
FEW_CLIPS = 30  # of a class on dev: below that threshold and calibration are mostly chance
TERMS = "Bona fide means recorded, spoof synthetic."  # what pictures and their regions are labelled with
NOT_A_PROOF = (
    "**What it does not mean.** It is no proof. Detectors err on what they never heard, and sound sure of it: a newer "
    "voice generator, another microphone, codec, room or language. A published detector with 0.8 % errors on its own "
    "test set has 43 % on recordings from the internet. **Do not accuse anybody on this alone.**"
)
DEMO_ONLY = (
    "This detector was trained on the built-in demo corpus, which is synthetic throughout. It shows how the page "
    "works; about real voices it knows nothing."
)
HOW_TO_READ_A_CARD = (
    "EER: share of errors where both kinds are equally frequent; 50 % is guessing. In brackets its 95 % interval over "
    "other speakers or clips. eval is the part that was used neither for training nor for choosing."
)


def plain(text: object) -> str:
    """Text that Markdown shows as it is: file names hold underscores, dollars and worse."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!$:|~-])", r"\\\1", str(text))


def rounded(probability: float) -> str:
    """Two digits, and never a certainty."""
    if probability < 0.01:
        return "below 0.01"
    return "above 0.99" if probability > 0.99 else f"{probability:.2f}"


def is_demo(card: dict[str, Any]) -> bool:
    return card.get("data", {}).get("dataset") == "demo_corpus"


def is_calibrated(result: dict[str, Any]) -> bool:
    return NO_OPERATING_POINT not in result["warnings"]


def domain(card: dict[str, Any], result: dict[str, Any]) -> str:
    """Where the probability is calibrated, in words."""
    if not is_calibrated(result):
        return "**not calibrated**: this detector has no dev set behind its number, take it as a rank only"
    point = card.get("operating_point", {})
    counts = ""
    if "dev_bonafide" in point:
        few = ", too few to rely on" if min(point["dev_bonafide"], point["dev_spoof"]) < FEW_CLIPS else ""
        counts = f" ({point['dev_bonafide']:,} recorded and {point['dev_spoof']:,} synthetic clips{few})"
    dataset = card.get("data", {}).get("dataset")
    if "source" in point:
        return f"calibrated on {plain(point['source'])}{counts} for equal priors"
    where = f"on the dev part of {plain(dataset)}{counts}" if dataset else "on data that its card does not name"
    return f"calibrated {where} for equal priors"


def limits(model: keras.Model) -> str:
    """From which probability on the model says what."""
    point = operating_point(model)
    low, high = (
        f"{min(max(judge(logit, point)['spoof_probability'], 0.001), 0.999):.3f}" for logit in point["uncertain"]
    )
    if low == high:
        return f"It says synthetic from {high} on."
    return f"It says recorded below {low}, synthetic from {high} on, and is undecided in between."


def meaning(result: dict[str, Any]) -> str:
    """What a calibrated probability says, for somebody who has never seen one."""
    if not is_calibrated(result):
        return "**What this number means.** A higher one is more suspicious than a lower one. No more than that."
    probability = result["spoof_probability"]
    rare = 1 / (1 + 99 * (1 / max(probability, 1e-12) - 1))  # posterior at a prior of 1 %
    return (
        f"**What {rounded(probability)} means.** Take many clips of the kind it was calibrated on, half of them "
        f"recorded and half synthetic: of those that score like this one, the synthetic share is "
        f"{rounded(probability)}. Where only 1 clip in 100 is synthetic, the same score stands for {rounded(rare)}."
    )


def card_rows(card: dict[str, Any]) -> dict[str, str]:
    """What of a model's card helps to weigh a verdict."""
    data, metrics = card.get("data", {}), card.get("metrics", {})
    rows = {
        "Network": f"{card.get('model', 'unknown')}, {card.get('parameters', 0):,} parameters",
        "Trained on": card.get("domain") or data.get("dataset", "unknown"),
        **{f"{name} clips": counted(clips) for name, clips in data.get("clips", {}).items()},
        **{f"EER on {name}": equal_errors(report) for name, report in metrics.items()},
    }
    if apart := card.get("leave_pages_out"):
        rows["EER on pages it had not heard"] = unheard_pages(apart)
        if "decided" in apart["clean"]:  # not of one whose threshold has been set anew
            rows["Its verdicts there"] = unheard_verdicts(apart["clean"])
            rows["At its threshold, at worst"] = worst_decisions(apart)
    if decision := metrics.get("eval", {}).get("decision"):
        rows["At its threshold, on eval"] = (
            f"{100 * decision['frr']:.1f} % of the recordings called synthetic, "
            f"{100 * decision['far']:.1f} % of the synthetic clips called recorded"
        )
    if "minimum_seconds" in card:
        rows["Shortest clip"] = f"{card['minimum_seconds']:g} s"
    if "never_heard" in card:
        rows["Never heard"] = "; ".join(card["never_heard"])
    if "limits" in card:
        rows["What it gets wrong"] = ". ".join(card["limits"]) + "."
    return rows | {"Licence": card.get("licence", "not stated"), "SHA-256": card.get("sha256", "unknown")}


def counted(clips: dict[str, int]) -> str:
    return f"{clips['bonafide']:,} recorded, {clips['spoof']:,} synthetic"


def unheard_pages(apart: dict[str, dict[str, float]]) -> str:
    """The EER of a detector that ships, as clips are and in its worst condition, with the interval over pages."""

    def shown(row: dict[str, float]) -> str:
        return f"{100 * row['eer']:.1f} % [{100 * row['low_pages']:.1f}, {100 * row['high_pages']:.1f}]"

    worst = max(apart, key=lambda name: apart[name]["eer"])
    return shown(apart["clean"]) + (f"; worst, {worst}: {shown(apart[worst])}" if worst != "clean" else "")


def unheard_verdicts(row: dict[str, float]) -> str:
    """How often a detector that ships says something, and how often that is wrong."""
    wrong = f", {100 * row['wrong_of_decided']:.0f} % of these wrong" if row["decided"] else ""
    return f"undecided on {100 * (1 - row['decided']):.0f} % of the clips, sure of {100 * row['decided']:.0f} %{wrong}"


def worst_decisions(apart: dict[str, dict[str, float]]) -> str:
    """The conditions in which a detector that ships errs most at its one threshold."""
    alarm, miss = (max(apart, key=lambda name: apart[name][error]) for error in ("frr", "far"))
    return (
        f"{100 * apart[alarm]['frr']:.0f} % of the recordings called synthetic ({alarm}), "
        f"{100 * apart[miss]['far']:.0f} % of the synthetic clips called recorded ({miss})"
    )


def equal_errors(report: dict[str, Any]) -> str:
    """An EER with the wider of its intervals, that over speakers where they are known."""
    intervals = report.get("intervals", {})
    low, high = intervals.get("speakers", intervals.get("trials", {})).get("eer", (None, None))
    return f"{100 * report['eer']:.1f} %" + (f" [{100 * low:.1f}, {100 * high:.1f}]" if low is not None else "")
