"""A translator of images as a pipeline of diffusers: `RDMDPipeline.from_pretrained(FOLDER)`. It needs diffusers.

`rdmd.Translator.save_pretrained` writes two files for it beside the model: `model_index.json`, which names the classes
below, and `pipeline.py`, which `DiffusionPipeline.from_pretrained` takes as `custom_pipeline`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from PIL import Image

from rdmd.data.readers.images import picture_of
from rdmd.errors import UserError
from rdmd.serving.images import Sizing, translate_pictures
from rdmd.serving.model import Model, open_folder


class RDMDGenerator(ModelMixin):
    """The generator of a model's folder, as a component that a pipeline moves between devices."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model, self.generator = model, model.generator

    @classmethod
    def from_pretrained(cls, folder: str | Path, **_: Any) -> Self:
        """The generator in `folder`, in float32. Raises UserError if it holds none, or one of points."""
        model = open_folder(Path(folder), torch.device("cpu"))
        if model.of_points:
            raise UserError(f"{folder} translates points, and a pipeline images; use rdmd.Translator instead.")
        return cls(model)

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Not possible: a model's card is written where the model is made."""
        raise UserError("a pipeline does not save its generator; copy its folder, or use rdmd.Translator.")


class RDMDPipeline(DiffusionPipeline):
    """Translates images at lambda, each to one of its own size, as `rdmd.Translator` does."""

    # diffusers declares none of these to a type checker.
    register_modules: Any
    generator: RDMDGenerator
    device: torch.device

    def __init__(self, generator: RDMDGenerator) -> None:
        super().__init__()
        self.register_modules(generator=generator)

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | Sequence[Image.Image],
        lam: float | None = None,
        *,
        resolution: int | None = None,
        keep_detail: bool = False,
    ) -> ImagePipelineOutput:
        """Translate PIL images of any sizes; `images` of the output are PIL images. The arguments are those of
        `rdmd.Translator`. Raises UserError for a lambda that the generator does not take."""
        images = [image] if isinstance(image, Image.Image) else image
        model = replace(self.generator.model, device=self.device).at(lam)
        pictures = (picture_of(image, model.form) for image in images)
        translated = translate_pictures(model, pictures, Sizing(resolution, keep_detail))
        return ImagePipelineOutput(images=list(translated))
