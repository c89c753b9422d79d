"""What systems cost is printed as it is, and a comparison trains each of them on the same clips for the same time."""

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from architectures.layers import logit_layer
from backend import keras
from compare import compare, comparison_findings, cost, list_systems
from config import Config, FeatureConfig, TrainingConfig, read_config
from demo_corpus import write_demo_corpus
from errors import UserError
from model import MODELS, ModelSpec
from plots import comparison_chart
from recipes import load_recipe, recipe_names, recipe_published

FEATURES = FeatureConfig("mel", 8_000, window=512, hop=512, mel_bands=32)  # (16, 32, 1)


def small_network(input_shape, units: int = 4) -> keras.Model:
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(units, 3, strides=2, activation="relu")(inputs)
    return keras.Model(inputs, logit_layer()(keras.layers.GlobalAveragePooling2D()(x)), name="small")


def broken_network(input_shape) -> keras.Model:
    raise UserError("broken: cannot be built")


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    monkeypatch.setitem(MODELS, "small", ModelSpec(small_network, "mel", "for tests"))
    monkeypatch.setitem(MODELS, "wider", ModelSpec(small_network, "mel", "for tests", {"units": 8}))
    monkeypatch.setitem(MODELS, "broken", ModelSpec(broken_network, "mel", "for tests"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_demo_corpus(tmp_path_factory.mktemp("compare") / "corpus", seed=5, scale=0.08, progress=False)


def configs(corpus: Path, *networks: str) -> list[Config]:
    training = TrainingConfig(split="official", stages=(0.5, 1.0), epochs=(9, 9), learning_rate=(1e-2, 1e-3))
    first = Config(recipe=networks[0], data=str(corpus), model=networks[0], features=FEATURES, training=training)
    other = replace(training, split="random-70-15-15", seed=7)  # gives way to the first one's
    return [first, *(replace(first, recipe=n, model=n, training=other) for n in networks[1:])]


def test_cost_is_counted() -> None:
    row = cost(Config(model="wider", features=FEATURES))
    # (7, 15, 8) from 3x3 windows of one channel, and a dense layer of 8
    assert row["parameters"] == 9 * 8 + 8 + 8 + 1
    assert row["multiply_adds"] == 7 * 15 * 8 * 9 + 8
    assert (row["network"], row["front_end"], row["seconds"]) == ("wider", "mel", 0.5)


@pytest.mark.usefixtures("unpainted")
def test_a_comparison_trains_all_alike_tabulates_and_is_not_done_twice(corpus, tmp_path, capsys) -> None:
    systems = configs(corpus, "small", "wider")
    assert compare(systems, 2, tmp_path) == 0
    (folder,) = tmp_path.iterdir()
    table = pd.read_csv(folder / "compare.csv").set_index("recipe")
    assert set(table.index) == {"small", "wider"}
    assert (table["epochs"] == 2).all() and (table["split"] == "eval").all()
    assert table["eer"].is_monotonic_increasing
    assert ((table["eer_low"] <= table["eer"]) & (table["eer"] <= table["eer_high"])).all()
    assert {f"attack_D{k:02}" for k in range(5, 9)} <= set(table.columns)
    assert (table[["training_clips_per_second", "scoring_clips_per_second"]] > 0).all().all()
    assert (folder / "compare.png").is_file()
    runs = [read_config(file) for file in folder.glob("*/config.json")]
    assert {(c.training.split, c.training.seed, c.training.stages, c.training.epochs) for c in runs} == {
        ("official", 1, (1.0,), (2,))
    }
    output = capsys.readouterr().out
    assert "small" in output and "95 % over speakers" in output
    page = (folder / "report.html").read_text(encoding="utf-8")
    links = [unquote(link) for link in re.findall(r'href="([^#"]+)"', page)]
    assert sorted(links) == sorted(f"{run}/report.html" for run in table["run"])
    assert all("Worst errors" in (folder / link).read_text(encoding="utf-8") for link in links)

    files = {path: path.stat().st_mtime_ns for path in folder.glob("*/best.keras")}
    assert compare(systems, 2, tmp_path) == 0  # the same command: nothing is trained again
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/best.keras")} == files
    assert capsys.readouterr().out.count("is finished already") == 2
    assert [*tmp_path.iterdir()] == [folder]


@pytest.mark.usefixtures("unpainted")
def test_an_interrupted_report_costs_no_training_and_one_that_fails_no_other(
    corpus, tmp_path, monkeypatch, capsys
) -> None:
    def interrupted(*arguments):
        raise KeyboardInterrupt

    systems = configs(corpus, "small", "broken")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("report.write_report", interrupted)
        compare(systems, 1, tmp_path)
    (weights,) = tmp_path.glob("*/*/best.keras")
    before = weights.stat().st_mtime_ns
    assert (weights.parent / "metrics.json").is_file() and not (weights.parent / "report.html").exists()
    capsys.readouterr()
    assert compare(systems, 1, tmp_path) == 1
    said = capsys.readouterr().out
    assert said.count("is finished already") == 1
    assert weights.stat().st_mtime_ns == before and (weights.parent / "report.html").is_file()
    assert "not in the table: broken: broken: cannot be built" in said
    assert pd.read_csv(weights.parents[1] / "compare.csv")["recipe"].tolist() == ["small"]


@pytest.mark.parametrize(
    ("eer", "low", "high", "said", "not_said"),
    [
        ((0.1, 0.12), (0.05, 0.06), (0.15, 0.18), "may be chance", "Clearly"),
        ((0.1, 0.3), (0.05, 0.25), (0.15, 0.35), "Clearly behind: b.", "chance"),
    ],
)
def test_an_order_is_claimed_only_where_intervals_are_apart(eer, low, high, said, not_said) -> None:
    columns = {"eer": eer, "eer_low": low, "eer_high": high, "dev_eer": (0.2, 0.1)}
    table = pd.DataFrame({"recipe": ["a", "b"], "split": "eval", "scoring_clips_per_second": (10.0, 30.0), **columns})
    text = " ".join(comparison_findings(table))
    assert said in text and not_said not in text
    assert "b, 3.0 times as fast as a" in text and "Dev alone would have chosen b" in text


@pytest.mark.parametrize("count", [1, 9])
def test_the_chart_takes_one_system_and_nine(count: int, tmp_path: Path) -> None:
    row = {"parameters": 3e5, "multiply_adds": 2e8, "split": "eval", "interval": "95 % over speakers"}
    rows = [
        {**row, "recipe": f"system_{k}", "eer": 0.04 * k, "eer_low": 0.03 * k, "eer_high": 0.06 * k, "attack_A07": 0.0}
        for k in range(count)
    ]
    path = comparison_chart(pd.DataFrame(rows), tmp_path / "chart.png")
    assert path.stat().st_size > 5_000


def test_without_attacks_there_is_a_chart_too(tmp_path: Path) -> None:
    row = {"recipe": "a", "parameters": 3e5, "multiply_adds": 2e8, "split": "dev", "interval": "95 % over trials"}
    comparison_chart(pd.DataFrame([{**row, "eer": 0.1, "eer_low": 0.0, "eer_high": 0.2}]), tmp_path / "chart.png")


@pytest.mark.slow
def test_the_list_names_every_recipe_and_every_network(capsys, monkeypatch) -> None:
    monkeypatch.delitem(MODELS, "broken")
    counted = {}

    def counting(config: Config) -> dict:
        row = cost(config)
        counted.setdefault(config.recipe, row)  # rows of recipes come first
        return row

    monkeypatch.setattr("compare.cost", counting)
    list_systems()
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    for name in recipe_names():
        row = counted[name]
        assert lines[name].split()[1:4] == [
            load_recipe(name).model,
            f"{row['parameters']:,}",
            f"{row['multiply_adds'] / 1e6:,.0f}",
        ]
        assert lines[name].endswith(recipe_published(name))
