"""What a study's seed is measured on: as in the pipeline's evaluation, with exact transport kept between runs."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor

from rdmd import config
from rdmd.code_digest import code_digest
from rdmd.domains.manifest import read_manifest
from rdmd.domains.pixels import to_unit
from rdmd.domains.readers.points import draw
from rdmd.domains.shards import read_split
from rdmd.evaluation import transport
from rdmd.evaluation.evaluator import EvaluationTask
from rdmd.evaluation.point_task import PointTask, reference_parts
from rdmd.evaluation.sampling import sample_of
from rdmd.files import canonical_json, replacing
from rdmd.pipeline.evaluation import evaluation_task
from rdmd.pipeline.features import evaluation_device
from rdmd.results.workspace import StudyLayout


@dataclass(frozen=True)
class PlanCache:
    """Exact plans by the content of their points: at 10,000 points each takes a minute or two."""

    folder: Path

    def plan(self, x: Tensor, y: Tensor) -> transport.ExactPlan:
        """As `transport.exact_plan`."""
        digest = hashlib.sha256(code_digest(("rdmd.evaluation.transport",)).encode())
        for points in (x, y):
            digest.update(str(tuple(points.shape)).encode())
            digest.update(points.double().contiguous().numpy().tobytes())
        file = self.folder / f"{digest.hexdigest()[:24]}.safetensors"
        if file.exists():
            kept = safetensors.torch.load_file(file)
            return transport.ExactPlan(kept["cost"].item(), kept["barycentres"])
        plan = transport.exact_plan(x, y)
        with replacing(file) as temporary:
            cost = torch.tensor([plan.cost], dtype=torch.float64)
            safetensors.torch.save_file({"cost": cost, "barycentres": plan.barycentres.contiguous()}, temporary)
        return plan


def study_task(settings: config.Settings, layout: StudyLayout, plans: PlanCache) -> EvaluationTask:
    """The test split with what it is judged by.

    Points are compared with exact transport between samples, or, from one Gaussian to another, with the affine Monge
    map. Raises UserError if shards or the feature network are missing.
    """
    if settings.preprocess.kind == "images":
        return evaluation_task(settings, layout)
    evaluate, seed = settings.evaluate, settings.seed
    tested = sample_of(read_split(layout.shards / "source", "test").data, evaluate.n_source, seed)
    # A sample of translations for each reference: the sources are a law, so more of them cost nothing to have.
    source = torch.cat([tested, fresh_points(settings, "source", len(tested) * (evaluate.references - 1))])
    reference, *more = reference_parts(read_split(layout.shards / "target", "test").data, evaluate, seed)
    count = evaluate.n_transport
    plan = affine_plan(settings.domains, source[:count]) or plans.plan(source[:count], reference[:count])
    return PointTask(
        source=source,
        reference=reference,
        more=tuple(more),
        plan=plan,
        settings=evaluate,
        seed=seed,
        device=evaluation_device(settings),
    )


def affine_plan(domains: config.Domains, source: Tensor) -> transport.ExactPlan | None:
    """The affine Monge map at points (N, 2), and W2^2 between the laws, where both are Gaussian; None elsewhere."""
    source_law, target_law = domains.source, domains.target
    if not (isinstance(source_law, config.Points) and isinstance(target_law, config.Points)):
        return None
    if {source_law.law, target_law.law} != {"gaussian"}:
        return None
    m_1, m_2 = (torch.tensor(law.mean, dtype=torch.float64) for law in (source_law, target_law))
    s_1, s_2 = (torch.tensor(law.covariance, dtype=torch.float64) for law in (source_law, target_law))
    monge = transport.affine_monge_map(m_1, s_1, m_2, s_2)
    # E|T x - x|^2 for x ~ N(m_1, S_1): the mean's shift, and the trace of (A - I) S_1 (A - I)^T.
    moved = monge.matrix - torch.eye(2, dtype=torch.float64)
    cost = (m_2 - m_1).square().sum() + (moved @ s_1 @ moved.T).trace()
    return transport.ExactPlan(cost.item(), monge(source.double()))


def fresh_points(settings: config.Settings, name: Literal["source", "target"], count: int) -> Tensor:
    """Points (count, 2) of a domain's law that are in neither split."""
    domain = getattr(settings.domains, name)
    assert isinstance(domain, config.Points), "only laws can be drawn from anew"
    return torch.from_numpy(draw(domain, count, settings.seed, name, "fresh"))


def task_identity(settings: config.Settings, layout: StudyLayout, task: EvaluationTask) -> str:
    """A digest of all that scores depend on besides the translator and the code."""
    domains = {name: read_manifest(layout.shards / name).digest for name in ("source", "target")}
    described = {
        "domains": domains,
        "sources": len(task.source),
        "features": task.record().model_dump(),
        "evaluate": settings.evaluate.model_dump(mode="json"),
        "seed": settings.seed,
        "exact": "affine" if affine_plan(settings.domains, torch.zeros(1, 2)) is not None else "discrete",
    }
    return hashlib.sha256(canonical_json(described).encode()).hexdigest()


def random_pairs_cost(task: EvaluationTask) -> float:
    """The mean cost (mean over dimensions) over all pairs of a source and a reference sample: what a translator pays
    that ignores its input and is perfectly realistic."""
    reference = task.reference if isinstance(task, PointTask) else to_unit(task.reference)
    x, y = task.inputs().double().flatten(1), reference.double().flatten(1)
    squares = x.square().sum(dim=1).mean() + y.square().sum(dim=1).mean()
    return ((squares - 2 * x.mean(dim=0) @ y.mean(dim=0)) / x.shape[1]).item()
