"""How every figure of the project looks, and how it is written.

Figures are made without pyplot, so they need no display and leave no global state; colours are those of Okabe
and Ito, told apart by colour-blind readers.
"""

import base64
import html
import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from errors import UserError

BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#000000",
)
CURVE_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, BLACK)
LINE_STYLES = ("-", "--", "-.", ":")
CLASS_COLOURS = (BLUE, ORANGE)  # by label: bona fide, spoof
CLASS_NAMES = ("bona fide", "spoof")
HALF_A_TITLE = 24  # characters


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def figure_with_axes(width: float = 6.0, height: float = 5.0) -> tuple[Figure, Axes]:
    """A figure of one panel."""
    figure = new_figure(width, height)
    return figure, tidy(figure.add_subplot())


def tidy(axes: Axes) -> Axes:
    """Light grid behind the data, no frame on the right and above."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def file_title(path: str | Path) -> str:
    """A file's name as a title has room for it: the middle of a long one is left out."""
    name = Path(path).name
    return name if len(name) <= 2 * HALF_A_TITLE else f"{name[:HALF_A_TITLE]}...{name[-HALF_A_TITLE:]}"


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure, PNG by its suffix, into a folder that is made if need be."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, bbox_inches="tight", pad_inches=0.12)
    except OSError as error:
        raise UserError(f"{path}: the plot cannot be written ({error.strerror})") from error
    return path


def png_bytes(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", bbox_inches="tight", pad_inches=0.12)
    return picture.getvalue()


def image_tag(png: bytes, description: str) -> str:
    """A PNG file as an HTML element that needs no file; `description` stands in for who cannot see it."""
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def curve_style(number: int) -> dict[str, object]:
    """Colour and dashes of the number-th curve of a figure."""
    return {
        "color": CURVE_COLOURS[number % len(CURVE_COLOURS)],
        "linestyle": LINE_STYLES[number % len(LINE_STYLES)],
        "linewidth": 1.8,
    }
