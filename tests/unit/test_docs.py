"""The documentation speaks of things that exist."""

import importlib
import re

import pytest

from tests.conftest import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
NAMES = sorted(
    {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"`(rdmd(?:\.\w+)+)`", page.read_text(encoding="utf-8"))
    }
)


@pytest.mark.parametrize(("page", "name"), NAMES)
def test_every_dotted_name_is_a_module_or_something_in_one(page: str, name: str):
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[end:]:
            found = getattr(found, attribute)
        return
    pytest.fail(f"docs/{page} names {name}, which does not exist")


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
