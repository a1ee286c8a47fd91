"""The look of every figure: a method has its own marker and line as well as its own colour, for prints in grey."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rdmd.evaluation.row import GENERATOR, IDENTITY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
INK, FAINT, GRID = "#1b1b1b", "#8a8a8a", "#e6e6e6"


@dataclass(frozen=True)
class Style:
    """A colour, a marker, and a line style of matplotlib. The colours differ in lightness as well as in hue."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[float, ...]] = "-"


_METHODS = {
    GENERATOR: Style("#0b3c6f", "o", "-"),
    "sdedit": Style("#d9730d", "s", "--"),
    "sdedit-sde": Style("#8c4a08", "D", (0, (6, 1.5, 1.5, 1.5))),
    "ilvr": Style("#2f8f6b", "^", "-."),
    "egsde": Style("#b0468f", "v", (0, (3, 1, 1, 1, 1, 1))),
    "ddib": Style("#a3a51f", "P", ":"),
    "neural-ot": Style("#c23b3b", "*", (0, (9, 2))),
    "cut": Style("#5b4fb3", "d", (0, (2, 2))),
    "teacher": Style("#6f6f6f", "h", "--"),
    IDENTITY: Style(INK, "X", ""),
}
_OTHERS = [Style("#4fa3d9", "p", "-."), Style("#555555", "<", ":"), Style("#9a7fd1", ">", "--")]
# For series that are not methods, by their order.
CYCLE = [
    _METHODS[method] for method in (GENERATOR, "sdedit", "ilvr", "egsde", "ddib", "sdedit-sde", "neural-ot", "cut")
]


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """A style for each method, the generator first: fixed for the methods of this project, by order for others."""
    ordered = sorted(dict.fromkeys(methods), key=lambda method: method != GENERATOR)
    others = [method for method in ordered if method not in _METHODS]
    known = _METHODS | {method: _OTHERS[index % len(_OTHERS)] for index, method in enumerate(others)}
    return {method: known[method] for method in ordered}


def new_figure(width: float, height: float, dpi: int = DPI, constrained: bool = True) -> "Figure":
    """An empty white figure, `width` x `height` inches, outside pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.07) if constrained else None
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: "Axes", grid: Literal["both", "x", "y"] = "both") -> None:
    """A light grid on one axis or both, no frame at the top and on the right, small ticks."""
    axes.grid(True, which="major", axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def png_bytes(figure: "Figure") -> bytes:
    """The figure as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, metadata={"Software": None})
    return buffer.getvalue()
