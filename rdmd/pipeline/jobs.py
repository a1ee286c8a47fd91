"""The weights that the transport cost of params.yaml needs, checked before anything is trained with them.

What reads networks is imported where there is one to read: flows, which plan runs and train in processes of their own,
start in half the time without torch.
"""

from pathlib import Path

from rdmd import config
from rdmd.data.manifest import read_manifest
from rdmd.errors import UserError
from rdmd.files import sha256_of
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card, weights_of
from rdmd.training.run_config import (
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


def cost_weights(settings: config.Settings, layout: Layout) -> Weights | None:
    """The weights of the cost's network, or None for a cost without one.

    Raises UserError if they are missing, damaged, or a classifier of pictures of another size.
    """
    cost = settings.distill.cost
    if isinstance(cost, config.FeatureCost):
        from rdmd.evaluation.classifier_folder import WEIGHTS, load_classifier

        folder = layout.root / cost.weights
        _, card = load_classifier(folder)
        side = settings.preprocess.resolution
        if card.side != side:
            raise UserError(
                f"{folder} holds a feature network for pictures of {card.side}x{card.side}, but "
                f"preprocess.resolution is {side}; name another as distill.cost.weights, or make it again "
                "with `rdmd features`."
            )
        return Weights(path=folder / WEIGHTS, sha256=card.sha256)
    if isinstance(cost, config.LPIPS):
        from rdmd.networks.lpips import load_lpips

        file = layout.root / cost.weights
        load_lpips(file)
        return Weights(path=file, sha256=sha256_of(file))
    return None


def plan_teacher(settings: config.Settings, layout: Layout) -> TeacherRun:
    """The teacher's run. Raises UserError if the target's shards or the initial weights are missing."""
    return TeacherRun(
        experiment=settings.experiment,
        seed=settings.seed,
        sample_shape=settings.sample_shape,
        network=settings.network,
        target=_shards(layout, "target"),
        precision=settings.launch.precision,
        processes=settings.launch.processes,
        settings=settings.teacher,
        compute=compute_of(settings.launch),
        initial=_initial(settings.teacher.init),
    )


def chains(distill: config.Distill) -> list[list[float]]:
    """The sweep's lambdas as chains: within one, each continues the generator before it; chains know nothing of each
    other. A continued sweep is one chain, from the largest lambda down."""
    if isinstance(distill.sweep, config.Continuation):
        return [sorted(distill.lambdas, reverse=True)]
    return [[lam] for lam in distill.lambdas]


def plan_generator(settings: config.Settings, layout: Layout, lam: float, previous: RunFolder | None) -> DistillRun:
    """The run of one lambda, continuing `previous`, which is finished, where one is given.

    Raises UserError if shards, the teacher, the cost's weights or those to continue from are missing.
    """
    card = read_card(layout.teacher)
    if card.network != settings.network or card.sample_shape != settings.sample_shape:
        raise UserError(
            f"{layout.teacher} holds another network than params.yaml describes; train the teacher first "
            "with `rdmd train-teacher`."
        )
    teacher = Weights(path=weights_of(layout.teacher, card), sha256=card.sha256)
    source, target = _shards(layout, "source"), _shards(layout, "target")
    sweep = settings.distill.sweep
    continued = previous is not None and isinstance(sweep, config.Continuation)
    own: dict[str, float] = {"input_noise": settings.distill.noise_at(lam)}
    distill = settings.distill.model_copy(update=own | ({"steps": sweep.steps} if continued else {}))
    return DistillRun(
        experiment=settings.experiment,
        seed=settings.seed,
        sample_shape=settings.sample_shape,
        network=settings.network,
        target=target,
        precision=settings.launch.precision,
        processes=settings.launch.processes,
        settings=distill,
        compute=compute_of(settings.launch),
        lam=lam,
        source=source,
        source_noise=domain.std if isinstance(domain := settings.domains.source, config.Noise) else None,
        teacher=teacher,
        start=_end_of(previous) if previous is not None else None,
        cost_weights=cost_weights(settings, layout),
    )


def plan_refined(settings: config.Settings, layout: Layout, lam: float, previous: RunFolder, number: int) -> DistillRun:
    """The run of one lambda that `distill.refine` names as its `number`-th, counted from 0: it continues `previous`,
    the run before it at the same lambda. As `plan_generator`."""
    refine, *following = settings.distill.refine[number:]
    run = plan_generator(settings, layout, lam, previous)
    changed = {name: getattr(refine, name) for name in type(refine).model_fields if name in config.Distill.model_fields}
    if refine.fake_lr is None:
        del changed["fake_lr"]
    distill = run.settings.model_copy(update=changed | {"refine": following})
    return run.model_copy(update={"settings": distill, "proximal": refine.proximal})


def plan_baselines(settings: config.Settings, layout: Layout) -> list[TrainingRun]:
    """What the configured baselines need trained, the teacher of the target apart: a teacher of the source (DDIB), the
    domain classifier (EGSDE), a map for every weight (neural OT). Raises UserError if shards are missing."""
    given = settings.baselines
    source, target = _shards(layout, "source"), _shards(layout, "target")
    common = {
        "experiment": settings.experiment,
        "seed": settings.seed,
        "sample_shape": settings.sample_shape,
        "network": settings.network,
        "precision": settings.launch.precision,
        "processes": settings.launch.processes,
    }
    runs: list[TrainingRun] = []
    if given.ddib is not None:
        initial = _initial(settings.teacher.init)
        runs.append(
            TeacherRun(
                domain="source",
                target=source,
                settings=settings.teacher,
                initial=initial,
                compute=compute_of(settings.launch),
                **common,
            )
        )
    if given.egsde is not None:
        training, noise = given.egsde.classifier, settings.teacher.noise
        runs.append(DomainClassifierRun(source=source, target=target, settings=training, noise=noise, **common))
    if given.neural_ot is not None:
        runs += [
            NeuralOTRun(source=source, target=target, settings=given.neural_ot, cost_weight=weight, **common)
            for weight in given.neural_ot.cost_weights
        ]
    return runs


def compute_of(launch: config.Launch) -> config.Compute:
    """What of `launch` a run's own process has to know."""
    return config.Compute(**{name: getattr(launch, name) for name in config.Compute.model_fields})


def _end_of(folder: RunFolder) -> Start:
    """Where a finished run ended."""
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


def _initial(path: Path | None) -> Weights | None:
    if path is None:
        return None
    if not path.is_file():
        raise UserError(
            f"params.yaml: teacher.init is {path}, which is not a file; give a safetensors file (see "
            "`rdmd convert-edm --help`), or null to train from scratch."
        )
    return Weights(path=path, sha256=sha256_of(path))
