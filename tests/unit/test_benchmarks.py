"""The harness of the benchmarks: what is timed against what, and what is kept of it."""

import json
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from benchmarks.__main__ import LIGHT
from benchmarks.record import Record, record
from benchmarks.timing import Spread, Timing, interleaved
from tests.conftest import ROOT

CPU = torch.device("cpu")


def test_a_record_says_what_was_measured_on_what_and_when(tmp_path: Path, capsys: pytest.CaptureFixture):
    file = record("loader", {"loader_over_consumption": 7.123456, "batch": 64}, CPU, tmp_path)
    kept = json.loads(file.read_text())
    assert kept["benchmark"] == "loader"
    assert kept["figures"] == {"loader_over_consumption": 7.123, "batch": 64}
    assert timedelta() <= datetime.now(UTC) - datetime.fromisoformat(kept["date"]) < timedelta(minutes=1)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert kept["commit"].removesuffix("+changes") == head
    assert kept["device"] == f"CPU, {torch.get_num_threads()} threads"
    assert platform.node() not in re.split(r"[^\w-]+", file.name + file.read_text())
    assert Record.model_validate(kept).machine == kept["machine"]
    assert "loader_over_consumption  7.123" in capsys.readouterr().out


def test_a_second_run_leaves_the_first_one_s_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = record("scale", {"seconds": 1.0}, CPU, tmp_path)
    monkeypatch.setattr("benchmarks.record.datetime", _Later)
    second = record("scale", {"seconds": 2.0}, CPU, tmp_path)
    values = [json.loads(file.read_text())["figures"]["seconds"] for file in (first, second)]
    assert values == [1.0, 2.0]


class _Later(datetime):
    @classmethod
    def now(cls, tz: object = None) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=5)


def test_what_is_no_number_is_not_recorded(tmp_path: Path):
    with pytest.raises(ValidationError):
        record("scale", {"seconds": float("nan")}, CPU, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_contenders_take_turns_and_warm_up_uncounted():
    calls: list[str] = []
    timings = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, CPU, rounds=3, calls=2)
    assert "".join(calls) == "aabb" + "aabb" * 3
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]


def test_a_ratio_is_taken_within_rounds():
    # The machine was four times slower in the second round: that is in both, and not in their ratio.
    a, b = Timing((2.0, 8.0, 2.2)), Timing((1.0, 4.0, 1.0))
    assert a.over(b) == Spread(median=2.0, low=2.0, high=2.2)


def test_quartiles():
    assert Spread.of((1.0, 2.0, 3.0, 4.0, 5.0)) == Spread(3.0, 2.0, 4.0)
    assert Spread(3.0, 2.0, 4.0).figures("x") == {"x": 3.0, "x_low": 2.0, "x_high": 4.0}


def test_what_runs_on_a_bare_gpu_machine_needs_nothing_that_is_not_there():
    heavy = {"prefect", "mlflow", "dvc", "sklearn", "skimage", "great_expectations", "torch_fidelity", "matplotlib"}
    here = [name for name in LIGHT if find_spec(f"benchmarks.{name}")]
    assert here
    script = f"import sys, {', '.join(f'benchmarks.{name}' for name in here)}; print(*{heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
