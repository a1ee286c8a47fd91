"""Faithfulness and colour on images whose answers are known."""

import math

import pytest
import torch
from torch import Tensor

from rdmd.evaluation import faithfulness
from rdmd.evaluation.faithfulness import colour_error, colour_vector, estimate


def plain(level: int, side: int = 8, count: int = 3) -> Tensor:
    return torch.full((count, 3, side, side), level, dtype=torch.uint8)


def test_costs_of_black_against_white() -> None:
    black, white = plain(0), plain(255)
    dimensions = 3 * 8 * 8
    assert faithfulness.cost(black, white).tolist() == pytest.approx([4.0] * 3)
    assert faithfulness.l2_norm01(black, white).tolist() == pytest.approx([math.sqrt(dimensions)] * 3)


def test_cost_and_norm_are_one_quantity() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randint(0, 256, (2, 5, 3, 6, 6), generator=rng, dtype=torch.uint8)
    cost, dimensions = faithfulness.cost(x, y), 3 * 6 * 6
    assert torch.allclose(faithfulness.l2_norm01(x, y), (cost * dimensions).sqrt() / 2)


def test_psnr_of_a_known_error() -> None:
    # Ten levels off everywhere: 20 log10(255 / 10).
    assert faithfulness.psnr(plain(100), plain(110)).tolist() == pytest.approx([20 * math.log10(25.5)] * 3)
    assert faithfulness.psnr(plain(7), plain(7)).tolist() == [100.0] * 3


def test_psnr_agrees_with_scikit_image() -> None:
    from skimage.metrics import peak_signal_noise_ratio

    rng = torch.Generator().manual_seed(1)
    x, y = torch.randint(0, 256, (2, 4, 3, 16, 16), generator=rng, dtype=torch.uint8)
    theirs = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    assert faithfulness.psnr(x, y).tolist() == pytest.approx(theirs)


def test_ssim_of_flat_images_has_a_closed_form() -> None:
    """Without variance only the luminance term is left: (2 a b + C1) / (a^2 + b^2 + C1), C1 = (0.01 * 255)^2."""
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert faithfulness.ssim(plain(100), plain(150)).tolist() == pytest.approx([expected] * 3)


@pytest.mark.parametrize("side", [4, 6, 8, 32])
def test_ssim_of_an_image_with_itself_is_one_at_every_size(side: int) -> None:
    rng = torch.Generator().manual_seed(2)
    x = torch.randint(0, 256, (2, 3, side, side), generator=rng, dtype=torch.uint8)
    assert faithfulness.ssim(x, x).tolist() == pytest.approx([1.0, 1.0])
    assert faithfulness.ssim(x, 255 - x).max() < 0.5


def test_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        faithfulness.cost(plain(0).float(), plain(0).float())


def test_standard_error_of_a_mean() -> None:
    found = estimate(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert found.mean == 2.5
    assert found.se == pytest.approx(math.sqrt(5 / 3) / 2)


def test_the_standard_error_of_grouped_values_is_that_of_independent_groups():
    values = torch.randn(40, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(40).repeat_interleave(7)
    # Copies say nothing new; and a group of one value each is the usual standard error.
    found = estimate(values.repeat_interleave(7), groups)
    assert (found.mean, found.se) == pytest.approx((estimate(values).mean, estimate(values).se))
    assert estimate(values, torch.arange(40)).se == pytest.approx(estimate(values).se)
    assert estimate(values, torch.zeros(40).long()).se is None


def test_colour_vector_forgets_brightness_and_amount() -> None:
    orange = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    orange[0, 0, :2], orange[0, 1, :2] = 200, 100
    faint = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    faint[0, 0, 3:], faint[0, 1, 3:] = 60, 30
    assert colour_vector(orange)[0].tolist() == pytest.approx([1.0, 0.5, 0.0])
    assert colour_error(orange, faint).item() == pytest.approx(0.0)
    assert colour_vector(plain(0))[0].tolist() == [1.0, 1.0, 1.0]


def test_colour_error_of_complements_and_of_random_hues() -> None:
    red = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    red[:, 0] = 255
    assert colour_error(red, 255 - red).item() == 1.0
    rng = torch.Generator().manual_seed(3)
    hues = torch.rand(2, 4000, generator=rng, dtype=torch.float64) * 6
    channels = [1 - torch.minimum((n + hues) % 6, 4 - (n + hues) % 6).clamp(0, 1) for n in (5, 3, 1)]
    first, second = (255 * torch.stack(channels, dim=-1)).round().to(torch.uint8)[..., None, None].unbind(0)
    found = estimate(colour_error(first, second))
    assert abs(found.mean - 13 / 27) < 4 * found.se
