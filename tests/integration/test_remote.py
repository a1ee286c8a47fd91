"""A DVC remote that cannot be used, as a run of `reproduce` finds it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TRANSFER = """
import sys
from flows.dvc_project import PULL, PUSH, transfer
from rdmd.errors import reporting
with reporting(debug=False):
    transfer({"pull": PULL, "push": PUSH}[sys.argv[1]], print, 1)
"""


@pytest.mark.parametrize(
    ("url", "what", "reason"),
    [
        # As a path with a file where a mount should be.
        ("notes.txt/remote", "push", "notes.txt"),
        # As in a clone that has no package for this kind of remote.
        ("hdfs://nowhere/rdmd", "pull", "dvc-hdfs"),
    ],
)
def test_a_remote_that_cannot_be_used_is_told_in_a_sentence(tmp_path: Path, url: str, what: str, reason: str):
    dropped = {"DVC_ROOT", "DVC_STAGE", "PREFECT_HOME", "MLFLOW_TRACKING_URI"}
    environment = {key: value for key, value in os.environ.items() if key not in dropped} | {"PYTHONPATH": str(ROOT)}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
        )

    (tmp_path / "notes.txt").write_text("These are notes.")
    (tmp_path / "data.txt").write_text("Something to push.")
    for command in (["init", "--no-scm", "-q"], ["remote", "add", "-q", "-d", "team", url], ["add", "-q", "data.txt"]):
        assert run("-m", "dvc", *command).returncode == 0
    said = run("-c", TRANSFER, what)
    assert said.returncode == 2, said.stderr
    (sentence,) = [line for line in said.stderr.splitlines() if line.startswith("rdmd: ")]
    assert said.stderr.splitlines()[-1] == sentence
    assert sentence.startswith(f"rdmd: `dvc {what} --run-cache")
    assert reason in sentence
    assert "correct the remote that `dvc remote list` names" in sentence
