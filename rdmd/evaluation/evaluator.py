"""From a translator and a task to a row: the one evaluator, for generators and baselines alike."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rdmd.evaluation.images import ImageTask
from rdmd.evaluation.points import PointTask
from rdmd.evaluation.row import IDENTITY, TARGET, Row
from rdmd.evaluation.translator import Translator

EvaluationTask = ImageTask | PointTask


@dataclass(frozen=True)
class Translations:
    """A translator's outputs on a task's source, float on the CPU, and the time of one."""

    samples: Tensor
    seconds_per_image: float


@torch.no_grad()
def translate(translator: Translator, task: EvaluationTask) -> Translations:
    """Translate the task's source, batch by batch.

    The first batch is translated once more beforehand, for warm-up, and thrown away. The time of a sample
    is the median over batches of the largest size; transfers to and from the device are left out. The
    random state is a function of the task's seed. Raises `FloatingPointError`, naming the method, if an
    output is not finite.
    """
    batches = task.inputs().split(task.settings.batch)
    rng = torch.Generator(device=task.device)
    translator(batches[0].to(task.device), rng.manual_seed(task.seed))
    rng.manual_seed(task.seed)
    outputs, seconds = [], []
    for number, batch in enumerate(batches):
        source = batch.to(task.device)
        _wait(task.device)
        start = time.perf_counter()
        output = translator(source, rng)
        _wait(task.device)
        if len(batch) == len(batches[0]):
            seconds.append((time.perf_counter() - start) / len(batch))
        if not torch.isfinite(output).all():
            raise FloatingPointError(f"{_name(translator)} gave a value that is not finite in batch {number}")
        outputs.append(output.float().cpu())
    return Translations(torch.cat(outputs), statistics.median(seconds))


def score(translator: Translator, translations: Translations, task: EvaluationTask, run: str | None) -> Row:
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


def evaluate_translator(translator: Translator, task: EvaluationTask, run: str | None = None) -> Row:
    """Translate and score in one go. `run` is the fingerprint of the training run behind the translator."""
    return score(translator, translate(translator, task), task, run)


def identity_row(task: EvaluationTask) -> Row:
    """The source as it is: perfectly faithful, and as far from the target as the two domains are apart."""
    return Row(method=IDENTITY, **dict(task.score(task.inputs())))


def target_row(task: EvaluationTask, target: Tensor, scans: Sequence[str] | None = None) -> Row:
    """The target's training samples against its test samples: the realism that a perfect generator would
    have.

    `target` is (N, 3, H, W) uint8, or points (N, d); `scans` as in `ImageTask.score_target`. There is nothing to
    be faithful to: those metrics are None.
    """
    return Row(method=TARGET, **dict(task.score_target(target, scans)))


def _name(translator: Translator) -> str:
    dial = "" if translator.lam is None else f" at lambda {translator.lam:g}"
    return f"the method {translator.method!r}{dial}"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
