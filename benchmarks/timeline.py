"""Where the seconds of a pipeline went, from what its processes noted (`benchmarks/site/sitecustomize.py`)."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

Kind = Literal["work", "training start", "flow", "stage start", "dvc"]
# Each moment belongs to the first of these that goes on then.
KINDS: tuple[Kind, ...] = ("work", "training start", "flow", "stage start", "dvc")
_STAGES = ("rdmd", "teacher", "distill", "baselines", "evaluate", "register")
_TRAINING = "run"


@dataclass(frozen=True)
class Span:
    """Something that went on from one moment to another, in seconds of the clock on the wall."""

    kind: Kind
    name: str
    begun: float
    ended: float


def read_spans(file: Path) -> list[Span]:
    """The work, and the processes of stages and trainings, in order of their begin; other processes are left out."""
    spans = []
    for line in file.read_text(encoding="utf-8").splitlines():
        noted = json.loads(line)
        kind, name = noted["kind"], noted["name"]
        if kind == "process":
            kind = "stage start" if name in _STAGES else "training start" if name == _TRAINING else None
        elif kind == "copy":
            # A stage that is a copy of the warm process has a client, which is a process as long.
            kind = "training start" if name == _TRAINING else None
        if kind is not None:
            spans.append(Span(kind, name, noted["begun"], noted["ended"]))
    return sorted(spans, key=lambda span: span.begun)


@dataclass(frozen=True)
class CpuSeconds:
    """CPU time of all Python processes, and how much of it was work."""

    work: float
    all: float


def read_cpu(file: Path) -> CpuSeconds:
    """From every process, and every copy of the warm one, that ended by itself."""
    noted = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    lives = {"process", "copy"}
    work, every = (sum(one["cpu"] for one in noted if one["kind"] in kinds) for kinds in ({"work"}, lives))
    return CpuSeconds(work, every)


def shares(spans: Iterable[Span], begun: float, ended: float) -> dict[Kind, float]:
    """Seconds between two moments by what went on. They add up to all of the time.

    Work is what the pipeline is for; training start, a training process that does not train (yet); flow, a flow outside
    both, thus Prefect and MLflow; stage start, a stage's process outside its flow, thus Python's start and imports;
    dvc, the rest: DVC itself, and the start and the end of Prefect's server where they take longer than the stages.
    """
    spans = list(spans)
    marks = {begun, ended} | {t for span in spans for t in (span.begun, span.ended) if begun < t < ended}
    found: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
    ordered = sorted(marks)
    for start, end in pairwise(ordered):
        going_on = {span.kind for span in spans if span.begun <= start and end <= span.ended}
        found[next((kind for kind in KINDS if kind in going_on), "dvc")] += end - start
    return found
