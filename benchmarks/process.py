"""The environment of a training process, for a benchmark that stands for one."""

import os
import sys

from rdmd.pipeline.launch import training_environment


def as_a_training_process(module: str) -> None:
    """Start this benchmark anew, once, with what `rdmd` sets in the environment of a training process: an allocator
    reads its settings when a process begins."""
    wanted = training_environment()
    if any(name not in os.environ for name in wanted):
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], wanted | os.environ)
