"""The DVC project: its stages, its remote and its experiments."""

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


def stages_in_order(root: Path = ROOT) -> list[str]:
    """The stages of dvc.yaml, each after the stages that it depends on, and otherwise in the order of the file.

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
    """Save params.yaml, dvc.lock and reports/ as a DVC experiment; its commit, or None outside git.

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
                f"this run could not be saved as a DVC experiment ({error}); all its files are in place, so correct "
                f"that and run `dvc exp save --name {name}`."
            ) from error


def _identity(root: Path) -> dict[str, str]:
    """The author of an experiment's commit where git has none, as on a machine that only runs a worker."""
    for key in ("user.name", "user.email"):
        if subprocess.run(["git", "config", key], cwd=root, capture_output=True, check=False).returncode:
            break
    else:
        return {}
    name = f"rdmd@{socket.gethostname()}"
    author = {f"GIT_{role}_{field}": name for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}
    return {key: value for key, value in author.items() if key not in os.environ}


def open_repo(root: Path) -> Repo:
    """The DVC project at `root`. Raises UserError if there is none."""
    try:
        return Repo(str(root))
    except DvcException as error:
        raise UserError(f"{root} is no DVC project ({error}); start this in the project's root.") from error


# The stages make what the remote lacks.
PULL = ("pull", "--run-cache", "--allow-missing")
PUSH = ("push", "--run-cache")
# For `dvc repro`: take the outputs of earlier runs from the remote.
RESTORE = ("--pull",)


def default_remote(root: Path = ROOT) -> str | None:
    """The name of the DVC remote that `dvc push` takes; None if there is none."""
    with open_repo(root) as repo:
        name = repo.config["core"].get("remote")
        return str(name) if name else None


def run_dvc(
    arguments: tuple[str, ...], say: Callable[[str], None], lock: int, environment: dict[str, str] | None = None
) -> tuple[int, list[str]]:
    """Run `dvc` in the project; its exit status and its output, whose lines also go to `say` as they come.

    lock: a descriptor that is held open for as long as DVC works.
    """
    output: list[str] = []

    def hear(line: str) -> None:
        output.append(line)
        say(line)

    command = [sys.executable, "-m", "dvc", *arguments]
    return run_in_group(command, environment or dict(os.environ), hear, ROOT, (lock,)), output


def transfer(arguments: tuple[str, ...], say: Callable[[str], None], lock: int) -> None:
    """Run `dvc pull` or `dvc push` as `run_dvc` does. Raises UserError if the remote cannot be used."""
    status, output = run_dvc(arguments, say, lock)
    if status:
        errors = [line.removeprefix("ERROR: ") for line in output if line.startswith("ERROR:")]
        reason = next(iter(errors or output[-1:]), "no output")
        raise UserError(
            f"`dvc {' '.join(arguments)}` failed ({reason}); correct the remote that `dvc remote list` names, or its "
            "credentials, and run again."
        )
