"""A report as one HTML file that needs no other: figures, tables, sound and short findings.

page = Page("LA", "what this report is about")
page.section("Level")
page.figure(Path("level.png"), "Level by class", "Both classes have the same level.")
page.write(Path("report.html"))

Everything given as text is shown as it is; no markup passes through.
"""

import base64
import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import soundfile
from matplotlib.figure import Figure

from config import SAMPLE_RATE
from errors import UserError
from figure_style import image_tag, png_bytes

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 60rem; margin: 0 auto;
  padding: 1rem 1.2rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: .6rem 0 0; } h2 { font-size: 1.25rem; margin: 2.4rem 0 .4rem;
  border-bottom: 1px solid #ccc; }
nav a { margin-right: 1rem; white-space: nowrap; } a { color: #005a8f; }
figure { margin: 1rem 0; } figcaption { margin-top: .3rem; white-space: pre-line; }
img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; overflow-wrap: normal; }
table { border-collapse: collapse; font-size: .88rem; margin: .6rem 0; }
th, td { padding: .2rem .6rem; text-align: left; border-bottom: 1px solid #e3e3e3; vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; } td.number { white-space: nowrap; }
pre { background: #f5f5f5; padding: .6rem .8rem; overflow-x: auto; font-size: .85rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 1.4rem; }
audio { display: block; width: 100%; max-width: 26rem; height: 2.2rem; }
@media (max-width: 40rem) { .wide img { max-width: 34rem; } .grid .wide img { max-width: 100%; } }
@media print { nav, audio { display: none; } figure, tr { break-inside: avoid; } }
"""


class Page:
    """A report that grows from top to bottom."""

    def __init__(self, title: str, about: str = ""):
        self.title = title
        self.about = about
        self.sections: list[str] = []
        self.parts: list[str] = []

    def section(self, name: str) -> None:
        """A heading, which the list at the top links to."""
        self.sections.append(name)
        self.parts.append(f'<h2 id="section-{len(self.sections)}">{html.escape(name)}</h2>')

    def text(self, text: str) -> None:
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def preformatted(self, text: str) -> None:
        self.parts.append(f"<pre>{html.escape(text)}</pre>")

    def link(self, text: str, target: str) -> None:
        """A link to a file beside the page, given relative to it."""
        self.parts.append(f'<p><a href="{html.escape(quote(target))}">{html.escape(text)}</a></p>')

    @contextmanager
    def side_by_side(self) -> Iterator[None]:
        """What is added meanwhile stands in columns, one alone on a narrow screen."""
        self.parts.append('<div class="grid">')
        yield
        self.parts.append("</div>")

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is added meanwhile stays one piece in the columns of `side_by_side`."""
        self.parts.append("<div>")
        yield
        self.parts.append("</div>")

    def figure(self, picture: Figure | Path, description: str, finding: str = "") -> None:
        """A figure or a PNG file; `description` stands in for who cannot see it, the lines of `finding` below it."""
        data = picture.read_bytes() if isinstance(picture, Path) else png_bytes(picture)
        self.parts.append(
            f'<figure><div class="wide">{image_tag(data, description)}</div>'
            f"<figcaption>{html.escape(finding)}</figcaption></figure>"
        )

    def table(self, table: pd.DataFrame) -> None:
        """The rows of a table, without its index; floats keep four significant digits, a text can be a number too.

        Numbers stand at the right, and so does the dash that stands for one.
        """
        columns = [[_cell(value) for value in table.iloc[:, place]] for place in range(table.shape[1])]
        numbers = [any(number for _, number in column) for column in columns]
        head = "".join(_tag("th", str(name), number) for name, number in zip(table.columns, numbers, strict=True))
        columns = [
            [(text, right or (among_numbers and text == "-")) for text, right in column]
            for column, among_numbers in zip(columns, numbers, strict=True)
        ]
        rows = ("".join(_tag("td", *cell) for cell in row) for row in zip(*columns, strict=True))
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        self.parts.append(f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>')

    def audio(self, waveform: np.ndarray, caption: str) -> None:
        """A player of a waveform (samples,) at 16 kHz, without loss."""
        sound = io.BytesIO()
        soundfile.write(sound, np.clip(waveform, -1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        encoded = base64.b64encode(sound.getvalue()).decode()
        self.parts.append(
            f'<figure><audio controls preload="none" src="data:audio/flac;base64,{encoded}"></audio>'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def write(self, path: Path) -> Path:
        """Write the page; the folder is made if need be."""
        path = Path(path)
        links = " ".join(
            f'<a href="#section-{number}">{html.escape(name)}</a>' for number, name in enumerate(self.sections, 1)
        )
        title = html.escape(self.title)
        text = (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
            f"<body><h1>{title}</h1><p>{html.escape(self.about)}</p><nav>{links}</nav>\n"
            + "\n".join(self.parts)
            + "\n</body></html>\n"
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: the report cannot be written ({error.strerror})") from error
        return path


def _cell(value: object) -> tuple[str, bool]:
    """What a table shows of a value, and whether that is a number."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no", False
    if isinstance(value, int | np.integer):
        return f"{value:,}", True
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.4g}", True
    return str(value), re.fullmatch(r"[+-]?[\d,]+(\.\d+)?( %)?", str(value)) is not None


def _tag(kind: str, text: str, number: bool) -> str:
    attribute = ' class="number"' if number else ""
    return f"<{kind}{attribute}>{html.escape(text)}</{kind}>"
