"""From a network F to a denoiser D: the preconditionings of Karras et al. 2022 (equation 7, table 1)."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

Coefficients = tuple[Tensor, Tensor, Tensor, Tensor]


class Preconditioned(nn.Module, ABC):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise), with `coefficients` of sigma."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def coefficients(self, sigma: Tensor) -> Coefficients:
        """c_skip, c_out, c_in and c_noise, (B,) each, for sigma (B,)."""

    def forward(
        self, x: Tensor, sigma: Tensor | float, lam: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """The estimate of the clean sample behind `x = x_0 + sigma eps`.

        `x` is (B, ...), `sigma` is one positive number or (B,), `lam` is (B,) where F takes lambda, and `labels` are
        the augmentation labels (B, 9) of training images. F runs in the dtype of its weights (or of autocast); the
        result has the shape of `x` and is float32.
        """
        x = x.float()
        sigma = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).reshape(-1).expand(x.shape[0])
        c_skip, c_out, c_in, c_noise = self.coefficients(sigma)

        per_sample = (-1,) + (1,) * (x.dim() - 1)
        scaled = (c_in.view(per_sample) * x).to(self._dtype())
        more = (lam, labels) if labels is not None else () if lam is None else (lam,)
        f = self.model(scaled, c_noise, *more)
        return c_skip.view(per_sample) * x + c_out.view(per_sample) * f.float()

    def _dtype(self) -> torch.dtype:
        weight = next(self.model.parameters(), None)
        return torch.float32 if weight is None else weight.dtype


class EDMPrecond(Preconditioned):
    """EDM's preconditioning, for data with standard deviation `sigma_data`.

    With s = sigma_data and n^2 = sigma^2 + s^2:
    c_skip = s^2 / n^2, c_out = sigma s / n, c_in = 1 / n, c_noise = ln(sigma) / 4.

    These give the input and the training target of F unit variance at every noise level, and D tends to the identity
    as sigma tends to 0.
    """

    def __init__(self, model: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__(model)
        self.sigma_data = sigma_data

    def coefficients(self, sigma: Tensor) -> Coefficients:
        square = sigma.square() + self.sigma_data**2
        c_in = square.rsqrt()
        return self.sigma_data**2 / square, self.sigma_data * sigma * c_in, c_in, sigma.log() / 4


Prediction = Literal["epsilon", "v_prediction", "sample"]


class VPPrecond(Preconditioned):
    """The preconditioning of a network F(x_t, t) for discrete, variance-preserving noise.

    At the step t = 0, 1, ..., F reads x_t = alpha_t (x_0 + sigma_t eps), with alpha_t^2 = abar_t and
    sigma_t^2 = (1 - abar_t) / abar_t (Ho et al. 2020; Song et al. 2021, appendix D). Its output is eps, the velocity
    v = alpha_t eps - alpha_t sigma_t x_0 (Salimans and Ho 2022), or x_0. With alpha^2 = 1 / (1 + sigma^2):

    c_in = alpha; eps: c_skip = 1, c_out = -sigma; v: c_skip = alpha^2, c_out = -alpha sigma; x_0: 0 and 1.

    Between the steps, t is linear in ln(sigma); outside of all sigma_t it is that of the nearest.
    """

    log_sigmas: Tensor

    def __init__(self, model: nn.Module, alphas_cumprod: Tensor, prediction: Prediction) -> None:
        """alphas_cumprod: abar_t, (T,), falling. The last may be 0, which is noise alone: an infinite sigma."""
        super().__init__(model)
        abar = alphas_cumprod.double()
        self.register_buffer("log_sigmas", (((1 - abar) / abar).log() / 2).float(), persistent=False)
        self.prediction = prediction

    def coefficients(self, sigma: Tensor) -> Coefficients:
        alpha = (1 + sigma.square()).rsqrt()
        t = self._step(sigma)
        if self.prediction == "epsilon":
            return torch.ones_like(sigma), -sigma, alpha, t
        if self.prediction == "v_prediction":
            return alpha.square(), -alpha * sigma, alpha, t
        return torch.zeros_like(sigma), torch.ones_like(sigma), alpha, t

    def _step(self, sigma: Tensor) -> Tensor:
        """The continuous step t (B,), float32."""
        table = self.log_sigmas
        log_sigma = sigma.log().clamp(table[0], table[-1])
        # A sum and not `searchsorted`, which ONNX lacks.
        below = (log_sigma[:, None] > table[1:-1]).sum(1)
        low, high = table[below], table[below + 1]
        return below + (log_sigma - low) / (high - low)
