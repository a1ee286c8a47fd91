"""The one-step generator, and the noise of one that reads its source with noise."""

import hashlib

import torch
from torch import Tensor, nn


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


class Generator(nn.Module):
    """G(x) = D(x, sigma_init): a denoiser read at one fixed noise level, which takes the clean source sample.

    It starts as a copy of the teacher (RDMD, section 3). One network evaluation a sample.

    With `input_noise` s it is G(x, z) = D(x + s z, sigma_init), z standard normal: a source has many translations, so
    the outputs can vary more than the sources do. This is ours, not the paper's.
    """

    nfe = 1

    def __init__(self, denoiser: nn.Module, sigma_init: float, input_noise: float = 0.0) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.sigma_init = sigma_init
        self.input_noise = input_noise

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """(B, ...) source, and z of its shape, -> (B, ...) translation, not clamped.

        Without z each sample gets the noise that its own values give it (`own_noise`). Where `input_noise` is 0, z is
        not read.
        """
        if self.input_noise:
            x = x + self.input_noise * (own_noise(x) if z is None else z)
        return self.denoiser(x, torch.full((len(x),), self.sigma_init, device=x.device))
