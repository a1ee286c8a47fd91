"""The test samples that translators are evaluated on, and the scores of their translations."""

import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rdmd.config import Evaluate
from rdmd.data.transforms import Bits, bits_of, to_pixels, to_unit
from rdmd.errors import UserError
from rdmd.evaluation import faithfulness, realism, transport
from rdmd.evaluation.classifier import FeatureClassifier
from rdmd.evaluation.faithfulness import Estimate, estimate
from rdmd.evaluation.features import FeatureCache, FeatureNetwork, features_of
from rdmd.evaluation.paired import PairedTruth
from rdmd.evaluation.row import FeaturesRecord, Scores
from rdmd.evaluation.selection import FEW
from rdmd.evaluation.transport import ExactPlan

# By their names in `Scores`: (source, translation) to a value for each image.
_FAITHFULNESS = {
    "cost": faithfulness.cost,
    "l2_norm01": faithfulness.l2_norm01,
    "psnr": faithfulness.psnr,
    "ssim": faithfulness.ssim,
    "colour_error": faithfulness.colour_error,
}


@dataclass(frozen=True)
class ImageFeatures:
    """The feature network of FID, KID, precision and recall, on the task's device.

    `classifier` gives `class_share`; without it that score is None. `refused` is the reason why distances on these
    features rank nothing (`FeaturesRecord`). `cache` keeps features for the next evaluation.
    """

    network: FeatureNetwork
    classifier: FeatureClassifier | None = None
    refused: str | None = None
    cache: FeatureCache | None = None

    def of(self, images: Tensor, batch: int, device: torch.device) -> Tensor:
        """The features of images (N, C, H, W) of 8 or 16 bits: (N, dim) float64 on the CPU."""
        compute = features_of if self.cache is None else self.cache.features_of
        return compute(self.network, images, batch, device)


@dataclass(frozen=True, kw_only=True)
class EvaluationTask(ABC):
    """Source and reference samples of the test split, and the settings under which translations are scored."""

    source: Tensor
    reference: Tensor
    settings: Evaluate
    seed: int
    device: torch.device

    @property
    @abstractmethod
    def from_noise(self) -> bool:
        """Whether the source is noise: then there is nothing to be faithful to, and only realism is scored."""

    @abstractmethod
    def inputs(self) -> Tensor:
        """The input of translators, float32 on the CPU: images in [-1, 1], noise or points."""

    @abstractmethod
    def record(self) -> FeaturesRecord:
        """The features on which realism is measured."""

    @abstractmethod
    def score(self, translations: Tensor) -> Scores:
        """All scores of the translations of `inputs()`, in the same order, float with the shape of the inputs."""

    @abstractmethod
    def score_realism(self, samples: Tensor, groups: Tensor | None = None) -> Scores:
        """The scores of samples, as stored in shards, that need no source. `groups` as in `realism.Groups`."""

    @abstractmethod
    def left_out(self) -> str:
        """A sentence that names the metrics for which the test splits are too small; empty if there are none."""

    def score_target(self, target: Tensor, groups: Sequence[str] | None = None) -> Scores:
        """Realism of the target's own training samples, as many as there are sources, chosen at random.

        `groups` names the group of each sample; None puts each into its own.
        """
        drawn = places_of(len(target), len(self.source), self.seed)
        return self.score_realism(target[drawn], groups_of(groups, drawn))

    def _too_few(self, needs: Sequence[tuple[bool, str]]) -> str:
        names = "; ".join(name for missing, name in needs if missing)
        counts = f"{len(self.source)} source and {len(self.reference)} target test samples"
        return f"{counts} are too few for {names}" if names else ""


