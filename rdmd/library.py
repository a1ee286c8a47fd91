"""The functions that `import rdmd` offers: train a teacher, distil it, evaluate and look, in this process.

Each ends where a stage of the pipeline ends: in `run_training`, in the one evaluator, and in the grid of images of the
report. `rdmd.pretrained` has the models that they make.
"""

import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn

from rdmd import config
from rdmd.config.reading import sentences
from rdmd.data.in_memory import (
    Samples,
    channels_first,
    digest_of,
    first_samples,
    repeated,
    sample_shape,
    stored,
)
from rdmd.data.likeness import SourceStatistics
from rdmd.data.transforms import as_rgb, to_uint8
from rdmd.data.view import view_of
from rdmd.errors import UserError
from rdmd.evaluation.evaluator import evaluate as evaluate_tensors
from rdmd.evaluation.row import Scores
from rdmd.files import sha256_of
from rdmd.networks.build import save_weights
from rdmd.networks.codec import Codec, open_codec
from rdmd.networks.diffusers_import import is_checkpoint
from rdmd.pipeline.jobs import beginning, cost_weights
from rdmd.pipeline.model_card import CODEC, ModelCard
from rdmd.pipeline.model_folder import load_generator
from rdmd.pipeline.model_source import card_of_run
from rdmd.pretrained import Device, Teacher, Translator, device_of, load_teacher, teacher_parts
from rdmd.progress import run_bar
from rdmd.report.samples import image_grid as grid_figure
from rdmd.report.style import png_bytes
from rdmd.training.run_config import DistillRun, FeatureInput, Shards, TeacherRun, Weights, run_name
from rdmd.training.run_folder import RunFolder

Precision = Literal["float32", "bf16"]
Section = TypeVar("Section", bound=config.Section)
Network = TypeVar("Network", bound=nn.Module)

# Compiling takes longer than a small network trains.
EAGER = config.Compute(compile="off")


