"""What a score file says: EER, AUC, detection costs, calibration, decisions, every attack, with intervals.

    python evaluate.py SCORES
    python evaluate.py SCORES --protocol PROTOCOL --asv-scores ASV --dev-scores DEV --threshold dev-eer

Runs on any score file (layouts: score_files.py) and imports neither TensorFlow nor Keras. `evaluate` gives
the figures as a JSON-friendly dict, `format_report` its text; rates are shares there and percent here.
"""

import argparse
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import calibration
import metrics
from config import BONAFIDE, SCORE_CONVENTION, SPOOF
from errors import CommandParser, UserError, run_command
from protocols import UNKNOWN_ATTACK, split_of
from score_files import read_asv_scores, read_scores, write_scores

__all__ = ["evaluate", "format_report", "read_scores", "write_scores"]

REVERSED_AUC = 0.45  # below this, and far outside chance, the scores point the wrong way
THRESHOLD_HELP = (
    "eer: where this file's own FRR and FAR meet (default); dev-eer: handed over from --dev-scores; 0.5: "
    "logit 0, an uncalibrated probability of 0.5; any other NUMBER: a cm_score, at or below which a trial is spoof"
)


def _decision_threshold(rule: str, eer_threshold: float, point: dict[str, Any] | None) -> tuple[float, str]:
    """The cm_score threshold that a rule means, and its description."""
    if rule == "eer":
        return eer_threshold, "EER threshold of these scores (optimistic: chosen on the data it is tried on)"
    if rule == "dev-eer":
        if point is None:
            raise UserError("--threshold dev-eer takes the threshold from dev scores: give --dev-scores FILE too")
        return -point["threshold"], "EER threshold of the dev scores"
    if rule == "0.5":
        return 0.0, "logit 0, an uncalibrated spoof probability of 0.5"
    try:
        threshold = float(rule)
    except ValueError:
        threshold = math.nan
    if not math.isfinite(threshold):
        raise UserError(f"--threshold {rule}: valid: eer, dev-eer, 0.5 (a spoof probability), or a cm_score")
    return threshold, "given cm_score"


def _split_of(text: str) -> str | None:
    """train, dev or eval, where an utterance id or a file name (asv.dev.scores.txt) tells; else None."""
    if (split := split_of(text)) != "-":
        return split
    found = set(re.findall(r"(?<![a-z])(train|dev|eval)(?![a-z])", text.lower()))
    return found.pop() if len(found) == 1 else None


def _tdcf(asv_path: Path | None, table: pd.DataFrame, warnings: list[str]) -> tuple[dict, dict]:
    """The t-DCF part of the report and the costs behind it; both t-DCFs need ASV scores of the same split."""
    if asv_path is None:
        reason = "a t-DCF needs the speaker verifier's scores of the same trials: give --asv-scores FILE"
        return {"refused": reason}, {}
    rates = metrics.asv_rates(**read_asv_scores(asv_path))
    asv_split, split = _split_of(Path(asv_path).name), _split_of(str(table["utterance_id"].iloc[0]))
    if asv_split and split and asv_split != split:
        warnings.append(
            f"{Path(asv_path).name} seems to be of {asv_split} but these scores of {split}: their t-DCF means nothing"
        )
    costs = {"t_dcf_2019": metrics.tdcf_cost_2019(rates), "t_dcf_2021": metrics.tdcf_cost_2021(rates)}
    return {"asv_scores": str(asv_path), "asv": rates._asdict()}, costs


def _per_attack(
    scores: np.ndarray, labels: np.ndarray, attacks: np.ndarray, threshold: float
) -> dict[str, dict[str, Any]]:
    """EER of every attack against all bona fide trials, and the share that passes the decision threshold."""
    result = {}
    for attack in sorted(set(attacks[labels == SPOOF])):
        chosen = (labels == BONAFIDE) | (attacks == attack)
        eer, eer_threshold = metrics.compute_eer(scores[chosen], labels[chosen])
        spoof = scores[(labels == SPOOF) & (attacks == attack)]
        result[str(attack)] = {
            "trials": len(spoof),
            "eer": eer,
            "eer_threshold": eer_threshold,
            "far": float((spoof > threshold).mean()),
        }
    return result


