"""Pieces of the page that several of its sections are made of."""

import base64
from collections.abc import Iterable, Sequence
from html import escape


def section(title: str, content: str) -> str:
    """A part of the page under a heading."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def image(png: bytes, alt: str) -> str:
    """A picture that is part of the page itself."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">'


def figure(png: bytes, alt: str) -> str:
    """A picture that scrolls in a box of its own where the page is narrower."""
    return f'<figure><div class="scroll">{image(png, alt)}</div></figure>'


def table(label: str, headings: Sequence[str], lines: Iterable[str], kind: str = "") -> str:
    """A table of finished `<tr>` lines that scrolls in a box of its own; `label` tells what it is to a reader."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    classes = f' class="{kind}"' if kind else ""
    return (
        f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0"><table{classes}>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>\n</table></div>"
    )


def line(name: str, cells: Iterable[str], kind: str = "") -> str:
    """A table's line: what it is about, then its cells, all escaped here."""
    classes = f' class="{kind}"' if kind else ""
    row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr{classes}><th scope="row">{escape(name)}</th>{row}</tr>'
