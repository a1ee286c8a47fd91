"""From params.yaml to training runs: the teacher, the generators of the sweep, and the networks of baselines.

Functions import torch only to check the weights of a cost: flows plan runs and train in other processes, and start in
half the time without torch.
"""

from pathlib import Path
from typing import Any, Literal

from rdmd import config
from rdmd.data.manifest import read_manifest
from rdmd.errors import UserError
from rdmd.files import sha256_of
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card, weights_of
from rdmd.training.run_config import (
    CUTRun,
    DistillRun,
    DomainClassifierRun,
    NeuralOTRun,
    Shards,
    Start,
    TeacherRun,
    TrainingRun,
    Weights,
)
from rdmd.training.run_folder import RunFolder


def cost_weights(cost: config.TransportCost, side: int, root: Path = Path()) -> Weights | None:
    """The weights of the transport cost's network, or None for a cost without a network. Its path is below `root`.

    Raises UserError if they are missing, damaged, or of a classifier of images whose side is not `side`.
    """
    if isinstance(cost, config.FeatureCost):
        from rdmd.evaluation.classifier_folder import WEIGHTS, load_classifier

        folder = root / cost.weights
        _, card = load_classifier(folder)
        if card.side != side:
            raise UserError(
                f"{folder} holds a feature network for images of {card.side}x{card.side}, but "
                f"preprocess.resolution is {side}; name another as distill.cost.weights, or make it again "
                "with `rdmd features`."
            )
        return Weights(path=folder / WEIGHTS, sha256=card.sha256)
    if isinstance(cost, config.LPIPS):
        from rdmd.networks.lpips import load_lpips

        file = root / cost.weights
        load_lpips(file)
        return Weights(path=file, sha256=sha256_of(file))
    return None


def _common(settings: config.Settings, target: Shards) -> dict[str, Any]:
    """The fields that all kinds of runs share."""
    return {
        "experiment": settings.experiment,
        "seed": settings.seed,
        "sample_shape": settings.sample_shape,
        "network": settings.network,
        "target": target,
        "precision": settings.launch.precision,
        "processes": settings.launch.processes,
    }


def plan_teacher(
    settings: config.Settings, layout: Layout, domain: Literal["target", "source"] = "target"
) -> TeacherRun:
    """The run of a domain's teacher. Raises UserError if the domain's shards or the initial weights are missing."""
    return TeacherRun(
        domain=domain,
        settings=settings.teacher,
        compute=compute_of(settings.launch),
        initial=initial_weights(settings.teacher.init),
        **_common(settings, _shards(layout, domain)),
    )


def chains(distill: config.Distill) -> list[list[float]]:
    """The sweep's lambdas as independent chains; within a chain, each lambda continues the generator before it. A sweep
    by continuation is a single chain, from the largest lambda down."""
    if isinstance(distill.sweep, config.Continuation):
        return [sorted(distill.lambdas, reverse=True)]
    return [[lam] for lam in distill.lambdas]


def plan_generator(settings: config.Settings, layout: Layout, lam: float, previous: RunFolder | None) -> DistillRun:
    """The run of one lambda, which continues the finished run `previous` if there is one.

    Raises UserError if shards, the teacher, the cost's weights or the weights of `previous` are missing.
    """
    card = read_card(layout.teacher)
    if card.network != settings.network or card.sample_shape != settings.sample_shape:
        raise UserError(
            f"{layout.teacher} holds another network than params.yaml describes; train the teacher first "
            "with `rdmd train-teacher`."
        )
    source_domain, distill = settings.domains.source, settings.distill
    changes: dict[str, float] = {"input_noise": distill.noise_at(lam)}
    if previous is not None and isinstance(distill.sweep, config.Continuation):
        changes["steps"] = distill.sweep.steps
    return DistillRun(
        settings=distill.model_copy(update=changes),
        compute=compute_of(settings.launch),
        lam=lam,
        source=_shards(layout, "source"),
        source_noise=source_domain.std if isinstance(source_domain, config.Noise) else None,
        teacher=Weights(path=weights_of(layout.teacher, card), sha256=card.sha256),
        start=_end_of(previous) if previous is not None else None,
        cost_weights=cost_weights(settings.distill.cost, settings.preprocess.resolution, layout.root),
        **_common(settings, _shards(layout, "target")),
    )


def plan_refined(settings: config.Settings, layout: Layout, lam: float, previous: RunFolder, number: int) -> DistillRun:
    """The run of entry `number` (from 0) of `distill.refine` at one lambda, which continues `previous`, the run before
    it at the same lambda. Raises as `plan_generator`."""
    refine, *following = settings.distill.refine[number:]
    run = plan_generator(settings, layout, lam, previous)
    changes = {name: getattr(refine, name) for name in type(refine).model_fields if name in config.Distill.model_fields}
    if refine.fake_lr is None:
        del changes["fake_lr"]
    distill = run.settings.model_copy(update=changes | {"refine": following})
    return run.model_copy(update={"settings": distill, "proximal": refine.proximal})


def plan_baselines(settings: config.Settings, layout: Layout) -> list[TrainingRun]:
    """The trainings that the configured baselines need beyond the target's teacher: the source's teacher (DDIB), the
    domain classifier (EGSDE), a network for every weight (neural OT, CUT). Raises UserError if shards are missing."""
    ddib, egsde, neural_ot = settings.baselines.ddib, settings.baselines.egsde, settings.baselines.neural_ot
    source = _shards(layout, "source")
    common = _common(settings, _shards(layout, "target"))
    runs: list[TrainingRun] = []
    if ddib is not None:
        runs.append(plan_teacher(settings, layout, "source"))
    if egsde is not None:
        noise = settings.teacher.noise
        runs.append(DomainClassifierRun(source=source, settings=egsde.classifier, noise=noise, **common))
    if neural_ot is not None:
        for weight in neural_ot.cost_weights:
            runs.append(NeuralOTRun(source=source, settings=neural_ot, cost_weight=weight, **common))
    if (cut := settings.baselines.cut) is not None:
        runs += [CUTRun(source=source, settings=cut, nce_weight=weight, **common) for weight in cut.nce_weights]
    return runs


def compute_of(launch: config.Launch) -> config.Compute:
    """The keys of `launch` that a training process needs."""
    return config.Compute(**{name: getattr(launch, name) for name in config.Compute.model_fields})


def _end_of(folder: RunFolder) -> Start:
    """The weights and the time at the end of a finished run."""
    result = folder.result()
    if result is None or result.fake_sha256 is None or not folder.fake_weights.is_file():
        raise UserError(
            f"{folder.path} holds no whole generator and fake denoiser to continue from; delete it and "
            "repeat the command to train it anew."
        )
    run = folder.read_run()
    before = run.start.seconds_before if isinstance(run, DistillRun) and run.start is not None else 0.0
    return Start(
        seconds_before=before + result.train_seconds,
        generator=Weights(path=folder.weights, sha256=result.sha256),
        fake=Weights(path=folder.fake_weights, sha256=result.fake_sha256),
    )


def _shards(layout: Layout, domain: str) -> Shards:
    folder = layout.shards / domain
    return Shards(path=folder, digest=read_manifest(folder).digest)


def initial_weights(path: Path | None) -> Weights | None:
    """The weights that a teacher starts from; None where it is trained from scratch."""
    if path is None:
        return None
    if not path.is_file():
        raise UserError(
            f"params.yaml: teacher.init is {path}, which is not a file; give a safetensors file (see "
            "`rdmd convert-edm --help`), or null to train from scratch."
        )
    return Weights(path=path, sha256=sha256_of(path))
