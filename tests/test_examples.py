"""The notebooks: what is committed is whole and small, and they run from top to bottom in an empty folder."""

import base64
import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import model
from inference import CSV_COLUMNS, DEFAULT_MODEL

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
from execute import EMBEDDED, NOTEBOOKS, execute, made_of  # noqa: E402

LARGEST = 400_000  # bytes of a notebook
REFRESH = "run `python examples/execute.py`"
ABSOLUTE = re.compile(r"(?<![\w.:/<])/[a-z]\w+/\w|\b[A-Z]:\\+\w", re.IGNORECASE)  # a path of one machine


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(EXAMPLES / name, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    """Everything of one MIME type that the cells display."""
    outputs = [output.get("data", {}) for cell in code_cells(notebook) for output in cell.outputs]
    return [data[kind] for data in outputs if kind in data]


def printed(notebook: nbformat.NotebookNode, stream: str = "stdout") -> str:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == stream)


def pictures(notebook: nbformat.NotebookNode) -> list[str]:
    """The pictures of the outputs as base64."""
    return shown(notebook, "image/png") + EMBEDDED.findall("".join(shown(notebook, "text/html")))


def check_outputs(name: str, notebook: nbformat.NotebookNode) -> None:
    """What a reader must find in an executed notebook, freshly run or committed."""
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert printed(notebook, "stderr") == ""
    verdicts = re.findall(r"<b>(bonafide|spoof|uncertain)</b>", "".join(shown(notebook, "text/html")))
    assert len(verdicts) == 1
    for picture in pictures(notebook):
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"))
        assert min(image.shape) > 100
        assert image.std() > 10  # something is drawn
    if name == "quickstart.ipynb":
        assert len(pictures(notebook)) == 5  # scores, attacks, the clip, the comparison, the explanation
        (dev, new) = re.findall(r"EER +([\d.]+)%   95 % interval ([\d.]+)% to ([\d.]+)%", printed(notebook))
        for eer, low, high in (map(float, dev), map(float, new)):
            assert low <= eer <= high < 50  # it has learnt something
    else:
        assert len(pictures(notebook)) == 3  # the clip, the timeline, the explanation
        assert re.search("segments? above the threshold", "".join(shown(notebook, "text/html")))
        assert "What it does not mean" in shown(notebook, "text/markdown")[0]
        assert re.search(r"^EER % .*\[", printed(notebook), re.MULTILINE)


# ---------------------------------------------------------------- as committed


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_notebook_is_whole_and_small(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.get("made_of_sha256") == made_of(notebook), (
        f"{name}: outputs of other code or another detector, {REFRESH}"
    )
    assert (EXAMPLES / name).stat().st_size < LARGEST
    check_outputs(name, notebook)
    words = [cell.source for cell in notebook.cells] + [printed(notebook)]
    words += shown(notebook, "text/plain") + [EMBEDDED.sub("", text) for text in shown(notebook, "text/html")]
    assert [found[0] for found in map(ABSOLUTE.search, words) if found] == []


def test_every_notebook_is_known():
    assert {path.name for path in EXAMPLES.glob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.parametrize("shipped", [True, False], ids=["shipped", "none shipped"])
@pytest.mark.parametrize("runs", [["1-lcnn", "2-resmax"], []], ids=["runs", "no runs"])
def test_the_detector_is_the_shipped_one_or_the_newest_run_or_trained_now(shipped, runs, tmp_path, monkeypatch, capsys):
    """The cell that chooses, in all states of a checkout."""
    finished = []

    def train(words):
        finish(f"3-{words[words.index('--model') + 1]}")
        finished.append(words)

    def finish(name):
        (Path("runs") / name).mkdir(parents=True)
        (Path("runs") / name / "metrics.json").touch()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model, "PRETRAINED", tmp_path)
    monkeypatch.setitem(sys.modules, "main", SimpleNamespace(main=train))
    if shipped:
        Path(f"{DEFAULT_MODEL}.keras").touch()
    for name in runs:
        finish(name)
    Path("runs/9-unfinished").mkdir(parents=True)
    (cell,) = (cell for cell in code_cells(read("score_your_own.ipynb")) if "PRETRAINED" in cell.source)
    state = {"Path": Path}
    exec(cell.source, state)
    expected = DEFAULT_MODEL if shipped else Path("runs/2-resmax") if runs else Path("runs/3-lcnn")
    assert state["MODEL"] == expected
    assert len(finished) == (not shipped and not runs)
    assert f"model: {expected} (" in capsys.readouterr().out


# ---------------------------------------------------------------- run


def written_here() -> dict[str, list[str]]:
    """What lies in the folders that a notebook writes to when nobody gives it another place."""
    names = ("runs", "demo_corpus", "my_files", "my_data", "my_results", "examples")
    return {name: sorted(path.name for path in (EXAMPLES.parent / name).glob("*")) for name in names}


@pytest.mark.long
def test_the_notebooks_run_in_an_empty_folder_and_leave_nothing_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    before = written_here()
    for name in NOTEBOOKS:
        notebook = execute(EXAMPLES / name, tmp_path)
        check_outputs(name, notebook)
        assert str(tmp_path) not in nbformat.writes(notebook)
    assert written_here() == before

    (run,) = (tmp_path / "runs").glob("*-lcnn")
    assert (run / "report.html").is_file()
    shipped = model.PRETRAINED / f"{DEFAULT_MODEL}.keras"
    used, called = (shipped, DEFAULT_MODEL) if shipped.is_file() else (run / "best.keras", f"runs/{run.name}")
    assert f"model: {called} (" in printed(notebook).replace("\\", "/")
    results = tmp_path / "my_results"
    verdicts = pd.read_csv(results / "verdicts.csv").set_index("file")
    assert set(verdicts.columns) >= set(CSV_COLUMNS)
    assert list(verdicts.index) == ["broken.wav", "long.flac", "recorded.wav", "synthetic.mp3"]
    assert "cannot be decoded" in verdicts.loc["broken.wav", "error"]
    assert verdicts["error"].notna().sum() == 1
    assert (results / "eda" / "report.html").is_file()
    assert {path.suffix for path in results.glob("long.*")} == {".csv", ".json", ".txt", ".png"}

    # the copy has the threshold of the user's clips, the detector keeps its own
    asked, copied = (model.read_card(path)["operating_point"] for path in (used, results / "my_detector.keras"))
    assert copied["source"].endswith("clips of my_data")
    assert asked["threshold"] != copied["threshold"]
    lines = re.findall(r"threshold ([+-][\d.]+)  probability", printed(notebook))
    assert lines == [f"{point['threshold']:+.2f}" for point in (asked, copied)]
