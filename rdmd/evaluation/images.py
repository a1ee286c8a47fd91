"""What a translator of images is measured on, and the measuring."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rdmd.config import Evaluate
from rdmd.data.transforms import to_uint8, to_unit
from rdmd.errors import UserError
from rdmd.evaluation import faithfulness, realism
from rdmd.evaluation.classifier import FeatureClassifier
from rdmd.evaluation.faithfulness import Estimate, colour_error, estimate
from rdmd.evaluation.features import FeatureCache, FeatureNetwork, features_of
from rdmd.evaluation.row import FeaturesRecord, Scores
from rdmd.evaluation.sampling import sample_of, too_few, units_of


@dataclass(frozen=True)
class ImageTask:
    """Source and reference pictures of the test split, (N, 3, H, W) uint8, and how they are judged. A source of
    float32 is noise, which nothing can be faithful to: only realism is measured.

    `reference_features` (n_reference, dim) are kept, since every translator is compared with the same. The units say
    which scan is behind each source and each reference picture (`realism.Units`).
    `classifier` and `settings.target_class` (one of its classes, by name) give `class_share`;
    without either it is None. `cache` keeps the features of translations for the next evaluation; None keeps nothing.
    `refused` is why the features rank nothing (`FeaturesRecord`).
    """

    source: Tensor
    source_units: Tensor
    reference: Tensor
    reference_units: Tensor
    reference_features: Tensor
    features: FeatureNetwork
    settings: Evaluate
    seed: int
    device: torch.device
    classifier: FeatureClassifier | None
    cache: FeatureCache | None = None
    refused: str | None = None

    @property
    def from_noise(self) -> bool:
        """Whether the source is noise."""
        return self.source.is_floating_point()

    def inputs(self) -> Tensor:
        """What translators are given, on the CPU: float pictures in [-1, 1], or noise as it is."""
        return self.source if self.from_noise else to_unit(self.source)

    def record(self) -> FeaturesRecord:
        """Which features realism is measured on."""
        return FeaturesRecord(
            name=self.features.name, sha256=self.features.sha256, dim=self.features.dim, refused=self.refused
        )

    def score(self, translations: Tensor) -> Scores:
        """All metrics of translations (n_source, 3, H, W) in [-1, 1], in the order of the source."""
        # Part by part here and below: floats of all pictures at once would take many times the pictures' memory.
        pictures = torch.cat([to_uint8(part) for part in translations.split(self.settings.batch)])
        if self.from_noise:
            return Scores(**self._realism(pictures, self.source_units))
        cost = self._mean_of(faithfulness.cost, pictures)
        norm = self._mean_of(faithfulness.l2_norm01, pictures)
        psnr = self._mean_of(faithfulness.psnr, pictures)
        ssim = self._mean_of(faithfulness.ssim, pictures)
        colour = self._mean_of(colour_error, pictures)
        return Scores(
            **self._realism(pictures, self.source_units),
            cost=cost.mean,
            cost_se=cost.se,
            cost_sum=cost.mean * pictures[0].numel(),
            l2_norm01=norm.mean,
            l2_norm01_se=norm.se,
            psnr=psnr.mean,
            psnr_se=psnr.se,
            ssim=ssim.mean,
            ssim_se=ssim.se,
            colour_error=colour.mean,
            colour_error_se=colour.se,
        )

    def score_target(self, target: Tensor, scans: Sequence[str] | None = None) -> Scores:
        """Realism of the target's own training pictures (N, 3, H, W) uint8, as many as there are sources. `scans` names
        the scan behind each; None if every picture is its own."""
        count = len(self.source)
        pictures = sample_of(target, count, self.seed)
        return Scores(**self._realism(pictures, units_of(scans, len(target), count, self.seed)))

    def _mean_of(self, metric: Callable[[Tensor, Tensor], Tensor], pictures: Tensor) -> Estimate:
        """The mean of what compares each source with its translation."""
        parts = zip(self.source.split(self.settings.batch), pictures.split(self.settings.batch), strict=True)
        return estimate(torch.cat([metric(source, part) for source, part in parts]))

    def _realism(self, pictures: Tensor, generated_units: Tensor) -> dict[str, float | tuple[float, float] | None]:
        """The fields of `Scores` that compare with the target and not with the source."""
        features = features_of if self.cache is None else self.cache.features_of
        generated = features(self.features, pictures, self.settings.batch, self.device)
        reference, units = self.reference_features, realism.Units(generated_units, self.reference_units)
        measured: dict[str, float | tuple[float, float] | None] = {"class_share": self._class_share(pictures)}
        if min(len(generated), len(reference)) < 2:
            return measured
        kid = realism.kid(generated, reference, self.seed)
        measured |= {"fid": realism.fid(generated, reference), "kid": kid.mean, "kid_std": kid.std}
        if realism.have_neighbours(units):
            found = realism.precision_recall(generated, reference, units)
            measured |= {"precision": found.precision, "recall": found.recall}
        if self.settings.bootstrap > 1 and realism.can_be_resampled(units):
            measured["fid_ci"] = realism.fid_interval(generated, reference, self.settings.bootstrap, self.seed, units)
        return measured

    def left_out(self) -> str:
        """Which metrics the test splits are too small for, in a sentence; empty if there are none."""
        units = realism.Units(self.source_units, self.reference_units)
        names = []
        if min(len(self.source), len(self.reference)) < 2:
            names += ["FID and KID (two images on both sides)"]
        if not realism.have_neighbours(units):
            names += [f"precision and recall ({realism.NEIGHBOURS} images of other scans beside each)"]
        if not realism.can_be_resampled(units):
            names += ["the interval of FID (two scans on both sides)"]
        if len(self.source) < 2:
            names += ["standard errors (two source images)"]
        return too_few(len(self.source), len(self.reference), names)

    def _class_share(self, pictures: Tensor) -> float | None:
        if self.classifier is None or self.settings.target_class is None:
            return None
        index = self.classifier.classes.index(self.settings.target_class)
        return (self.classifier.classify(pictures) == index).double().mean().item()


def image_task(
    source: Tensor,
    reference: Tensor,
    features: FeatureNetwork,
    settings: Evaluate,
    seed: int,
    device: torch.device,
    classifier: FeatureClassifier | None = None,
    source_scans: Sequence[str] | None = None,
    reference_scans: Sequence[str] | None = None,
    cache: FeatureCache | None = None,
    refused: str | None = None,
) -> ImageTask:
    """A task on `settings.n_source` and `n_reference` pictures drawn from the test splits (all, where there
    are fewer).

    `source` and `reference` are (N, 3, H, W) uint8, a source of noise float32; `scans` name the scan behind each,
    None if every one is its own. Features are taken from `cache`, and kept there. The features' and the classifier's
    networks must be on `device`. Raises `UserError` if `settings.target_class` is none of the classifier's classes.
    """
    target_class = settings.target_class
    if classifier is not None and target_class is not None and target_class not in classifier.classes:
        known = ", ".join(str(name) for name in classifier.classes)
        raise UserError(
            f"evaluate.target_class is {target_class}, but the feature network knows the classes {known}; take one of "
            "them, or null."
        )
    picked = sample_of(reference, settings.n_reference, seed)
    of_pictures = features_of if cache is None else cache.features_of
    return ImageTask(
        source=sample_of(source, settings.n_source, seed),
        source_units=units_of(source_scans, len(source), settings.n_source, seed),
        reference=picked,
        reference_units=units_of(reference_scans, len(reference), settings.n_reference, seed),
        reference_features=of_pictures(features, picked, settings.batch, device),
        features=features,
        settings=settings,
        seed=seed,
        device=device,
        classifier=classifier,
        cache=cache,
        refused=refused,
    )
