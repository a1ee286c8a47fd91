"""From params.yaml to training runs: the teacher, the generators, and the networks of baselines.

Functions import torch only to check the weights of a cost or of a feature network: flows plan runs and train in other
processes, and start in half the time without torch.
"""

from pathlib import Path
from typing import Any, Literal

from rdmd import config
from rdmd.data.manifest import Manifest, read_manifest
from rdmd.errors import UserError
from rdmd.files import sha256_of
from rdmd.networks.diffusers_import import CodecFile, open_checkpoint
from rdmd.pipeline.experiments import wrong_init
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card, weights_of
from rdmd.training.run_config import (
    CUTRun,
    DistillRun,
    DomainClassifierRun,
    FeatureInput,
    NeuralOTRun,
    Shards,
    TeacherRun,
    TrainingRun,
    Weights,
)


def cost_weights(cost: config.TransportCost, side: int, root: Path = Path()) -> Weights | None:
    """The weights of the transport cost's network, or None for a cost without a network. Its path is below `root`.

    Raises UserError if they are missing, damaged, or of a classifier of images whose side is not `side`.
    """
    if isinstance(cost, config.FeatureCost):
        from rdmd.evaluation.classifier import WEIGHTS, load_classifier

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


def settled(settings: config.Settings, layout: Layout) -> config.Settings:
    """The settings with the channels of the target's shards, where `preprocess.channels` leaves them open."""
    return settings.settled(read_manifest(layout.shards / "target").channels)


def _common(settings: config.Settings, target: Shards) -> dict[str, Any]:
    """The fields that all kinds of runs share. Raises UserError if the settings do not fit the shards' latents."""
    manifest = read_manifest(target.path)
    return {
        "experiment": settings.experiment,
        "seed": settings.seed,
        "sample_shape": manifest.trained_shape,
        "codec": codec_of(settings, manifest),
        "network": settings.network,
        "target": target,
        "precision": settings.launch.precision,
        "processes": settings.launch.processes,
    }


def codec_of(settings: config.Settings, manifest: Manifest) -> CodecFile | None:
    """The codec by which a domain's latents were encoded; None where it has none.

    Raises UserError if it is not the one at `preprocess.codec`, or if the settings do not fit the latents.
    """
    latents, codec = manifest.latents, settings.preprocess.codec
    if latents is None and codec is None:
        return None
    if latents is not None and codec is not None:
        from rdmd.networks.codec import codec_for

        file, _ = codec_for(settings)
        if file.sha256 == latents.codec:
            return file
    raise UserError(
        f"the shards of {manifest.domain} were encoded by another codec than preprocess.codec ({codec}); make them "
        "again with `rdmd preprocess` or `dvc repro -f preprocess`."
    )


def _sha256(codec: CodecFile | None) -> str | None:
    return None if codec is None else codec.sha256


def plan_teacher(
    settings: config.Settings, layout: Layout, domain: Literal["target", "source"] = "target"
) -> TeacherRun:
    """The run of a domain's teacher. Raises UserError if the domain's shards or the initial weights are missing."""
    settings = settled(settings, layout)
    common = _common(settings, _shards(layout, domain))
    network, initial = beginning(settings.network, settings.teacher.init, common["sample_shape"])
    return TeacherRun(
        domain=domain,
        settings=settings.teacher,
        compute=compute_of(settings.launch),
        initial=initial,
        features=_features(settings, layout, "teacher"),
        **common | {"network": network},
    )


def plan_generators(settings: config.Settings, layout: Layout) -> list[DistillRun]:
    """The run of the generator that takes lambda as an input, or the run of each lambda of a list.

    Raises UserError if shards, the teacher or the cost's weights are missing.
    """
    settings, card = settled(settings, layout), read_card(layout.teacher)
    of_checkpoint = isinstance(settings.network, config.DiffusersNetwork)
    same = card.network.kind == settings.network.kind if of_checkpoint else card.network == settings.network
    common = _common(settings, _shards(layout, "target")) | {"network": card.network}
    fits = card.sample_shape == common["sample_shape"] and _sha256(card.codec) == _sha256(common["codec"])
    if not same or not fits:
        raise UserError(
            f"{layout.teacher} holds another network than params.yaml describes; train the teacher first "
            "with `rdmd train-teacher`."
        )
    source_domain, distill = settings.domains.source, settings.distill
    source = _shards(layout, "source")
    teacher = Weights(path=weights_of(layout.teacher, card), sha256=card.sha256)
    weights = cost_weights(distill.cost, settings.preprocess.resolution, layout.root)
    features = _features(settings, layout, "distill")
    return [
        DistillRun(
            settings=distill,
            compute=compute_of(settings.launch),
            lam=lam,
            source=source,
            source_noise=source_domain.std if isinstance(source_domain, config.Noise) else None,
            teacher=teacher,
            cost_weights=weights,
            features=features,
            **common,
        )
        for lam in distill.generators
    ]


def plan_baselines(settings: config.Settings, layout: Layout) -> list[TrainingRun]:
    """The trainings that the configured baselines need beyond the target's teacher: the source's teacher (DDIB), the
    domain classifier (EGSDE), a network for every weight (neural OT, CUT). Raises UserError if shards are missing."""
    settings = settled(settings, layout)
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


def _features(settings: config.Settings, layout: Layout, section: Literal["teacher", "distill"]) -> FeatureInput | None:
    """The feature network of the evaluations that `section` asks for; None where it asks for none.

    Raises UserError if it is missing, or if the best weights are asked for and its distances rank nothing.
    """
    asked: config.Evaluated = getattr(settings, section)
    if asked.evaluate_every == 0:
        return None
    from rdmd.evaluation.classifier import WEIGHTS, load_classifier
    from rdmd.pipeline.features import refusal

    ranks = asked.keep == "best" or asked.patience is not None
    if ranks and (refused := refusal(settings, layout)) is not None:
        raise UserError(
            f"params.yaml: {section}.keep and {section}.patience compare evaluations, but {layout.features} ranks "
            f"nothing: {refused}; set them to last and null, or choose other evaluate.features."
        )
    network = settings.evaluate.features
    if not isinstance(network, config.ClassifierFeatures):
        return FeatureInput(network=network)
    _, card = load_classifier(layout.features)
    return FeatureInput(network=network, weights=Weights(path=layout.features / WEIGHTS, sha256=card.sha256))


def compute_of(launch: config.Launch) -> config.Compute:
    """The keys of `launch` that a training process needs."""
    return config.Compute(**{name: getattr(launch, name) for name in config.Compute.model_fields})


def _shards(layout: Layout, domain: str) -> Shards:
    folder = layout.shards / domain
    return Shards(path=folder, digest=read_manifest(folder).digest)


def beginning(
    network: config.Network, init: Path | None, sample_shape: tuple[int, ...]
) -> tuple[config.Network, Weights | None]:
    """The network of a teacher, and the weights that it starts from; None where it is trained from scratch.

    A network `unet2d` is read from the checkpoint at `init`. Raises UserError if `init` cannot be used.
    """
    if isinstance(network, config.DiffusersNetwork):
        if init is None:
            raise UserError("a network `unet2d` starts from a diffusers checkpoint; name it as teacher.init.")
        checkpoint = open_checkpoint(init, sample_shape)
        return checkpoint.network, Weights(path=checkpoint.weights, sha256=sha256_of(checkpoint.weights))
    if init is None:
        return network, None
    if problem := wrong_init(network, init):
        raise UserError(problem)
    return network, Weights(path=init, sha256=sha256_of(init))
