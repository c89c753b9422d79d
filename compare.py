"""Systems side by side: what each costs (`--list`), and what each reaches under one budget (`--compare`).

    python main.py --list
    python main.py --compare resmax_stft,lcnn_la --data LA --epochs 5

One budget means: the same clips, split and seed (those of the first recipe), one stage of so many epochs, selection by
dev EER; all else is each recipe's own. A comparison is a folder runs/compare-<key> with compare.csv, compare.png,
report.html, which shows both and links to every run's own report, and a run folder for each recipe. The key stands
for all settings and clips, so the same command goes on where it was stopped, and finished runs are not trained again.
"""

import contextlib
import io
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from backend import keras
from checkpoint import read_progress
from clip_reader import ClipReader
from complexity import multiply_adds
from config import SAMPLE_RATE, Config, feature_config, read_config, settings_key
from demo_corpus import DEMO_FOLDER, NOTICE
from errors import UserError
from experiment import carry_out, leave_report, prepare_tables
from html_page import Page
from inference import score_clips
from model import MODELS, build_network, load_model, parameter_count, read_card
from plots import best_row, comparison_chart, dev_curves
from recipes import load_recipe, recipe_names, recipe_published
from run_findings import percent
from splits import SPLITS, clips_key

SPEED_CLIPS = 64  # enough to measure how fast a model scores


def cost(config: Config) -> dict[str, Any]:
    """What a network is and costs, without training it."""
    with contextlib.redirect_stdout(io.StringIO()):  # a network that starts from scratch says so when it is trained
        network = build_network(config)
    return {
        "network": config.model,
        "parameters": parameter_count(network),
        "multiply_adds": multiply_adds(network) if keras.backend.backend() == "tensorflow" else math.nan,
        "front_end": config.features.kind,
        "seconds": config.features.samples / SAMPLE_RATE,
    }


def list_systems() -> None:
    """Print every recipe, and every network that no recipe uses, with its cost."""
    print(_list_line("recipe", "network", "parameters", "MMAC", "front end", "input", "published figure"))
    configs = {name: load_recipe(name) for name in recipe_names()}
    used = {config.model for config in configs.values()}
    for name, config in configs.items():
        _print_row(name, cost(config), recipe_published(name))
    for name, spec in MODELS.items():
        if name not in used:
            config = Config(model=name, features=feature_config(spec.front_end))
            _print_row("-", cost(config), f"- ({spec.summary})")
    print("MMAC: million multiply-adds a clip, counted in the network's TensorFlow graph; the front end is extra.")


def _list_line(*columns: str) -> str:
    return "{:<20} {:<18} {:>11} {:>8}  {:<9} {:>6}  {}".format(*columns)


def _print_row(recipe: str, row: dict[str, Any], published: str) -> None:
    size = (f"{row['parameters']:,}", millions(row["multiply_adds"]), row["front_end"], f"{row['seconds']:.1f} s")
    print(_list_line(recipe, row["network"], *size, published), flush=True)


def millions(count: float) -> str:
    """Multiply-adds in millions; a dash where they could not be counted."""
    return "-" if math.isnan(count) else f"{count / 1e6:,.0f}"


# ---------------------------------------------------------------- trained under one budget


def compare(configs: list[Config], epochs: int, runs: Path, fresh: bool = False) -> int:
    """Train, measure and tabulate each config on the same data for so many epochs; 1 if one of them failed."""
    recipes = [config.recipe for config in configs]
    if len(set(recipes)) < max(2, len(recipes)):
        raise UserError("--compare takes two or more different recipes: --compare resmax_stft,lcnn_la")
    configs = [under_one_budget(config, configs[0], epochs) for config in configs]
    tables = prepare_tables(configs[0])
    folder = runs / f"compare-{settings_key([clips_key(tables), *(config.to_dict() for config in configs)])}"
    rows, failures = [], []
    for config in configs:
        print(f"\n--- {config.recipe}: {config.model} on {config.features.kind}")
        try:
            run = None if fresh else finished_run(config, folder)
            if run is None:
                run = carry_out(config, tables, folder, fresh)
            elif not (run / "report.html").is_file():  # it was interrupted there
                leave_report(run, pd.concat(tables.values()))
            rows.append(comparison_row(config, run, tables))
        except UserError as error:  # the others still have their turn
            failures.append(f"{config.recipe}: {error}")
            print(f"failed: {error}")
    if rows:
        write_comparison(rows, folder)
        comparison_page(rows, folder, configs[0], failures)
    for failure in failures:
        print(f"not in the table: {failure}")
    return 1 if failures else 0


