"""The random state and the order of samples are functions of (seed, rank, step), so a resumed run repeats itself."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from rdmd.data.transforms import to_unit


@dataclass(frozen=True)
class StepRandom:
    """Random generators of one optimiser step on one rank; each named use has its own stream."""

    seed: int
    rank: int
    step: int
    device: torch.device

    def stream(self, name: str) -> torch.Generator:
        """A generator on `device` whose state depends on (seed, rank, step, name) alone."""
        return self._generator(name, self.device)

    def host_stream(self, name: str) -> torch.Generator:
        """The same on the CPU: its draws do not depend on the device."""
        return self._generator(name, torch.device("cpu"))

    def _generator(self, name: str, device: torch.device) -> torch.Generator:
        rng = torch.Generator(device)
        rng.manual_seed(derived_seed(self.seed, self.rank, self.step, name))
        return rng


def seed_global(seed: int, device: torch.device) -> None:
    """Seed the global generators that a step on `device` may draw from, as dropout does.

    `torch.manual_seed` seeds every kind of device, and records a stack trace for each unused one, which takes longer
    than a step of a small network.
    """
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from any numbers and names; unrelated parts give unrelated seeds."""
    text = "/".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def drawn(size: int, n: int, random: StepRandom, name: str) -> Tensor:
    """n indices below `size`, drawn with replacement, int64 on the CPU: a function of (seed, rank, step, name)."""
    return torch.randint(size, (n,), generator=random.host_stream(name))


def seen_by_networks(stored: Tensor) -> Tensor:
    """Images of 8 or 16 bits as float32 in [-1, 1]; floats, such as latents, as float32."""
    return stored.float() if stored.is_floating_point() else to_unit(stored)
