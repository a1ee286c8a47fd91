"""The environment of a training process, for a benchmark that runs a training in its own process."""

import os
import sys

from rdmd.pipeline.launch import training_environment


def as_a_training_process(module: str) -> None:
    """Restart this benchmark once with the environment variables of a training process: the allocator reads them when a
    process starts."""
    wanted = training_environment()
    if any(name not in os.environ for name in wanted):
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], wanted | os.environ)
