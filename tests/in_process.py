"""Trainings in the process of a test, for tests of what comes of them: a process takes longer to start than they do."""

import threading
from collections.abc import Callable

from rdmd.errors import UserError
from rdmd.library import _own_state
from rdmd.pipeline.launch import Slot, TrainingProcesses
from rdmd.training.run import _recording_errors, run_training
from rdmd.training.run_folder import Point, Result, RunFolder

# The random state is that of the process.
ONE_AT_A_TIME = threading.Lock()


class InThisProcess(TrainingProcesses):
    """As `TrainingProcesses`, without any."""

    def train(self, folder: RunFolder, slot: Slot, follow: Callable[[list[Point]], None]) -> Result:
        if folder.result() is None:
            run = folder.read_run()
            folder.log.touch()
            try:
                with ONE_AT_A_TIME, _own_state(), _recording_errors(folder):
                    run_training(run, folder, "cpu")
            except Exception as error:
                reason = folder.error_file.read_text(encoding="utf-8")
                raise UserError(f"training in {folder.path} failed: {reason}") from error
        follow(folder.curves())
        result = folder.result()
        assert result is not None
        return result
