"""DVC as `reproduce` asks it: the stages in order, whether one is up to date, and keeping a run as an experiment."""

import os
import socket
import subprocess
from pathlib import Path

import networkx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import NoSCM
from scmrepo.exceptions import SCMError

from flows.environment import ROOT
from rdmd.errors import UserError


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
            raise UserError(f"this run could not be kept as a DVC experiment ({error}); all its files are in place, "
                            f"so mend that and run `dvc exp save --name {name}`.") from error


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
