"""Find the network, the scheduler and the weights of a diffusers checkpoint. Nothing of the checkpoint is executed.

This module does not import torch, so that flows start quickly.
"""

import json
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
    root = _downloaded(str(init).removeprefix(HUB)) if str(init).startswith(HUB) else init
    if not root.is_dir():
        raise UserError(not_a_checkpoint(init))
    unet = _settings(_found(root, "unet", NETWORK))
    scheduler = _settings(_found(root, "scheduler", SCHEDULER))
    weights = _found(root, "unet", WEIGHTS)
    if reason := _misfit(unet, sample_shape) or _unknown(scheduler):
        raise UserError(f"{root} {reason}; name another checkpoint as teacher.init.")
    return Checkpoint(config.DiffusersNetwork(kind="unet2d", unet=unet, scheduler=scheduler), weights)


def _downloaded(name: str) -> Path:
    """The folder of the files of a repository that are needed, from the cache or from the hub."""
    from huggingface_hub import snapshot_download

    files = [NETWORK, SCHEDULER, WEIGHTS, f"unet/{NETWORK}", f"scheduler/{SCHEDULER}", f"unet/{WEIGHTS}"]
    try:
        return Path(snapshot_download(name, allow_patterns=files))
    # The hub's client raises errors of its own, of the network and of the system.
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the checkpoint {name} cannot be downloaded ({reason}); correct the name, or download it elsewhere and "
            "name its folder as teacher.init."
        ) from None


def _found(root: Path, part: str, name: str) -> Path:
    """The file of that name in the part's folder or in `root` itself."""
    for file in (root / part / name, root / name):
        if file.is_file():
            return file
    raise UserError(
        f"{root} holds neither {part}/{name} nor {name}; teacher.init needs a diffusers checkpoint with safetensors "
        "(`pipeline.save_pretrained(FOLDER)` writes one)."
    )


def _settings(file: Path) -> dict[str, Any]:
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
