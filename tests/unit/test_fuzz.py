"""A short form of `python -m benchmarks.fuzz`, and whether it notices what it looks for."""

import resource
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fuzz
from benchmarks.fuzz import targets
from rdmd.errors import UserError

# Reading params.yaml takes a hundred times as long as reading a small image.
EXECUTIONS = {"params": 20}


@pytest.mark.parametrize("name", ["images", "archives", "idx", "safetensors", "edm", "params", "request", "upload"])
def test_damaged_input_gives_a_result_or_a_sentence(name: str, tmp_path: Path):
    target = targets(tmp_path)[name]
    executions, findings = fuzz.fuzz(target, seed=1, first=0, seconds=30, most=EXECUTIONS.get(name, 300))
    assert executions > 0
    assert findings == {}


def raising(given: object) -> None:
    raise KeyError(given)


def refusing(given: object) -> None:
    raise UserError("this is wrong; correct it.")


def sleeping(given: object) -> None:
    deadline = time.process_time() + 0.05
    while time.process_time() < deadline:
        pass


def filling(given: object) -> None:
    # More than what other tests of this process ever filled, above which alone it is seen.
    np.ones(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10 + 2**26, np.uint8)


@pytest.mark.parametrize(
    ("run", "found"), [(raising, "KeyError"), (refusing, None), (sleeping, "slow"), (filling, "memory")]
)
def test_it_finds_errors_hangs_and_memory(run, found, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.04)
    monkeypatch.setattr(fuzz, "MEMORY_KIB", 2**14)
    executions, findings = fuzz.fuzz((run, lambda rng: rng.random()), seed=0, first=0, seconds=10, most=1)
    assert executions == 1
    kinds = [kind.split(" ")[0] for kind in findings]
    # Filling memory may also take longer than 0.04 s.
    assert found in kinds if found else kinds == []


def test_an_execution_is_repeatable(tmp_path: Path):
    make = targets(tmp_path / "a")["archives"][1]
    other = targets(tmp_path / "b")["archives"][1]
    assert make(fuzz.random.Random("0 7")) == other(fuzz.random.Random("0 7"))
