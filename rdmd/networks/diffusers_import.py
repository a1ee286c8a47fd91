"""Find the files of a diffusers checkpoint: a network with its scheduler, or a codec. Nothing of it is executed.

This module does not import torch, so that flows start quickly.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdmd import config
from rdmd.errors import UserError

HUB = "hf:"
NETWORK, SCHEDULER, WEIGHTS = "config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors"
PREDICTIONS = ("epsilon", "v_prediction", "sample")
# The predictions of the schedulers whose noise levels are known here.
SCHEDULERS = {"DDPMScheduler": PREDICTIONS, "DDIMScheduler": PREDICTIONS, "EDMEulerScheduler": ("epsilon",)}


@dataclass(frozen=True)
class Checkpoint:
    """A network that params.yaml can name, and its weights."""

    network: config.DiffusersNetwork
    weights: Path


class CodecFile(config.Section):
    """A codec as an input of a run or a part of a model: its folder, the SHA-256 of its weights and scale, and the
    side of an image divided by that of its latents. `path` is relative to the folder of the model that it belongs to.
    """

    path: Path
    sha256: str
    factor: int


def is_checkpoint(init: Path | None) -> bool:
    """Whether `teacher.init` names a checkpoint of diffusers and not a file of weights."""
    return init is not None and (str(init).startswith(HUB) or init.is_dir())


def not_a_checkpoint(init: Path) -> str:
    """The sentence for a `teacher.init` that `is_checkpoint` denies."""
    return (
        f"params.yaml: teacher.init is {init}, which is not a folder; a network `unet2d` starts from a diffusers "
        "checkpoint, a folder or hf:ORG/NAME."
    )


def open_checkpoint(init: Path, sample_shape: tuple[int, ...]) -> Checkpoint:
    """The checkpoint at `teacher.init`: a folder, or `hf:ORG/NAME`, which is downloaded once.

    The folder is a pipeline with `unet` and `scheduler`, or holds the files of both itself. Raises UserError for
    another network or scheduler than those known here, for a network that does not take samples of `sample_shape`, and
    for a missing file.
    """
    names = (NETWORK, SCHEDULER, WEIGHTS, f"unet/{NETWORK}", f"scheduler/{SCHEDULER}", f"unet/{WEIGHTS}")
    root = _root(str(init), names, "teacher.init")
    if not root.is_dir():
        raise UserError(not_a_checkpoint(init))
    unet = settings_in(_found(root, "unet", NETWORK, "teacher.init"))
    scheduler = settings_in(_found(root, "scheduler", SCHEDULER, "teacher.init"))
    weights = _found(root, "unet", WEIGHTS, "teacher.init")
    if reason := _misfit(unet, sample_shape) or _unknown(scheduler):
        raise UserError(f"{root} {reason}; name another checkpoint as teacher.init.")
    return Checkpoint(config.DiffusersNetwork(kind="unet2d", unet=unet, scheduler=scheduler), weights)


def codec_folder(name: str) -> Path:
    """The folder with the two files of the codec at `preprocess.codec`: a folder, or `hf:ORG/NAME`, which is downloaded
    once. A pipeline has them in `vae`. Raises UserError if they are missing."""
    root = _root(name, (NETWORK, WEIGHTS, f"vae/{NETWORK}", f"vae/{WEIGHTS}"), "preprocess.codec")
    if not root.is_dir():
        raise UserError(
            f"params.yaml: preprocess.codec is {name}, which is not a folder; give the folder of a diffusers "
            "autoencoder, or hf:ORG/NAME."
        )
    folder = _found(root, "vae", NETWORK, "preprocess.codec").parent
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{folder} holds no {WEIGHTS}; preprocess.codec needs a diffusers autoencoder with safetensors."
        )
    return folder


def pretrained(kind: Any, weights: Path, key: str) -> Any:
    """The network of a class of diffusers with its `weights`, which `key` of params.yaml named and settings lie beside.

    diffusers reads them, which knows the names that tensors had in its older versions; it reads safetensors alone.
    Raises UserError if the file is damaged, or if a tensor is missing or of another shape.
    """
    remedy = f"download the checkpoint again, or name another as {key}"
    try:
        loaded, info = kind.from_pretrained(
            weights.parent, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    # It raises many errors, such as those of safetensors and its own for other shapes.
    except Exception as error:
        raise UserError(f"diffusers cannot load {weights} ({error}); {remedy}.") from None
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])[0]
        raise UserError(f"{weights} has no tensor `{missing}`, which the network needs; {remedy}.")
    return loaded


def _root(name: str, files: Sequence[str], key: str) -> Path:
    """The folder that `name` names; of a repository that of its `files`, from the cache or from the hub."""
    if not name.startswith(HUB):
        return Path(name)
    from huggingface_hub import snapshot_download

    name = name.removeprefix(HUB)
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    # The hub's client raises errors of its own, of the network and of the system.
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the checkpoint {name} cannot be downloaded ({reason}); correct the name, or download it elsewhere and "
            f"name its folder as {key}."
        ) from None


def _found(root: Path, part: str, name: str, key: str) -> Path:
    """The file of that name in the part's folder or in `root` itself."""
    for file in (root / part / name, root / name):
        if file.is_file():
            return file
    raise UserError(
        f"{root} holds neither {part}/{name} nor {name}; {key} needs a diffusers checkpoint with safetensors "
        "(`pipeline.save_pretrained(FOLDER)` writes one)."
    )


def settings_in(file: Path) -> dict[str, Any]:
    """The settings in a file of diffusers, without the path and version that it notes there."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{file} is not a JSON file of settings; download the checkpoint again.")
    return {key: value for key, value in values.items() if key == "_class_name" or not key.startswith("_")}


def _misfit(unet: dict[str, Any], sample_shape: tuple[int, ...]) -> str | None:
    """Why a network is not one for samples of `sample_shape`, (C, R, R)."""
    if unet.get("_class_name") != "UNet2DModel":
        return f"holds a network of the class {unet.get('_class_name')}, and only UNet2DModel is known here"
    if unet.get("class_embed_type") is not None or unet.get("num_class_embeds") is not None:
        return "holds a network that needs a class for each image"
    if (embedding := unet.get("time_embedding_type", "positional")) != "positional":
        return f"holds a network with the time embedding {embedding!r}, and only 'positional' is known here"
    channels, side = sample_shape[0], sample_shape[-1]
    # diffusers' own default for both.
    read, written = unet.get("in_channels", 3), unet.get("out_channels", 3)
    if (read, written) != (channels, channels):
        return f"holds a network from {read} to {written} channels, and samples have {channels}"
    halvings = len(unet.get("down_block_types", "four")) - 1
    if side % 2**halvings:
        return f"holds a network that halves images {halvings} times, which their side, {side}, does not allow"
    return None


def _unknown(scheduler: dict[str, Any]) -> str | None:
    """Why a scheduler's noise levels are not known here."""
    name, prediction = scheduler.get("_class_name"), scheduler.get("prediction_type", "epsilon")
    if name not in SCHEDULERS:
        return f"holds a scheduler of the class {name}, and only {', '.join(SCHEDULERS)} are known here"
    if prediction not in (known := SCHEDULERS[name]):
        return f"holds a {name} with the prediction {prediction!r}, and only {', '.join(known)} is known here"
    return None
