"""Evaluation of translators and of their outputs: `evaluate` for tensors, `translate` and `score` for a translator."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from rdmd.config import Evaluate, NoFeatures
from rdmd.evaluation.features import FeatureNetwork, features_of, load_network
from rdmd.evaluation.row import COUNTERPART, IDENTITY, TARGET, Row, Scores
from rdmd.evaluation.task import EvaluationTask, ImageFeatures, ImageTask, PointTask, pixels
from rdmd.evaluation.transport import exact_plan


def evaluate(
    translations: Tensor,
    source: Tensor | None,
    reference: Tensor,
    features: FeatureNetwork | Literal["inception", "efficientnet_lite0"] = "inception",
    *,
    seed: int = 0,
    batch: int = 256,
    bootstrap: int = 200,
    projections: int = 256,
    n_transport: int = 2000,
    device: torch.device | str = "cpu",
) -> Scores:
    """Every metric of translations: realism against `reference`, and faithfulness to `source`.

    Images are (N, C, H, W), uint8, uint16 or floats in [-1, 1], which count as 8 bits; points are (N, d) floats.
    `source` and `translations` are in the same order; a source of None (generation from noise) leaves the metrics of
    faithfulness None.

    Args:
        features: the network of FID, KID, precision and recall: InceptionV3, whose weights are downloaded once, or
            EfficientNet-Lite0, whose weights are installed, or a network on `device`. Points need none.
        seed: of KID's subsets, of the bootstrap and of the directions of the sliced Wasserstein distance.
        batch: images at once in the feature network.
        bootstrap: resamples behind the 95% intervals of FID and SW2; 0 gives none.
        projections: directions of the sliced Wasserstein distance.
        n_transport: the number of points in exact transport (W2, L2-UVP).
        device: the device of the feature network.

    Raises `ValueError` if shapes do not fit, `FloatingPointError` if a value is not finite, and `UserError` if the
    weights of the feature network cannot be had.
    """
    if source is not None and source.shape != translations.shape:
        raise ValueError(f"{tuple(translations.shape)} translations of {tuple(source.shape)} sources")
    if translations.shape[1:] != reference.shape[1:] or translations.ndim not in (2, 4):
        raise ValueError(
            f"translations {tuple(translations.shape)} and reference {tuple(reference.shape)} must both be images "
            "(N, C, H, W) or points (N, d)"
        )
    device = torch.device(device)
    settings = Evaluate(
        features=NoFeatures(network="none"),
        batch=batch,
        bootstrap=bootstrap,
        projections=projections,
        n_transport=n_transport,
    )
    task: EvaluationTask
    if translations.ndim == 2:
        plan = None if source is None else exact_plan(source[:n_transport], reference[:n_transport])
        task = PointTask(
            source=translations if source is None else source,
            reference=reference,
            plan=plan,
            settings=settings,
            seed=seed,
            device=device,
        )
        return task.score(translations)
    network = load_network(features, device) if isinstance(features, str) else features
    translations, reference = pixels(translations, batch), pixels(reference, batch)
    task = ImageTask(
        source=translations if source is None else pixels(source, batch),
        source_groups=torch.arange(len(translations)),
        reference=reference,
        reference_groups=torch.arange(len(reference)),
        features=ImageFeatures(network),
        reference_features=features_of(network, reference, batch, device),
        settings=settings,
        seed=seed,
        device=device,
    )
    return task.score_realism(translations) if source is None else task.score(translations)


@dataclass(frozen=True)
class NamedTranslator:
    """Any map from a source batch to a target batch (a generator, a diffusion baseline, a transport map), described.

    Attributes:
        map: takes (B, C, H, W) images in [-1, 1], or (B, 2) points, and a generator on their device, the only permitted
            source of randomness; gives the same shape on the same device.
        method: "rdmd", "sdedit", ...; lower case, the same for every setting of one method.
        nfe: network evaluations for one sample.
        lam: the weight of the transport cost, or None for a method that has none.
        settings: the hyperparameters, such as {"sigma": 0.6, "steps": 10}.
        train_seconds: wall-clock seconds of training, or None if nothing was trained.
    """

    map: Callable[[Tensor, torch.Generator], Tensor]
    method: str
    nfe: int
    lam: float | None = None
    settings: dict[str, float | int | str] = field(default_factory=dict)
    train_seconds: float | None = None


@dataclass(frozen=True)
class Translations:
    """The outputs of a translator on a task's source, float on the CPU, and the seconds for one of them."""

    samples: Tensor
    seconds_per_image: float


@torch.no_grad()
def translate(translator: NamedTranslator, task: EvaluationTask) -> Translations:
    """Translate the task's source, batch by batch, with random numbers from the task's seed.

    The time of a sample is the median over batches of the largest size, without transfers to and from the device; the
    first batch is translated once more beforehand, for warm-up. Raises `FloatingPointError`, naming the method, if an
    output is not finite.
    """
    batches = task.inputs().split(task.settings.batch)
    rng = torch.Generator(device=task.device)
    translator.map(batches[0].to(task.device), rng.manual_seed(task.seed))
    rng.manual_seed(task.seed)
    outputs, seconds = [], []
    for number, batch in enumerate(batches):
        source = batch.to(task.device)
        _synchronise(task.device)
        start = time.perf_counter()
        output = translator.map(source, rng)
        _synchronise(task.device)
        if len(batch) == len(batches[0]):
            seconds.append((time.perf_counter() - start) / len(batch))
        if not torch.isfinite(output).all():
            raise FloatingPointError(f"{_name(translator)} gave a value that is not finite in batch {number}")
        outputs.append(output.float().cpu())
    return Translations(torch.cat(outputs), statistics.median(seconds))


def score(translator: NamedTranslator, translations: Translations, task: EvaluationTask, run: str | None) -> Row:
    """The row of a translator from its outputs. Raises `FloatingPointError` for a non-finite metric."""
    try:
        scores = task.score(translations.samples)
    except FloatingPointError as error:
        raise FloatingPointError(f"{_name(translator)}: {error}") from None
    return Row(
        method=translator.method,
        lam=translator.lam,
        settings=dict(translator.settings),
        run=run,
        nfe=translator.nfe,
        seconds_per_image=translations.seconds_per_image,
        train_seconds=translator.train_seconds,
        **dict(scores),
    )


def identity_row(task: EvaluationTask) -> Row:
    """The untranslated source: perfectly faithful, and as far from the target as the two domains are apart."""
    return Row(method=IDENTITY, **dict(task.score(task.inputs())))


def counterpart_row(task: EvaluationTask) -> Row | None:
    """The true counterparts of the sources as a translation; None where they are unknown. Its realism is that of an
    ideal translator; None if the reference holds counterparts."""
    scores = task.score_counterparts() if isinstance(task, ImageTask) else None
    return None if scores is None else Row(method=COUNTERPART, **dict(scores))


def target_row(task: EvaluationTask, target: Tensor, groups: Sequence[str] | None = None) -> Row:
    """The target's training samples against its test samples: the realism of a perfect generator.

    `target` is (N, C, H, W), uint8 or uint16, or points (N, d); `groups` as in `EvaluationTask.score_target`. The
    metrics of faithfulness are None; `paired` is that of random target images.
    """
    return Row(method=TARGET, **dict(task.score_target(target, groups)))


def _name(translator: NamedTranslator) -> str:
    at_lambda = "" if translator.lam is None else f" at lambda {translator.lam:g}"
    return f"the method {translator.method!r}{at_lambda}"


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
