"""How close translations are to the true counterparts of their sources, where the test split holds these.

Realism compares sets of images and faithfulness compares a translation with its source; only a true counterpart shows
whether the content was kept and the style was changed. It fixes the sample's facts, not every pixel.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rdmd.data.samples import REGIONS
from rdmd.data.shards import Known
from rdmd.data.transforms import to_unit
from rdmd.evaluation import faithfulness
from rdmd.evaluation.faithfulness import Estimate, estimate
from rdmd.evaluation.row import PairedScores

# A region of fewer pixels says little of a colour.
FEWEST_PIXELS = 4
# More noise hides a wink in Personas at 24x24, a line of half a pixel.
_STEPS, _BATCH, _LR, _NOISE = 600, 64, 2e-3, 0.03
# The first layer of the classifier brings images to about this side.
_SIDE = 12


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
        """The likeliest class index of each fact: (N, 3, H, W) uint8 to (N,) each, on the CPU."""
        device = next(self.net.parameters()).device
        logits = torch.cat([self.net(to_unit(part.to(device))).cpu() for part in images.split(512)])
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
    """Train on (N, 3, H, W) uint8 images of the target, N >= 1, whose facts are `known`.

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
        net = _network(images.shape[-1], sum(map(len, classes.values()))).to(device)
    classifier = AttributeClassifier(net, classes)
    labels = classifier.indices(known)
    optimizer = torch.optim.AdamW(net.parameters(), lr=_LR, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        pick = torch.randint(len(images), (_BATCH,), generator=rng)
        batch = to_unit(images[pick])
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


def _network(side: int, outputs: int) -> nn.Module:
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


@dataclass(frozen=True, eq=False)
class PairedTruth:
    """The true counterparts of the sources, in the sources' order.

    `images` are (N, 3, H, W) uint8 and `features` (N, dim) float64 on the CPU. `regions` (N, H, W) uint8 says where
    each colour is (`rdmd.data.samples.REGIONS`), and `attributes` what the classifier should read, as class indices.
    """

    images: Tensor
    features: Tensor
    regions: Tensor | None = None
    attributes: dict[str, Tensor] | None = None
    classifier: AttributeClassifier | None = None

    def at(self, index: Tensor) -> "PairedTruth":
        """The counterparts of some of the sources."""
        return replace(
            self,
            images=self.images[index],
            features=self.features[index],
            regions=None if self.regions is None else self.regions[index],
            attributes=self.attributes and {name: each[index] for name, each in self.attributes.items()},
        )

    def scores(self, images: Tensor, features: Tensor) -> PairedScores:
        """The scores of translations (N, 3, H, W) uint8 with these features (N, dim)."""
        psnr = estimate(faithfulness.psnr(self.images, images))
        distance = estimate((features - self.features).norm(dim=1))
        colours = self._colour_errors(images)
        return PairedScores(
            psnr=psnr.mean,
            psnr_se=psnr.se,
            feature_distance=distance.mean,
            feature_distance_se=distance.se,
            retrieval=retrieval(features, self.features),
            colour_error={name: each.mean for name, each in colours.items()},
            colour_error_se={name: each.se for name, each in colours.items() if each.se is not None},
            agreement=self._agreement(images),
        )

    def _colour_errors(self, images: Tensor) -> dict[str, Estimate]:
        if self.regions is None:
            return {}
        errors = {name: colour_error(images, self.images, self.regions == i) for i, name in enumerate(REGIONS, 1)}
        return {name: estimate(each) for name, each in errors.items() if len(each)}

    def _agreement(self, images: Tensor) -> dict[str, float]:
        if self.classifier is None or self.attributes is None:
            return {}
        read = self.classifier(images)
        return {name: (read[name] == truth).double().mean().item() for name, truth in self.attributes.items()}


def retrieval(features: Tensor, truth: Tensor) -> float:
    """The share of rows of `features` (N, dim) whose nearest row of `truth` (N, dim) is the one of the same number.

    Chance is 1 / N. Of equal distances the first row counts.
    """
    nearest = torch.cdist(features, truth).argmin(dim=1)
    return (nearest == torch.arange(len(features))).double().mean().item()


def colour_error(images: Tensor, truth: Tensor, region: Tensor) -> Tensor:
    """The difference in colour within a region: images (N, 3, H, W) uint8, `region` (N, H, W) bool, to (M,) in [0, 1].

    A colour is the median of each channel over the region's pixels, since a translation may draw a part of the region
    elsewhere; the difference is the mean over channels. Both images are read where the truth has the region. Images
    whose region is smaller than `FEWEST_PIXELS` are left out.
    """
    enough = region.sum(dim=(1, 2)) >= FEWEST_PIXELS
    inside = region[enough][:, None]
    colours = [
        torch.where(inside, side[enough].double() / 255, math.nan).flatten(2).nanmedian(dim=2).values
        for side in (images, truth)
    ]
    return (colours[0] - colours[1]).abs().mean(dim=1)


def counterparts(source: Known | None, target: Known | None) -> list[int] | None:
    """The place of each source's true counterpart in the target's test split; None unless every source has one."""
    if source is None or target is None:
        return None
    places = {facts["pair"]: place for place, facts in enumerate(target.facts) if "pair" in facts}
    found = [places.get(facts.get("pair")) for facts in source.facts]
    return None if None in found else [place for place in found if place is not None]
