"""Temporary files: those of a killed process go, those of a living one stay."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rdmd.files import replacing, replacing_folder, write_text

WRITER = """
import sys, time
from pathlib import Path
from rdmd import files
with getattr(files, sys.argv[1])(Path(sys.argv[2])) as temporary:
    (temporary / "half" if temporary.is_dir() else temporary).write_text("half")
    print(temporary, flush=True)
    sys.stdin.read()
"""


@contextmanager
def writer(function: str, path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process in the middle of writing `path`; its temporary file or folder."""
    command = [sys.executable, "-c", WRITER, function, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def age(temporary: Path) -> None:
    """Make a temporary file older than those that its writer may not have locked yet."""
    os.utime(temporary, (0, 0))


@pytest.mark.parametrize("function", ["replacing", "replacing_folder"])
def test_what_a_killed_process_left_is_removed_by_the_next(function: str, tmp_path: Path):
    with writer(function, tmp_path / "a") as (process, temporary):
        process.kill()
        process.wait()
        assert temporary.exists()
        age(temporary)
    write_text(tmp_path / "b", "whole")
    assert [one.name for one in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("function", ["replacing", "replacing_folder"])
def test_what_another_process_writes_stays(function: str, tmp_path: Path):
    with writer(function, tmp_path / "a") as (process, temporary):
        age(temporary)
        write_text(tmp_path / "b", "whole")
        assert temporary.exists()
        process.communicate("")
        assert process.returncode == 0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b"]


def test_a_young_temporary_file_stays(tmp_path: Path):
    young = tmp_path / ".a.abcdefgh.part"
    young.touch()
    write_text(tmp_path / "b", "whole")
    assert young.exists()


def test_a_folder_that_was_moved_aside_comes_back(tmp_path: Path):
    aside = tmp_path / ".a.abcdefgh.old"
    (aside / "old").mkdir(parents=True)
    (aside / "old" / "file").write_text("mine")
    age(aside)
    write_text(tmp_path / "b", "whole")
    assert (tmp_path / "a" / "file").read_text() == "mine"
    assert not aside.exists()


def test_the_hidden_files_of_others_stay(tmp_path: Path):
    names = [".film.part", ".a.old", "a.12345678.part", ".a.12345678.partly"]
    for name in names:
        (tmp_path / name).touch()
    write_text(tmp_path / "b", "whole")
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([*names, "b"])


def test_a_swap_leaves_the_new_folder_alone(tmp_path: Path):
    for text in ("first", "second"):
        with replacing_folder(tmp_path / "a") as folder, replacing(folder / "file") as file:
            file.write_text(text)
    assert [one.name for one in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "file").read_text() == "second"
