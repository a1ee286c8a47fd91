"""How close translations are to the true counterparts of their sources, where the test split holds these.

Realism compares sets of images and faithfulness compares a translation with its source; only a true counterpart shows
whether the content was kept and the style was changed. It fixes the sample's facts, not every pixel.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rdmd.data.samples import REGIONS
from rdmd.data.shards import Known
from rdmd.data.transforms import bits_of
from rdmd.evaluation import faithfulness
from rdmd.evaluation.classifier import AttributeClassifier
from rdmd.evaluation.faithfulness import Estimate, estimate
from rdmd.evaluation.row import PairedScores

# A region of fewer pixels says little of a colour.
FEWEST_PIXELS = 4


@dataclass(frozen=True, eq=False)
class PairedTruth:
    """The true counterparts of the sources, in the sources' order.

    `images` are (N, C, H, W), uint8 or uint16, `places` (N,) where they lie in the target's test split, and `features`
    (N, dim) float64 on the CPU. `regions` (N, H, W) uint8
    says where each colour is (`rdmd.data.samples.REGIONS`), and `attributes` what the classifier should read, as class
    indices.
    """

    images: Tensor
    places: Tensor
    features: Tensor
    regions: Tensor | None = None
    attributes: dict[str, Tensor] | None = None
    classifier: AttributeClassifier | None = None

    def at(self, index: Tensor) -> "PairedTruth":
        """The counterparts of some of the sources."""
        return replace(
            self,
            images=self.images[index],
            places=self.places[index],
            features=self.features[index],
            regions=None if self.regions is None else self.regions[index],
            attributes=self.attributes and {name: each[index] for name, each in self.attributes.items()},
        )

    def scores(self, images: Tensor, features: Tensor) -> PairedScores:
        """The scores of translations (N, C, H, W) with these features (N, dim)."""
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
    """The difference in colour within a region: images (N, C, H, W), `region` (N, H, W) bool, to (M,) in [0, 1].

    A colour is the median of each channel over the region's pixels, since a translation may draw a part of the region
    elsewhere; the difference is the mean over channels. Both images are read where the truth has the region. Images
    whose region is smaller than `FEWEST_PIXELS` are left out.
    """
    enough = region.sum(dim=(1, 2)) >= FEWEST_PIXELS
    inside = region[enough][:, None]
    colours = [
        torch.where(inside, side[enough].double() / (2 ** bits_of(side) - 1), math.nan)
        .flatten(2)
        .nanmedian(dim=2)
        .values
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