@dataclass(frozen=True, kw_only=True)
class ImageTask(EvaluationTask):
    """Images (N, C, H, W), uint8 or uint16; a source of noise is float32. Groups as in `realism.Groups`. `truth` holds
    the true counterparts of the sources, if these are known; `own` of them are in the reference, too."""

    source_groups: Tensor
    reference_groups: Tensor
    features: ImageFeatures
    reference_features: Tensor
    truth: PairedTruth | None = None
    own: int = 0

    @property
    def from_noise(self) -> bool:
        return self.source.is_floating_point()

    def inputs(self) -> Tensor:
        return self.source if self.from_noise else to_unit(self.source)

    def record(self) -> FeaturesRecord:
        network = self.features.network
        return FeaturesRecord(name=network.name, sha256=network.sha256, dim=network.dim, refused=self.features.refused)

    def score(self, translations: Tensor) -> Scores:
        like = self.reference if self.from_noise else self.source
        images = pixels(translations, self.settings.batch, bits_of(like))
        features = self._features_of(images)
        realism_alone = self._realism(images, features, self.source_groups)
        if self.from_noise:
            return realism_alone
        return Scores(**dict(realism_alone) | self._faithfulness(images) | self._paired(images, features))

    def score_counterparts(self) -> Scores | None:
        """The scores of the true counterparts as translations; without realism if the reference holds some of them.

        None where they are unknown.
        """
        if self.truth is None:
            return None
        images, features = self.truth.images, self.truth.features
        known = {} if self.own else dict(self._realism(images, features, self.source_groups))
        return Scores(**known | self._faithfulness(images) | self._paired(images, features))

    def score_realism(self, samples: Tensor, groups: Tensor | None = None) -> Scores:
        return self._realism(samples, self._features_of(samples), groups)

    def score_target(self, target: Tensor, groups: Sequence[str] | None = None) -> Scores:
        realism_alone = super().score_target(target, groups)
        samples = target[places_of(len(target), len(self.source), self.seed)]
        if self.truth is None or len(samples) < len(self.source):
            return realism_alone
        return realism_alone.model_copy(update=self._paired(samples, self._features_of(samples)))

    def _features_of(self, images: Tensor) -> Tensor:
        return self.features.of(images, self.settings.batch, self.device)

    def _realism(self, samples: Tensor, generated: Tensor, groups: Tensor | None) -> Scores:
        reference = self.reference_features
        both = realism.Groups(torch.arange(len(samples)) if groups is None else groups, self.reference_groups)
        share = self._class_share(samples)
        if min(len(generated), len(reference)) < 2:
            return Scores(class_share=share)
        grouped = realism.can_be_resampled(both)
        kid = realism.kid(generated, reference, self.seed, both) if grouped else None
        manifolds = realism.precision_recall(generated, reference, both) if realism.have_neighbours(both) else None
        few = min(len(self.source), len(self.reference)) < FEW
        resamples = self.settings.bootstrap if grouped and not few else 0
        return Scores(
            fid=None if few else realism.fid(generated, reference),
            fid_ci=realism.fid_interval(generated, reference, resamples, self.seed, both) if resamples > 1 else None,
            kid=kid.mean if kid else None,
            kid_std=kid.std if kid else None,
            precision=manifolds.precision if manifolds else None,
            recall=manifolds.recall if manifolds else None,
            class_share=share,
        )

    def left_out(self) -> str:
        groups = realism.Groups(self.source_groups, self.reference_groups)
        fewest = min(len(self.source), len(self.reference))
        return self._too_few(
            [
                (fewest < 2, "FID and KID (two images on both sides)"),
                (2 <= fewest < FEW, f"FID ({FEW} images on both sides), so that KID takes its place"),
                (
                    not realism.have_neighbours(groups),
                    f"precision and recall ({realism.NEIGHBOURS} images of other groups beside each)",
                ),
                (
                    fewest >= FEW and not realism.can_be_resampled(groups),
                    "the interval of FID (two groups on both sides)",
                ),
                (len(self.source) < 2, "standard errors (two source images)"),
                (
                    self.own > 0,
                    f"a reference without true counterparts of the sources: {self.own} are among them, so that FID and "
                    "KID favour methods that keep the content; lower evaluate.n_source and n_reference",
                ),
            ]
        )

    def _faithfulness(self, images: Tensor) -> dict[str, float | None]:
        coloured = images.shape[1] == 3
        means = {
            name: self._mean_of(metric, images)
            for name, metric in _FAITHFULNESS.items()
            if coloured or name != "colour_error"
        }
        faithful: dict[str, float | None] = {name: each.mean for name, each in means.items()}
        faithful |= {f"{name}_se": each.se for name, each in means.items()}
        return faithful | {"cost_sum": means["cost"].mean * images[0].numel()}

    def _paired(self, images: Tensor, features: Tensor) -> dict[str, Any]:
        return {"paired": None if self.truth is None else self.truth.scores(images, features)}

    def _mean_of(self, metric: Callable[[Tensor, Tensor], Tensor], images: Tensor) -> Estimate:
        """The mean of a metric that compares each source with its translation."""
        parts = zip(self.source.split(self.settings.batch), images.split(self.settings.batch), strict=True)
        return estimate(torch.cat([metric(source, part) for source, part in parts]), self.source_groups)

    def _class_share(self, images: Tensor) -> float | None:
        classifier, target = self.features.classifier, self.settings.target_class
        if classifier is None or target is None:
            return None
        return (classifier.classify(images) == classifier.classes.index(target)).double().mean().item()


