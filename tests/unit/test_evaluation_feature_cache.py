"""Features are computed once for a set of pictures, and anew for any other."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rdmd.config import ClassifierFeatures
from rdmd.evaluation.classifier import FeatureClassifier, train_classifier
from rdmd.evaluation.features import FeatureCache, features_of

CPU = torch.device("cpu")


def pictures(seed: int, count: int = 30) -> Tensor:
    return torch.randint(256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


class Counting(FeatureClassifier):
    """Says how many pictures it has seen."""

    seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return super().__call__(images)


def trained(seed: int = 0) -> Counting:
    settings = ClassifierFeatures(network="classifier", dim=8, steps=2, batch=8)
    classifier = train_classifier(pictures(9), torch.arange(30) % 2, settings, n_classes=2, seed=seed)
    return Counting(classifier.net, classifier.side)


def test_the_same_pictures_are_seen_once_and_give_the_same_features(tmp_path: Path):
    network, cache = trained(), FeatureCache(tmp_path / "features")
    first = cache.features_of(network, pictures(0), 16, CPU)
    again = FeatureCache(tmp_path / "features").features_of(network, pictures(0).clone(), 16, CPU)
    assert network.seen == 30
    assert torch.equal(first, features_of(network, pictures(0), 16, CPU))
    assert torch.equal(again, first)
    assert again.dtype == torch.float64


@pytest.mark.parametrize(
    "other",
    [pictures(1), pictures(0).flip(0), pictures(0)[:29], pictures(0).reshape(30, 3, 4, 16)],
    ids=["other pictures", "another order", "fewer", "another shape"],
)
def test_other_pictures_have_features_of_their_own(tmp_path: Path, other: Tensor):
    network, cache = trained(), FeatureCache(tmp_path)
    cache.features_of(network, pictures(0), 16, CPU)
    assert torch.equal(cache.features_of(network, other, 16, CPU), features_of(network, other, 16, CPU))


def test_another_network_has_features_of_its_own(tmp_path: Path):
    cache, other = FeatureCache(tmp_path), trained(seed=1)
    cache.features_of(trained(), pictures(0), 16, CPU)
    assert torch.equal(cache.features_of(other, pictures(0), 16, CPU), features_of(other, pictures(0), 16, CPU))


@pytest.mark.parametrize("damage", [b"", b"nothing like it", "cut"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes | str):
    network, cache = trained(), FeatureCache(tmp_path)
    first = cache.features_of(network, pictures(0), 16, CPU)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-5] if damage == "cut" else damage)
    assert torch.equal(cache.features_of(network, pictures(0), 16, CPU), first)
    assert file.read_bytes() == whole


def test_what_was_used_longest_ago_makes_room(tmp_path: Path):
    network = trained()
    FeatureCache(tmp_path).features_of(network, pictures(0), 16, CPU)
    (file,) = tmp_path.iterdir()
    cache = FeatureCache(tmp_path, most_bytes=2 * file.stat().st_size)
    cache.features_of(network, pictures(1), 16, CPU)
    cache.features_of(network, pictures(0), 16, CPU)  # used again: 1 is the older now
    cache.features_of(network, pictures(2), 16, CPU)
    assert len(list(tmp_path.iterdir())) == 2
    network.seen = 0
    cache.features_of(network, pictures(0), 16, CPU)
    assert network.seen == 0
    cache.features_of(network, pictures(1), 16, CPU)
    assert network.seen == 30
