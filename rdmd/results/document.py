"""A page of which parts are generated and the rest is written by hand."""

import re
from pathlib import Path

from rdmd.errors import UserError
from rdmd.files import write_text


def update(page: Path, sections: dict[str, str], headings: dict[str, str]) -> None:
    """Replace what stands between the markers of each section, and leave all else as it is.

    A section without markers is appended under its heading; a page that does not exist is begun. Raises UserError if a
    marker stands alone.
    """
    text = page.read_text(encoding="utf-8") if page.exists() else "# Results\n"
    for name, content in sections.items():
        begin, end = begin_marker(name), end_marker(name)
        if (text.count(begin), text.count(end)) == (0, 0):
            text = f"{text.rstrip()}\n\n## {headings[name]}\n\n{begin}\n{end}\n"
        if (text.count(begin), text.count(end)) != (1, 1) or text.index(begin) > text.index(end):
            raise UserError(f"{page}: the markers `{begin}` and `{end}` must each stand once, in this order; "
                            "mend them.")
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        filled = f"{begin}\n{content.strip()}\n{end}"
        text = pattern.sub(lambda _, filled=filled: filled, text)
    write_text(page, text)


def begin_marker(name: str) -> str:
    """Where a generated section begins."""
    return f"<!-- begin generated: {name} -->"


def end_marker(name: str) -> str:
    """Where it ends."""
    return f"<!-- end generated: {name} -->"
