"""Classifiers that the evaluation trains: the feature network, as a folder too, and the reader of facts.

InceptionV3 was made for photographs of 299x299 and says little of an 8x8 digit. The feature network learns from the
images at hand in seconds. It is trained without colour augmentation, so that FID on its features still sees colour. As
files it is `model.safetensors`, and `features.json`, which describes it.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors.torch
import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rdmd.config import ClassifierFeatures, EfficientNetLite0Features, Features, InceptionFeatures, Section
from rdmd.data.shards import Known
from rdmd.data.transforms import to_unit
from rdmd.errors import UserError
from rdmd.evaluation.corruption import corrupted
from rdmd.evaluation.features import FeatureNetwork, load_inception
from rdmd.files import replacing_folder, write_json
from rdmd.networks.classifier import ClassifierNet
from rdmd.networks.efficientnet_lite import load_efficientnet_lite0

WEIGHTS = "model.safetensors"
CARD = "features.json"
# More noise hides a wink in Personas at 24x24, a line of half a pixel.
_STEPS, _BATCH, _LR, _NOISE = 600, 64, 2e-3, 0.03
# The first layer of the classifier brings images to about this side.
_SIDE = 12


class FeatureClassifier:
    """A trained classifier as a `FeatureNetwork`: its features are those before the last non-linearity."""

    name = "classifier"

    def __init__(self, net: ClassifierNet, side: int, classes: Sequence[str | int] | None = None) -> None:
        """`side` is the training images'. `classes` are names in the order of the indices, or the indices if None."""
        self.net = net.eval().requires_grad_(False)
        self.side = side
        self.dim: int = net.head.in_features
        self.n_classes: int = net.head.out_features - 1
        self.classes = list(classes) if classes is not None else list(range(self.n_classes))

    @property
    def sha256(self) -> str:
        """The SHA-256 of the weights as the safetensors file that `save_classifier` writes."""
        return hashlib.sha256(self.weights()).hexdigest()

    def weights(self) -> bytes:
        """The weights in safetensors' format."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.net.state_dict().items()}
        return safetensors.torch.save(state)

    def to(self, device: torch.device) -> "FeatureClassifier":
        """Move the network to a device."""
        self.net.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) of 8 or 16 bits to (B, dim) float32."""
        return self.net.features(images)

    @torch.no_grad()
    def classify(self, images: Tensor, batch: int = 512) -> Tensor:
        """(N, C, H, W) of 8 or 16 bits to the index of the likeliest class, (N,) on the CPU. "Corrupted" is none."""
        device = self.net.head.weight.device
        logits = torch.cat([self.net(part.to(device)).cpu() for part in images.split(batch)])
        return logits[:, : self.n_classes].argmax(dim=1)

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """The share of images (N, C, H, W) of 8 or 16 bits whose class index (N,) is found."""
        return (self.classify(images) == labels.cpu()).double().mean().item()


def train_classifier(
    images: Tensor,
    labels: Tensor,
    settings: ClassifierFeatures,
    n_classes: int,
    seed: int,
    progress: Callable[[int, float], None] | None = None,
) -> FeatureClassifier:
    """Train on (N, C, H, W) of 8 or 16 bits images and class indices (N,), on the images' device.

    A quarter of each batch is corrupted at random strength and belongs to a class of its own, so that features see
    corruption and not only what tells the classes apart. Cross-entropy under AdamW with a cosine rate. The result is a
    function of the arguments: initial weights, batches and corruptions come from `seed` alone. `progress` is called
    with (steps done, loss) after every step.
    Raises `FloatingPointError` at a step whose loss is not finite.
    """
    if len(images) != len(labels) or images.is_floating_point():
        raise ValueError("needs images of 8 or 16 bits and as many labels")
    if not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise ValueError(f"labels must be class indices below {n_classes}")
    labels = labels.long().to(images.device)
    rng = torch.Generator().manual_seed(seed)
    net = ClassifierNet(images.shape[-1], settings.dim, n_classes)
    _initialise(net, rng)
    net.to(images.device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    )
    for step in range(1, settings.steps + 1):
        pick = torch.randint(len(images), (settings.batch,), generator=rng).to(images.device)
        spoilt = settings.batch // 4
        batch = torch.cat([corrupted(images[pick[:spoilt]], rng), images[pick[spoilt:]]])
        wanted = torch.cat([labels.new_full((spoilt,), n_classes), labels[pick[spoilt:]]])
        loss = cross_entropy(net(batch), wanted)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the feature classifier's loss is {value} at step {step}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step, value)
    return FeatureClassifier(net, images.shape[-1])


def _initialise(net: ClassifierNet, rng: torch.Generator) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=rng)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class FeaturesCard(Section):
    """What `features.json` holds. `classes` are names in the order of the class indices."""

    name: str
    sha256: str
    dim: int = Field(ge=1, le=65536)
    classes: list[str | int] = Field(min_length=1)
    side: int = Field(ge=1, le=4096)
    train_accuracy: float
    test_accuracy: float
    trained_on: str


def save_classifier(
    classifier: FeatureClassifier,
    folder: Path,
    classes: list[str | int],
    train_accuracy: float,
    test_accuracy: float,
    trained_on: str,
) -> FeaturesCard:
    """Write the folder, whole or not at all, and give back its card. `trained_on` is for readers."""
    if len(classes) != classifier.n_classes:
        raise ValueError(f"{len(classes)} class names for {classifier.n_classes} classes")
    card = FeaturesCard(
        name=classifier.name,
        sha256=classifier.sha256,
        dim=classifier.dim,
        classes=classes,
        side=classifier.side,
        train_accuracy=train_accuracy,
        test_accuracy=test_accuracy,
        trained_on=trained_on,
    )
    with replacing_folder(folder) as temporary:
        (temporary / WEIGHTS).write_bytes(classifier.weights())
        write_json(temporary / CARD, card.model_dump())
    return card


