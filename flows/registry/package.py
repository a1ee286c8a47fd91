"""What a registered model consists of: weights, the code that runs them, a request as an example, a README, and a
picture of translations."""

import base64
import io
import logging
import shutil
import tempfile
from importlib.metadata import version
from modulefinder import ModuleFinder
from pathlib import Path

import mlflow
import numpy as np
from PIL import Image

from rdmd import config
from rdmd.evaluation.row import Metrics, Row
from rdmd.files import write_text
from rdmd.pipeline.model_card import ModelCard, weights_of, write_model
from rdmd.pipeline.readme import registry_readme

CODE = Path(__file__).resolve().parents[2]
TRANSLATOR = CODE / "mlflow" / "translator.py"
SERVER = CODE / "rdmd" / "serving" / "server.py"
# mlflow-skinny loads and serves models, without the packages of a tracking server.
PACKAGES = (
    "mlflow-skinny",
    "numpy",
    "pandas",
    "pillow",
    "prometheus-client",
    "pydantic",
    "pyyaml",
    "safetensors",
    "torch",
)


def log_model(
    name: str, folder: Path, card: ModelCard, row: Row, metrics: Metrics, step: int, samples: Path | None
) -> str:
    """Log the generator in `folder` to the active run, to be registered as `name`; its URI. Its default lambda is that
    of `card`.

    step: the step of the run's curves whose points become the model's metrics. samples: a picture of translations.
    """
    # MLflow tries the example, which is no image of the training source.
    logging.getLogger("rdmd.serving").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as temporary:
        copy_code(Path(temporary))
        model = Path(temporary) / "model"
        write_model(model, card, weights_of(folder, card))
        readme = Path(temporary) / "README.md"
        write_text(readme, registry_readme(name, card, row, metrics, samples))
        info = mlflow.pyfunc.log_model(
            name="generator",
            python_model=str(TRANSLATOR),
            artifacts={"model": str(model)},
            code_paths=[str(Path(temporary) / "rdmd")],
            input_example=(example(card), params) if (params := _params(card)) else example(card),
            pip_requirements=[f"{package}=={_version(package)}" for package in packages(card)],
            step=step,
            params={"lambda": f"{card.lam:g}", "nfe": str(row.nfe)},
        )
        for file in (readme, SERVER, *([samples] if samples else [])):
            mlflow.MlflowClient().log_model_artifact(info.model_id, str(file))
    return str(info.model_uri)


def packages(card: ModelCard) -> tuple[str, ...]:
    """The packages that the served model imports."""
    return (*PACKAGES, "diffusers") if isinstance(card.network, config.DiffusersNetwork) or card.codec else PACKAGES


def _version(package: str) -> str:
    """The installed version without the build that a local label names, such as `+cpu`: indexes need not have that."""
    return version(package).partition("+")[0]


def copy_code(into: Path) -> None:
    """Copy the modules of `rdmd` that the served model imports, directly or not, below `into`."""
    # The folder mlflow/ of this project would be found in place of the package. `rdmd` names the library for its users.
    finder = ModuleFinder(
        path=[str(CODE)], excludes=["mlflow", "rdmd.library", "rdmd.pretrained", "rdmd.data.in_memory"]
    )
    finder.run_script(str(TRANSLATOR))
    for name in finder.modules:
        if name.split(".")[0] == "rdmd":
            file = CODE.joinpath(*name.split("."))
            file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
            target = into / file.relative_to(CODE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def _params(card: ModelCard) -> dict[str, float | bool]:
    """The inference parameters with their defaults."""
    lam = {"lambda": card.lam} if card.lambdas is not None and card.lam is not None else {}
    return lam | ({"keep_detail": False} if len(card.outer_shape) == 3 else {})


def example(card: ModelCard) -> list[str] | list[list[float]]:
    """A request of two samples: PNG files in base64 with a colour gradient, or points."""
    if len(card.outer_shape) == 1:
        return [[0.5, -0.25], [0.0, 1.0]]
    ramp = np.linspace(0, 255, card.outer_shape[-1]).astype(np.uint8)
    right, down = np.meshgrid(ramp, ramp)
    images = [np.stack([right, down, 255 - right], axis=2), np.stack([down, 255 - right, right], axis=2)]
    texts = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="PNG")
        texts.append(base64.b64encode(file.getvalue()).decode("ascii"))
    return texts
