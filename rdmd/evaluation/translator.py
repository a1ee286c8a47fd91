"""What the evaluator and the report know of a method: a map from source samples to target samples."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


class Translator(Protocol):
    """Anything that maps a source batch to a target batch: a generator, a diffusion baseline, a neural
    transport map.

    Attributes:
        method: "rdmd", "sdedit", ...; lower case, the same for every setting of one method.
        lam: the weight of the transport cost, or None for a method that has none.
        settings: what was chosen for this run, such as {"sigma": 0.6, "steps": 10}.
        nfe: network evaluations behind one sample.
        train_seconds: wall-clock seconds of training, or None if nothing was trained.
    """

    @property
    def method(self) -> str: ...
    @property
    def lam(self) -> float | None: ...
    @property
    def settings(self) -> dict[str, float | int | str]: ...
    @property
    def nfe(self) -> int: ...
    @property
    def train_seconds(self) -> float | None: ...

    def __call__(self, source: Tensor, rng: torch.Generator) -> Tensor:
        """Translate (B, 3, H, W) images in [-1, 1], or (B, 2) points, to as many of the same shape and
        device.

        `rng` lives on the device of `source` and is the only randomness that may be used.
        """
        ...


@dataclass(frozen=True)
class NamedTranslator:
    """A `Translator` made of a map, called with (source, rng), and what is known of it."""

    map: Callable[[Tensor, torch.Generator], Tensor]
    method: str
    nfe: int
    lam: float | None = None
    settings: dict[str, float | int | str] = field(default_factory=dict)
    train_seconds: float | None = None

    def __call__(self, source: Tensor, rng: torch.Generator) -> Tensor:
        """As `Translator`."""
        return self.map(source, rng)
