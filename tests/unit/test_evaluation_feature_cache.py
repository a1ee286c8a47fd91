"""Features are computed once for a set of images, and anew for any other."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rdmd.config import ClassifierFeatures
from rdmd.evaluation.classifier import FeatureClassifier, train_classifier
from rdmd.evaluation.features import FeatureCache, features_of

CPU = torch.device("cpu")


def images(seed: int, count: int = 30) -> Tensor:
    return torch.randint(256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


class Counting(FeatureClassifier):
    """Says how many images it has seen."""

    seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return super().__call__(images)


def trained(seed: int = 0) -> Counting:
    settings = ClassifierFeatures(network="classifier", dim=8, steps=2, batch=8)
    classifier = train_classifier(images(9), torch.arange(30) % 2, settings, n_classes=2, seed=seed)
    return Counting(classifier.net, classifier.side)


def test_the_same_images_are_seen_once_and_give_the_same_features(tmp_path: Path):
    network, cache = trained(), FeatureCache(tmp_path / "features")
    first = cache.features_of(network, images(0), 16, CPU)
    again = FeatureCache(tmp_path / "features").features_of(network, images(0).clone(), 16, CPU)
    assert network.seen == 30
    assert torch.equal(first, features_of(network, images(0), 16, CPU))
    assert torch.equal(again, first)
    assert again.dtype == torch.float64


@pytest.mark.parametrize(
    "other",
    [images(1), images(0).flip(0), images(0)[:29], images(0).reshape(30, 3, 4, 16)],
    ids=["other images", "another order", "fewer", "another shape"],
)
def test_other_images_have_features_of_their_own(tmp_path: Path, other: Tensor):
    network, cache = trained(), FeatureCache(tmp_path)
    cache.features_of(network, images(0), 16, CPU)
    assert torch.equal(cache.features_of(network, other, 16, CPU), features_of(network, other, 16, CPU))


def test_another_network_has_features_of_its_own(tmp_path: Path):
    cache, other = FeatureCache(tmp_path), trained(seed=1)
    cache.features_of(trained(), images(0), 16, CPU)
    assert torch.equal(cache.features_of(other, images(0), 16, CPU), features_of(other, images(0), 16, CPU))


@pytest.mark.parametrize("damage", [b"", b"nothing like it", "cut"])
@pytest.mark.filterwarnings("ignore:Exception while loading results:UserWarning")
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes | str):
    network, cache = trained(), FeatureCache(tmp_path)
    first = cache.features_of(network, images(0), 16, CPU)
    (file,) = tmp_path.rglob("output.pkl")
    whole = file.read_bytes()
    file.write_bytes(whole[:-5] if isinstance(damage, str) else damage)
    assert torch.equal(cache.features_of(network, images(0), 16, CPU), first)
    assert network.seen == 60
    assert torch.equal(cache.features_of(network, images(0), 16, CPU), first)
    assert network.seen == 60


def test_features_that_were_read_longest_ago_make_room(tmp_path: Path):
    network, cache = trained(), FeatureCache(tmp_path, most_bytes=4000)  # three sets of features of 1,300 bytes
    cache.features_of(network, images(0), 16, CPU)
    (first,) = tmp_path.rglob("output.pkl")
    os.utime(first, (0, 0))
    for seed in (1, 2, 3, 4):
        cache.features_of(network, images(seed), 16, CPU)
    assert not first.exists()
    assert len(list(tmp_path.rglob("output.pkl"))) == 3
    network.seen = 0
    cache.features_of(network, images(4), 16, CPU)
    assert network.seen == 0
