"""Run the notebooks from top to bottom in an empty folder and keep what they show.

    python examples/execute.py                       all of them, after a change of a cell or of resmax; three minutes
    python examples/execute.py quickstart.ipynb      one

They run with the files of this project, and what they write (corpus, runs, results) goes to a temporary folder.
Needs requirements-dev.txt. The pictures are drawn small, so that the notebooks stay small in git.
"""

import argparse
import base64
import hashlib
import io
import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

EXAMPLES = Path(__file__).resolve().parent
DETECTOR = EXAMPLES.parent / "pretrained" / "resmax.keras"
NOTEBOOKS = ("quickstart.ipynb", "score_your_own.ipynb")  # in this order: the second takes the first one's detector
PICTURES = "savefig.dpi: 85\n"  # for matplotlib; in a notebook that somebody runs they have 130
COLOURS = 128  # of a picture that is kept: a third of the bytes
EMBEDDED = re.compile(r'(?<=src="data:image/png;base64,)[^"]+')
SECONDS = 600  # that a cell may take


def made_of(notebook: nbformat.NotebookNode) -> str:
    """What the outputs of a notebook belong to, hashed: its code, cell by cell, and the detector that ships."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode() + DETECTOR.read_bytes()).hexdigest()


def fewer_colours(picture: str) -> str:
    """A PNG in base64 with a palette of COLOURS."""
    small = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def shrink_pictures(notebook: nbformat.NotebookNode) -> None:
    """Pictures of a notebook's outputs, also those in HTML, with fewer colours."""
    for cell in notebook.cells:
        for data in (output.get("data", {}) for output in cell.get("outputs", ())):
            if "image/png" in data:
                data["image/png"] = fewer_colours(data["image/png"])
            if "text/html" in data:
                data["text/html"] = EMBEDDED.sub(lambda found: fewer_colours(found[0]), data["text/html"])


def execute(path: Path, work: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run whose files go to `work`; an error in a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    settings = work / "matplotlibrc"
    settings.write_text(PICTURES, encoding="utf-8")
    own = {"NOTEBOOK_WORK": work, "MATPLOTLIBRC": settings, "IPYTHONDIR": work / "ipython"}
    client = NotebookClient(
        notebook, timeout=SECONDS, record_timing=False, resources={"metadata": {"path": path.parent}}
    )
    client.execute(env={**os.environ, **{name: str(value) for name, value in own.items()}})
    shrink_pictures(notebook)
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of whoever ran it
    notebook.metadata["made_of_sha256"] = made_of(notebook)
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the notebooks and keep what they show.")
    parser.add_argument("notebooks", nargs="*", default=NOTEBOOKS, metavar="NAME", help="all, without a name")
    with tempfile.TemporaryDirectory() as folder:
        for name in parser.parse_args().notebooks:
            notebook = execute(EXAMPLES / name, Path(folder))
            nbformat.write(notebook, EXAMPLES / name)
            print(f"{name}: {(EXAMPLES / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