def train_teacher(
    target: Samples,
    *,
    steps: int = 2000,
    batch: int = 64,
    lr: float = 1e-3,
    model_channels: int = 32,
    network: config.Network | None = None,
    codec: str | Path | None = None,
    precision: Precision = "float32",
    compute: config.Compute = EAGER,
    device: Device = "auto",
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Teacher:
    """Train a diffusion model of the target: min_D E beta ||D(x + sigma eps, sigma) - x||^2 (Karras et al. 2022).

    Args:
        target: square images of one size, or points, as an `ImageFolder`, another dataset, a tensor, an array or a
            list; of floats, images are in [-1, 1].
        steps: optimiser steps.
        batch: samples in each step.
        lr: the learning rate of Adam.
        model_channels: the width of the default network, which suits small images.
        network: a section `network` of params.yaml, instead of the default network.
        codec: an autoencoder of diffusers, a folder or `hf:ORG/NAME`, whose latents the networks then see; images stay
            what goes in and comes out.
        precision: as in the section `launch` of params.yaml; so is `compute`.
        device: `auto` is the first GPU, or the CPU where there is none.
        folder: the place of the run. The same call goes on from the checkpoint of a killed run there, and returns a
            finished run at once. By default the run is in a temporary folder.
        progress: show a progress bar.
        settings: other keys of the section `teacher` of params.yaml, such as `warmup=0` or `ema=0.99`. With
            `evaluate_every` the progress bar shows FID on EfficientNet-Lite0, or SW2 of points. With `init="FOLDER"` or
            `init="hf:ORG/NAME"` a diffusers checkpoint is fine-tuned, and its network is kept.

    Raises UserError if the samples or a setting cannot be used, or if the loss is not finite.

    Examples:
        >>> import rdmd, torch
        >>> images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
        >>> rdmd.train_teacher(images, steps=2, batch=4, model_channels=8, progress=False).card.sample_shape
        (3, 8, 8)
    """
    samples, latents = stored(target), None if codec is None else open_codec(str(codec))[1]
    # Codecs are of RGB images.
    samples = samples if latents is None else repeated(samples, 3)
    shape = sample_shape(samples)
    if latents is not None:
        shape = latents.shape(*shape[1:])
    section = _section(config.Teacher, {"steps": steps, "batch": batch, "lr": lr, "sample_every": 0} | settings)
    if network is None and is_checkpoint(section.init):
        network = config.DiffusersNetwork(kind="unet2d")
    network = network or default_network(shape, model_channels, latents)
    if section.augment and isinstance(network, config.ImageNetwork) and network.augment_dim == 0:
        network = network.model_copy(update={"augment_dim": config.AUGMENTATION_LABELS})
    if (misfit := section.misfit(network)) is not None:
        raise UserError(f"{misfit}.")
    network, initial = beginning(network, section.init, shape)
    run = TeacherRun(
        experiment="library",
        seed=seed,
        sample_shape=shape,
        network=network,
        target=_input(digest_of(samples)),
        precision=precision,
        processes=1,
        settings=section,
        compute=compute,
        initial=initial,
        features=_features(section, shape),
    )
    inputs = {run.target.path: samples}
    card, parts = _trained(run, inputs, target, load_teacher, device, folder, progress, latents)
    return Teacher(card, *teacher_parts(parts, device_of(device)))


def distill(
    teacher: Teacher | str | Path,
    source: Samples,
    *,
    target: Samples | None = None,
    lam: float | tuple[float, float] = (0.01, 0.5),
    steps: int = 1000,
    batch: int = 64,
    lr: float = 3e-4,
    sigma_init: float = 1.0,
    precision: Precision = "float32",
    compute: config.Compute = EAGER,
    device: Device = "auto",
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Translator:
    """Distil a teacher of the target into a one-step translator of the source:
    min_G int omega_t KL(p_t^G || p_t^T) dt + lam E c(x, G(x)) (RDMD, section 3).

    Args:
        teacher: a `Teacher`, or the folder of one.
        source: images of the teacher's size, or points, as `target` of `train_teacher`.
        target: what the teacher learned from; only evaluations on the way (`evaluate_every`) read it.
        lam: the weight of the transport cost: small for realistic translations, large for faithful ones. The two ends
            of a range make it an input of the translator: `translator(images, lam=0.05)`.
        lr: the learning rate of the generator; `fake_lr` is that of the fake denoiser.
        sigma_init: the noise level at which the generator reads the teacher's network.
        settings: other keys of the section `distill` of params.yaml, such as `cost={"name": "huber"}`.

    The other arguments are those of `train_teacher`. Raises UserError as `train_teacher`, if samples do not have the
    shape of the teacher's, and if evaluations lack a target.

    Examples:
        >>> import rdmd, torch
        >>> target, source = torch.randint(0, 256, (2, 20, 3, 8, 8), dtype=torch.uint8)
        >>> teacher = rdmd.train_teacher(target, steps=2, batch=4, model_channels=8, progress=False)
        >>> rdmd.distill(teacher, source, lam=0.1, steps=2, batch=4, progress=False)(source).shape
        torch.Size([20, 3, 8, 8])
    """
    teacher = teacher if isinstance(teacher, Teacher) else Teacher.from_pretrained(teacher, device)
    card = teacher.card
    samples = repeated(stored(source), card.outer_shape[0])
    if sample_shape(samples) != card.outer_shape:
        raise UserError(
            f"samples of the source have the shape {sample_shape(samples)}, and those of the teacher "
            f"{card.outer_shape}; give both domains one size and as many channels."
        )
    lambdas = {"from": lam[0], "to": lam[1]} if isinstance(lam, tuple) else [lam]
    own = {"lambdas": lambdas, "steps": steps, "batch": batch, "generator_lr": lr, "sigma_init": sigma_init}
    section = _section(config.Distill, own | {"sample_every": 0} | settings)
    source_input, target_input = _input(digest_of(samples)), _input(card.target_digest)
    inputs = {source_input.path: samples}
    if section.evaluate_every:
        reference = None if target is None else repeated(stored(target), card.outer_shape[0])
        if reference is None or sample_shape(reference) != card.outer_shape:
            raise UserError(
                "evaluate_every compares translations with the target; give its samples, of the shape "
                f"{card.outer_shape}, as `target`."
            )
        target_input = _input(digest_of(reference))
        inputs[target_input.path] = reference
    with tempfile.TemporaryDirectory(prefix="rdmd-") as temporary:
        weights = Path(temporary) / "teacher.safetensors"
        save_weights(teacher.denoiser, weights)
        run = DistillRun(
            experiment="library",
            seed=seed,
            sample_shape=card.sample_shape,
            network=card.network,
            target=target_input,
            precision=precision,
            processes=1,
            settings=section,
            compute=compute,
            lam=section.generators[0],
            source=source_input,
            teacher=Weights(path=weights, sha256=sha256_of(weights)),
            cost_weights=cost_weights(section.cost, card.outer_shape[-1]),
            features=_features(section, card.sample_shape),
        )
        trained = _trained(run, inputs, source, load_generator, device, folder, progress, teacher.codec)
        return Translator(*trained, device_of(device))


def evaluate(
    translations: Samples,
    source: Samples,
    target: Samples,
    *,
    features: Literal["efficientnet_lite0", "inception"] = "efficientnet_lite0",
    device: Device = "auto",
    **settings: Any,
) -> Scores:
    """Every metric of the pipeline: the realism of translations against `target`, their faithfulness to `source`.

    All three are images of one size, or points, as `target` of `train_teacher`; `translations` are in the order of
    `source`. Use samples that training has not seen. FID on EfficientNet-Lite0, whose weights are installed, cannot be
    compared with FID on InceptionV3, which is downloaded. `settings` are those of `rdmd.evaluation.evaluator.evaluate`.

    Examples:
        >>> import rdmd, torch
        >>> source, target = torch.randn(300, 2), torch.randn(300, 2) + 1
        >>> scores = rdmd.evaluate(source + 1, source, target)
        >>> round(scores.cost, 3), scores.sw2 < 0.2
        (1.0, True)
    """
    sides = [stored(samples) for samples in (translations, source, target)]
    y, x, reference = (channels_first(repeated(each, max(part.shape[-1] for part in sides))) for each in sides)
    return evaluate_tensors(y, x, reference, features, device=device_of(device), **settings)


def image_grid(columns: Mapping[str, Samples], rows: int = 8) -> Image.Image:
    """The first `rows` images of each column below the column's title, as one PIL image.

    Examples:
        >>> import rdmd, torch
        >>> images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
        >>> rdmd.image_grid({"source": images, "again": images}, rows=3).mode
        'RGB'
    """
    shown = []
    for title, images in columns.items():
        first = channels_first(stored(first_samples(images, rows)))
        shown.append((title, as_rgb(to_uint8(first) if first.is_floating_point() else first)))
    return Image.open(io.BytesIO(png_bytes(grid_figure(shown)))).convert("RGB")


def default_network(shape: tuple[int, ...], model_channels: int, codec: Codec | None = None) -> config.Network:
    """A U-Net of up to four levels, with attention at the lowest, or a perceptron for points."""
    if len(shape) == 1:
        return config.PointNetwork(kind="mlp")
    side, mult = shape[-1], [1]
    while len(mult) < 4 and side % 2 == 0 and side > 4:
        side, mult = side // 2, [*mult, 2]
    own = {"model_channels": model_channels, "channel_mult": mult, "num_blocks": 1, "attn_resolutions": [side]}
    own |= {} if codec is None else {"sigma_data": 1.0}
    return _section(config.ImageNetwork, {"kind": "ddpmpp"} | own)


def _section(kind: type[Section], values: dict[str, Any]) -> Section:
    """A section of params.yaml. Raises UserError for an unknown key or a value out of range."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(sentences(error, values)) from None


def _input(digest: str) -> Shards:
    """Samples in memory as an input of a run, which their digest names."""
    return Shards(path=Path(digest), digest=digest)


def _features(section: config.Evaluated, shape: tuple[int, ...]) -> FeatureInput | None:
    """The installed feature network, or for points none; None where nothing is evaluated on the way."""
    if section.evaluate_every == 0:
        return None
    if len(shape) == 1:
        return FeatureInput(network=config.NoFeatures(network="none"))
    return FeatureInput(network=config.EfficientNetLite0Features(network="efficientnet_lite0"))


def _trained(
    run: TeacherRun | DistillRun,
    inputs: dict[Path, Tensor],
    data: Samples,
    load: Callable[[Path, torch.device, ModelCard | None], tuple[ModelCard, Network]],
    device: Device,
    folder: str | Path | None,
    progress: bool,
    codec: Codec | None,
) -> tuple[ModelCard, Network]:
    """Train a run in this process on the stored samples of its `inputs`, of which those of `data` are the teacher's
    target or the generator's source, unless it is finished, and load its network. With a codec it trains on latents."""
    from rdmd.training.run import run_training

    place = device_of(device)
    with ExitStack() as stack:
        stack.enter_context(_own_state())
        runs = Path(folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="rdmd-")))
        if codec is not None:
            run = run.model_copy(update={"codec": codec.save(runs / CODEC)})
            codec.to(place)
        kept = RunFolder.prepare(runs, run)
        if kept.result() is None:
            views = {path: view_of(_seen(samples, codec), place) for path, samples in inputs.items()}
            with run_bar(run_name(run), run.settings.steps, disable=not progress) as bar:
                run_training(run, kept, place.type, open_domain=lambda path, split, on: views[path], follow=bar.follow)
        # Translations are made square as the images of training were.
        card = card_of_run(kept).model_copy(
            update={"fit": getattr(data, "fit", "crop"), "white": getattr(data, "white", None)}
        )
        if isinstance(run, DistillRun):
            card = card.model_copy(update={"source": SourceStatistics.of(inputs[run.source.path].cpu().numpy())})
        return load(kept.path, place, card)


def _seen(samples: Tensor, codec: Codec | None) -> Tensor:
    """Stored samples as the networks are trained on."""
    return samples if codec is None else torch.from_numpy(codec.latents(samples.numpy()))


@contextmanager
def _own_state() -> Iterator[None]:
    """For a training in a process that goes on: the states of torch and accelerate afterwards are those of before."""
    from accelerate.state import AcceleratorState, PartialState

    # As in the processes of the pipeline: products of matrices on a GPU are then the same in each run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    # accelerate refuses a second device or precision in one process.
    shared = [PartialState._shared_state, AcceleratorState._shared_state]
    before = [dict(state) for state in shared]
    for state in shared:
        state.clear()
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            yield
    finally:
        for state, values in zip(shared, before, strict=True):
            state.clear()
            state.update(values)
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
