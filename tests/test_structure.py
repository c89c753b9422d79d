"""Rules that hold for every file: who imports whom, what stays light, seeds, encodings, and what git keeps.

Each check takes a folder and returns its problems as lines; the last test shows that each of them can fail.
"""

import ast
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from file_index import AUDIO_SUFFIXES

REPO = Path(__file__).resolve().parents[1]
# a file imports only what is named before it; a folder counts as one name
LAYERS = (
    "errors whole_file config schedule frames audio figure_style clip_plots html_page protocols metrics plots",
    "file_index sound_cells splits run_findings measurements shortcuts dataset_plots dataset_findings",
    "rawboost augmentation feature_extraction backend front_ends feature_masks score_files calibration dataset_report",
    "demo_speech resynthesis dressing vocoders fargan speech_engines more_recordings",
    "optimizers complexity architectures losses data_utils demo_corpus published_speech evaluate neural_vocoder",
    "released_vocoders model checkpoint clip_reader sampling data_generator inference relevance faithfulness score",
    "explain streaming timeline",
    "distillation training torch_file import_weights training_corpus robustness recipes worst_errors report eda",
    "experiment compare fold_figures main cross_validate ship verdict_words uploads app",
)
ORDER = " ".join(LAYERS).split()
HEAVY = {"keras", "tensorflow", "backend"}  # seconds to import
LIGHT = set(ORDER[: ORDER.index("evaluate") + 1]) - set(
    ["backend", "front_ends", "feature_masks", "losses", "optimizers", "complexity", "architectures"]
) | {"eda", "report"}
LAZY_TENSORFLOW = ("data_generator", "training", "complexity", "relevance")
WEIGHTS = ".keras"  # the one binary kind of file that is kept
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|home|Users|root|tmp|mnt|media|Volumes)/\w|\b[A-Z]:\\+Users\b")


