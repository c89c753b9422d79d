"""From a config to a finished run folder: data, training, measuring. main.py and compare.py carry runs out with it.

from experiment import carry_out, prepare_tables
run = carry_out(config, prepare_tables(config), Path("runs"))
"""

import contextlib
import io
import os
import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from checkpoint import Progress, read_progress
from config import DEV_CHOSE, LABELS, Config, read_config, write_json
from data_utils import read_dataset
from demo_corpus import DEMO_FOLDER, write_demo_corpus
from errors import UserError
from protocols import UNKNOWN_SPEAKER
from sampling import recording_rows
from splits import SPLIT_ORDER, split_table, stratified_sample, with_extra

SHOWN_ATTACKS = 8  # named in the lines about the data

# ---------------------------------------------------------------- data


def prepare_tables(config: Config) -> dict[str, pd.DataFrame]:
    """The rows of train, dev and eval, after the split and the limits of the config."""
    if config.data is None:
        print("no --data given: using the built-in demo corpus, which is synthetic throughout")
        if not DEMO_FOLDER.exists():
            print(f"writing it to {DEMO_FOLDER}, once: about 20 seconds")
        folder = write_demo_corpus(DEMO_FOLDER)
    else:
        folder = Path(config.data)
    table = read_dataset(folder).usable(config.allow_missing)
    table = split_table(table, config.training.split, config.training.seed)
    print(table.attrs["split_note"])
    tables = {name: table[table["split"] == name].reset_index(drop=True) for name in SPLIT_ORDER}
    if config.limit is not None:
        for name, rows in tables.items():
            if len(rows) > config.limit:
                tables[name] = stratified_sample(rows, config.limit / len(rows), config.training.seed)
    tables["train"] = stratified_sample(tables["train"], config.training.sample, config.training.seed)
    if config.extra is not None:
        extra = read_dataset(config.extra).usable(config.allow_missing)
        tables["train"] = with_extra(tables, extra, official=config.training.split == "official")
    if config.training.balance == "groups" and config.training.pairs:
        recording_rows(tables["train"])  # refused now, not in the first epoch
    for name, rows in tables.items():
        bonafide, spoof = class_counts(rows).values()
        attacks = sorted(set(rows["attack"]) - {"-"})
        named = ", ".join(attacks[:SHOWN_ATTACKS]) or "no attacks"
        more = f" and {len(attacks) - SHOWN_ATTACKS} more" if len(attacks) > SHOWN_ATTACKS else ""
        print(f"  {name:<5} {bonafide:>6,} bona fide  {spoof:>6,} spoof  ({named}{more})")
    if config.extra is not None:
        extra = tables["train"]["extra"]
        print(f"  of train, {extra.sum():,} clips are from {config.extra}")
    return tables


# ---------------------------------------------------------------- the run folder


def open_run(config: Config, runs: Path, fresh: bool) -> Path:
    """The newest unfinished run of exactly this config, or a new folder."""
    for file in [] if fresh else sorted(runs.glob("*/config.json"), reverse=True):
        try:
            if read_config(file) != config or (file.parent / "metrics.json").exists():
                continue
            if (owner := training_process(file.parent)) is None:
                return file.parent
            print(f"{file.parent} is being trained by process {owner}: this is another run")
        except UserError as error:
            print(f"passed over: {error}")
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{config.recipe}"
    run = runs / name
    count = 2
    while run.exists():
        run, count = runs / f"{name}-{count}", count + 1
    run.mkdir(parents=True)
    config.write(run / "config.json")
    return run


def training_process(run: Path) -> int | None:
    """The number of the living process that trains into a run folder; None if it ended, however it did."""
    try:
        number, began = (run / "process").read_text(encoding="utf-8").split()
        apart = abs(psutil.Process(int(number)).create_time() - float(began))  # moves when the clock is set
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None
    return int(number) if apart < 60 else None  # later, another process has its number


@contextlib.contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Keep equal commands out of a run folder while this process works in it."""
    owner = run / "process"
    owner.write_text(f"{os.getpid()} {psutil.Process().create_time()}", encoding="utf-8")
    try:
        yield
    finally:
        owner.unlink(missing_ok=True)


@contextlib.contextmanager
def logged(file: Path) -> Iterator[None]:
    """Write what is printed to the end of `file` as well."""

    class Tee:
        def write(self, text: str) -> int:
            log.write(text)
            log.flush()
            return terminal.write(text)

        def __getattr__(self, name: str) -> Any:
            return getattr(terminal, name)

    terminal = sys.stdout
    with file.open("a", encoding="utf-8") as log, contextlib.redirect_stdout(Tee()):
        yield


def environment() -> dict[str, Any]:
    """What the numbers and the speed of a run depend on beside its config."""
    from backend import accelerators, keras

    packages = ("keras", "tensorflow", "jax", "numpy", "audiomentations", "scipy", "librosa", "soundfile", "soxr", "av")
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "backend": keras.backend.backend(),
        "system": platform.platform(),
        "processor": f"{processor_name()}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB",
        "accelerators": accelerators(),
        "commit": git_commit(Path(__file__).parent / ".git"),
    }


def processor_name() -> str:
    """The processor as its maker calls it, where the system tells."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # tensorflow-cpu, or another backend
        return None


