"""How all figures look: methods differ in marker and line as well as colour, so grey prints can be read."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rdmd.evaluation.row import GENERATOR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
INK = "#1b1b1b"
FAINT = "#8a8a8a"


@dataclass(frozen=True)
class Style:
    """A method's look. The colours differ in lightness, not in hue alone."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]


_GENERATOR = Style("#0b3c6f", "o", "-")
_KNOWN = {
    "sdedit": Style("#d9730d", "s", "--"),
    "sdedit-sde": Style("#8c4a08", "D", (0, (6, 1.5, 1.5, 1.5))),
    "ilvr": Style("#2f8f6b", "^", "-."),
    "egsde": Style("#b0468f", "v", (0, (3, 1, 1, 1, 1, 1))),
    "ddib": Style("#a3a51f", "P", ":"),
    "neural-ot": Style("#c23b3b", "*", (0, (9, 2))),
    "teacher": Style("#6f6f6f", "h", "--"),
}
_OTHERS = [
    Style("#4fa3d9", "p", "-."),
    Style("#555555", "<", ":"),
    Style("#9a7fd1", ">", "--"),
]


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """A style for each method: the same in every figure for those of this project, by their order for others."""
    others = [method for method in dict.fromkeys(methods) if method not in {GENERATOR, *_KNOWN}]
    chosen = {method: _OTHERS[index % len(_OTHERS)] for index, method in enumerate(others)}
    return {GENERATOR: _GENERATOR} | {method: _KNOWN.get(method) or chosen[method] for method in methods
                                      if method != GENERATOR}


def new_figure(width: float, height: float, dpi: int = DPI) -> "Figure":
    """An empty white figure of so many inches, outside pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png_of(figure: "Figure") -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, metadata={"Software": None})
    return buffer.getvalue()
