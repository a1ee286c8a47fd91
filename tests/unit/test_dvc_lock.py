"""A `kill -9` or a full disk in the instant in which DVC rewrites a file of its own does not stop the next run."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.lock import make_lock

from flows.project_lock import remove_damaged_lock, restore_damaged_dvc_lock
from tests.conftest import ROOT


@pytest.fixture
def rwlock(tmp_path: Path) -> Path:
    file = tmp_path / ".dvc" / "tmp" / "rwlock"
    file.parent.mkdir(parents=True)
    return file


@pytest.mark.parametrize("left", ["", '{"write": {"data/sha'])
def test_a_list_cut_short_is_removed(rwlock: Path, tmp_path: Path, left: str):
    rwlock.write_text(left, encoding="utf-8")
    assert remove_damaged_lock(tmp_path)
    assert not rwlock.exists()


def test_a_whole_list_stays(rwlock: Path, tmp_path: Path):
    rwlock.write_text('{"write": {}, "read": {}}', encoding="utf-8")
    assert not remove_damaged_lock(tmp_path)
    assert rwlock.exists()


def test_nothing_to_remove(tmp_path: Path):
    assert not remove_damaged_lock(tmp_path)


def test_a_list_that_a_running_dvc_writes_stays(rwlock: Path, tmp_path: Path):
    rwlock.write_text("", encoding="utf-8")
    with make_lock(str(rwlock.with_name("rwlock.lock")), tmp_dir=str(rwlock.parent)):
        assert not remove_damaged_lock(tmp_path)
    assert rwlock.exists()


@pytest.mark.parametrize(
    "end", ["deps:\n    - pa", "", "    outs:\n    - path: x\n      md5"], ids=["key", "nothing", "no value"]
)
def test_a_dvc_lock_cut_short_is_that_of_the_last_commit_again(tmp_path: Path, end: str):
    file, said = tmp_path / "dvc.lock", list[str]()
    shutil.copy(ROOT / "dvc.lock", file)
    restore_damaged_dvc_lock(tmp_path, said.append)
    assert not said and file.read_bytes() == (ROOT / "dvc.lock").read_bytes()
    for command in (
        ["init", "-q"],
        ["add", "dvc.lock"],
        ["-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole[: whole.index("deps:")] + end if end else "", encoding="utf-8")
    restore_damaged_dvc_lock(tmp_path, said.append)
    assert file.read_text(encoding="utf-8") == whole
    assert said == ["dvc.lock was cut short, by a full disk or a kill; that of the last commit takes its place"]


def test_a_dvc_lock_cut_short_that_git_does_not_have_is_removed(tmp_path: Path):
    file, said = tmp_path / "dvc.lock", list[str]()
    file.write_text(yaml.dump({"schema": "2.0", "stages": {"teacher": {"outs": [{"path": "x"}]}}}), encoding="utf-8")
    restore_damaged_dvc_lock(tmp_path, said.append)
    assert not file.exists() and said[0].endswith("it is removed")
