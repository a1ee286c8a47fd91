"""A short form of `python -m benchmarks.torture`, and whether it notices losses."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import torture
from benchmarks.torture import Trial, compare, outcome_of


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_kills_lose_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torture, "KILLS", 3)
    trials = torture.torture(["kill"])
    assert [trial.lost for trial in trials] == [{}]


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """The files of a project at the end of its pipeline, with a registry that answers from a file."""
    monkeypatch.setattr(torture, "LOAD_VERSIONS", "print(open('registry').read())")
    root = tmp_path / "trial"
    for name in ("models/teacher/model.safetensors", "runs/0a/model.safetensors", "registry"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "reports").mkdir()
    (root / "reports" / "metrics.json").write_text(json.dumps({"rows": [{"fid": 1.0, "train_seconds": 2.0}]}))
    made = Trial(root, "term")
    made.log.touch()
    return made


def written(name: str, text: str) -> Callable[[Trial], object]:
    return lambda trial: (trial.path / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda trial: None, set()),
        (written("reports/metrics.json", '{"rows": [{"fid": 1.0, "train_seconds": 3.0}]}'), set()),
        (written("reports/metrics.json", '{"rows": [{"fid": 1.1, "train_seconds": 2.0}]}'), {"metrics"}),
        (written("runs/0a/model.safetensors", "other"), {"weights"}),
        (lambda trial: (trial.path / "models" / "teacher" / "model.safetensors").unlink(), {"weights", "files"}),
        (written("registry", "none"), {"registry"}),
        (written("runs/0a/.checkpoint.pt.abcdefgh.part", "half"), {"files"}),
        (lambda trial: trial.log.write_text("Traceback (most recent call last):\n  x\nKeyError: 1\n"), {"sentence"}),
    ],
)
def test_a_loss_is_noticed(trial: Trial, change: Callable[[Trial], object], lost: set[str]):
    reference = outcome_of(trial)
    change(trial)
    compare(trial, reference)
    assert set(trial.lost) == lost


def test_a_process_that_is_left_is_noticed_and_killed(trial: Trial):
    command = [sys.executable, "-c", "print(1, flush=True); input()"]
    process = subprocess.Popen(
        command, env=trial.environment(), start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    trial.wait_for_end(0.5)
    assert "input()" in trial.lost["processes"]
    process.wait(10)
    assert trial.processes() == []
