"""What `import rdmd` offers: train a teacher, distil it, translate, evaluate and look, in this process.

Each function ends where a stage of the pipeline ends: in `run_training`, in the translating of the served model, in
the one evaluator, and in the grid of images of the report.
"""

import functools
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
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
    is_channels_last,
    repeated,
    sample_shape,
    stored,
)
from rdmd.data.likeness import SourceStatistics
from rdmd.data.readers.images import picture_of
from rdmd.data.transforms import as_rgb, to_uint8, with_channels
from rdmd.data.view import view_of
from rdmd.diffusion.loss import noise_like
from rdmd.diffusion.samplers import karras_sigmas, sample_heun
from rdmd.distillation.generator import Generator
from rdmd.errors import UserError
from rdmd.evaluation.evaluator import evaluate as evaluate_tensors
from rdmd.evaluation.row import Scores
from rdmd.files import replacing_folder, sha256_of, write_json, write_text
from rdmd.networks.build import save_weights
from rdmd.networks.codec import Codec, open_codec
from rdmd.networks.diffusers_import import is_checkpoint
from rdmd.pipeline.jobs import beginning, cost_weights
from rdmd.pipeline.layout import use_local_tracking
from rdmd.pipeline.model_card import CODEC, ModelCard, read_card
from rdmd.pipeline.model_folder import codec_of, load_denoiser, load_generator
from rdmd.pipeline.model_source import REGISTRY_SCHEME, card_of_run, open_model
from rdmd.pipeline.readme import hub_card
from rdmd.progress import run_bar
from rdmd.report.samples import image_grid as grid_figure
from rdmd.report.style import png_bytes
from rdmd.serving.images import Sizing, translate_images, translate_pictures
from rdmd.serving.model import BATCH, Model
from rdmd.training.run_config import DistillRun, FeatureInput, Shards, TeacherRun, Weights, run_name
from rdmd.training.run_folder import RunFolder

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bf16"]
Section = TypeVar("Section", bound=config.Section)
Network = TypeVar("Network", bound=nn.Module)

# Compiling takes longer than a small network trains.
EAGER = config.Compute(compile="off")
# With these beside the model, diffusers loads the folder of a translator of images as a pipeline.
DIFFUSERS_PIPELINE = "from rdmd.serving.diffusers_pipeline import RDMDPipeline as RDMDPipeline\n"
DIFFUSERS_INDEX = {
    "_class_name": "RDMDPipeline",
    "generator": ["rdmd.serving.diffusers_pipeline", "RDMDGenerator"],
}


