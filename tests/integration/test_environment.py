"""`make venv`, with a real Python environment and pip, and a package in the place of uv that notes what it is asked."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Its file is what `pip install --no-index --find-links` takes for uv 1.0.
UV = """
import os, sys
with open(os.environ["UV_LOG"], "a") as log:
    print(*sys.argv[1:], file=log)
def main():
    sys.exit(int(os.environ.get("UV_STATUS", "0")))
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the Makefile and a lock that pins the package above."""
    folder = tmp_path / "checkout"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copy(ROOT / "scripts" / "venv.py", folder / "scripts")
    wheel = tmp_path / "wheels" / "uv-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("uv.py", UV)
        file.writestr("uv-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: uv\nVersion: 1.0\n")
        file.writestr("uv-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("uv-1.0.dist-info/entry_points.txt", "[console_scripts]\nuv = uv:main\n")
        file.writestr("uv-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / "requirements.lock").write_text(f"uv==1.0 \\\n    --hash=sha256:{digest}\nzipp==1.0\n")
    (folder / "pyproject.toml").write_text("[project]\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("UV_LOG", str(folder / "uv.log"))
    return folder


def make(checkout: Path, **more: str) -> subprocess.CompletedProcess[str]:
    # The Makefile finds the Python of the environment first, once there is one.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["make", "venv"], cwd=checkout, env=os.environ | {"PATH": path} | more, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip


def asked(checkout: Path) -> list[str]:
    return (checkout / "uv.log").read_text().splitlines()


def inode(folder: Path) -> int:
    return folder.stat().st_ino


@contextmanager
def running(*command: str | Path) -> Iterator[None]:
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.read(1)
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_an_environment_is_rebuilt_when_the_content_of_the_lock_changes_and_not_before(checkout: Path) -> None:
    env = checkout / ".venv"
    first = make(checkout)
    assert first.returncode == 0, first.stdout
    install, editable = asked(checkout)
    assert "--require-hashes" in install and install.endswith(f"-r {checkout}/requirements.lock")
    assert editable.endswith("--editable .")
    built = inode(env)
    for name in ("requirements.lock", "pyproject.toml"):
        os.utime(checkout / name)
    assert make(checkout).returncode == 0 and inode(env) == built and len(asked(checkout)) == 2
    (env / "stray").touch()
    (checkout / "pyproject.toml").write_text("[project]\nname = 'other'\n")

    # In use, it is left alone.
    with running(env / "bin" / "python", "-c", "import time; print('begun', flush=True); time.sleep(60)"):
        refused = make(checkout)
        assert refused.returncode != 0 and "Traceback" not in refused.stdout
        assert "is in use by process" in refused.stdout and (env / "stray").exists()

    # What cannot be built leaves the old one.
    failed = make(checkout, UV_STATUS="1")
    assert failed.returncode != 0 and "Traceback" not in failed.stdout
    assert "could not be built, and is as it was" in failed.stdout and (env / "stray").exists()
    assert subprocess.run([env / "bin" / "uv", "x"], check=False).returncode == 0

    # A killed build leaves the old one aside and half of a new one.
    env.rename(checkout / ".venv.replaced")
    env.mkdir()
    (env / "pyvenv.cfg").touch()
    assert make(checkout).returncode == 0
    assert not (env / "stray").exists() and not (checkout / ".venv.replaced").exists()
    assert make(checkout).returncode == 0 and inode(env) != built


def test_what_a_link_leads_to_is_never_changed(checkout: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "precious").touch()
    (checkout / ".venv").symlink_to(shared)
    refused = make(checkout)
    assert refused.returncode != 0 and "Traceback" not in refused.stdout
    assert f".venv is a link to {shared}" in refused.stdout and "remove the link" in refused.stdout
    assert [file.name for file in shared.iterdir()] == ["precious"]


@pytest.mark.slow
def test_a_link_to_an_environment_of_the_same_lock_is_used(checkout: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    assert make(checkout).returncode == 0
    (checkout / ".venv").rename(shared)
    (checkout / ".venv").symlink_to(shared)
    assert make(checkout).returncode == 0 and (checkout / ".venv").is_symlink() and len(asked(checkout)) == 2


def test_a_folder_that_is_no_environment_is_left_alone(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "precious").touch()
    refused = make(checkout)
    assert refused.returncode != 0 and "is not an environment and is left alone" in refused.stdout
    assert (checkout / ".venv" / "precious").exists()
