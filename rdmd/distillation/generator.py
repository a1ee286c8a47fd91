"""The one-step generator G(x) or G(x, lambda), and the noise that it may read its source with."""

import hashlib
import math

import torch
from torch import Tensor, nn

from rdmd.config import LambdaRange
from rdmd.diffusion.loss import like
from rdmd.networks.codec import Codec


def own_noise(x: Tensor, codec: Codec | None = None) -> Tensor:
    """Standard normal noise of x's shape (B, ...), or of that of its latents, on its device, float32: a function of
    each sample's values alone.

    It is the same whatever else is in the batch and whatever the device, so a translation stays a function of its
    source; samples that differ anywhere get independent noise.
    """
    rng = torch.Generator()
    drawn, shape = [], x.shape[1:] if codec is None else codec.shape(*x.shape[2:])
    for sample in x.detach().float().cpu().contiguous().numpy():
        # -0.0 and 0.0 are one value.
        digest = hashlib.blake2b((sample + 0.0).tobytes(), digest_size=8).digest()
        rng.manual_seed(int.from_bytes(digest, "big") >> 1)
        drawn.append(torch.randn(shape, generator=rng))
    return torch.stack(drawn).to(x.device)


class Generator(nn.Module):
    """G(x) = D(x, sigma_init): a denoiser read at one fixed noise level, which takes the clean source sample.

    It starts as a copy of the teacher (RDMD, section 3). One network evaluation a sample.

    With a range of `lambdas` it is G(x, lambda) = D(x, sigma_init, lambda), the minimiser for every lambda of the range
    at once; `lam` is lambda where a caller gives none. With `input_noise` s it is G(x, z) = D(x + s z, sigma_init), z
    standard normal: a source has many translations, so the outputs can vary more than the sources do. A pair is s at
    the ends of the range of lambdas, linear in ln(lambda) between them. Both are ours, not the paper's.

    With a `codec` it reads and writes images, and the denoiser sees latents; training itself works on latents.
    """

    nfe = 1

    def __init__(
        self,
        denoiser: nn.Module,
        sigma_init: float,
        input_noise: float | tuple[float, float] = 0.0,
        lambdas: LambdaRange | None = None,
        lam: float | None = None,
        codec: Codec | None = None,
    ) -> None:
        super().__init__()
        self.codec = codec
        self.denoiser = denoiser
        self.sigma_init = sigma_init
        self.input_noise = input_noise
        self.lambdas = lambdas
        self.lam = lam

    def forward(self, x: Tensor, lam: Tensor | float | None = None, z: Tensor | None = None) -> Tensor:
        """(B, ...) source, lambda as a number or (B,), and z of the denoiser's samples, -> (B, ...) translation, not
        clamped.

        Without z each sample gets the noise that its own values give it (`own_noise`). Where `input_noise` is 0, z is
        not read. Where lambda is no input, it is not read either.
        """
        # The bits of latents depend on the batch, those of images do not.
        if self.input_noise and z is None:
            z = own_noise(x, self.codec)
        if self.codec is not None:
            x = self.codec.encoded(x)
        sigma = torch.full((len(x),), self.sigma_init, device=x.device)
        if self.lambdas is not None:
            lam = self.lam if lam is None else lam
            assert lam is not None, "this generator takes lambda as an input and has no default"
            lam = torch.as_tensor(lam, dtype=torch.float32, device=x.device).reshape(-1).expand(len(x))
        if z is not None and self.input_noise:
            x = x + like(self.input_noise_at(lam, x.device), x) * z
        y = self.denoiser(x, sigma) if self.lambdas is None else self.denoiser(x, sigma, lam)
        return y if self.codec is None else self.codec.decoded(y)

    def input_noise_at(self, lam: Tensor | float | None, device: torch.device) -> Tensor:
        """The input noise s, (1,), or at each of the lambdas (B,), on `device`."""
        if not isinstance(self.input_noise, tuple):
            return torch.full((1,), self.input_noise, device=device)
        assert self.lambdas is not None and isinstance(lam, Tensor), "two values belong to the ends of a range"
        low, high = self.lambdas.from_, self.lambdas.to
        # Training draws lambda beyond the range, where the noise stays that of the end.
        place = ((lam / low).log() / math.log(high / low)).clamp(0, 1)
        at_low, at_high = self.input_noise
        return at_low + (at_high - at_low) * place