class _Pretrained:
    """A network and its card, which a folder can hold."""

    def __init__(self, card: ModelCard, denoiser: nn.Module, device: torch.device, codec: Codec | None = None) -> None:
        self.card, self.denoiser, self.device, self.codec = card, denoiser, device, codec

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `model.json`, `model.safetensors` and, where there is one, the codec to `folder`, which is replaced as
        a whole or stays as it was.

        The folder of a translator of images also has two small files by which diffusers loads it as a pipeline.
        """
        with replacing_folder(Path(folder)) as temporary:
            save_weights(self.denoiser, temporary / "model.safetensors")
            card = self.card.model_copy(update={"sha256": sha256_of(temporary / "model.safetensors")})
            if self.codec is not None:
                file = self.codec.save(temporary / CODEC).model_copy(update={"path": Path(CODEC)})
                card = card.model_copy(update={"codec": file})
            write_text(temporary / "model.json", card.model_dump_json(indent=2) + "\n")
            self._write_more(temporary)

    def _write_more(self, folder: Path) -> None:
        """Write what else the folder of such a network holds."""


class Teacher(_Pretrained):
    """A diffusion model D(x, sigma) of the target domain, made by `train_teacher`.

    Examples:
        >>> import rdmd, torch
        >>> teacher = rdmd.train_teacher(torch.randn(500, 2), steps=20, progress=False)
        >>> teacher.sample(8).shape
        torch.Size([8, 2])
    """

    @classmethod
    def from_pretrained(cls, model: str | Path, device: Device = "auto") -> Self:
        """The teacher in the folder `model`, or of an entry of runs/. Raises UserError if it holds none."""
        card, parts = open_model(str(model), _load_teacher, device_of(device))
        if card.kind != "teacher":
            raise UserError(f"{model} holds a {card.kind} and not a teacher; give a folder such as models/teacher.")
        return cls(card, *_of_teacher(parts, device_of(device)))

    @torch.no_grad()
    def sample(self, n: int, steps: int = 18, seed: int = 0) -> Tensor:
        """n samples, drawn by Heun's method (Karras et al. 2022, algorithm 1) in 2 `steps` - 1 network evaluations:
        images (n, C, R, R) in [-1, 1], or points (n, d)."""
        rng = torch.Generator(self.device).manual_seed(seed)
        sigmas = karras_sigmas(steps, 0.002, 80.0)
        noise = noise_like(torch.empty(n, *self.card.sample_shape, device=self.device), rng)
        samples = sample_heun(self.denoiser, noise * sigmas[0].item(), sigmas)
        samples = samples if self.codec is None else self.codec.decoded(samples)
        return samples.clamp(-1, 1) if samples.ndim == 4 else samples


class Translator(_Pretrained):
    """A one-step translator from the source domain to the target domain, made by `distill`.

    Examples:
        >>> import rdmd, tempfile, torch
        >>> teacher = rdmd.train_teacher(torch.randn(500, 2), steps=20, progress=False)
        >>> translator = rdmd.distill(teacher, torch.randn(500, 2) + 4, lam=0.1, steps=10, progress=False)
        >>> folder = tempfile.mkdtemp()
        >>> translator.save_pretrained(folder)
        >>> points = rdmd.Translator.from_pretrained(folder)(torch.zeros(3, 2))
        >>> points.shape
        torch.Size([3, 2])
    """

    def __init__(self, card: ModelCard, generator: Generator, device: torch.device) -> None:
        super().__init__(card, generator.denoiser, device, generator.codec)
        self.model = Model(generator, card.outer_shape, card.fit, device, white=card.white)

    def _write_more(self, folder: Path) -> None:
        if not self.model.of_points:
            write_json(folder / "model_index.json", DIFFUSERS_INDEX)
            write_text(folder / "pipeline.py", DIFFUSERS_PIPELINE)

    @classmethod
    def from_pretrained(cls, model: str | Path, device: Device = "auto") -> Self:
        """The translator in a model's folder, of an entry of runs/, or of an MLflow registry (`models:/NAME@alias`).

        The registry is that of MLFLOW_TRACKING_URI or, where the current folder is a checkout with a store, its own.
        Raises UserError if `model` cannot be loaded or makes samples of noise.
        """
        if str(model).startswith(REGISTRY_SCHEME) and Path("mlflow/store/mlflow.db").is_file():
            use_local_tracking()
        return cls(*open_model(str(model), load_generator, device_of(device)), device_of(device))

    def push_to_hub(
        self, name: str, *, metrics: str | Path = "reports/metrics.json", private: bool | None = None
    ) -> str:
        """Upload what `save_pretrained` writes to the repository `name`, ORG/NAME, of Hugging Face's hub; its address.

        The repository is made if there is none, `private` or not. Its model card has the scores of this generator in
        `metrics`, the file of the stage `evaluate`; where the file is missing or of other generators, the card says
        that nothing was measured. `hf auth login` or the variable HF_TOKEN gives access. Raises UserError if the hub
        refuses.
        """
        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory(prefix="rdmd-") as temporary:
            folder = Path(temporary) / "model"
            self.save_pretrained(folder)
            write_text(folder / "README.md", hub_card(name, read_card(folder), Path(metrics)))
            try:
                address = HfApi().create_repo(name, private=private, exist_ok=True)
                HfApi().upload_folder(repo_id=name, folder_path=folder, commit_message="Upload a translator of RDMD")
            # The hub's client raises errors of its own, of the network and of the system.
            except Exception as error:
                raise UserError(
                    f"{name} cannot be written to the hub ({str(error).splitlines()[0]}); log in with `hf auth login`, "
                    "or correct the name."
                ) from None
        return str(address)

    @torch.no_grad()
    def __call__(
        self, images: Any, lam: float | None = None, *, resolution: int | None = None, keep_detail: bool = False
    ) -> Any:
        """Translate images or points. The translations have the form and the size of `images`.

        lam: lambda, within the range that the model takes: small for realistic translations, large for faithful ones.
            None is the model's default. Raises UserError for another.
        resolution: of the shorter side on its way through the generator; None is that of the training.
        keep_detail: add the detail of the source that this resolution cannot hold.

        PIL images, alone or in a list, and uint8 or uint16 tensors or arrays, (N, H, W, C) or (N, C, H, W), have any
        size and are translated whole; the translations have their bits, and PIL images their transparency. Floats are
        images of the model's resolution R in [-1, 1], in the same two layouts, or points (N, d). Any other list or
        dataset gives a tensor.
        """
        model, sizing = self.model.at(lam), Sizing(resolution, keep_detail)
        again = functools.partial(self, lam=lam, resolution=resolution, keep_detail=keep_detail)
        if isinstance(images, Image.Image):
            return again([images])[0]
        if isinstance(images, list) and all(isinstance(image, Image.Image) for image in images):
            return list(translate_pictures(model, (picture_of(image, model.form) for image in images), sizing))
        if isinstance(images, np.ndarray):
            return again(torch.from_numpy(images)).numpy()
        if not isinstance(images, Tensor):
            return again(channels_first(stored(images)))
        if images.ndim == 3:
            return again(images[None])[0]
        samples = stored(images)
        if not samples.is_floating_point():
            pixels = (with_channels(one, model.sample_shape[0]) for one in samples.cpu().numpy())
            results = np.stack(list(translate_images(model, pixels, sizing)))
            translated = torch.from_numpy(results).permute(0, 3, 1, 2)
        else:
            samples = channels_first(repeated(samples, model.sample_shape[0]))
            if samples.shape[1:] != self.card.outer_shape:
                raise UserError(
                    f"this model translates samples of the shape {self.card.outer_shape}, and floats of the shape "
                    f"{tuple(samples.shape[1:])} came; give pixels or PIL images, which may have any size."
                )
            translated = torch.cat([model.generator(part.to(self.device), model.lam) for part in samples.split(BATCH)])
        if translated.ndim == 4:
            translated = translated.clamp(-1, 1) if translated.is_floating_point() else translated
            translated = translated.permute(0, 2, 3, 1) if is_channels_last(images) else translated
        return translated.contiguous().to(images.device)


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
    shape = sample_shape(samples)
    if latents is not None:
        shape = latents.shape(*shape[1:])
    given = _section(config.Teacher, {"steps": steps, "batch": batch, "lr": lr, "sample_every": 0} | settings)
    if network is None and is_checkpoint(given.init):
        network = config.DiffusersNetwork(kind="unet2d")
    network, initial = beginning(network or default_network(shape, model_channels, latents), given.init, shape)
    run = TeacherRun(
        experiment="library",
        seed=seed,
        sample_shape=shape,
        network=network,
        target=_input(digest_of(samples)),
        precision=precision,
        processes=1,
        settings=given,
        compute=compute,
        initial=initial,
        features=_features(given, shape),
    )
    inputs = {run.target.path: samples}
    card, parts = _trained(run, inputs, target, _load_teacher, device, folder, progress, latents)
    return Teacher(card, *_of_teacher(parts, device_of(device)))


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
    given = _section(config.Distill, own | {"sample_every": 0} | settings)
    source_input, target_input = _input(digest_of(samples)), _input(card.target_digest)
    inputs = {source_input.path: samples}
    if given.evaluate_every:
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
            settings=given,
            compute=compute,
            lam=given.generators[0],
            source=source_input,
            teacher=Weights(path=weights, sha256=sha256_of(weights)),
            cost_weights=cost_weights(given.cost, card.outer_shape[-1]),
            features=_features(given, card.sample_shape),
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
    given = [stored(samples) for samples in (translations, source, target)]
    y, x, reference = (channels_first(repeated(each, max(one.shape[-1] for one in given))) for each in given)
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


def device_of(name: Device) -> torch.device:
    """The device of that name. Raises UserError for `cuda` where there is no GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("the device is cuda, but torch finds no CUDA device here; use cpu, or see `rdmd doctor`.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


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


def _features(given: config.Evaluated, shape: tuple[int, ...]) -> FeatureInput | None:
    """The installed feature network, or for points none; None where nothing is evaluated on the way."""
    if given.evaluate_every == 0:
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


def _load_teacher(folder: Path, device: torch.device, card: ModelCard | None) -> tuple[ModelCard, nn.ModuleDict]:
    """A denoiser and, where it has one, its codec."""
    card, denoiser = load_denoiser(folder, device, card)
    codec = codec_of(folder, device, card)
    return card, nn.ModuleDict({"denoiser": denoiser} if codec is None else {"denoiser": denoiser, "codec": codec})


def _of_teacher(parts: nn.ModuleDict, device: torch.device) -> tuple[nn.Module, torch.device, Codec | None]:
    """What `_load_teacher` read, as a `Teacher` takes it."""
    codec = dict(parts.items()).get("codec")
    assert codec is None or isinstance(codec, Codec)
    return parts["denoiser"], device, codec


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
