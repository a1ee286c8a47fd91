"""The documentation speaks of things that exist."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

from rdmd import config
from tests.conftest import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
NAMES = sorted(
    {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"`(rdmd(?:\.\w+)+)`", page.read_text(encoding="utf-8"))
    }
)

# Settings that a page gives to `dvc exp run -S`.
OVERRIDES = sorted(
    {
        (page.name, override.replace("$seed", "1"))
        for page in [ROOT / "README.md", *PAGES]
        for override in re.findall(r"-S '?(\+*[a-z_.]+=[^\s'`;)]+)", page.read_text(encoding="utf-8"))
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


@pytest.mark.parametrize(("page", "override"), OVERRIDES)
def test_dvc_takes_every_override(page: str, override: str, tmp_path: Path):
    for sweep in get_hydra_sweeps({"params.yaml": [override]}):
        changed = Path(shutil.copy(ROOT / "experiments" / "avatars.yaml", tmp_path))
        apply_overrides(changed, sweep["params.yaml"])
        config.load(changed)


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"(?:\]\(|\bsrc=\")([^)\"#\s]+)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_site_has_no_broken_link_and_loads_nothing_from_the_network(tmp_path: Path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        build, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?((?:https?:)?//[^\">]*)", html)
        assert not loaded, f"{page.name} loads {loaded}"
