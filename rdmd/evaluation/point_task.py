"""What a translator of points is measured on, and the measuring."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rdmd.config import Evaluate
from rdmd.evaluation import transport
from rdmd.evaluation.estimate import estimate
from rdmd.evaluation.row import FeaturesRecord, Interval, Scores
from rdmd.evaluation.sampling import sample_of


@dataclass(frozen=True)
class PointTask:
    """Source and reference points of the test split, (N, d) float, and the exact transport between them.

    `plan` couples the first `n_transport` of both: what translations of those points are compared with. It is None
    where the source is noise, which nothing can be faithful to: only realism is measured then.
    """

    source: Tensor
    reference: Tensor
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
        return FeaturesRecord("none", None, self.source.shape[1])

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
        return replace(
            self._realism(translations),
            cost=cost.mean,
            cost_se=cost.se,
            cost_sum=cost.mean * self.source.shape[1],
            l2_uvp=transport.l2_uvp(translations[:coupled], self.plan.barycentres, self.reference),
            ot_cost=self.plan.cost,
        )

    def score_target(self, target: Tensor) -> Scores:
        """Realism of the target's own training points (N, d), as many as there are sources."""
        return self._realism(sample_of(target, len(self.source), self.seed))

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
        return transport.sliced_w2(points, self.reference, self.settings.projections, self.seed)

    def _sw2_interval(self, points: Tensor) -> Interval | None:
        settings = self.settings
        if settings.bootstrap < 2:
            return None
        return transport.sliced_w2_interval(points, self.reference, settings.projections, settings.bootstrap, self.seed)


def point_task(source: Tensor, reference: Tensor, settings: Evaluate, seed: int, device: torch.device) -> PointTask:
    """A task on `settings.n_source` and `n_reference` points (or all) drawn from the test splits."""
    task = noise_point_task(source, reference, settings, seed, device)
    count = settings.n_transport
    return replace(task, plan=transport.exact_plan(task.source[:count], task.reference[:count]))


def noise_point_task(
    source: Tensor, reference: Tensor, settings: Evaluate, seed: int, device: torch.device
) -> PointTask:
    """As `point_task` where the source is noise, from which no exact transport is asked for."""
    return PointTask(
        source=sample_of(source, settings.n_source, seed),
        reference=sample_of(reference, settings.n_reference, seed),
        plan=None,
        settings=settings,
        seed=seed,
        device=device,
    )