def git_commit(git: Path) -> str | None:
    """The commit that is checked out; None outside a git checkout."""
    if not (git / "HEAD").is_file():
        return None
    head = (git / "HEAD").read_text(encoding="utf-8").strip().removeprefix("ref: ")
    if (git / head).is_file():
        return (git / head).read_text(encoding="utf-8").strip()
    packed = git / "packed-refs"
    references = packed.read_text(encoding="utf-8").split() if packed.is_file() else []
    return references[references.index(head) - 1] if head in references else head


# ---------------------------------------------------------------- after training


def measure(config: Config, tables: dict[str, pd.DataFrame], run: Path, progress: Progress) -> dict:
    """Score dev and eval with the best model, fix its threshold on dev, write card, metrics and report."""
    from calibration import operating_point
    from evaluate import evaluate, format_report
    from model import load_model, parameter_count, save_model, set_operating_point
    from score import score_table

    model = load_model(run / "best.keras")
    started = time.perf_counter()
    dev = score_table(model, tables["dev"], run / "scores_dev.txt", "dev")
    scoring = {"clips": len(dev), "seconds": time.perf_counter() - started}
    point = operating_point(dev["score"].to_numpy(), dev["label"].to_numpy())
    set_operating_point(model, point)
    reports = {"dev": evaluate(dev, name=f"{run.name} dev")}
    shown = "dev"
    if tables["eval"]["label"].nunique() == 2:
        scores = score_table(model, tables["eval"], run / "scores_eval.txt", "eval")
        asv_scores = Path(config.asv_scores) if config.asv_scores else None
        options = {"asv_scores": asv_scores, "dev": dev, "threshold": "dev-eer"}
        reports["eval"] = evaluate(scores, name=f"{run.name} eval", **options)
        shown = "eval"
    else:
        print(f"no eval clips of both classes: the figures below are dev's, {DEV_CHOSE[config.training.select]}")
        if config.asv_scores is not None:
            print(f"{config.asv_scores} is not used: a t-DCF is computed on eval only")
    counts = {name: class_counts(rows) for name, rows in tables.items()}
    card = {
        "model": config.model,
        "parameters": parameter_count(model),
        "config": config.to_dict(),
        "labels": list(LABELS),
        "output": "one logit, higher = more likely spoof; apply a sigmoid once for a probability",
        "operating_point": point,
        "data": {
            "dataset": tables["train"]["dataset"].iloc[0],
            "clips": counts,
            "attacks": {name: sorted(set(rows["attack"]) - {"-"}) for name, rows in tables.items()},
            "speakers": {name: len(set(rows["speaker"]) - {UNKNOWN_SPEAKER}) for name, rows in tables.items()},
            "split_note": tables["train"].attrs.get("split_note"),
        },
        "training": {"best": progress.best, "speed": progress.speed, "scoring": scoring},
        "metrics": reports,
        "environment": environment(),
        "licence": "MIT for code and weights; the training data keep their own licences",
    }
    save_model(model, run / "best.keras", card)
    print(f"\n{format_report(reports[shown])}\n")
    write_json(run / "metrics.json", reports)  # its presence says that the run is complete
    leave_report(run, pd.concat(tables.values()))
    return reports


def class_counts(rows: pd.DataFrame) -> dict[str, int]:
    """How many clips of each class, by its name."""
    return {label: int((rows["label"] == number).sum()) for number, label in enumerate(LABELS)}


def leave_report(run: Path, clips: pd.DataFrame) -> None:
    """Figures and report.html of a run that is complete: what goes wrong here costs the report and no more."""
    from report import write_report

    again = f"`python report.py {run}` makes the report"
    try:
        write_report(run, clips)
    except (UserError, OSError) as error:
        print(f"no report: {error}; the run is complete, {again}")
    except KeyboardInterrupt:
        print(f"\nthe run is complete; {again}")
        raise


# ---------------------------------------------------------------- all of it


def carry_out(
    config: Config, tables: dict[str, pd.DataFrame], runs: Path, fresh: bool = False, stop_after: int | None = None
) -> Path | None:
    """Train and measure, going on where an equal command was stopped; the run folder, None if it only paused."""
    from distillation import check_teachers  # these import Keras, which takes seconds
    from model import build_model
    from training import set_up_keras, train

    set_up_keras(config.training)
    with contextlib.redirect_stdout(io.StringIO()):  # what it says is said again, and logged, when training begins
        build_model(config)  # what does not fit together is refused before there is a run folder
        check_teachers(config, tables["dev"])
    started = time.monotonic()
    run = open_run(config, runs, fresh)
    with claimed(run), logged(run / "log.txt"):
        done = read_progress(run).epoch
        print(f"run {run}" + (f", going on after epoch {done}" if done else ""))
        print(f"{config.model} on {config.features.kind}, loss {config.training.loss}; all settings: config.json")
        if config.training.teachers:
            print(f"taught by {', '.join(config.training.teachers)}")
        try:
            progress = train(config, tables["train"], tables["dev"], run, stop_after)
        except KeyboardInterrupt:
            print(f"\nstopped after epoch {read_progress(run).epoch}; the same command goes on from there")
            raise
        if not progress.finished:
            print(f"paused after epoch {progress.epoch}; the same command without --stop-after goes on")
            return None
        chosen = progress.best
        print(f"{config.training.select} epoch: {chosen['epoch']}, dev EER {100 * chosen['dev_eer']:.2f} %; measuring")
        measure(config, tables, run, progress)
        if (run / "report.html").is_file():
            print(f"report      {run / 'report.html'}")
        print(f"run folder  {run}  ({(time.monotonic() - started) / 60:.1f} minutes)")
    return run
