"""One row of the table, and the ways in which most rows spoil a project."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One thing that a person can get wrong."""

    name: str
    prepare: Callable[[], object]
    """Spoils the project in the current folder. What it returns is entered, if it can be, while the command runs."""
    command: str
    """`rdmd ...` runs in this process, `python ...` in one of its own, and `stage NAME` is `python -m
    flows.stages.training NAME` in this one."""
    names: str
    """The file or the key, as the sentence names it."""
    remedy: str
    """What the sentence advises."""
    adds: tuple[str, ...] = ()
    """Patterns of what may appear; every one of them must. Nothing that was there may change."""
    environment: Mapping[str, str] = field(default_factory=dict)
    apart: bool = False
    """Whether trainings run in processes of their own, as for a user. In this one they take seconds less."""


def nothing() -> None:
    """For rows whose command line alone is wrong."""


def edited(old: str, new: str) -> Callable[[], None]:
    """Replace a piece of params.yaml that stands there once."""

    def prepare() -> None:
        params = Path("params.yaml")
        text = params.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in params.yaml"
        params.write_text(text.replace(old, new))

    return prepare


def written(path: str, content: str | bytes) -> Callable[[], None]:
    """Put a file there, in place of whatever was."""

    def prepare() -> None:
        target = Path(path)
        if target.is_dir():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    return prepare


def removed(path: str) -> Callable[[], None]:
    """Take a file or a folder away."""

    def prepare() -> None:
        target = Path(path)
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return prepare


def cut_short(path: str) -> Callable[[], None]:
    """Keep the first half of a file."""

    def prepare() -> None:
        target = Path(path)
        target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])

    return prepare


def both(*steps: Callable[[], object]) -> Callable[[], None]:
    """One after another."""

    def prepare() -> None:
        for step in steps:
            step()

    return prepare
