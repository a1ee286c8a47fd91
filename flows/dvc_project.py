"""The DVC project: its stages, its remote, and its lock after a `kill -9`."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import networkx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import NoSCM
from scmrepo.exceptions import SCMError

from flows.environment import ROOT
from rdmd.errors import UserError
from rdmd.pipeline.process_group import run_in_group


def mend(root: Path) -> bool:
    """Remove a `.dvc/tmp/rwlock` that is not JSON, unless a running DVC is just writing it; says whether it did.

    root: the project's folder.
    """
    file = root / ".dvc" / "tmp" / "rwlock"
    if not file.exists() or _is_json(file):
        return False
    # Slow to import, and needed only after an accident.
    from dvc.lock import LockError, make_lock

    try:
        with make_lock(str(file.with_name("rwlock.lock")), tmp_dir=str(file.parent)):
            if _is_json(file):
                return False
            file.unlink()
            return True
    except LockError:
        return False


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def stages_in_order(root: Path = ROOT) -> list[str]:
    """The stages of dvc.yaml, each after all that it depends on, and otherwise as the file lists them.

    Raises UserError if the file, or the params.yaml that it reads, cannot be used.
    """
    with open_repo(root) as repo:
        try:
            graph = repo.index.graph
            listed = {stage: position for position, stage in enumerate(repo.index.stages)}
        except DvcException as error:
            raise UserError(f"dvc.yaml cannot be read ({error}); correct it, or params.yaml.") from error
        # An edge leads from a stage to what it depends on.
        ordered = networkx.lexicographical_topological_sort(graph.reverse(), key=listed.__getitem__)
        return [stage.addressing for stage in ordered]


def is_up_to_date(stage: str, root: Path = ROOT) -> bool:
    """Whether `dvc repro` would skip this stage now."""
    with open_repo(root) as repo:
        return not repo.status(targets=[stage])


def save_experiment(name: str, root: Path = ROOT) -> str | None:
    """Keep params.yaml, dvc.lock and reports/ as a DVC experiment; gives its commit, or None outside git.

    The branch, the index and the files are left as they are.
    """
    with open_repo(root) as repo:
        if isinstance(repo.scm, NoSCM):
            return None
        os.environ |= _identity(root)
        try:
            return repo.experiments.save(name=name, force=True, message=f"reproduce: {name}")
        except (DvcException, SCMError) as error:
            raise UserError(
                f"this run could not be kept as a DVC experiment ({error}); all its files are in place, "
                f"so mend that and run `dvc exp save --name {name}`."
            ) from error


def _identity(root: Path) -> dict[str, str]:
    """Who makes the commit of an experiment where git knows nobody, as on a machine that only runs a worker."""
    asked = [
        subprocess.run(["git", "config", f"user.{key}"], cwd=root, capture_output=True, check=False).returncode
        for key in ("name", "email")
    ]
    if not any(asked):
        return {}
    machine = socket.gethostname()
    stand_in = {}
    for role in ("AUTHOR", "COMMITTER"):
        stand_in |= {f"GIT_{role}_NAME": f"rdmd on {machine}", f"GIT_{role}_EMAIL": f"rdmd@{machine}"}
    return {key: value for key, value in stand_in.items() if key not in os.environ}


def open_repo(root: Path) -> Repo:
    """The DVC project at `root`. Raises UserError if there is none."""
    try:
        return Repo(str(root))
    except DvcException as error:
        raise UserError(f"{root} is no DVC project ({error}); start this in the project's root.") from error


# What the remote has not (yet) is made by the stages.
PULL = ("pull", "--run-cache", "--allow-missing")
PUSH = ("push", "--run-cache")
# For `dvc repro`: the outputs of a run of the run cache come from the remote.
RESTORE = ("--pull",)


def default_remote(root: Path = ROOT) -> str | None:
    """The name of the DVC remote that `dvc push` takes; None if there is none."""
    with open_repo(root) as repo:
        name = repo.config["core"].get("remote")
        return str(name) if name else None


def transfer(arguments: tuple[str, ...], say: Callable[[str], None], lock: int) -> None:
    """Run `dvc pull` or `dvc push`, its output by `say`. Raises UserError if the remote cannot be used.

    lock: a descriptor that is held open for as long as DVC works.
    """
    said: list[str] = []

    def heard(line: str) -> None:
        said.append(line)
        say(line)

    if run_in_group([sys.executable, "-m", "dvc", *arguments], dict(os.environ), heard, ROOT, (lock,)):
        last = said[-1] if said else "no output"
        failed = next((line for line in said if line.startswith("ERROR:")), last).removeprefix("ERROR: ")
        raise UserError(
            f"`dvc {' '.join(arguments)}` failed ({failed}); mend the remote that `dvc remote list` names, "
            "or its credentials, and run again."
        )
