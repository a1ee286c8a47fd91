"""Open a generator by its name on the command line: a folder, an entry of `runs/`, or a URI of MLflow's registry."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from rdmd.distillation.generator import Generator
from rdmd.errors import UserError
from rdmd.pipeline.model_card import ModelCard, read_card
from rdmd.pipeline.model_folder import load_generator
from rdmd.pipeline.store import asking_for, weights_of, without_alias
from rdmd.pipeline.training import card_of
from rdmd.training.run_folder import RunFolder

REGISTRY_SCHEME = "models:/"
Network = TypeVar("Network", bound=nn.Module)


def open_generator(model: str, device: torch.device) -> tuple[ModelCard, Generator]:
    """The card of a generator, and the generator in inference form. Raises UserError as `open_model`."""
    return open_model(model, load_generator, device)


def open_model(
    model: str,
    load: Callable[[Path, torch.device, ModelCard | None], tuple[ModelCard, Network]],
    device: torch.device,
) -> tuple[ModelCard, Network]:
    """The card and the network that `load` (`load_generator` or `load_denoiser`) reads from `model`.

    Raises UserError if `model` is neither a folder, nor an entry of runs/, nor a URI, if it cannot be loaded, or if it
    makes samples of noise and does not translate.
    """
    card, network = _open(model, load, device)
    if card.source_noise is not None:
        raise UserError(
            f"{model} makes samples of noise and does not translate; give a generator of an experiment "
            "whose source is not noise."
        )
    return card, network


def _open(
    model: str,
    load: Callable[[Path, torch.device, ModelCard | None], tuple[ModelCard, Network]],
    device: torch.device,
) -> tuple[ModelCard, Network]:
    if model.startswith(REGISTRY_SCHEME):
        with tempfile.TemporaryDirectory() as temporary:
            return load(_download(model, Path(temporary)), device, None)
    folder = Path(model)
    if not folder.exists():
        raise UserError(
            f"{model} does not exist; give a model's folder such as models/generators/lambda-0.1, an entry "
            "of runs/, or models:/NAME@champion."
        )
    return load(folder, device, card_of_run(RunFolder(folder)) if (folder / "run.json").is_file() else None)


def read_model_card(model: str) -> ModelCard:
    """The card of a model, as `open_model` finds it, without its network."""

    def load(folder: Path, device: torch.device, card: ModelCard | None) -> tuple[ModelCard, nn.Module]:
        return card or read_card(folder), nn.Identity()

    return open_model(model, load, torch.device("cpu"))[0]


def evaluated_cost(model: str) -> float | None:
    """The cost that a registered version had in its evaluation; None for any other model."""
    if not model.startswith(REGISTRY_SCHEME):
        return None
    with asking_for(model):
        from mlflow import MlflowClient

        name, _, version = without_alias(model).removeprefix(REGISTRY_SCHEME).partition("/")
        cost = MlflowClient().get_model_version(name, version).tags.get("cost")
    return None if cost is None else float(cost)


def card_of_run(folder: RunFolder) -> ModelCard:
    """The card of a finished run. Raises UserError if the run is not finished or is from another version."""
    try:
        result = folder.result()
        if result is not None:
            # A run does not know how its images were made square.
            return card_of("crop", folder, result)
        folder.read_run()
    except ValueError:
        raise UserError(
            f"{folder.path} holds a run.json or result.json that this version does not read; repeat "
            "`dvc repro` to make it again, or give another model."
        ) from None
    raise UserError(f"{folder.path} is not finished; repeat `dvc repro` to finish it, or give another model.")


def _download(uri: str, into: Path) -> Path:
    """Fetch a registered model's files; gives the folder that holds model.json."""
    with asking_for(uri):
        import mlflow

        fetched = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into)))
    found = sorted(fetched.rglob("model.json"))
    if not found:
        raise UserError(f"{uri} is not a model of this project: it holds no model.json.")
    if weights_of(str(fetched)) is None:
        raise UserError(
            f"the weights of {uri} are gone; `make repro` registers it again, where the model is in models/."
        )
    return found[0].parent
