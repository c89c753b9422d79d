"""The main command: from a dataset's folder to a run folder one can believe, resume, repeat and use."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from checkpoint import read_progress
from config import CHOICES, feature_config, read_config
from demo_corpus import write_demo_corpus
from errors import UserError, run_command
from evaluate import evaluate, read_scores
from experiment import claimed, git_commit, open_run, training_process
from main import configure, main, training_options
from model import read_card, sha256
from recipes import load_recipe, recipe_names, recipe_published

REPOSITORY = Path(__file__).resolve().parents[1]
QUICK = ["--recipe", "resmax_demo", "--features", "mel", "--limit", "24", "--epochs", "2"]


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(REPOSITORY / "main.py"), *map(str, arguments)]


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments), capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_demo_corpus(tmp_path_factory.mktemp("main") / "corpus", seed=5, scale=0.12, progress=False)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, corpus) -> Path:
    """A folder in which the command was killed after an epoch and given again."""
    folder = tmp_path_factory.mktemp("workplace")
    with subprocess.Popen(command("--data", corpus, *QUICK), cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("epoch 1 "):
                process.kill()
                break
    (killed,) = (folder / "runs").iterdir()
    assert read_progress(killed).epoch >= 1 and not (killed / "metrics.json").exists()
    done = run("--data", corpus, *QUICK, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "output.txt").write_text(done.stdout, encoding="utf-8")
    (folder / "stderr.txt").write_text(done.stderr, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run_folder(workplace) -> Path:
    (folder,) = (workplace / "runs").iterdir()
    return folder


def test_a_run_folder_is_complete(run_folder):
    files = {p.name for p in run_folder.iterdir()}
    expected = "config.json log.txt history.csv learning_curves.png tensorboard last.npz best.keras best.json"
    expected += " scores_dev.txt scores_eval.txt metrics.json det.png roc.png scores.png confusion.png"
    expected += " attacks.png attacks_dev.png report.html"
    assert files == set(expected.split())


def test_nothing_but_our_own_lines_reaches_the_terminal(workplace):
    assert (workplace / "stderr.txt").read_text(encoding="utf-8") == ""
    output = (workplace / "output.txt").read_text(encoding="utf-8")
    for noise in ("oneDNN", "cuda", "absl", "Warning", "Keras", "I0000"):
        assert noise not in output


def test_the_log_holds_what_was_printed(workplace, run_folder):
    log = (run_folder / "log.txt").read_text(encoding="utf-8")
    output = (workplace / "output.txt").read_text(encoding="utf-8")
    before, again = log.split(f"run {Path('runs') / run_folder.name}")[1:]  # killed, and gone on with
    assert "epoch 1 " in before and again in output and "epoch 2 " in log


def test_the_stored_scores_give_the_stored_figures(run_folder):
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    scores = {name: read_scores(run_folder / f"scores_{name}.txt") for name in ("dev", "eval")}
    again = evaluate(scores["eval"], dev=scores["dev"], threshold="dev-eer", bootstrap=0)
    assert again["eer"] == pytest.approx(metrics["eval"]["eer"], abs=1e-9)
    assert again["decision"]["threshold"] == pytest.approx(metrics["eval"]["decision"]["threshold"], abs=1e-5)
    assert set(metrics["eval"]["per_attack"]) == {"D05", "D06", "D07", "D08"}
    assert set(metrics["dev"]["per_attack"]) == {"D01", "D02", "D03", "D04"}


def test_the_card_describes_the_model(run_folder):
    card = read_card(run_folder / "best.keras")
    assert card["sha256"] == sha256(run_folder / "best.keras")
    assert card["labels"] == ["bonafide", "spoof"] and card["config"]["features"]["kind"] == "mel"
    low, high = card["operating_point"]["uncertain"]
    assert low <= card["operating_point"]["threshold"] <= high
    assert card["data"]["dataset"] == "demo_corpus"
    assert card["environment"]["commit"] == git_commit(REPOSITORY / ".git")


def test_the_next_command_it_prints_works_and_agrees_with_the_score_file(workplace, run_folder):
    output = (workplace / "output.txt").read_text(encoding="utf-8")
    (line,) = (line for line in output.splitlines() if line.startswith("next "))
    words = line.split()[2:]
    assert words[0] == "inference.py"
    words[0] = str(REPOSITORY / "inference.py")
    done = subprocess.run(
        [sys.executable, *words, "--json"], capture_output=True, text=True, cwd=workplace, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = json.loads(done.stdout)
    scores = read_scores(run_folder / "scores_eval.txt").set_index("utterance_id")["score"]
    if result["windows"] == 1:  # eval scores the first window, prediction all of them
        assert result["logit"] == pytest.approx(-scores[Path(result["path"]).stem], abs=1e-4)
    assert not any("no threshold" in warning for warning in result["warnings"])


def test_a_killed_run_goes_on_with_the_same_command(workplace, run_folder):
    output = (workplace / "output.txt").read_text(encoding="utf-8")
    assert f"run {Path('runs') / run_folder.name}, going on after epoch " in output and "\nepoch 1 " not in output
    assert pd.read_csv(run_folder / "history.csv")["epoch"].tolist() == [1, 2]


def test_only_an_unfinished_run_of_the_same_config_is_gone_on_with(tmp_path):
    config = load_recipe("resmax_demo")
    first = open_run(config, tmp_path, fresh=False)
    assert open_run(config, tmp_path, fresh=False) == first
    assert read_config(first / "config.json") == config
    other = open_run(replace(config, limit=2), tmp_path, fresh=False)
    fresh = open_run(config, tmp_path, fresh=True)
    assert len({first, other, fresh}) == 3
    for folder in (first, fresh):
        (folder / "metrics.json").write_text("{}", encoding="utf-8")  # finished
    assert open_run(config, tmp_path, fresh=False) not in (first, other, fresh)


def test_two_equal_commands_at_once_do_not_share_a_folder(tmp_path):
    config = load_recipe("resmax_demo")
    first = open_run(config, tmp_path, fresh=False)
    with claimed(first):
        assert open_run(config, tmp_path, fresh=False) != first
    assert not (first / "process").exists()
    for left in ("4194999 1700000000.0", f"{os.getpid()} 1700000000.0", ""):  # by one that was killed; its number again
        (first / "process").write_text(left, encoding="utf-8")
        assert training_process(first) is None


def test_config_repeats_a_finished_run(run_folder):
    arguments = training_options().parse_args(["--config", str(run_folder / "config.json")])
    assert configure(arguments) == read_config(run_folder / "config.json")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send Ctrl-C to one process")
def test_ctrl_c_says_how_to_go_on(corpus, tmp_path):
    arguments = ["--data", corpus, *QUICK[:-2], "--epochs", "50"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(*arguments), cwd=tmp_path, text=True, **pipes) as process:
        for line in process.stdout:
            if line.startswith("epoch 1 "):
                process.send_signal(signal.SIGINT)
                break
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command goes on from there" in output and "Traceback" not in errors


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--data", "empty"], "no dataset found"),
        (["--recipe", "resnext"], "resmax_demo, resmax_ffm, resmax_la, resmax_stft"),
        (["--data", "CORPUS", "--split", "random"], "attack-held-out"),
        (["--data", "CORPUS", "--features", "wavelets"], "valid: log_stft, mel, lfcc, cqt, raw"),
        (["--data", "CORPUS", "--stages", "0.4,1.0", "--epochs", "1,2,3"], "2 stages, 3 numbers of epochs"),
        (["--data", "CORPUS", "--asv-scores", "none.txt"], "none.txt: no such file"),
        (["--data", "CORPUS", "--asv-scores", __file__], "not an ASV score line"),
        (["--data", "CORPUS", "--sample", "1.5"], "from 0 to 1"),
        (["--config", "none.json"], "none.json"),
        (["--data", "CORPUS", "--features", "raw"], "network resmax on raw"),
        (["--data", "CORPUS", "--model", "lcnn", "--window", "512"], "--window has no effect on lfcc"),
        (["--data", "CORPUS", "--seconds", "nan"], "--seconds: invalid positive_number value"),
        (["--recipe", "resmax_la", "--config", "none.json"], "give one of them"),
        (["--data", "CORPUS", "--bonafide-weight", "5", "--balance", "sampling"], "no effect with balance sampling"),
        (["--data", "CORPUS", "--schedule", "linear"], "valid: sigmoid, cosine, halving, constant"),
        (["--data", "CORPUS", "--clip-norm", "0"], "clip_norm is 0.0; it must be above 0"),
        (["--data", "CORPUS", "--demo"], "give one of them"),
        (["--data", "CORPUS", "--model", "resnext"], "valid: resmax, "),
        (["--data", "CORPUS", "--model-arg", "depth=3"], "unknown argument depth; valid: head"),
        (["--data", "CORPUS", "--model", "aasist", "--model-arg", "pool_ratios=[0.5]"], "network aasist on raw"),
        (["--data", "CORPUS", "--model", "aasist", "--model-arg", "pool_ratios=[2,1,1]"], "at most 1"),
        (["--data", "CORPUS", "--model", "res2net50", "--features", "raw"], "takes pictures"),
        (["--data", "CORPUS", "--mask-high", "0.8,1.7"], "two shares are needed"),
        (["--data", "CORPUS", "--mixup", "nan"], "mixup is nan; it must be above 0"),
        (["--data", "CORPUS", "--learning-rate", "nan"], "learning rates above 0"),
        (["--data", "CORPUS", "--augment", "echo"], "unknown augmentation echo; valid: noise"),
        (["--data", "CORPUS", "--teacher-share", "0.7"], "has no effect without --teachers"),
        (["--data", "CORPUS", "--teachers", "empty", "--teacher-share", "2"], "it is a share, from 0 to 1"),
        (["--data", "CORPUS", "--teachers", "empty"], "teacher empty: no run folder"),
        (["--data", "CORPUS", "--mask-high", "0.9"], "two shares are needed, as in 0.80,0.87"),
        (["--recipe", "aasist_la", "--data", "CORPUS", "--spec-augment", "2"], "the raw front end has none"),
        (["--data", "CORPUS", "--compare", "lcnn_la", "--epochs", "1"], "two or more different recipes"),
        (["--compare", "lcnn_la,resmax_la"], "under one budget: give --epochs N"),
        (["--compare", "lcnn_la,resnext", "--epochs", "1"], "unknown recipe 'resnext'"),
        (["--compare", "lcnn_la,resmax_la", "--stop-after", "2"], "leave out --stop-after"),
        (
            ["--recipe", "res_efficient_cnn", "--data", "CORPUS", "--model-arg", "weights=none.h5"],
            "no weights file none.h5",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_run(corpus, tmp_path, arguments, message, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    argv = [str(corpus) if a == "CORPUS" else a for a in arguments]
    assert run_command(lambda: main(argv)) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1 and message in errors
    assert not (tmp_path / "runs").exists()


def test_help_is_short(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 70 and max(map(len, lines)) <= 118


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_carry_their_own_name_and_survive_json(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.recipe == name
    recipe.write(tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == recipe


@pytest.mark.parametrize(
    "flag, setting, value",
    [
        (["--split", "official"], "split", "official"),
        (["--sample", "0.4"], "sample", 0.4),
        (["--stages", "0.4,1.0"], "stages", (0.4, 1.0)),
        (["--epochs", "3"], "epochs", (3,)),
        (["--learning-rate", "1e-4"], "learning_rate", (1e-4,)),
        (["--final-learning-rate", "1e-7"], "final_learning_rate", 1e-7),
        (["--schedule", "cosine"], "schedule", "cosine"),
        (["--batch-size", "8"], "batch_size", 8),
        (["--balance", "sampling"], "balance", "sampling"),
        (["--bonafide-weight", "5"], "bonafide_weight", 5.0),
        (["--clip-norm", "1"], "clip_norm", 1.0),
        (["--precision", "mixed_bfloat16"], "precision", "mixed_bfloat16"),
        (["--patience", "3"], "patience", 3),
        (["--deterministic"], "deterministic", True),
        (["--cache", "disk"], "cache", "disk"),
        (["--seed", "9"], "seed", 9),
        (["--loss", "focal"], "loss", "focal"),
        (["--weight-decay", "1e-4"], "weight_decay", 1e-4),
        (["--sam", "0.05"], "sam", 0.05),
        (["--swa", "0.25"], "swa", 0.25),
        (["--augment", "noise,codec"], "augment", ("noise", "codec")),
        (["--mixup", "0.8"], "mixup", 0.8),
        (["--spec-augment", "2"], "spec_augment", 2),
        (["--mask-high", "0.8,0.87"], "mask_high", (0.8, 0.87)),
        (["--mask-low", "0,0.1"], "mask_low", (0.0, 0.1)),
        (["--clip-norm", "none"], "clip_norm", None),
    ],
)
def test_flags_change_their_setting_and_no_other(flag, setting, value):
    base = ["--data", "X", "--recipe", "resmax_stft", "--stages", "1.0", "--epochs", "9", "--learning-rate", "0.1"]
    plain = configure(training_options().parse_args(base)).to_dict()
    changed = configure(training_options().parse_args([*base, *flag])).to_dict()
    assert changed["training"].pop(setting) == value != plain["training"].pop(setting)
    assert changed == plain


def test_stages_take_values_of_their_own():
    flags = ["--stages", "0.4,1.0", "--epochs", "3,4", "--learning-rate", "1e-4,1e-5"]
    training = configure(training_options().parse_args(["--data", "X", *flags])).training
    assert (training.stages, training.epochs, training.learning_rate) == ((0.4, 1.0), (3, 4), (1e-4, 1e-5))


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_name_figure_and_command(name):
    module = importlib.import_module(f"recipes.{name}")
    assert recipe_published(name) == module.PUBLISHED
    assert f"    python main.py --recipe {name} " in module.__doc__ or name == "resmax_demo"


def test_the_default_split_for_a_dataset_holds_attacks_out():
    assert configure(training_options().parse_args(["--data", "X"])).training.split == "attack-held-out"


def test_sampling_puts_the_weight_of_the_recipe_aside():
    assert (
        configure(training_options().parse_args(["--data", "X", "--balance", "sampling"])).training.bonafide_weight
        is None
    )


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, valid in CHOICES.items() for value in valid])
def test_every_choice_can_be_given_by_its_flag(name, value):
    flags = ["--demo", f"--{name.replace('_', '-')}", value, "--augment", "noise"]
    assert getattr(configure(training_options().parse_args(flags)).training, name) == value


def test_a_recipes_pairs_can_be_turned_off(tmp_path):
    words = ["--recipe", "resnet_wild", "--extra", str(tmp_path), "--balance", "sampling"]
    with pytest.raises(UserError, match="pairs have no effect with balance sampling: --pairs 0"):
        configure(training_options().parse_args(words))
    assert configure(training_options().parse_args([*words, "--pairs", "0"])).training.pairs == 0


@pytest.mark.parametrize(
    "flags",
    [
        ["--augment-only", "spoof"],
        ["--augment-probability", "0.9"],
        ["--mask-probability", "0.9"],
        ["--schedule", "constant", "--final-learning-rate", "1e-6"],
        ["--pairs", "0.4"],
    ],
)
def test_an_option_without_effect_is_refused(flags):
    with pytest.raises(UserError, match="has no effect without"):
        configure(training_options().parse_args(["--demo", *flags]))


def test_none_turns_off_what_a_recipe_has_on():
    recipe = ["--recipe", "res_efficient_cnn", "--demo"]
    assert configure(training_options().parse_args(recipe)).training.bonafide_copies == 1.8767
    training = configure(training_options().parse_args([*recipe, "--augment", "none"])).training
    assert (training.augment, training.bonafide_copies) == ((), None)
    flags = ["--recipe", "resmax_ffm", "--demo", "--mixup", "none", "--mask-high", "none"]
    training = configure(training_options().parse_args(flags)).training
    assert (training.mixup, training.mask_high) == (None, ())
    flags = ["--recipe", "aasist_la", "--demo", "--bonafide-weight", "none", "--spec-augment", "none", "--swa", "none"]
    training = configure(training_options().parse_args(flags)).training
    assert (training.bonafide_weight, training.spec_augment, training.swa) == (None, 0, None)


def test_another_network_comes_on_its_own_front_end():
    config = configure(training_options().parse_args(["--demo", "--model", "lcnn", "--model-arg", "embedding=64"]))
    assert config.recipe == "resmax_demo-lcnn"
    assert (config.model, config.features, config.model_args) == ("lcnn", feature_config("lfcc"), {"embedding": 64})
    config = configure(training_options().parse_args(["--demo", "--model", "lcnn", "--features", "mel"]))
    assert config.features == feature_config("mel")
    config = configure(training_options().parse_args(["--demo", "--seconds", "2.5", "--window", "512"]))
    assert config.features == replace(load_recipe("resmax_demo").features, samples=40_000, window=512)


def test_a_damaged_config_among_the_runs_blocks_nothing(tmp_path, capsys):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{", encoding="utf-8")
    assert open_run(load_recipe("resmax_demo"), tmp_path, fresh=False).is_dir()
    assert "passed over" in capsys.readouterr().out


def test_limit_keeps_both_classes_and_every_attack(run_folder):
    scores = read_scores(run_folder / "scores_eval.txt")
    assert len(scores) <= 26 and set(scores["attack"]) == {"-", "D05", "D06", "D07", "D08"}
    assert np.isfinite(scores["score"]).all()


@pytest.mark.long
def test_the_newcomers_command_without_data(tmp_path):
    """`python main.py`: the whole demo, within its promise of learning something about unseen attacks."""
    started = time.monotonic()
    done = run(cwd=tmp_path)
    print(f"{time.monotonic() - started:.0f} s")  # for the log; no test depends on it
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no --data given: using the built-in demo corpus")
    (folder,) = (tmp_path / "runs").iterdir()
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["dev"]["eer"] < 0.2 and metrics["eval"]["eer"] < 0.4
    assert "next        python inference.py" in done.stdout