def _attack_intervals(
    per_attack: dict[str, dict[str, Any]],
    scores: np.ndarray,
    labels: np.ndarray,
    attacks: np.ndarray,
    speakers: np.ndarray | None,
    settings: dict[str, Any],
) -> None:
    """Add the 95 % interval of the EER to the hardest attacks: over speakers where they are known, else over trials."""
    for attack in metrics.hardest_attacks(per_attack):
        chosen = (labels == BONAFIDE) | (attacks == attack)
        of_chosen = None if speakers is None else speakers[chosen]
        intervals = metrics.bootstrap_intervals(scores[chosen], labels[chosen], speakers=of_chosen, **settings)
        per_attack[attack]["eer_interval"] = intervals["eer"]


def _reversed(auc: float, bonafide: int, spoof: int) -> bool:
    """Whether an AUC lies clearly below a half: by size, and by three standard errors of chance."""
    error = math.sqrt((bonafide + spoof + 1) / (12 * bonafide * spoof))
    return auc < REVERSED_AUC and auc < 0.5 - 3 * error


def evaluate(
    table: pd.DataFrame,
    *,
    name: str = "scores",
    asv_scores: Path | None = None,
    dev: pd.DataFrame | None = None,
    threshold: str = "eer",
    balanced: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every figure of one table of scores (columns of `read_scores`) as a JSON-friendly dict.

    `dev` is the table of the dev scores: it gives the dev-eer threshold and the calibration. `bootstrap`
    replicates give 95 % intervals over trials and, where every trial has a speaker, over speakers.
    """
    scores, labels = table["score"].to_numpy(dtype=np.float64), table["label"].to_numpy()
    curves = metrics.error_curves(scores, labels)
    eer, eer_threshold = metrics.compute_eer(scores, labels)
    auc = metrics.auc(scores, labels)
    count = {"bonafide": int((labels == BONAFIDE).sum()), "spoof": int((labels == SPOOF).sum())}
    speakers = table["speaker"].astype(str).to_numpy() if "speaker" in table else np.array([""])
    known_speakers = not np.isin(speakers, ["", "-", "nan", "None"]).any() and len(set(speakers)) > 1
    attacks = table["attack"].astype(str).to_numpy() if "attack" in table else np.full(len(table), "-")

    warnings = []
    if metrics.collapsed(scores):
        warnings.append("collapsed: the scores are all one value, so the EER is 50 % by definition")
    if _reversed(auc, **count):
        warnings.append(
            f"the scores look reversed (AUC {auc:.3f}); if higher means spoof, say --higher-is spoof. "
            "All figures are of the scores as given"
        )
    point = None if dev is None else calibration.operating_point(dev["score"], dev["label"])
    cm_threshold, source = _decision_threshold(threshold, eer_threshold, point)
    tdcf, tdcf_costs = _tdcf(asv_scores, table, warnings)
    costs = {"min_dcf": metrics.ASVSPOOF5_COST} | tdcf_costs
    minima = {key: metrics.min_cost(curves, cost) for key, cost in costs.items()}
    report: dict[str, Any] = {
        "scores": name,
        "convention": table.attrs.get("convention", SCORE_CONVENTION),
        "trials": count | {"speakers": len(set(speakers)) if known_speakers else None},
        "eer": eer,
        "eer_threshold": eer_threshold,
        "auc": auc,
        "min_dcf": minima.pop("min_dcf"),
        "act_dcf": metrics.act_dcf(scores, labels),
        "cllr": metrics.cllr(scores, labels),
        "min_cllr": metrics.min_cllr(scores, labels),
        "collapsed": metrics.collapsed(scores),
        "reversed": _reversed(auc, **count),
        "t_dcf": minima | tdcf,
    }
    if point is not None:
        llr = calibration.log_likelihood_ratio(scores, point["calibration"])
        rated = {"act_dcf": metrics.act_dcf(llr, labels), "cllr": metrics.cllr(llr, labels)}
        report["calibrated"] = rated | {"operating_point": point}
    report["decision"] = {"source": source}
    if report["convention"] == SCORE_CONVENTION:
        report["decision"]["spoof_logit_threshold"] = 0.0 - cm_threshold
    report["decision"] |= metrics.threshold_metrics(scores, labels, cm_threshold, balanced)
    report["per_attack"] = _per_attack(scores, labels, attacks, cm_threshold)
    if bootstrap:
        settings = {"costs": costs, "replicates": bootstrap, "seed": seed}
        intervals = {"level": 0.95, "replicates": bootstrap, "seed": seed}
        intervals["trials"] = metrics.bootstrap_intervals(scores, labels, **settings)
        if known_speakers:
            over_speakers = metrics.bootstrap_intervals(scores, labels, speakers=speakers, **settings)
            intervals["speakers"] = over_speakers
        else:
            intervals["note"] = "over trials alone, which is too narrow: speakers unknown (a --protocol may name them)"
        of_trials = speakers if known_speakers else None
        of_attacks = {"replicates": bootstrap, "seed": seed}
        _attack_intervals(report["per_attack"], scores, labels, attacks, of_trials, of_attacks)
        report["intervals"] = intervals
    report["warnings"] = warnings
    return report


def _percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def _interval(report: dict[str, Any], key: str, factor: float, digits: int) -> str:
    """The intervals of one figure as columns: over trials, over speakers."""
    cells = []
    for kind in ("trials", "speakers"):
        interval = report.get("intervals", {}).get(kind, {}).get(key)
        text = f"[{factor * interval[0]:.{digits}f}, {factor * interval[1]:.{digits}f}]" if interval else ""
        cells.append(f"{text:<20}")
    return "  ".join(cells).rstrip()


def _attack_lines(per_attack: dict[str, dict[str, float]]) -> list[str]:
    """The table of attacks, in two columns where there are more than eight, the hardest where too many."""
    hardest = metrics.hardest_attacks(per_attack)
    if len(per_attack) > len(hardest):
        note = f"(the {len(hardest)} hardest of {len(per_attack)} attacks; --json has all)"
        return [*_attack_lines({name: per_attack[name] for name in hardest}), note]
    head = f"{'attack':<14}{'trials':>7}{'EER %':>8}{'FAR %':>8}"
    cells = [
        f"{name[:13]:<14}{row['trials']:>7}{100 * row['eer']:>8.3f}{100 * row['far']:>8.2f}"
        for name, row in per_attack.items()
    ]
    if len(cells) <= 8:
        return [head, *cells]
    half = -(-len(cells) // 2)
    right = [*cells[half:], *[""] * (2 * half - len(cells))]
    return [f"{a}     {b}".rstrip() for a, b in zip([head, *cells[:half]], [head, *right], strict=True)]


def format_report(report: dict[str, Any]) -> str:
    """The dict of `evaluate` as one screen of text."""
    trials, decision, tdcf = report["trials"], report["decision"], report["t_dcf"]
    speakers = f", {trials['speakers']} speakers" if trials["speakers"] else ""
    lines = [
        f"{report['scores']}: {trials['bonafide']:,} bona fide, {trials['spoof']:,} spoof{speakers}",
        report["convention"],
        *(f"WARNING: {warning}" for warning in report["warnings"]),
        "",
    ]
    intervals = report.get("intervals")
    if intervals:
        kinds = "over trials" + (f"{'':<11}over speakers" if "speakers" in intervals else "")
        lines.append(f"{'':<30}{kinds}   (95 %)")
    lines += [
        f"EER %             {100 * report['eer']:>10.3f}  {_interval(report, 'eer', 100, 3)}",
        f"AUC               {report['auc']:>10.5f}  {_interval(report, 'auc', 1, 5)}",
        f"min DCF           {report['min_dcf']:>10.5f}  {_interval(report, 'min_dcf', 1, 4)}",
    ]
    for key, title in (("t_dcf_2019", "min t-DCF 2019"), ("t_dcf_2021", "min t-DCF 2021")):
        if key in tdcf:
            lines.append(f"{title:<18}{tdcf[key]:>10.5f}  {_interval(report, key, 1, 4)}")
    lines.append(f"min Cllr (bits)   {report['min_cllr']:>10.5f}")
    lines.append(f"as they are       Cllr {report['cllr']:.4f} bits, actual DCF {report['act_dcf']:.4f}")
    if "calibrated" in report:
        rated, fit = report["calibrated"], report["calibrated"]["operating_point"]["calibration"]
        lines.append(
            f"calibrated on dev Cllr {rated['cllr']:.4f} bits, actual DCF {rated['act_dcf']:.4f}"
            f"  (llr = {fit['a']:.4f} * score {fit['b']:+.4f})"
        )
    lines.append(f"t-DCF             {tdcf.get('refused') or 'with the ASV scores ' + tdcf['asv_scores']}")
    if intervals:
        note = intervals.get("note", "the interval over speakers is the honest one")
        lines.append(f"intervals         {intervals['replicates']} replicates, seed {intervals['seed']}; {note}")
    logit_threshold = decision.get("spoof_logit_threshold")
    as_logit = "" if logit_threshold is None else f" (spoof_logit >= {logit_threshold:.4f})"
    weighting = ", both classes weighted alike" if decision["balanced"] else ""
    lines += [
        "",
        f"Decision: spoof if score <= {decision['threshold']:.4f}{as_logit}",
        f"  {decision['source']}{weighting}",
        f"  FRR {_percent(decision['frr'])}, FAR {_percent(decision['far'])}, accuracy "
        f"{_percent(decision['accuracy'])}, balanced accuracy {_percent(decision['balanced_accuracy'])}",
        f"  {'':<11}{'called bona fide':>17}{'called spoof':>14}{'precision':>11}{'recall':>10}{'F1':>10}",
    ]
    for key, title in (("bonafide", "bona fide"), ("spoof", "spoof")):
        row, of_class = decision["confusion"][key], decision[key]
        rates = "".join(f"{_percent(of_class[k]):>{w}}" for k, w in (("precision", 11), ("recall", 10), ("f1", 10)))
        lines.append(f"  {title:<11}{row['bonafide']:>17,}{row['spoof']:>14,}{rates}")
    if set(report["per_attack"]) - {"-", UNKNOWN_ATTACK}:  # a file that names no attack has none to tell apart
        lines += ["", *_attack_lines(report["per_attack"])]
    return "\n".join(lines)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, help="score file; " + SCORE_CONVENTION.split("; ")[1])
    parser.add_argument("--protocol", type=Path, help="labels, attacks, speakers: ASVspoof 2019, 2021, 5, or CSV")
    parser.add_argument("--subset", help="part of an ASVspoof 2021 protocol: progress, eval or hidden")
    parser.add_argument("--higher-is", choices=("bonafide", "spoof"), default="bonafide", help="score direction")
    parser.add_argument("--asv-scores", type=Path, help="ASV scores of the same split; without them no t-DCF")
    parser.add_argument("--dev-scores", type=Path, help="labelled dev scores: threshold and calibration")
    parser.add_argument("--threshold", default="eer", help=THRESHOLD_HELP)
    parser.add_argument("--balanced", action="store_true", help="weigh both classes alike in the decisions")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="replicates; 0: no intervals")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write DET, ROC, histogram, confusion matrix")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    arguments = parser.parse_args(argv)
    if arguments.bootstrap < 0 or arguments.seed < 0:
        raise UserError("--bootstrap and --seed must be 0 or more")
    return arguments


def main(argv: list[str] | None = None) -> None:
    arguments = _arguments(argv)
    direction = arguments.higher_is
    table = read_scores(arguments.scores, arguments.protocol, subset=arguments.subset, higher_is=direction)
    dev = read_scores(arguments.dev_scores, higher_is=direction) if arguments.dev_scores else None
    report = evaluate(
        table,
        name=str(arguments.scores),
        asv_scores=arguments.asv_scores,
        dev=dev,
        threshold=arguments.threshold,
        balanced=arguments.balanced,
        bootstrap=arguments.bootstrap,
        seed=arguments.seed,
    )
    drawn = []
    if arguments.plots:
        from plots import draw_evaluation  # matplotlib takes longer to import than the figures to compute

        drawn = draw_evaluation(table, report, arguments.plots)
    if arguments.json:
        print(json.dumps(report, indent=2, allow_nan=False))
        return
    print(format_report(report))
    if drawn:
        print("\nplots: " + ", ".join(map(str, drawn)))


if __name__ == "__main__":
    raise SystemExit(run_command(main))