def load_classifier(folder: Path) -> tuple[FeatureClassifier, FeaturesCard]:
    """The classifier and its card.

    Raises `UserError` if a file is missing or damaged, or if the weights are not those that the card names.
    """
    remedy = "make it again with `rdmd features`"
    try:
        card = FeaturesCard.model_validate_json((folder / CARD).read_bytes())
        state = safetensors.torch.load((folder / WEIGHTS).read_bytes())
    except OSError as error:
        raise UserError(f"the feature network's file {error.filename} cannot be read; {remedy}.") from None
    except (ValidationError, SafetensorError):
        raise UserError(f"{folder} does not hold a feature network that this version reads; {remedy}.") from None
    net = ClassifierNet(card.side, card.dim, len(card.classes))
    try:
        net.load_state_dict(state)
    except RuntimeError:
        raise UserError(f"{folder / WEIGHTS} does not fit {CARD} beside it; {remedy}.") from None
    classifier = FeatureClassifier(net, card.side, card.classes)
    if classifier.sha256 != card.sha256:
        raise UserError(
            f"{folder / WEIGHTS} is not the file that {CARD} beside it names (its SHA-256 differs); {remedy}."
        )
    return classifier, card


def load_feature_network(features: Features, folder: Path | None, device: torch.device) -> FeatureNetwork:
    """The feature network of the section `evaluate.features`; `folder` holds that of a classifier.

    Raises `UserError` if its weights are missing or are not those that are expected.
    """
    match features:
        case InceptionFeatures():
            return load_inception(features.weights, device)
        case EfficientNetLite0Features():
            return load_efficientnet_lite0(device, features.side)
        case ClassifierFeatures():
            assert folder is not None, "the weights of a classifier are in a folder"
            return load_classifier(folder)[0].to(device)
        case _:
            raise ValueError("points are their own features")


class AttributeClassifier:
    """Reads facts, such as a beard, from images of one domain: a small network with one softmax for each fact.

    Its last layers see places, so it suits images of one framing, such as portraits.
    """

    def __init__(self, net: nn.Module, classes: dict[str, list[str | bool]]) -> None:
        """`classes` are the values of each fact, in the order of the network's outputs."""
        self.net = net
        self.classes = classes

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """The likeliest class index of each fact: (N, C, H, W) of 8 or 16 bits to (N,) each, on the CPU."""
        device = next(self.net.parameters()).device
        logits = torch.cat([self.net(_unit_rgb(part.to(device))).cpu() for part in images.split(512)])
        return {name: part.argmax(dim=1) for name, part in self._by_fact(logits).items()}

    def indices(self, known: Known) -> dict[str, Tensor]:
        """The class index of each sample's facts, (N,) each."""
        return {
            name: torch.tensor([values.index(facts[name]) for facts in known.facts])
            for name, values in self.classes.items()
        }

    def loss(self, images: Tensor, wanted: dict[str, Tensor]) -> Tensor:
        """The sum over facts of the cross-entropy. `images` are floats in [-1, 1]."""
        logits = self._by_fact(self.net(images))
        return torch.stack([cross_entropy(logits[name], wanted[name]) for name in logits]).sum()

    def _by_fact(self, logits: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.classes, logits.split([len(each) for each in self.classes.values()], dim=1), strict=True))


def train_attributes(images: Tensor, known: Known, seed: int, device: torch.device) -> AttributeClassifier | None:
    """Train on (N, C, H, W) of 8 or 16 bits images of the target, N >= 1, whose facts are `known`.

    Facts that are true or false or one of a few words are learned; colours and numbers are not. Images get noise of
    standard deviation 0.03, so that the network does not depend on exact pixels. A function of the arguments. None
    where there is nothing to learn.
    """
    named = {name: sorted({facts[name] for facts in known.facts}) for name in known.facts[0] if _is_class(known, name)}
    classes = {name: values for name, values in named.items() if len(values) > 1}
    if not classes:
        return None
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _attribute_network(images.shape[-1], sum(map(len, classes.values()))).to(device)
    classifier = AttributeClassifier(net, classes)
    labels = classifier.indices(known)
    optimizer = torch.optim.AdamW(net.parameters(), lr=_LR, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        pick = torch.randint(len(images), (_BATCH,), generator=rng)
        batch = _unit_rgb(images[pick])
        batch = batch + _NOISE * torch.randn(batch.shape, generator=rng)
        loss = classifier.loss(batch.to(device), {name: each[pick].to(device) for name, each in labels.items()})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return classifier


def _is_class(known: Known, name: str) -> bool:
    return all(
        isinstance(facts[name], bool) or (isinstance(facts[name], str) and facts[name][:1] != "#")
        for facts in known.facts
    )


def _unit_rgb(images: Tensor) -> Tensor:
    return to_unit(images).expand(-1, 3, -1, -1)


def _attribute_network(side: int, outputs: int) -> nn.Module:
    stride = max(1, side // _SIDE)
    after = -(-(side // stride) // 2)
    return nn.Sequential(
        nn.Conv2d(3, 32, stride, stride=stride),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * after**2, 128),
        nn.ReLU(),
        nn.Linear(128, outputs),
    )
