"""The figures of a benchmark as one JSON file, with the machine, the commit and the date."""

import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

from benchmarks.machine import machine
from rdmd.files import write_text
from rdmd.pipeline.layout import git_commit
from rdmd.training.run import device_name

RESULTS = Path(__file__).parent / "results"
_ROOT = Path(__file__).parents[1]


class Record(BaseModel):
    """The figures of one benchmark in one run on one machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str = Field(pattern=r"^[a-z0-9_]+$")
    date: AwareDatetime
    commit: str
    """The measured git commit, with `+changes` if the work tree differed from it, or `unknown`."""
    machine: str
    """The processor's model and its cores."""
    device: str
    """Where the networks ran: the GPU's model, or the CPU's threads."""
    figures: dict[str, FiniteFloat]
    """Each name gives its unit; a figure without a unit is a ratio or a count."""


def record(benchmark: str, figures: Mapping[str, float], device: torch.device, results: Path = RESULTS) -> Path:
    """Print figures and write them to a new file below `results`. Returns the file.

    It keeps four significant digits. Raises ValidationError if a figure is not finite.
    """
    kept = Record(
        benchmark=benchmark,
        date=datetime.now(UTC).replace(microsecond=0),
        commit=_COMMIT,
        machine=machine(),
        device=device_name(device),
        figures={name: _rounded(value) for name, value in figures.items()},
    )
    print(f"\n{kept.benchmark} on {kept.machine} ({kept.device}), commit {kept.commit[:12]}")
    width = max(map(len, kept.figures), default=0)
    for name, value in kept.figures.items():
        print(f"  {name:<{width}}  {value:g}")
    hardware = kept.device if device.type == "cuda" else kept.machine
    path = results / f"{benchmark}.{_slug(hardware)}.{kept.date:%Y%m%dT%H%M%SZ}.json"
    write_text(path, kept.model_dump_json(indent=2) + "\n")
    return path


# Of the code that this process runs; the work tree may change meanwhile.
_COMMIT = str(git_commit(_ROOT) or "unknown")


def say(text: str) -> None:
    """Print progress to stderr, so that stdout has only figures."""
    print(text, file=sys.stderr, flush=True)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
