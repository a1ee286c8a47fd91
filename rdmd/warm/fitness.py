"""Whether a copy of the warm process would do just what a Python of its own would."""

import os
import sys
import threading
import time
from pathlib import Path

from rdmd.warm.child import BLAS_THREADS, MALLOPT
from rdmd.warm.protocol import Request, project

# What keeps imports from starting threads: one by each BLAS, one by Arrow.
NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
# A shell's own, what says which stage this is, and what a copy sees to by itself or, without a GPU, nobody reads.
# DVC gives stages another prompt than an activated environment has.
MAY_DIFFER = {"_", "PWD", "OLDPWD", "SHLVL", "PS1", "COLUMNS", "LINES"}
MAY_DIFFER |= {"DVC_STAGE", "PYTHONUNBUFFERED", "CUBLAS_WORKSPACE_CONFIG"}
MAY_DIFFER |= {*NO_THREADS, *MALLOPT, *BLAS_THREADS}
# Of this project: read when something runs, not when it is imported.
PREFIX = "RDMD_"
# What may change between two stages.
PACKAGES = ("rdmd", "flows")


class Fitness:
    """What this process was started with, and what it has imported since."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._begun = time.time_ns()
        self._given = dict(os.environ)
        self._files: dict[Path, int] = {}

    def imports_done(self) -> None:
        """Note the project's files that have been imported."""
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] in PACKAGES and module.__file__:
                file = Path(module.__file__)
                self._files[file] = file.stat().st_mtime_ns

    def imported(self) -> dict[str, str]:
        """Variables that were set by imports."""
        return {name: value for name, value in os.environ.items() if name not in self._given}

    def objection(self, request: Request) -> str | None:
        """Why a request must be run elsewhere; None if it need not."""
        if Path(request.folder).resolve() != self._folder:
            return f"it runs in {request.folder}"
        if (request.python, request.project) != (sys.executable, project()):
            return "it is of another environment"
        other = self._other_variables(request.environment)
        if other:
            return f"its environment has another {', '.join(sorted(other))}"
        if self._changed():
            return "the code has changed since it was imported"
        # A fork copies the thread that calls it alone.
        threads = max(threading.active_count(), len(list(Path("/proc/self/task").iterdir())))
        return None if threads == 1 else f"the warm process has {threads} threads"

    def _other_variables(self, environment: dict[str, str]) -> set[str]:
        names = {name for name in environment.keys() | self._given.keys()
                 if name not in MAY_DIFFER and not name.startswith(PREFIX)}
        return {name for name in names
                if environment.get(name) not in (self._given.get(name), os.environ.get(name, ""))}

    def _changed(self) -> bool:
        try:
            now = {file: file.stat().st_mtime_ns for file in self._files}
        except OSError:
            return True
        return now != self._files or max(now.values(), default=0) > self._begun
