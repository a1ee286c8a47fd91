"""Build the environment in a folder unless it is there: `python3 scripts/venv.py .venv`, as `make venv` does.

It needs Python alone. `installed` in the folder holds the hash of requirements.lock and pyproject.toml that the
environment was built from, so their content decides whether it is built anew, and not their time stamps. An old
environment is put back if the new one cannot be built. Nothing is changed behind a link, in a folder that is not an
environment, or while a process runs from the environment.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

MARKER = "installed"
REPLACED = ".replaced"


class RefusedError(Exception):
    """One sentence for the user."""


def build(env: Path, root: Path) -> None:
    """Make `env`, an absolute path, the environment of the checkout `root`. Raises `RefusedError`."""
    content = (root / "requirements.lock").read_bytes() + b"\0" + (root / "pyproject.toml").read_bytes()
    wanted = hashlib.sha256(content).hexdigest()
    if is_current(env, wanted):
        return
    check_replaceable(env)
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        raise RefusedError(f"{sys.executable} is not Python 3.11 to 3.13; name one that is: make PYTHON=python3.12 ...")
    # Scripts in an environment hold its path, so it is built in its place, with the old one aside. A build that was
    # killed leaves that one there, and no marker.
    old = env.with_name(env.name + REPLACED)
    if (env / MARKER).is_file():
        shutil.rmtree(old, ignore_errors=True)
    if old.exists():
        shutil.rmtree(env, ignore_errors=True)
    elif env.exists():
        env.rename(old)
    try:
        install(env, root)
    except BaseException as error:
        shutil.rmtree(env, ignore_errors=True)
        if old.exists():
            old.rename(env)
        if isinstance(error, subprocess.CalledProcessError):
            raise RefusedError(
                f"{env} could not be built, and is as it was; the message of {error.cmd[0]} is above"
            ) from None
        raise
    (env / MARKER).write_text(wanted + "\n", encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)


def is_current(env: Path, wanted: str) -> bool:
    """Whether the environment is whole and was built from this lock and pyproject.toml."""
    marker = env / MARKER
    # The Python that it links to may have been removed.
    return (env / "bin" / "python").exists() and marker.is_file() and marker.read_text("utf-8").strip() == wanted


def check_replaceable(env: Path) -> None:
    """Raise `RefusedError` unless the environment may be replaced, or is not there."""
    if env.is_symlink():
        raise RefusedError(
            f"{env} is a link to {env.readlink()}, which was not built from this requirements.lock and "
            "pyproject.toml and is left alone; remove the link, then repeat this command"
        )
    if not env.exists():
        return
    if not env.is_dir() or (any(env.iterdir()) and not (env / "pyvenv.cfg").is_file()):
        raise RefusedError(f"{env} is not an environment and is left alone; move it away, then repeat this command")
    users = processes_in(env)
    if users:
        raise RefusedError(
            f"{env} is to be built anew from the changed requirements.lock or pyproject.toml, but is in use "
            f"by process {', '.join(map(str, users[:5]))}; wait for its end, then repeat this command"
        )


def processes_in(env: Path) -> list[int]:
    """The other processes that run from the environment: by their command, or by a library that they have loaded from
    it. Empty where there is no /proc."""
    inside = f"{env.resolve()}{os.sep}"
    others = [process for process in Path("/proc").glob("[0-9]*") if int(process.name) != os.getpid()]
    return sorted(int(process.name) for process in others if inside in read(process / "maps") or runs(process, inside))


def runs(process: Path, inside: str) -> bool:
    """Whether the program or the script that a process was started with lies below the folder `inside`."""
    try:
        folder = (process / "cwd").readlink()
    except OSError:
        folder = Path("/")
    # `bin/python` is a link itself.
    words = [folder / word for word in read(process / "cmdline").split("\0")[:2] if os.sep in word]
    return any(f"{word.parent.resolve()}{os.sep}".startswith(inside) for word in words)


def read(file: Path) -> str:
    """A file of /proc; empty where its process has ended or is another user's."""
    try:
        return file.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def install(env: Path, root: Path) -> None:
    """Build the environment and install into it. Raises `CalledProcessError`."""
    # Run from an environment, as `make` finds it first on the PATH, this Python has just been put aside.
    python = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([python, "-m", "venv", str(env)], check=True)
    # uv comes first, by its own pin and hashes, because it installs the rest in a fraction of pip's time.
    (env / "uv.lock").write_text(uv_pin((root / "requirements.lock").read_text("utf-8")), encoding="utf-8")
    pip = [env / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    uv = [env / "bin" / "uv", "pip", "install", "--quiet", "--python", env / "bin" / "python"]
    for command in (
        [*pip, "--require-hashes", "-r", env / "uv.lock"],
        [*uv, "--compile-bytecode", "--require-hashes", "-r", root / "requirements.lock"],
        [*uv, "--no-deps", "--no-build-isolation", "--editable", "."],
    ):
        subprocess.run([str(word) for word in command], cwd=root, check=True)


def uv_pin(lock: str) -> str:
    """The lines of the lock that pin uv: `uv==...` and the hashes that follow. Raises `RefusedError` without one."""
    lines = lock.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if line.startswith("uv==")), None)
    if first is None:
        raise RefusedError("requirements.lock does not pin uv; restore it with `git checkout requirements.lock`")
    last = first
    while lines[last].rstrip().endswith("\\") and last + 1 < len(lines):
        last += 1
    return "".join(lines[first : last + 1])


if __name__ == "__main__":
    try:
        checkout = Path(__file__).resolve().parents[1]
        build(checkout / sys.argv[1], checkout)
    except (RefusedError, OSError) as error:
        sys.exit(f"rdmd: {error}.")
