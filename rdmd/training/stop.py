"""Being asked to stop: by a signal, or by the end of the process that launched the run."""

import os
import signal
import sys
import threading

import torch
from accelerate import Accelerator

from rdmd.training.contract import WATCH_STDIN

# With several processes all must stop at the same step, so they ask each other, but not at every step.
AGREE_EVERY = 10


class StopRequest:
    """True once SIGINT or SIGTERM came, or the launcher died."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def listen(self) -> "StopRequest":
        """Take over the signals, and watch standard input where the launcher asked for it."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._asked.set())
        if os.environ.get(WATCH_STDIN):
            threading.Thread(target=self._until_closed, daemon=True).start()
        return self

    def _until_closed(self) -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        self._asked.set()

    def requested(self, accelerator: Accelerator, t: int) -> bool:
        """Whether to stop after step t: the same answer on every process."""
        if accelerator.num_processes == 1:
            return self._asked.is_set()
        if t % AGREE_EVERY:
            return False
        asked = torch.tensor([float(self._asked.is_set())], device=accelerator.device)
        return bool(accelerator.reduce(asked, reduction="sum").item() > 0)
