"""Settings survive JSON, and a setting that does not exist is refused with those that do."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import Config, FeatureConfig, TrainingConfig, config_from_dict, read_config
from errors import UserError

REPO = Path(__file__).resolve().parents[1]
words, whole = st.text(max_size=12), st.integers(0, 10**6)
numbers = st.floats(allow_nan=False, allow_infinity=False)
BY_TYPE = {
    "str": words,
    "int": whole,
    "float": numbers,
    "bool": st.booleans(),
    "str | None": st.none() | words,
    "int | None": st.none() | whole,
    "float | None": st.none() | numbers,
    "tuple[float, ...]": st.lists(numbers, max_size=4).map(tuple),
    "tuple[str, ...]": st.lists(words, max_size=4).map(tuple),
    "tuple[int, ...]": st.lists(whole, max_size=4).map(tuple),
}


def _type_name(field) -> str:
    return (
        field.type.__name__ if isinstance(field.type, type) and not hasattr(field.type, "__args__") else str(field.type)
    )


def _any(cls: type) -> st.SearchStrategy:
    return st.builds(cls, **{field.name: BY_TYPE[_type_name(field)] for field in fields(cls)})


configs = st.builds(
    Config,
    recipe=words,
    data=st.none() | words,
    allow_missing=st.booleans(),
    limit=st.none() | whole,
    model=words,
    model_args=st.dictionaries(words, st.none() | st.booleans() | whole | numbers | words, max_size=4),
    features=_any(FeatureConfig),
    training=_any(TrainingConfig),
)


@given(configs)
def test_json_round_trip(config: Config) -> None:
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_file_round_trip(tmp_path: Path) -> None:
    config = Config(recipe="größer", features=FeatureConfig("mel"), training=TrainingConfig(stages=(0.4, 1.0)))
    config.write(tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == config


def test_settings_left_out_take_their_defaults() -> None:
    assert config_from_dict({}) == Config()
    config = config_from_dict({"features": {"kind": "mel"}, "training": {"epochs": [3, 4]}})
    assert config == Config(features=FeatureConfig("mel"), training=TrainingConfig(epochs=(3, 4)))


@pytest.mark.parametrize(
    ("values", "where", "cls"),
    [
        ({"bacth": 1}, "run/config.json:", Config),
        ({"features": {"windw": 1}}, "run/config.json: features:", FeatureConfig),
        ({"training": {"lr": 1}}, "run/config.json: training:", TrainingConfig),
    ],
)
def test_an_unknown_setting_is_refused(values: dict, where: str, cls: type) -> None:
    with pytest.raises(UserError) as error:
        config_from_dict(values, "run/config.json")
    line = str(error.value)
    assert line.startswith(where)
    assert "\n" not in line
    for field in fields(cls):
        assert field.name in line.split("valid:")[1]


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe\x00", b"[1]", b"3", b'{"features": 3}'])
def test_a_file_that_is_no_config_is_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_config(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().features.hop = 1


def test_reading_settings_needs_neither_tensorflow_nor_keras() -> None:
    code = "import config, sys; raise SystemExit(any(name in sys.modules for name in ('tensorflow', 'keras')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, check=False).returncode == 0
