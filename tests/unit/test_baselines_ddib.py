"""DDIB between Gaussians, where it is the Monge map."""

import pytest
import torch
from torch import Tensor

from rdmd.baselines.ddib import DDIB
from rdmd.baselines.sdedit import SIGMA_MAX
from rdmd.diffusion.loss import Denoiser
from rdmd.evaluation.transport import affine_monge_map


def gaussian(m: Tensor, covariance: Tensor) -> Denoiser:
    """The exact denoiser of N(m, covariance)."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        gain = covariance @ torch.linalg.inv(covariance + sigma[0].double() ** 2 * torch.eye(len(m), dtype=m.dtype))
        return m + (x - m) @ gain.T

    return denoise


M1, M2 = torch.tensor([-0.5, 0.2]).double(), torch.tensor([0.7, 0.1]).double()
# They commute, so that the flow of one through the noise and back by the other is the Monge map; in general it is not.
C1, C2 = torch.diag(torch.tensor([0.36, 0.25])).double(), torch.diag(torch.tensor([0.16, 1.0])).double()
X = M1 + torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ C1.sqrt()


def translated(steps: int) -> Tensor:
    return DDIB(gaussian(M1, C1), gaussian(M2, C2), steps)(X, torch.Generator())


def exact_flow() -> Tensor:
    """Both flows solved: x_80 = m1 + (x - m1) sqrt(s1^2 + 80^2) / s1, then back with the target's m2 and s2."""
    s1, s2 = C1.diag(), C2.diag()
    latent = M1 + (X - M1) * ((s1 + SIGMA_MAX**2) / s1).sqrt()
    return M2 + (latent - M2) * (s2 / (s2 + SIGMA_MAX**2)).sqrt()


def test_the_solver_follows_both_flows_at_second_order():
    def error(steps: int) -> float:
        return (translated(steps) - exact_flow()).abs().max().item()

    assert error(100) / error(200) == pytest.approx(4, rel=0.3)  # a first-order method would give 2
    assert error(200) < 1e-3


def test_it_is_the_affine_monge_map_between_gaussians():
    exact = affine_monge_map(M1, C1, M2, C2)
    torch.testing.assert_close(exact(X), M2 + (X - M1) * (C2.diag() / C1.diag()).sqrt())
    # Beside the solver's error (above), sigma = 80 is not infinity: the flow keeps (m1 - m2) s2 / 80 of the means'
    # difference, 0.006 and 0.00125 here, and 1e-4 of the scale.
    bias = ((M1 - M2).abs() * C2.diag().sqrt() / SIGMA_MAX).max().item()
    assert (translated(200) - exact(X)).abs().max().item() < bias + 2e-3


def test_there_and_back_is_the_identity():
    # With one teacher both ways the leading errors cancel: well below the 7e-4 of two teachers at 100 steps.
    back = DDIB(gaussian(M1, C1), gaussian(M1, C1), 100)(X, torch.Generator())
    assert (back - X).abs().max().item() < 2e-4


def test_no_randomness():
    ddib, x = DDIB(gaussian(M1, C1), gaussian(M2, C2), 5), X[:4]
    assert torch.equal(ddib(x, torch.Generator().manual_seed(1)), ddib(x, torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("steps", [2, 9])
def test_nfe_is_the_number_of_calls(steps: int):
    calls = {"source": 0, "target": 0}

    def counted(name: str) -> Denoiser:
        D = gaussian(M1, C1)

        def call(x: Tensor, sigma: Tensor) -> Tensor:
            calls[name] += 1
            return D(x, sigma)

        return call

    ddib = DDIB(counted("source"), counted("target"), steps)
    ddib(X[:3], torch.Generator())
    assert calls == {"source": 2 * steps - 2, "target": 2 * steps - 1}
    assert ddib.nfe == sum(calls.values())


def test_one_level_is_refused():
    with pytest.raises(ValueError, match="steps >= 2"):
        DDIB(gaussian(M1, C1), gaussian(M2, C2), 1)
