"""What the documents tell people to type exists, and the README's tables are complete."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from augmentation import AUGMENTATIONS
from model import MODELS
from recipes import recipe_names
from splits import SPLITS

REPOSITORY = Path(__file__).resolve().parents[1]
README, TRAINING, ABLATION = (
    (REPOSITORY / f"{name}.md").read_text(encoding="utf-8") for name in ("README", "TRAINING", "ABLATION")
)


def blocks_of(document: str) -> list[tuple[str, str]]:
    """Language (often none) and text of every block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", document, flags=re.MULTILINE | re.DOTALL)


BLOCKS = blocks_of(README)


def commands(*documents: str) -> list[list[str]]:
    """Every line of them that runs one of our scripts, as words, with the variables that they set filled in."""
    text = "\n".join(documents or [README])
    lines = [line for kind, block in blocks_of(text) if not kind for line in block.splitlines()]
    lines += re.findall(r"`(python [^`]+)`", text)
    variables = dict(re.findall(r'\b(\w+)="([^"]*)"', text))
    for _ in range(2):  # a variable may hold another
        lines = [re.sub(r"\$(\w+)", lambda found: variables.get(found[1], found[0]), line) for line in lines]
    words = [re.sub(r"[\[\]]", " ", line).split("#")[0].split() for line in lines]
    return [w[1:] for w in words if len(w) > 1 and w[0] in ("python", ".venv/bin/python") and w[1].endswith(".py")]


def test_the_readme_has_commands_for_every_script_a_user_runs():
    scripts = {words[0] for words in commands()}
    assert {"main.py", "data_utils.py", "inference.py", "evaluate.py"} <= scripts
    assert all((REPOSITORY / script).is_file() for script in scripts)


EVERYWHERE = commands(README, TRAINING, ABLATION)


@pytest.mark.parametrize("script", sorted({words[0] for words in EVERYWHERE if "--" in " ".join(words)}))
def test_flags_in_the_documents_exist(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    assert ended.value.code == 0
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    used = {word for words in EVERYWHERE if words[0] == script for word in words if word.startswith("--")}
    assert used <= known


def test_a_folder_that_a_command_takes_was_named_before():
    named = set()
    for line in "".join(block for _, block in blocks_of(TRAINING)).splitlines():
        command, _, comment = line.partition("#")
        assert set(re.findall(r"runs/cv-\w+", command)) <= named, line
        named |= set(re.findall(r"runs/cv-\w+", comment))
    assert named and not re.findall(r"runs/cv-\w+", ABLATION)


def test_make_targets_in_the_readme_exist():
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_the_file_tree_names_every_script_and_nothing_else():
    (tree,) = (block for kind, block in BLOCKS if block.startswith("main.py "))
    named = set(re.findall(r"\b(\w+\.py)\b", tree)) - {"test_"}
    assert named == {path.name for path in REPOSITORY.glob("*.py")}


def test_networks_recipes_augmentations_and_splits_are_listed():
    numbered = {f"rawboost{k}" for k in range(2, 8)}  # "`rawboost1` ... `rawboost8`"
    for name in [*MODELS, *recipe_names(), *sorted(set(AUGMENTATIONS) - numbered), *SPLITS]:
        assert f"`{name}`" in README


def test_python_blocks_are_valid():
    blocks = [block for kind, block in BLOCKS if kind == "python"]
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")
