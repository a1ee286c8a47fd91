"""What a training process and its launcher agree on."""

# Exit status of a run that stopped on request and left a checkpoint.
EXIT_STOPPED = 3
# Set by the launcher, which holds the other end of standard input: its end means that the launcher is gone.
WATCH_STDIN = "RDMD_STOP_WHEN_STDIN_CLOSES"
# The remedy for a run that needs more memory than the machine has.
LESS_MEMORY = "lower `batch` or launch.parallel in params.yaml, or raise launch.accumulate"
