"""A generator as a model that MLflow serves anywhere: weights, the code that reads them, and a page about it.

Nothing of this repository is needed where it is served: the modules of `rdmd` that `mlflow/translator.py` imports,
and no others, travel inside the model.
"""

import base64
import io
import shutil
import tempfile
from importlib.metadata import version
from modulefinder import ModuleFinder
from pathlib import Path

import mlflow
import numpy as np
from PIL import Image

from flows.handoff_page import page
from rdmd.evaluation.row import Metrics, Row
from rdmd.files import write_text
from rdmd.pipeline.model_card import ModelCard

CODE = Path(__file__).resolve().parents[1]
TRANSLATOR = CODE / "mlflow" / "translator.py"
PACKAGES = ("mlflow", "numpy", "pillow", "pydantic", "pyyaml", "safetensors", "torch")
README = "README.md"


def log_model(name: str, folder: Path, card: ModelCard, row: Row, metrics: Metrics, step: int) -> str:
    """Log the generator in `folder` to the active run, to be registered as `name`; gives its URI.

    step: of the run's curves, whose points there become the model's metrics.
    """
    requirements = [f"{package}=={version(package)}" for package in PACKAGES]
    with tempfile.TemporaryDirectory() as temporary:
        copy_code(Path(temporary))
        write_text(Path(temporary) / README, page(name, card, row, metrics))
        info = mlflow.pyfunc.log_model(
            name="generator",
            python_model=str(TRANSLATOR),
            artifacts={"model": str(folder.resolve())},
            code_paths=[str(Path(temporary) / "rdmd")],
            input_example=example(card),
            pip_requirements=requirements,
            step=step,
            params={"lambda": f"{card.lam:g}", "nfe": str(row.nfe)},
        )
        mlflow.MlflowClient().log_model_artifact(info.model_id, str(Path(temporary) / README))
    return info.model_uri


def copy_code(into: Path) -> None:
    """Copy the modules of `rdmd` that the served model imports, directly or not, below `into`."""
    # mlflow/ here is a folder of files, which would be found in place of the package.
    finder = ModuleFinder(path=[str(CODE)], excludes=["mlflow"])
    finder.run_script(str(TRANSLATOR))
    for module in finder.modules.values():
        if module.__name__.split(".")[0] == "rdmd":
            file = Path(module.__file__)
            target = into / file.relative_to(CODE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def example(card: ModelCard) -> list[str] | list[list[float]]:
    """A request of two samples: PNG files in base64 (colours over a square), or points."""
    if len(card.sample_shape) == 1:
        return [[0.5, -0.25], [0.0, 1.0]]
    side = card.sample_shape[-1]
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    right, down = np.meshgrid(ramp, ramp)
    pictures = [np.stack([right, down, 255 - right], axis=2), np.stack([down, 255 - right, right], axis=2)]
    return [_png(picture) for picture in pictures]


def _png(picture: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
