"""The classifier of `rdmd.networks.classifier` as a feature network, and its training.

InceptionV3 was made for photographs of 299x299 and says little of an 8x8 digit. This network learns from
the images at hand in seconds. It is trained without colour augmentation, so that FID on its features
still sees colour.
"""

import hashlib
import math
from collections.abc import Callable, Sequence

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rdmd.config import ClassifierFeatures
from rdmd.evaluation.corruption import corrupted
from rdmd.networks.classifier import ClassifierNet


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
        """(B, 3, H, W) uint8 to (B, dim) float32."""
        return self.net.features(images)

    @torch.no_grad()
    def classify(self, images: Tensor, batch: int = 512) -> Tensor:
        """(N, 3, H, W) uint8 to the index of the likeliest class, (N,) on the CPU. "Corrupted" is none."""
        device = self.net.head.weight.device
        logits = torch.cat([self.net(part.to(device)).cpu() for part in images.split(batch)])
        return logits[:, : self.n_classes].argmax(dim=1)

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """The share of images (N, 3, H, W) uint8 whose class index (N,) is found."""
        return (self.classify(images) == labels.cpu()).double().mean().item()


def train_classifier(
    images: Tensor,
    labels: Tensor,
    settings: ClassifierFeatures,
    n_classes: int,
    seed: int,
    progress: Callable[[int, float], None] | None = None,
) -> FeatureClassifier:
    """Train on (N, 3, H, W) uint8 images and class indices (N,), on the images' device.

    A quarter of each batch is corrupted at random strength and belongs to a class of its own, so that features see
    corruption and not only what tells the classes apart. Cross-entropy under AdamW with a cosine rate. The result is a
    function of the arguments: initial weights, batches and corruptions come from `seed` alone. `progress` is called
    with (steps done, loss) after every step.
    Raises `FloatingPointError` at a step whose loss is not finite.
    """
    if len(images) != len(labels) or images.dtype != torch.uint8:
        raise ValueError("needs uint8 images and as many labels")
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
