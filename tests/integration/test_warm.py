"""Stages and trainings as copies of a warm process: the same as by a Python of their own, and never left behind."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rdmd import config
from rdmd.domains.preprocess import preprocess
from rdmd.errors import Interrupted
from rdmd.files import sha256_of
from rdmd.pipeline.launch import Slot, TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.plan import plan_teacher
from rdmd.training.folder import Point, RunFolder
from rdmd.warm.protocol import ADDRESS
from rdmd.warm.start import STOP_SECONDS, warm_process
from tests.conftest import ROOT, params, tiny_points

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="copies need Linux")

SECONDS = 60.0
PYTEST = "PYTEST_CURRENT_TEST"
ONE_THREAD = Slot("cpu", (), 1)
# What stands for a stage: it hands over, or says that it did not.
STAGE = "from rdmd.warm.client import hand_over; hand_over('job'); print('cold')"
JOB = """
import os, sys, time

print(os.environ["DVC_STAGE"], sys.argv[1:], os.getcwd(), "marker" in sys.modules, os.getpid(), flush=True)
print("a word", file=sys.stderr)
if "wait" in sys.argv:
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        sys.exit(130)
sys.exit(7)
"""
# Ends in the way that it is told to, with something not yet written, a thread still at work and something left to do.
ENDING = """
import atexit, sys, threading, time

atexit.register(print, "at the exit")
threading.Thread(target=lambda: (time.sleep(0.2), print("a thread"))).start()
print("begun")
way = sys.argv[1]
if way == "text":
    sys.exit("a sentence")
if way == "none":
    sys.exit(None)
if way == "number":
    sys.exit(3)
if way == "raise":
    raise ValueError("an error")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with code of its own, which a test may change."""
    folder = tmp_path_factory.mktemp("warm")
    shutil.copytree(ROOT / "rdmd", folder / "rdmd", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "job.py").write_text(JOB, encoding="utf-8")
    (folder / "ending.py").write_text(ENDING, encoding="utf-8")
    (folder / "marker.py").write_text("", encoding="utf-8")
    # Files that are younger than the process would have changed since.
    for file in (folder / "rdmd").rglob("*.py"):
        os.utime(file, (1, 1))
    return folder


@pytest.fixture
def light(project: Path) -> Iterator[dict[str, str]]:
    """The environment of clients of a process that has imported next to nothing."""
    environment = os.environ | {"PYTHONPATH": str(project)}
    with warm_process(["marker", "threadpoolctl"], project, environment, project / "log") as found:
        yield environment | found | {"DVC_STAGE": "a"}


def start(project: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", STAGE, *arguments], cwd=project, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def first_line(stage: subprocess.Popen[str]) -> list[str]:
    assert stage.stdout is not None
    return stage.stdout.readline().split()


def ended(pid: int) -> bool:
    """Whether a process of somebody else's has ended within a while."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_a_copy_takes_over_what_its_client_was_given(project: Path, light: dict[str, str]):
    stage = start(project, light | {"DVC_STAGE": "b"}, "x", "y z")
    out, err = stage.communicate(timeout=SECONDS)
    said, pid = out.rsplit(maxsplit=1)
    assert said == f"b ['x', 'y z'] {project} True"
    assert int(pid) != stage.pid
    assert err == "a word\n"
    assert stage.returncode == 7


@pytest.mark.parametrize("way", ["return", "none", "number", "text", "raise"])
def test_a_copy_ends_as_a_python_of_its_own(way: str, project: Path, light: dict[str, str]):
    def ending(environment: dict[str, str], *command: str) -> tuple[int, str, str]:
        done = subprocess.run([sys.executable, *command, way], cwd=project, env=environment, text=True,
                              capture_output=True, timeout=SECONDS, check=False)
        return done.returncode, done.stdout, done.stderr.strip().rpartition("\n")[2]

    stage = STAGE.replace("job", "ending")
    assert ending(light, "-c", stage) == ending(light, "-m", "ending")
    status, said, _ = ending(light, "-c", stage)
    assert said == "begun\na thread\nat the exit\n"
    assert status == {"number": 3, "text": 1, "raise": 1}.get(way, 0)


def test_a_warm_process_that_nobody_needs_any_more_does_not_finish_importing(project: Path, tmp_path: Path):
    (tmp_path / "slow.py").write_text(f"import time\ntime.sleep({10 * SECONDS})\n", encoding="utf-8")
    begun = time.monotonic()
    with warm_process(["slow"], tmp_path, os.environ | {"PYTHONPATH": str(tmp_path)}, tmp_path / "log"):
        time.sleep(0.5)
    # STOP_SECONDS is what it would be waited for.
    assert time.monotonic() - begun < STOP_SECONDS / 2


def test_copies_are_made_between_the_imports_of_later_modules(project: Path):
    (project / "later.py").write_text("import time\ntime.sleep(3)\n", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(project)}
    later = ["later", "no_such_module", "marker"]
    with warm_process(["threadpoolctl"], project, environment, project / "log", later) as found:
        def stage() -> str:
            return start(project, environment | found | {"DVC_STAGE": "a"}, "x").communicate(timeout=SECONDS)[0]

        # It asks before the seconds of `later` are over, when the marker is not yet there.
        assert stage().rsplit(maxsplit=1)[0] == f"a ['x'] {project} False"
        deadline = time.monotonic() + SECONDS
        while (said := stage().rsplit(maxsplit=1)[0]) != f"a ['x'] {project} True":
            assert said.startswith("a ") and time.monotonic() < deadline
    assert "could not import no_such_module" in (project / "log").read_text(encoding="utf-8")


