"""Bad input: whatever is wrong gets its one sentence, an exit status that is not 0, and leaves what was there."""

import contextlib
import fnmatch
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from bad_input import data, machine, models, settings
from bad_input.project import PARAMS, build
from bad_input.row import Row

from rdmd.cli import main
from rdmd.errors import EXIT_USER_ERROR
from tests.in_process import InThisProcess

ROWS = [*settings.ROWS, *data.ROWS, *models.ROWS, *machine.ROWS]


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project without a fault, made once."""
    root = tmp_path_factory.mktemp("sound")
    with contextlib.chdir(root):
        build(root)
    return root


@pytest.fixture
def project(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current folder, in an environment that names no store."""
    root = tmp_path / "project"
    shutil.copytree(sound, root)
    monkeypatch.chdir(root)
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "PREFECT_", "DVC_", "RDMD_"))]:
        # All flows share one database, since making its schema takes seconds.
        if name != "PREFECT_HOME":
            monkeypatch.delenv(name)
    # Set by the commands themselves otherwise, and left behind for the next row. What another test file of this process
    # set stands above the environment.
    mlflow.set_tracking_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow' / 'store' / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    return root


def run(command: str) -> int:
    """The exit status of one command line."""
    program, *arguments = shlex.split(command)
    if program == "rdmd":
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        return stopped.value.code
    if program == "stage":
        from flows.stages import stage, training

        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
            patch.setattr(sys, "argv", [program, *arguments])
            # It is set for the rest of a stage's process.
            patch.setattr(logging, "raiseExceptions", False)
            stage.run_stage("A stage.", training.teacher, training.distill, training.baselines)
        return stopped.value.code
    # stdin is not a terminal that anything could ask a question on.
    return subprocess.run([sys.executable, *arguments], stdin=subprocess.DEVNULL, check=False).returncode


def contents(root: Path) -> dict[str, str]:
    """What lies below a folder: the hash of every file, and `/` for every folder."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "/"
        for path in root.rglob("*")
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_bad_input_gets_one_sentence_and_leaves_what_was_there(row: Row, project, monkeypatch, capfd):
    for name, value in row.environment.items():
        monkeypatch.setenv(name, value)
    if not row.apart:
        monkeypatch.setattr("rdmd.pipeline.launch.TrainingProcesses", InThisProcess)
    with contextlib.ExitStack() as stack:
        prepared = row.prepare()
        if isinstance(prepared, contextlib.AbstractContextManager):
            stack.enter_context(prepared)
        before = contents(project)
        capfd.readouterr()
        status = run(row.command)
        said = capfd.readouterr().err.splitlines()
        after = contents(project)

    assert status == EXIT_USER_ERROR, said
    assert [line for line in said if line.startswith("rdmd: ")] == said[-1:], "one sentence, and nothing after it"
    assert "Traceback" not in "\n".join(said)
    sentence = said[-1]
    assert row.names in sentence
    assert row.remedy in sentence
    assert sentence.rstrip(")").endswith((".", "?"))

    assert {path: after.get(path) for path in before} == before
    added = set(after) - set(before)
    assert not [path for path in added if ".part" in path or ".old" in path], "half-written"
    assert {path for path in added if not any(fnmatch.fnmatch(path, pattern) for pattern in row.adds)} == set()
    assert {pattern for pattern in row.adds if not fnmatch.filter(added, pattern)} == set()


def test_the_table_has_at_least_two_hundred_rows_each_with_a_name_of_its_own():
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names)) >= 200


def test_the_project_that_rows_spoil_is_sound(project):
    """Otherwise a row could fail for a reason that is not its own."""
    for command in ("check", "preprocess", "validate", "features", "evaluate"):
        assert run(f"rdmd {command}") == 0, command
    assert run("rdmd translate models/generators/lambda-0.1 data/raw/source out") == 0


def test_debug_shows_the_traceback(project):
    Path("params.yaml").unlink()
    for arguments in (["--debug", "check"], ["check", "--debug"]):
        command = [sys.executable, "-m", "rdmd.cli", *arguments]
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
        assert shown.returncode != 0
        assert "Traceback" in shown.stderr
        assert "params.yaml does not exist" in shown.stderr


def test_use_with_force_overwrites_edits(project):
    Path("params.yaml").write_text(PARAMS.replace("seed: 0", "seed: 7"))
    assert run("rdmd use other --force") == 0
    assert Path("params.yaml").read_text() == Path("experiments/other.yaml").read_text()