@dataclass(frozen=True, kw_only=True)
class PointTask(EvaluationTask):
    """Points (N, d) float32.

    `plan` is exact transport between the first `n_transport` points of source and reference; None where the source is
    noise. `more` are further disjoint samples of the target, (N, d) each: SW2 is the mean over all of them and
    `reference`, each against translations of its own where there are enough, since SW2 between a single pair of
    samples is noisy.
    """

    more: tuple[Tensor, ...] = ()
    plan: ExactPlan | None

    @property
    def from_noise(self) -> bool:
        return self.plan is None

    def inputs(self) -> Tensor:
        return self.source

    def record(self) -> FeaturesRecord:
        return FeaturesRecord(name="none", sha256=None, dim=self.source.shape[1])

    def score(self, translations: Tensor) -> Scores:
        if translations.shape != self.source.shape:
            raise ValueError(f"{tuple(translations.shape)} translations of {tuple(self.source.shape)} points")
        realism_alone = self.score_realism(translations)
        if self.plan is None:
            return realism_alone
        cost = estimate((translations.double() - self.source.double()).square().mean(dim=1))
        exact = self.plan.barycentres
        known = len(self.reference) > 1
        faithful = {
            "cost": cost.mean,
            "cost_se": cost.se,
            "cost_sum": cost.mean * self.source.shape[1],
            "l2_uvp": transport.l2_uvp(translations[: len(exact)], exact, self.reference) if known else None,
            "ot_cost": self.plan.cost,
        }
        return Scores(**dict(realism_alone) | faithful)

    def score_realism(self, samples: Tensor, groups: Tensor | None = None) -> Scores:
        settings, reference = self.settings, self.reference
        # Exact transport needs equal counts.
        coupled = min(settings.n_w2 or settings.n_transport, len(samples), len(reference))
        pairs, interval = self._pairs(samples), None
        sw2 = statistics.fmean(transport.sliced_w2(*pair, settings.projections, self.seed) for pair in pairs)
        if settings.bootstrap > 1 and min(len(side) for pair in pairs for side in pair) > 1:
            interval = transport.sliced_w2_interval(pairs, settings.projections, settings.bootstrap, self.seed)
        return Scores(sw2=sw2, sw2_ci=interval, w2=transport.w2(samples[:coupled], reference[:coupled]))

    def left_out(self) -> str:
        sources, references = len(self.source), len(self.reference)
        return self._too_few(
            [
                (min(sources, references) < 2, "the interval of SW2 (two points on both sides)"),
                (references < 2, "L2-UVP (two target points)"),
                (sources < 2, "standard errors (two source points)"),
            ]
        )

    def _pairs(self, points: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The pairs of samples, translations and target, whose mean distance is SW2."""
        references = (self.reference, *self.more)
        count = len(references)
        enough = len(points) >= count * len(self.reference)
        parts = points.tensor_split(count) if enough else (points,) * count
        return list(zip(parts, references, strict=True))


def image_task(
    source: Tensor,
    reference: Tensor,
    features: ImageFeatures,
    settings: Evaluate,
    seed: int,
    device: torch.device,
    source_groups: Sequence[str] | None = None,
    reference_groups: Sequence[str] | None = None,
    truth: PairedTruth | None = None,
) -> ImageTask:
    """A task on `settings.n_source` and `n_reference` images drawn from the test splits, or on all if there are fewer.

    `source` and `reference` are (N, C, H, W), uint8 or uint16; a source of noise is float32. Groups name the group of
    each image; None puts each into its own. `truth` holds the true counterpart of every image of `source`; those of the
    drawn sources are in the reference only if there are too few other images. Raises `UserError` if
    `settings.target_class` is not a class of the classifier.
    """
    classifier, target_class = features.classifier, settings.target_class
    if classifier is not None and target_class is not None and target_class not in classifier.classes:
        known = ", ".join(str(name) for name in classifier.classes)
        raise UserError(
            f"evaluate.target_class is {target_class}, but the feature network knows the classes {known}; take one of "
            "them, or null."
        )
    sources = places_of(len(source), settings.n_source, seed)
    truth = truth and truth.at(sources)
    # Beside their own counterparts, faithful translations would look more realistic than other samples of the target.
    every = places_of(len(reference), len(reference), seed)
    own = torch.zeros(len(every), dtype=torch.bool) if truth is None else torch.isin(every, truth.places)
    references = torch.cat([every[~own], every[own]])[: settings.n_reference]
    return ImageTask(
        source=source[sources],
        source_groups=groups_of(source_groups, sources),
        reference=reference[references],
        reference_groups=groups_of(reference_groups, references),
        features=features,
        reference_features=features.of(reference[references], settings.batch, device),
        truth=truth,
        own=max(0, len(references) - int((~own).sum())),
        settings=settings,
        seed=seed,
        device=device,
    )


def point_task(
    source: Tensor,
    reference: Tensor,
    settings: Evaluate,
    seed: int,
    device: torch.device,
    from_noise: bool = False,
) -> PointTask:
    """A task on `settings.n_source` and `n_reference` points (N, d) drawn from the test splits, or on all of them."""
    drawn = sample_of(source, settings.n_source, seed)
    first, *more = reference_parts(reference, settings, seed)
    count = settings.n_transport
    plan = None if from_noise else transport.exact_plan(drawn[:count], first[:count])
    return PointTask(
        source=drawn, reference=first, more=tuple(more), plan=plan, settings=settings, seed=seed, device=device
    )


def reference_parts(reference: Tensor, settings: Evaluate, seed: int) -> tuple[Tensor, ...]:
    """`settings.references` disjoint samples of the target's test split, `n_reference` points each.

    Raises `UserError` if the split has too few points for more than one sample.
    """
    size, parts = settings.n_reference, settings.references
    if parts > 1 and len(reference) < size * parts:
        raise UserError(
            f"evaluate.references is {parts} times {size} points, but the target's test split has {len(reference)}; "
            "lower it, or raise domains.target.test."
        )
    return sample_of(reference, size * parts, seed).split(size)[:parts]


def pixels(images: Tensor, batch: int, bits: Bits = 8) -> Tensor:
    """Images as pixels, from floats in [-1, 1] with so many bits; `batch` at a time, since floats need much memory."""
    return torch.cat([to_pixels(part, bits) for part in images.split(batch)]) if images.is_floating_point() else images


def places_of(total: int, count: int, seed: int) -> Tensor:
    """The places of `count` of `total` samples in random order, drawn without replacement; all if there are fewer.

    A split may be sorted, so the first samples do not represent it.
    """
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count]


def sample_of(samples: Tensor, count: int, seed: int) -> Tensor:
    """The samples at `places_of`."""
    return samples[places_of(len(samples), count, seed)]


def groups_of(groups: Sequence[str] | None, places: Tensor) -> Tensor:
    """The group of the sample at each place, int64 (N,), numbered from 0 without gaps.

    `groups` names the group of every sample; None puts each into its own.
    """
    if groups is None:
        return torch.arange(len(places))
    known = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return torch.tensor([known[group] for group in groups])[places].unique(return_inverse=True)[1]
