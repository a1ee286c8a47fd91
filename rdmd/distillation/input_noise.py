"""Noise of a sample's own, for a generator that reads its source with noise."""

import hashlib

import torch
from torch import Tensor


def own_noise(x: Tensor) -> Tensor:
    """Standard normal noise of x's shape (B, ...) and device, float32, a function of each sample's values alone.

    It is the same whatever else is in the batch and whatever the device, so a translation stays a function of its
    source; samples that differ anywhere get independent noise.
    """
    rng = torch.Generator()
    drawn = []
    for sample in x.detach().float().cpu().contiguous().numpy():
        # -0.0 and 0.0 are one value.
        digest = hashlib.blake2b((sample + 0.0).tobytes(), digest_size=8).digest()
        rng.manual_seed(int.from_bytes(digest, "big") >> 1)
        drawn.append(torch.randn(sample.shape, generator=rng))
    return torch.stack(drawn).to(x.device)
