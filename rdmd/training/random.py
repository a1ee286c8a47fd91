"""The random state as a function of (seed, rank, step): a resumed run is the run."""

import hashlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class StepRandom:
    """Random generators of one optimiser step on one rank; each named use has a stream of its own."""

    seed: int
    rank: int
    step: int
    device: torch.device

    def stream(self, name: str) -> torch.Generator:
        """A generator on `device` whose state depends on (seed, rank, step, name) alone."""
        return self._generator(name, self.device)

    def host_stream(self, name: str) -> torch.Generator:
        """The same on the CPU: what it draws is the same whatever the device."""
        return self._generator(name, torch.device("cpu"))

    def _generator(self, name: str, device: torch.device) -> torch.Generator:
        rng = torch.Generator(device)
        rng.manual_seed(derived_seed(self.seed, self.rank, self.step, name))
        return rng


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from any numbers and names; unrelated parts give unrelated seeds."""
    text = "/".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
