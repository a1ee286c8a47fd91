"""Trainings in the process of a test, for tests of what comes of them: a process takes longer to start than they do."""

import threading
from collections.abc import Callable

from rdmd.library import _own_state
from rdmd.pipeline.launch import Slot, TrainingProcesses
from rdmd.training.run import run_training
from rdmd.training.run_folder import Point, Result, RunFolder

# The random state is that of the process.
ONE_AT_A_TIME = threading.Lock()


class InThisProcess(TrainingProcesses):
    """As `TrainingProcesses`, without any."""

    def train(self, folder: RunFolder, slot: Slot, follow: Callable[[list[Point]], None]) -> Result:
        with ONE_AT_A_TIME, _own_state():
            if folder.result() is None:
                run_training(folder.read_run(), folder, "cpu")
        follow(folder.curves())
        result = folder.result()
        assert result is not None
        return result