def parse(root: Path) -> Iterator[tuple[str, str, ast.Module]]:
    """Yield the path, the name in ORDER and the syntax tree of every file of the project but the tests."""
    for folder in (".", "architectures", "recipes"):
        for path in sorted((root / folder).glob("*.py")):
            shown = path.relative_to(root).as_posix()
            yield shown, shown.split("/")[0].removesuffix(".py"), ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[int, str, bool]]:
    """Yield line, module (its first part) and whether a function holds the import; TYPE_CHECKING is passed over."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0], lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module.split(".")[0], lazy
        elif isinstance(node, ast.Call):
            named = re.match(r"(?:importlib\.import_module|__import__)\('(\w+)", ast.unparse(node))
            yield from [(node.lineno, named[1], lazy)] if named else []
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports(node, lazy or inside)


def against_the_direction(root: Path) -> list[str]:
    files = list(parse(root))
    names = {name for _, name, _ in files}
    problems = [f"{shown}: give {name} its place in ORDER" for shown, name, _ in files if name not in ORDER]
    for shown, name, tree in files:
        allowed = ORDER[: ORDER.index(name) + ("/" in shown)] if name in ORDER else ORDER
        problems += [
            f"{shown}:{line}: imports {module}, which comes later"
            for line, module, _ in imports(tree)
            if module in names.union(ORDER) - set(allowed)
        ]
    return problems


def heavy_among_the_light(root: Path) -> list[str]:
    used: dict[str, set[str]] = {}
    for _, name, tree in parse(root):
        used.setdefault(name, set()).update(module for _, module, _ in imports(tree))

    def way(name: str, seen: frozenset[str]) -> list[str]:
        """The imports that lead from a file to Keras or TensorFlow, [] if none do."""
        for module in sorted(used.get(name, set()) - seen):
            if module in HEAVY:
                return [name, module]
            if further := way(module, seen | {module}):
                return [name, *further]
        return []

    return [" imports ".join(found) for name in sorted(LIGHT) if (found := way(name, frozenset({name})))]


def keras_past_the_backend(root: Path) -> list[str]:
    return [
        f"{shown}:{line}: imports {module}; Keras comes from backend, TensorFlow in functions of {LAZY_TENSORFLOW}"
        for shown, name, tree in parse(root)
        for line, module, lazy in imports(tree)
        if module in ("keras", "tensorflow")
        and name != "backend"
        and not (module == "tensorflow" and lazy and name in LAZY_TENSORFLOW)
    ]


def without_docstring(root: Path) -> list[str]:
    return [f"{shown}: no module docstring" for shown, _, tree in parse(root) if not ast.get_docstring(tree)]


def without_seed(root: Path) -> list[str]:
    problems = []
    for shown, _, tree in parse(root):
        problems += [f"{shown}:{n}: the random module" for n, module, _ in imports(tree) if module == "random"]
        for node in ast.walk(tree):
            text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Call | ast.ImportFrom) else ""
            legacy = re.fullmatch(r"(np|numpy)\.random\.(?!default_rng)([a-z]\w*|RandomState)", text)
            imported = re.match(r"from numpy(\.random import| import .*\brandom\b)", text)
            if legacy or imported or re.fullmatch(r"([\w.]+\.)?default_rng\((None|seed=None)?\)", text):
                problems.append(f"{shown}:{node.lineno}: {text}: random numbers come from default_rng(seed)")
    return problems


def without_encoding(root: Path) -> list[str]:
    problems = []
    for shown, _, tree in parse(root):
        modules = {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names} - {"io"}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            owner, _, called = ast.unparse(node.func).rpartition(".")
            if called not in ("open", "read_text", "write_text") or owner in modules:  # av.open is not a text file
                continue
            mode = node.args[1 if owner in ("", "io") else 0 :][:1] if called == "open" else []
            mode += [k.value for k in node.keywords if k.arg == "mode"]
            binary = any(isinstance(m, ast.Constant) and "b" in str(m.value) for m in mode)
            if not binary and all(k.arg != "encoding" for k in node.keywords):
                problems.append(f"{shown}:{node.lineno}: {called} without encoding")
    return problems


def unfit_for_git(root: Path) -> list[str]:
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    problems = []
    for entry in git(root, "ls-files", "-s", "-z").split("\0")[:-1]:
        about, name = entry.split("\t", 1)
        path = root / name
        if about.startswith("120000"):
            problems.append(f"{name}: a symlink")
        elif path.suffix.lower() in AUDIO_SUFFIXES:
            problems.append(f"{name}: audio")
        elif path.is_file() and path.suffix != WEIGHTS:
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                problems.append(f"{name}: not UTF-8")
                continue
            if found := MACHINE_PATH.search(text):
                problems.append(f"{name}:{text.count(chr(10), 0, found.start()) + 1}: a path of one machine")
    return problems


CHECKS = (
    against_the_direction,
    heavy_among_the_light,
    keras_past_the_backend,
    without_docstring,
    without_seed,
    without_encoding,
    unfit_for_git,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_rule(check: Callable[[Path], list[str]]) -> None:
    problems = check(REPO)
    assert not problems, "\n".join(problems)


BREACHES = (
    (against_the_direction, "metrics.py", "import evaluate", "metrics.py:1: imports evaluate, which comes later"),
    (against_the_direction, "audio.py", "def f():\n    from model import x", "audio.py:2: imports model"),
    (against_the_direction, "recipes/own.py", "import main", "recipes/own.py:1: imports main"),
    (against_the_direction, "drawer.py", "", "drawer.py: give drawer its place in ORDER"),
    (heavy_among_the_light, "config.py", "def f():\n    import tensorflow", "config imports tensorflow"),
    (heavy_among_the_light, "errors.py", "import backend", "errors imports backend"),
    (heavy_among_the_light, "frames.py", "import model", "frames imports model imports backend"),
    (keras_past_the_backend, "audio.py", "def f():\n    import tensorflow as tf", "audio.py:2: imports tensorflow"),
    (keras_past_the_backend, "training.py", "import tensorflow as tf", "training.py:1: imports tensorflow"),
    (keras_past_the_backend, "training.py", "def f():\n    from keras import ops", "training.py:2: imports keras"),
    (keras_past_the_backend, "architectures/own.py", "import keras.ops", "architectures/own.py:1: imports keras"),
    (keras_past_the_backend, "main.py", "import importlib\nimportlib.import_module('keras')", "main.py:2: imports"),
    (without_docstring, "audio.py", "import os", "audio.py: no module docstring"),
    (without_seed, "audio.py", "import numpy as np\nnp.random.rand(3)", "audio.py:2: np.random.rand"),
    (without_seed, "audio.py", "import numpy as np\nnp.random.default_rng()", "audio.py:2: np.random.default_rng()"),
    (without_seed, "audio.py", "from numpy.random import rand", "audio.py:1: from numpy.random"),
    (without_seed, "audio.py", "import random", "audio.py:1: the random module"),
    (without_encoding, "audio.py", "open('x')", "audio.py:1: open without encoding"),
    (without_encoding, "audio.py", "open('x', 'w')", "audio.py:1: open without encoding"),
    (without_encoding, "audio.py", "p.open()", "audio.py:1: open without encoding"),
    (without_encoding, "audio.py", "p.write_text('x')", "audio.py:1: write_text without encoding"),
    (unfit_for_git, "notes.txt", "data in /" + "home/anna/LA", "notes.txt:1: a path of one machine"),
    (unfit_for_git, "notes.txt", "\n\nC:" + "\\Users", "notes.txt:3: a path of one machine"),
    (unfit_for_git, "clip.flac", "", "clip.flac: audio"),
    (unfit_for_git, "notes.txt", b"caf\xe9", "notes.txt: not UTF-8"),
)


def make(root: Path, files: dict[str, str | bytes]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(text.encode() if isinstance(text, str) else text)


def git(root: Path, *words: str) -> str:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    command = ["git", *words]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, encoding="utf-8").stdout


@pytest.mark.parametrize(("check", "name", "text", "problem"), BREACHES)
def test_rule_can_fail(
    check: Callable[[Path], list[str]], name: str, text: str | bytes, problem: str, tmp_path: Path
) -> None:
    make(tmp_path, {"backend.py": '"""x"""', "model.py": '"""x"""\nfrom backend import keras', name: text})
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", name)
    (found,) = check(tmp_path)
    assert found.startswith(problem)


def test_symlink_is_found(tmp_path: Path) -> None:
    make(tmp_path, {"real": "somewhere"})
    git(tmp_path, "init", "-q")
    blob = git(tmp_path, "hash-object", "-w", "real").strip()
    git(tmp_path, "update-index", "--add", "--cacheinfo", f"120000,{blob},link")  # Windows makes no links
    assert unfit_for_git(tmp_path) == ["link: a symlink"]


FINE = '''"""x"""
import typing
from typing import TYPE_CHECKING

import av
import numpy as np

if TYPE_CHECKING:
    from data_utils import Dataset
if typing.TYPE_CHECKING:
    import evaluate

def f(path, seed, rng: np.random.Generator):
    av.open(path)
    path.open("rb")
    open(path, mode="wb")
    path.open(encoding="utf-8")
    open(path, "a", encoding="utf-8")
    return np.random.default_rng(seed), "https://host/home/anna", "TIME C: no"
'''


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_fine_code_passes(check: Callable[[Path], list[str]], tmp_path: Path) -> None:
    make(tmp_path, {"metrics.py": FINE, "training.py": '"""x"""\ndef f():\n    import tensorflow as tf'})
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "metrics.py")
    assert check(tmp_path) == []
