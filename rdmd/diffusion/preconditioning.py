"""From a network F to a denoiser D: the EDM preconditioning of Karras et al. 2022 (equation 7, table 1)."""

import torch
from torch import Tensor, nn


class EDMPrecond(nn.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise), for data with standard deviation `sigma_data`.

    With s = sigma_data and n^2 = sigma^2 + s^2:
    c_skip = s^2 / n^2, c_out = sigma s / n, c_in = 1 / n, c_noise = ln(sigma) / 4.

    These give the input and the training target of F unit variance at every noise level, and D tends to the identity
    as sigma tends to 0.
    """

    def __init__(self, model: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.model = model
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, sigma: Tensor | float, lam: Tensor | None = None) -> Tensor:
        """The estimate of the clean sample behind `x = x_0 + sigma eps`.

        `x` is (B, ...), `sigma` is one positive number or (B,), and `lam` is (B,) where F takes lambda. F runs in the
        dtype of its weights (or of autocast); the result has the shape of `x` and is float32.
        """
        x = x.float()
        sigma = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).reshape(-1).expand(x.shape[0])
        square = sigma.square() + self.sigma_data**2
        c_in = square.rsqrt()
        c_skip = self.sigma_data**2 / square
        c_out = self.sigma_data * sigma * c_in
        c_noise = sigma.log() / 4

        per_sample = (-1,) + (1,) * (x.dim() - 1)
        scaled = (c_in.view(per_sample) * x).to(self._dtype())
        f = self.model(scaled, c_noise) if lam is None else self.model(scaled, c_noise, lam)
        return c_skip.view(per_sample) * x + c_out.view(per_sample) * f.float()

    def _dtype(self) -> torch.dtype:
        weight = next(self.model.parameters(), None)
        return torch.float32 if weight is None else weight.dtype
