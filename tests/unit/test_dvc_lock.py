"""A `kill -9` in the instant in which DVC rewrites its list of locks does not stop the next run."""

from pathlib import Path

import pytest
from dvc.lock import make_lock

from flows.project_lock import remove_damaged_lock


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
