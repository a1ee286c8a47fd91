"""The number of threads with which a served model answers fastest."""

import os
import statistics
import time

import torch

from rdmd.serving.model import Model

_REPEATS = 7
# More threads take cores from other requests, so they must be worth it.
_WORTH = 0.9


@torch.no_grad()
def set_threads(model: Model) -> int:
    """Set torch's number of threads to what is fastest for one sample here, by measurement, and return it.

    Small networks are slower on two threads than on one. The variable OMP_NUM_THREADS decides instead, if it is set.
    """
    most = torch.get_num_threads()
    if "OMP_NUM_THREADS" in os.environ or model.device.type != "cpu":
        return most
    sample = torch.zeros(1, *model.sample_shape)
    best, fastest = 1, float("inf")
    for threads in sorted({1, *(2**i for i in range(1, most.bit_length())), most}):
        torch.set_num_threads(threads)
        model.generator(sample, model.lam)
        seconds = []
        for _ in range(_REPEATS):
            start = time.perf_counter()
            model.generator(sample, model.lam)
            seconds.append(time.perf_counter() - start)
        if statistics.median(seconds) < _WORTH * fastest:
            best, fastest = threads, statistics.median(seconds)
    torch.set_num_threads(best)
    return best
