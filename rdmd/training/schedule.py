"""The learning rate over a run, as a factor of its setting."""

import math
from collections.abc import Callable

# share of the steps taken, 0 to 1 -> factor of the learning rate, 1 to 0
Decay = Callable[[float], float]


def constant(taken: float) -> float:
    """1 throughout."""
    return 1.0


def linear(taken: float) -> float:
    """1 - taken."""
    return 1.0 - taken


def cosine(taken: float) -> float:
    """(1 + cos(pi taken)) / 2 (Loshchilov and Hutter 2017, eq. 5, without restarts)."""
    return (1.0 + math.cos(math.pi * taken)) / 2.0


DECAYS: dict[str, Decay] = {"constant": constant, "linear": linear, "cosine": cosine}


def lr_factor(t: int, steps: int, warmup: int, decay: str) -> float:
    """The factor of the learning rate at optimiser step t of `steps`, both counted from 0: it rises linearly over the
    first `warmup` steps, and over the whole run follows the decay of that name."""
    return min(1.0, (t + 1) / max(1, warmup)) * DECAYS[decay](t / steps)
