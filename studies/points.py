"""What translations of points are measured against: fresh samples of the domains, and exact transport between them."""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from joblib import Memory
from torch import Tensor

from rdmd import config
from rdmd.data.readers.points import draw
from rdmd.data.shards import read_split
from rdmd.evaluation.task import PointTask, reference_parts, sample_of
from rdmd.evaluation.transport import ExactPlan, affine_monge_map, exact_plan
from rdmd.pipeline.features import evaluation_device
from rdmd.pipeline.layout import Layout

# Baselines take tens of network evaluations a sample; fewer pairs of samples than generators get tell them apart.
BASELINE_REFERENCES = 5


def point_study_task(settings: config.Settings, layout: Layout, memory: Memory) -> PointTask:
    """The test split, with fresh draws of the source so that each of the `references` samples of the target has
    translations of its own.

    Exact transport is the affine Monge map where both domains are Gaussian, and discrete transport elsewhere.
    """
    evaluate, seed = settings.evaluate, settings.seed
    tested = sample_of(read_split(layout.shards / "source", "test").data, evaluate.n_source, seed)
    source = torch.cat([tested, fresh_points(settings, "source", len(tested) * (evaluate.references - 1))])
    reference, *more = reference_parts(read_split(layout.shards / "target", "test").data, evaluate, seed)
    count = evaluate.n_transport
    plan = affine_plan(settings.domains, source[:count]) or kept_plan(memory, source[:count], reference[:count])
    return PointTask(
        source=source,
        reference=reference,
        more=tuple(more),
        plan=plan,
        settings=evaluate,
        seed=seed,
        device=evaluation_device(settings),
    )


def first_references(task: PointTask) -> PointTask:
    """The task with the first `BASELINE_REFERENCES` samples of the target, and the sources that belong to them."""
    if len(task.more) < BASELINE_REFERENCES:
        return task
    source = task.source[: BASELINE_REFERENCES * len(task.reference)]
    return replace(task, source=source, more=task.more[: BASELINE_REFERENCES - 1])


def fresh_points(settings: config.Settings, name: Literal["source", "target"], count: int) -> Tensor:
    """Points (count, 2) of a domain that are in neither split."""
    domain = getattr(settings.domains, name)
    assert isinstance(domain, config.Points), "only points can be drawn again"
    return torch.from_numpy(draw(domain, count, settings.seed, name, "fresh"))


def kept_plan(memory: Memory, x: Tensor, y: Tensor) -> ExactPlan:
    """`exact_plan`, which takes a minute or two at 10,000 points, computed once for each pair of samples."""
    cost, barycentres = memory.cache(_plan)(x.double().numpy(), y.double().numpy())
    return ExactPlan(cost, torch.from_numpy(barycentres))


def exact_images(settings: config.Settings, task: PointTask, memory: Memory) -> Tensor:
    """Where exact transport to a fresh sample of the target sends as many sources as `task.reference` has points, in
    blocks of `n_transport`. To the reference itself its distance would be 0 by construction."""
    size = settings.evaluate.n_transport
    source = task.source[: len(task.reference)]
    blocks = zip(source.split(size), fresh_points(settings, "target", len(source)).split(size), strict=True)
    return torch.cat([kept_plan(memory, x, y).barycentres for x, y in blocks]).float()


def affine_plan(domains: config.Domains, source: Tensor) -> ExactPlan | None:
    """The affine Monge map at points (N, 2) and W2^2 between two Gaussians; None where a domain is not Gaussian."""
    first, second = domains.source, domains.target
    if not (isinstance(first, config.Points) and isinstance(second, config.Points)):
        return None
    if {first.law, second.law} != {"gaussian"}:
        return None
    m_1, m_2 = (torch.tensor(domain.mean, dtype=torch.float64) for domain in (first, second))
    s_1, s_2 = (torch.tensor(domain.covariance, dtype=torch.float64) for domain in (first, second))
    monge = affine_monge_map(m_1, s_1, m_2, s_2)
    # E|T x - x|^2 for x ~ N(m_1, S_1): the mean's shift, and the trace of (A - I) S_1 (A - I)^T.
    moved = monge.matrix - torch.eye(2, dtype=torch.float64)
    cost = (m_2 - m_1).square().sum() + (moved @ s_1 @ moved.T).trace()
    return ExactPlan(cost.item(), monge(source.double()))


def _plan(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    plan = exact_plan(torch.from_numpy(x), torch.from_numpy(y))
    return plan.cost, plan.barycentres.numpy()