def under_one_budget(config: Config, first: Config, epochs: int) -> Config:
    """The config with the first one's data and split, and one stage of so many epochs without an early end."""
    training = replace(
        config.training,
        split=first.training.split,
        sample=first.training.sample,
        seed=first.training.seed,
        stages=(1.0,),
        epochs=(epochs,),
        learning_rate=config.training.learning_rate[:1],
        patience=epochs,
    )
    return replace(config, data=first.data, training=training)


def finished_run(config: Config, folder: Path) -> Path | None:
    """The newest run of exactly this config in a folder that has been trained and measured."""
    for run, settings in finished_runs(folder):
        if settings == config:
            print(f"run {run} is finished already")
            return run
    return None


def finished_runs(folder: Path) -> Iterator[tuple[Path, Config]]:
    """Every run in a folder that has been trained and measured, with its settings, newest first."""
    for metrics in sorted(folder.glob("*/metrics.json"), reverse=True):
        yield metrics.parent, read_config(metrics.parent / "config.json")


def comparison_row(config: Config, run: Path, tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """One system's line of the table."""
    reports = read_card(run / "best.keras")["metrics"]
    split = "eval" if "eval" in reports else "dev"
    report = reports[split]
    history = read_progress(run).history
    interval = "speakers" if "speakers" in report["intervals"] else "trials"
    low, high = report["intervals"][interval]["eer"]
    return {
        "recipe": config.recipe,
        "run": run.name,
        **cost(config),
        "epochs": len(history),
        "dev_eer": reports["dev"]["eer"],
        "split": split,
        "eer": report["eer"],
        "eer_low": low,
        "eer_high": high,
        "interval": f"95 % over {interval}",
        # the first epoch compiles
        "training_clips_per_second": pd.Series([row["clips_per_second"] for row in history[1:] or history]).median(),
        "scoring_clips_per_second": scoring_speed(run, tables[split]),
        **{f"attack_{attack}": figures["eer"] for attack, figures in report["per_attack"].items()},
    }


def scoring_speed(run: Path, table: pd.DataFrame) -> float:
    """Clips a second from file to logit, the start left out."""
    model, table = load_model(run), table.head(SPEED_CLIPS)
    score_clips(model, ClipReader(table), "warming up")
    started = time.perf_counter()
    rows, _ = score_clips(model, ClipReader(table), "timing")
    return len(rows) / (time.perf_counter() - started)


def write_comparison(rows: list[dict[str, Any]], folder: Path) -> None:
    """compare.csv and compare.png of a folder, and the table on the terminal."""
    table = pd.DataFrame(rows).sort_values("eer", kind="stable")
    table.to_csv(folder / "compare.csv", index=False)
    comparison_chart(table, folder / "compare.png")
    print(f"\n{shown_table(table).to_string(index=False)}\n")
    print(f"comparison  {folder} (report.html; compare.csv also holds the EER of every attack)")


def shown_table(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of a comparison that are looked at, as text."""
    return pd.DataFrame(
        {
            "recipe": table["recipe"],
            "parameters": table["parameters"].map("{:,}".format),
            "MMAC": table["multiply_adds"].map(millions),
            "epochs": table["epochs"],
            "dev EER %": (100 * table["dev_eer"]).map("{:.2f}".format),
            f"{table['split'].iloc[0]} EER %": (100 * table["eer"]).map("{:.2f}".format),
            table["interval"].iloc[0]: [
                f"[{100 * low:.2f}, {100 * high:.2f}]"
                for low, high in zip(table["eer_low"], table["eer_high"], strict=True)
            ],
            "train clips/s": table["training_clips_per_second"].map("{:,.0f}".format),
            "score clips/s": table["scoring_clips_per_second"].map("{:,.0f}".format),
        }
    )


def comparison_page(rows: list[dict[str, Any]], folder: Path, first: Config, failures: list[str]) -> Path:
    """report.html of a comparison: table, chart, learning curves, and a link to every run's own report."""
    table = pd.DataFrame(rows).sort_values("eer", kind="stable")
    names = ", ".join(table["recipe"])
    page = Page(f"Comparison of {names}", f"Trained on the same clips for {first.training.epochs[0]} epochs each")
    page.section("Table")
    page.table(shown_table(table))
    page.text(" ".join(comparison_findings(table)))
    for failure in failures:
        page.text(f"Not in the table: {failure}")
    page.section("Chart")
    page.figure(folder / "compare.png", "EER of every system with its interval, and by attack", attack_findings(table))
    page.section("Learning curves")
    histories = {row.recipe: pd.read_csv(folder / row.run / "history.csv") for row in table.itertuples()}
    curves = dev_curves(histories, folder / "dev_curves.png")
    page.figure(curves, "dev EER of every system by epoch", " ".join(curve_findings(histories)))
    page.section("Every run")
    for row in table.itertuples():
        if (folder / row.run / "report.html").is_file():
            page.link(f"Report of {row.recipe}", f"{row.run}/report.html")
        else:
            page.text(f"{row.recipe} has no report: python report.py {(folder / row.run).as_posix()}")
    page.section("What was alike")
    training = first.training
    page.text(
        f"Data {first.data or DEMO_FOLDER}, split {training.split} ({SPLITS[training.split]}), seed {training.seed}, "
        f"{percent(training.sample, 0)} of the training clips, one stage of {training.epochs[0]} epochs, the best "
        "epoch chosen on dev. All else is each recipe's own. A budget this short favours what learns fast."
    )
    if first.data is None:
        page.text(f"The data are the {NOTICE}")
    return page.write(folder / "report.html")


def comparison_findings(table: pd.DataFrame) -> list[str]:
    """Who leads, and whether the intervals let one say so; `table` from the lowest EER up."""
    best, split = table.iloc[0], table["split"].iloc[0]
    sentences = [f"Lowest EER on {split}: {best['recipe']}, {percent(best['eer'])}."]
    alike = table["recipe"].iloc[1:][table["eer_low"].iloc[1:] <= best["eer_high"]].tolist()
    behind = [name for name in table["recipe"].iloc[1:] if name not in alike]
    if alike:
        sentences.append(f"Its interval overlaps with that of {', '.join(alike)}: the order there may be chance.")
    if behind:
        sentences.append(f"Clearly behind: {', '.join(behind)}.")
    fast = table.loc[table["scoring_clips_per_second"].idxmax()]
    if fast["recipe"] != best["recipe"]:
        ratio = fast["scoring_clips_per_second"] / best["scoring_clips_per_second"]
        sentences.append(f"Fastest at scoring: {fast['recipe']}, {ratio:.1f} times as fast as {best['recipe']}.")
    order = table.sort_values("dev_eer", kind="stable")["recipe"].iloc[0]
    if split == "eval" and order != best["recipe"]:
        sentences.append(f"Dev alone would have chosen {order}.")
    return sentences


def attack_findings(table: pd.DataFrame) -> str:
    """Whether another system than the best leads on some attack."""
    attacks = table.set_index("recipe").filter(like="attack_")
    if attacks.shape[1] < 2 or len(attacks) < 2:
        return ""
    leads = attacks.idxmin().value_counts()
    hardest = attacks.mean().idxmax()
    led = ", ".join(f"{name} on {count}" for name, count in leads.items())
    return (
        f"Lowest EER of {attacks.shape[1]} attacks: {led}. Hardest for all together: "
        f"{hardest.removeprefix('attack_')}, mean EER {percent(attacks[hardest].mean())}."
    )


def curve_findings(histories: dict[str, pd.DataFrame]) -> list[str]:
    """Whose best epoch was the last, so that more of them might help."""
    last = {name: best_row(history) == len(history) - 1 for name, history in histories.items()}
    rising = [name for name, is_last in last.items() if is_last and len(histories[name]) > 1]
    if rising:
        return [f"Best in the last epoch, so more epochs may help: {', '.join(rising)}."]
    return [] if any(last.values()) else ["Every system was best before its last epoch."]
