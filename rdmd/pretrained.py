"""A teacher and a translator to sample or translate with: loaded, saved, and pushed to the hub."""

import functools
import tempfile
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from rdmd.data.in_memory import (
    channels_first,
    is_channels_last,
    repeated,
    stored,
)
from rdmd.data.readers.images import picture_of
from rdmd.data.transforms import with_channels
from rdmd.diffusion.loss import noise_like
from rdmd.diffusion.samplers import karras_sigmas, sample_heun
from rdmd.distillation.generator import Generator
from rdmd.errors import UserError
from rdmd.files import replacing_folder, sha256_of, write_json, write_text
from rdmd.networks.build import save_weights
from rdmd.networks.codec import Codec
from rdmd.pipeline.layout import use_local_tracking
from rdmd.pipeline.model_card import CODEC, ModelCard, read_card
from rdmd.pipeline.model_folder import codec_of, load_denoiser, load_generator
from rdmd.pipeline.model_source import REGISTRY_SCHEME, open_model
from rdmd.pipeline.readme import hub_card
from rdmd.serving.images import Sizing, translate_images, translate_pictures
from rdmd.serving.model import BATCH, Model

Device = Literal["auto", "cpu", "cuda"]

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
        card, parts = open_model(str(model), load_teacher, device_of(device))
        if card.kind != "teacher":
            raise UserError(f"{model} holds a {card.kind} and not a teacher; give a folder such as models/teacher.")
        return cls(card, *teacher_parts(parts, device_of(device)))

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
            pixels = (with_channels(image, model.sample_shape[0]) for image in samples.cpu().numpy())
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


def device_of(name: Device) -> torch.device:
    """The device of that name. Raises UserError for `cuda` where there is no GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("the device is cuda, but torch finds no CUDA device here; use cpu, or see `rdmd doctor`.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def load_teacher(folder: Path, device: torch.device, card: ModelCard | None) -> tuple[ModelCard, nn.ModuleDict]:
    """A denoiser and, where it has one, its codec."""
    card, denoiser = load_denoiser(folder, device, card)
    codec = codec_of(folder, device, card)
    return card, nn.ModuleDict({"denoiser": denoiser} if codec is None else {"denoiser": denoiser, "codec": codec})


def teacher_parts(parts: nn.ModuleDict, device: torch.device) -> tuple[nn.Module, torch.device, Codec | None]:
    """What `load_teacher` read, as a `Teacher` takes it."""
    codec = dict(parts.items()).get("codec")
    assert codec is None or isinstance(codec, Codec)
    return parts["denoiser"], device, codec