def test_signals_go_to_the_copy(project: Path, light: dict[str, str]):
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
        stage = start(project, light, "wait")
        pid = int(first_line(stage)[-1])
        stage.send_signal(number)
        assert stage.wait(SECONDS) == status
        assert ended(pid)


def test_a_copy_ends_with_a_client_that_is_killed(project: Path, light: dict[str, str]):
    stage = start(project, light, "wait")
    pid = int(first_line(stage)[-1])
    stage.kill()
    stage.wait(SECONDS)
    assert ended(pid)


def test_a_copy_that_is_killed_is_told_of(project: Path, light: dict[str, str]):
    stage = start(project, light, "wait")
    os.kill(int(first_line(stage)[-1]), signal.SIGKILL)
    _, err = stage.communicate(timeout=SECONDS)
    assert "rdmd: the process that ran this was lost" in err
    assert stage.returncode == -signal.SIGKILL


def test_copies_and_clients_end_with_a_warm_process_that_is_killed(project: Path, light: dict[str, str]):
    stage = start(project, light, "wait")
    pid = int(first_line(stage)[-1])
    warm = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(warm, signal.SIGKILL)
    _, err = stage.communicate(timeout=SECONDS)
    assert "was lost" in err
    assert ended(pid)
    # And the next stage runs as if there had been none.
    assert start(project, light).communicate(timeout=SECONDS)[0] == "cold\n"


@pytest.mark.parametrize("change", [
    {"MLFLOW_TRACKING_URI": "sqlite:///elsewhere.db"}, {"DVC_STAGE": ""}, {ADDRESS: "/nowhere/socket"},
    {"PYTHONPATH": str(ROOT)},
])  # fmt: skip
def test_what_would_run_differently_is_run_cold(project: Path, light: dict[str, str], change: dict[str, str]):
    assert start(project, light | change).communicate(timeout=SECONDS)[0] == "cold\n"


def test_a_stage_of_another_folder_is_run_cold(tmp_path: Path, light: dict[str, str]):
    assert start(tmp_path, light).communicate(timeout=SECONDS)[0] == "cold\n"


def test_code_that_has_changed_since_is_run_cold(project: Path, light: dict[str, str]):
    assert start(project, light).communicate(timeout=SECONDS)[0] != "cold\n"
    os.utime(project / "rdmd" / "warm" / "protocol.py", (2, 2))
    try:
        assert start(project, light).communicate(timeout=SECONDS)[0] == "cold\n"
    finally:
        os.utime(project / "rdmd" / "warm" / "protocol.py", (1, 1))


def test_a_process_that_cannot_import_leaves_stages_to_themselves(project: Path):
    environment = os.environ | {"PYTHONPATH": str(project)}
    with warm_process(["no_such_module"], project, environment, project / "log") as found:
        stage = start(project, environment | found | {"DVC_STAGE": "a"})
        assert stage.communicate(timeout=SECONDS)[0] == "cold\n"


@pytest.fixture
def heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with tiny swissroll, and a process that has imported what trains it, which this one may ask."""
    for name in ("rdmd", "flows"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "params.yaml").write_text(params("swissroll", tiny_points), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # pytest gives it another value in the test than here.
    environment = {name: value for name, value in os.environ.items() if name != PYTEST}
    modules = ["threadpoolctl", "torch", "accelerate", "rdmd.commands", "rdmd.training.teacher"]
    with warm_process(modules, tmp_path, environment, tmp_path / "log") as found:
        monkeypatch.setenv(ADDRESS, found[ADDRESS])
        yield tmp_path


def planned(settings: config.Settings, runs: Path) -> RunFolder:
    """A teacher's run, not begun."""
    return RunFolder.prepare(runs, plan_teacher(settings, Layout()))


def test_what_is_made_warm_is_made_cold(heavy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(PYTEST)
    rdmd = Path(sys.executable).parent / "rdmd"
    stage = subprocess.run([rdmd, "preprocess"], env=os.environ | {"DVC_STAGE": "a"}, capture_output=True, text=True,
                           check=True)
    settings, warm = config.load(), Layout()
    cold = Path("cold")
    for name in ("source", "target"):
        manifest = preprocess(settings, name, cold / name)
        assert manifest.digest[:12] in stage.stdout
        shards = sorted(file.relative_to(cold) for file in (cold / name).rglob("*") if file.is_file())
        assert [sha256_of(warm.shards / file) for file in shards] == [sha256_of(cold / file) for file in shards]

    trained = {}
    for kind in ("warm", "cold"):
        folder = planned(settings, heavy / kind)
        points: list[Point] = []
        trained[kind] = TrainingProcesses().train(folder, ONE_THREAD, points.extend)
        assert points[-1].step == settings.teacher.steps
        monkeypatch.delenv(ADDRESS, raising=False)
    assert trained["warm"].sha256 == trained["cold"].sha256
    assert "refused" not in (heavy / "log").read_text(encoding="utf-8")


def test_a_warm_training_is_stopped_with_a_checkpoint(heavy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(PYTEST)
    settings = config.load()
    settings = settings.model_copy(update={"teacher": settings.teacher.model_copy(update={"steps": 100_000})})
    for name in ("source", "target"):
        preprocess(settings, name, Layout().shards / name)
    folder, trainer = planned(settings, heavy), TrainingProcesses()
    began = threading.Event()

    def stop() -> None:
        began.wait(SECONDS)
        trainer.stop_all()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with contextlib.ExitStack() as stack:
        stack.callback(stopper.join)
        stack.enter_context(pytest.raises(Interrupted))
        trainer.train(folder, ONE_THREAD, lambda points: began.set())
    assert folder.checkpoint.exists()
    assert "refused" not in (heavy / "log").read_text(encoding="utf-8")
