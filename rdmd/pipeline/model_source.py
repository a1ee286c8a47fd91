"""Open a generator by its name on the command line: a folder, an entry of `runs/`, or a URI of MLflow's registry."""

import tempfile
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from rdmd.distillation.generator import Generator
from rdmd.errors import UserError
from rdmd.networks.build import build_denoiser, load_weights
from rdmd.pipeline.model_folder import load_generator
from rdmd.pipeline.store import asking_for
from rdmd.training.run_config import DistillRun
from rdmd.training.run_folder import RunFolder

REGISTRY_SCHEME = "models:/"
Fit = Literal["crop", "pad"]


def open_generator(model: str, device: torch.device) -> tuple[nn.Module, tuple[int, ...], Fit]:
    """A generator in inference form, its sample shape, and how it fits images ("crop" or "pad").

    Raises UserError if `model` is no such name, or cannot be loaded.
    """
    if model.startswith(REGISTRY_SCHEME):
        with tempfile.TemporaryDirectory() as temporary:
            card, generator = load_generator(_download(model, Path(temporary)), device)
    else:
        folder = Path(model)
        if (folder / "run.json").is_file():
            return _from_run(RunFolder(folder), device)
        if not folder.exists():
            raise UserError(
                f"{model} does not exist; give a model's folder such as models/generators/lambda-0.1, an entry "
                "of runs/, or models:/NAME@champion."
            )
        card, generator = load_generator(folder, device)
    _check_translates(model, card.source_noise)
    return generator, card.sample_shape, card.fit


def _from_run(folder: RunFolder, device: torch.device) -> tuple[nn.Module, tuple[int, ...], Fit]:
    try:
        run, result = folder.read_run(), folder.result()
    except ValueError:
        raise UserError(
            f"{folder.path} holds a run.json or result.json that this version does not read; repeat "
            "`dvc repro` to make it again, or give another model."
        ) from None
    if not isinstance(run, DistillRun):
        raise UserError(f"{folder.path} holds a {run.kind} and not a generator; give the run of a generator.")
    _check_translates(str(folder.path), run.source_noise)
    if result is None:
        raise UserError(f"{folder.path} is not finished; repeat `dvc repro` to finish it, or give another model.")
    denoiser = build_denoiser(run.network, run.sample_shape)
    load_weights(denoiser, folder.weights)
    generator = Generator(denoiser, run.settings.sigma_init, run.settings.noise_at(run.lam))
    return generator.eval().requires_grad_(False).to(device), run.sample_shape, "crop"


def _check_translates(model: str, source_noise: float | None) -> None:
    if source_noise is not None:
        raise UserError(
            f"{model} makes samples of noise and does not translate; give a generator of an experiment "
            "whose source is not noise."
        )


def _download(uri: str, into: Path) -> Path:
    """Fetch a registered model's files; gives the folder that holds model.json."""
    with asking_for(uri):
        import mlflow

        fetched = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into)))
    found = sorted(fetched.rglob("model.json"))
    if not found:
        raise UserError(f"{uri} is not a model of this project: it holds no model.json.")
    return found[0].parent
