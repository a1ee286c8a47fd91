"""What the seconds of a pipeline are put down to, from real processes that note themselves."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.timeline import Span, read_cpu, read_spans, shares
from tests.conftest import ROOT


def test_every_moment_belongs_to_one_thing_and_work_comes_first():
    spans = [
        Span("stage start", "teacher", 2.0, 20.0),
        Span("flow", "run_stage", 5.0, 19.0),
        Span("training start", "run", 6.0, 16.0),
        Span("work", "train", 8.0, 15.0),
        Span("work", "train", 12.0, 15.5),  # beside the other, as a second lambda is
    ]
    found = shares(spans, 0.0, 22.0)
    assert found == {"work": 7.5, "training start": 2.5, "flow": 4.0, "stage start": 4.0, "dvc": 4.0}
    assert sum(found.values()) == 22.0


def test_what_lies_outside_the_moments_asked_for_is_left_out():
    found = shares([Span("work", "train", 0.0, 10.0)], 4.0, 7.0)
    assert found["work"] == pytest.approx(3.0)
    assert sum(found.values()) == pytest.approx(3.0)


def test_a_process_notes_its_life_its_flow_and_its_work(tmp_path: Path):
    """Stand-ins of a stage and a training in the places of the real ones; what notes them is the real thing."""
    slow = "import time\n\ndef {name}():\n    time.sleep(0.2)\n    sum(range(100_000))\n"
    package = tmp_path / "rdmd" / "training"
    package.mkdir(parents=True)
    (package / "loop.py").write_text(slow.format(name="train"))
    (package / "run.py").write_text("from rdmd.training.loop import train\ntrain()\n")
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "stage.py").write_text("def run_stage(work):\n    work()\n")
    (flows / "teacher.py").write_text(
        "import subprocess, sys\nfrom flows.stage import run_stage\n"
        "run_stage(lambda: subprocess.run([sys.executable, '-m', 'rdmd.training.run'], check=True))\n"
    )
    noted = tmp_path / "noted.jsonl"
    environment = os.environ | {
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'benchmarks' / 'site'}", "RDMD_TIMELINE": str(noted),
    }
    begun = time.time()
    subprocess.run([sys.executable, "-m", "flows.teacher"], cwd=tmp_path, env=environment, check=True)
    spans = read_spans(noted)
    assert [(span.kind, span.name) for span in spans] == [
        ("stage start", "teacher"), ("flow", "run_stage"), ("training start", "run"), ("work", "train")
    ]
    cpu = read_cpu(noted)
    assert 0 < cpu.work < cpu.all
    found = shares(spans, begun, time.time())
    assert 0.2 <= found["work"] < found["work"] + found["training start"] < spans[1].ended - spans[1].begun
