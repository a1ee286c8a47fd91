"""What a translator of points is measured on, and the measuring."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rdmd.config import Evaluate
from rdmd.errors import UserError
from rdmd.evaluation import transport
from rdmd.evaluation.faithfulness import estimate
from rdmd.evaluation.row import FeaturesRecord, Interval, Scores
from rdmd.evaluation.sampling import sample_of, too_few


@dataclass(frozen=True)
class PointTask:
    """Source and reference points of the test split, (N, d) float, and the exact transport between them.

    `plan` couples the first `n_transport` of both: what translations of those points are compared with. It is None
    where the source is noise, which nothing can be faithful to: only realism is measured then. `more` are further
    disjoint samples of the target, (N, d) each: SW2 is the mean over all of them and `reference`, each against
    translations of its own where there are enough. One pair of samples alone is a noisy yardstick.
    """

    source: Tensor
    reference: Tensor
    more: tuple[Tensor, ...]
    plan: transport.ExactPlan | None
    settings: Evaluate
    seed: int
    device: torch.device

    @property
    def from_noise(self) -> bool:
        """Whether the source is noise."""
        return self.plan is None

    def inputs(self) -> Tensor:
        """What translators are given."""
        return self.source

    def record(self) -> FeaturesRecord:
        """Points are their own features."""
        return FeaturesRecord(name="none", sha256=None, dim=self.source.shape[1])

    def score(self, translations: Tensor) -> Scores:
        """All metrics of translations (n_source, d), in the order of the source."""
        if translations.shape != self.source.shape:
            raise ValueError(f"{tuple(translations.shape)} translations of {tuple(self.source.shape)} points")
        if not torch.isfinite(translations).all():
            raise FloatingPointError("a translated point is not finite")
        if self.plan is None:
            return self._realism(translations)
        cost = estimate((translations.double() - self.source.double()).square().mean(dim=1))
        coupled = len(self.plan.barycentres)
        realism = self._realism(translations).model_dump(exclude_none=True)
        return Scores(
            **realism,
            cost=cost.mean,
            cost_se=cost.se,
            cost_sum=cost.mean * self.source.shape[1],
            l2_uvp=None
            if len(self.reference) < 2
            else transport.l2_uvp(translations[:coupled], self.plan.barycentres, self.reference),
            ot_cost=self.plan.cost,
        )

    def score_target(self, target: Tensor, scans: Sequence[str] | None = None) -> Scores:
        """Realism of the target's own training points (N, d), as many as there are sources. Every point is its own
        scan."""
        return self._realism(sample_of(target, len(self.source), self.seed))

    def left_out(self) -> str:
        """Which metrics the test splits are too small for, in a sentence; empty if there are none."""
        names = []
        if min(len(self.source), len(self.reference)) < 2:
            names += ["the interval of SW2 (two points on both sides)"]
        if len(self.reference) < 2:
            names += ["L2-UVP (two target points)"]
        if len(self.source) < 2:
            names += ["standard errors (two source points)"]
        return too_few(len(self.source), len(self.reference), names)

    def _realism(self, points: Tensor) -> Scores:
        """The scores that compare with the target and not with the source."""
        # As many of both sides, since exact transport wants equal counts.
        coupled = min(self.settings.n_w2 or self.settings.n_transport, len(points), len(self.reference))
        return Scores(
            sw2=self._sw2(points),
            sw2_ci=self._sw2_interval(points),
            w2=transport.w2(points[:coupled], self.reference[:coupled]),
        )

    def _sw2(self, points: Tensor) -> float:
        references = (self.reference, *self.more)
        count = len(references)
        enough = len(points) >= count * len(self.reference)
        parts = points.tensor_split(count) if enough else (points,) * count
        return statistics.fmean(
            transport.sliced_w2(part, reference, self.settings.projections, self.seed)
            for part, reference in zip(parts, references, strict=True)
        )

    def _sw2_interval(self, points: Tensor) -> Interval | None:
        settings = self.settings
        if settings.bootstrap < 2 or min(len(points), len(self.reference)) < 2:
            return None
        low, high = transport.sliced_w2_interval(
            points, self.reference, settings.projections, settings.bootstrap, self.seed
        )
        # The interval of one pair, around the mean over pairs.
        shift = self._sw2(points) - transport.sliced_w2(points, self.reference, settings.projections, self.seed)
        return max(0.0, low + shift), max(0.0, high + shift)


def point_task(source: Tensor, reference: Tensor, settings: Evaluate, seed: int, device: torch.device) -> PointTask:
    """A task on `settings.n_source` and `n_reference` points (or all) drawn from the test splits."""
    task = noise_point_task(source, reference, settings, seed, device)
    count = settings.n_transport
    return replace(task, plan=transport.exact_plan(task.source[:count], task.reference[:count]))


def noise_point_task(
    source: Tensor, reference: Tensor, settings: Evaluate, seed: int, device: torch.device
) -> PointTask:
    """As `point_task` where the source is noise, from which no exact transport is asked for."""
    first, *more = reference_parts(reference, settings, seed)
    return PointTask(
        source=sample_of(source, settings.n_source, seed),
        reference=first,
        more=tuple(more),
        plan=None,
        settings=settings,
        seed=seed,
        device=device,
    )


def reference_parts(reference: Tensor, settings: Evaluate, seed: int) -> tuple[Tensor, ...]:
    """`settings.references` disjoint samples of the target's test split, `n_reference` points each. Raises UserError
    where the split has too few for more than one."""
    size, parts = settings.n_reference, settings.references
    if parts > 1 and len(reference) < size * parts:
        raise UserError(
            f"evaluate.references is {parts} times {size} points, but the target's test split has {len(reference)}; "
            "lower it, or raise domains.target.test."
        )
    return sample_of(reference, size * parts, seed).split(size)[:parts]
