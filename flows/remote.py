"""What a team shares through its DVC remote: fetched before a run of `reproduce`, pushed after it.

DVC's run cache goes with it. So whoever has the same parameters and code gets the outputs of a run that another machine
made by `dvc repro --pull`, which trains nothing. Evaluating and registering, whose outputs git keeps, run again.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from flows.dvc_stages import open_repo
from flows.environment import ROOT
from rdmd.errors import UserError
from rdmd.pipeline.process_group import run_in_group

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
        raise UserError(f"`dvc {' '.join(arguments)}` failed ({failed}); mend the remote that `dvc remote list` names, "
                        "or its credentials, and run again.")
