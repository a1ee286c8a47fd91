"""What a registered model consists of: weights, the code that runs them, a request as an example, and a README."""

import base64
import io
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from PIL import Image

from rdmd import config
from rdmd.evaluation.row import Metrics, Row, Scores
from rdmd.files import write_text
from rdmd.pipeline.model_card import ModelCard, weights_of, write_model
from rdmd.serving.request import MAX_IMAGES, MAX_PIXELS, MAX_POINTS

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


def log_model(name: str, folder: Path, card: ModelCard, row: Row, metrics: Metrics, step: int) -> str:
    """Log the generator in `folder` to the active run, to be registered as `name`; its URI. Its default lambda is that
    of `card`.

    step: the step of the run's curves whose points become the model's metrics.
    """
    # MLflow tries the example, which is no image of the training source.
    logging.getLogger("rdmd.serving").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as temporary:
        copy_code(Path(temporary))
        model = Path(temporary) / "model"
        write_model(model, card, weights_of(folder, card))
        readme = Path(temporary) / "README.md"
        write_text(readme, _readme(name, card, row, metrics))
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
        for file in (readme, SERVER):
            mlflow.MlflowClient().log_model_artifact(info.model_id, str(file))
    return str(info.model_uri)


def packages(card: ModelCard) -> tuple[str, ...]:
    """The packages that the served model imports."""
    return (*PACKAGES, "diffusers") if isinstance(card.network, config.DiffusersNetwork) else PACKAGES


def _version(package: str) -> str:
    """The installed version without the build that a local label names, such as `+cpu`: indexes need not have that."""
    return version(package).partition("+")[0]


def copy_code(into: Path) -> None:
    """Copy the modules of `rdmd` that the served model imports, directly or not, below `into`."""
    # The folder mlflow/ of this project would be found in place of the package. `rdmd` names the library for its users.
    finder = ModuleFinder(path=[str(CODE)], excludes=["mlflow", "rdmd.library", "rdmd.data.in_memory"])
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
    return lam | ({"keep_detail": False} if len(card.sample_shape) == 3 else {})


def example(card: ModelCard) -> list[str] | list[list[float]]:
    """A request of two samples: PNG files in base64 with a colour gradient, or points."""
    if len(card.sample_shape) == 1:
        return [[0.5, -0.25], [0.0, 1.0]]
    ramp = np.linspace(0, 255, card.sample_shape[-1]).astype(np.uint8)
    right, down = np.meshgrid(ramp, ramp)
    images = [np.stack([right, down, 255 - right], axis=2), np.stack([down, 255 - right, right], axis=2)]
    texts = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="PNG")
        texts.append(base64.b64encode(file.getvalue()).decode("ascii"))
    return texts


def _readme(name: str, card: ModelCard, row: Row, metrics: Metrics) -> str:
    """Markdown. The numbers are those of the evaluation after which the model was registered."""
    return f"""# {name}, lambda {card.lam:g}

A one-step translator from the source domain to the target domain of the experiment `{card.experiment}`: one network
evaluation for a sample. It was distilled from a diffusion model of the target by Regularized Distribution Matching
Distillation (RDMD). Lambda is the weight of the transport cost: a larger lambda stays closer to the input, a smaller
lambda looks more like the target. {_lambdas(card)}

It is meant for inputs like its source domain. It translates other inputs too, but nobody has measured how well.

## Call it

In the folder of this file (`mlflow artifacts download --artifact-uri models:/{name}@champion` fetches it):

    uv pip install --torch-backend cpu -r requirements.txt      # 1 GB; `pip install -r` takes torch for a GPU, 6 GB
    python server.py --model-uri . --port 5001
    curl -H 'Content-Type: application/json' -d @serving_input_example.json http://127.0.0.1:5001/invocations

{_request(card)}

A wrong request gets HTTP 400 with a sentence in `message`.

## How good it is

{_scores(row, metrics)}

## Where it came from

| | |
|---|---|
| training run | `{card.run}` |
| trained on | `{card.trained_on}, {card.train_seconds:.0f} s` |
| source data, SHA-256 | `{card.source_digest}` |
| target data, SHA-256 | `{card.target_digest}` |
| weights, SHA-256 | `{card.sha256}` |

The code in `code/rdmd` is under the Apache License 2.0.
"""


def _lambdas(card: ModelCard) -> str:
    if card.lambdas is None:
        return f"This generator was trained at lambda {card.lam:g}."
    return f"A request may set it by the parameter `lambda`, from {card.lambdas} (default {card.lam:g})."


def _request(card: ModelCard) -> str:
    if len(card.sample_shape) == 1:
        dims = card.sample_shape[0]
        return f"`inputs` is a list of 1 to {MAX_POINTS} points of {dims} finite numbers; so is `predictions`."
    side = card.sample_shape[-1]
    scale = (
        "its shorter side becomes" if card.fit == "crop" else "it is padded to a square with white, whose side becomes"
    )
    return (
        f"`inputs` is a list of 1 to {MAX_IMAGES} images, all as base64 text of a file (PNG, JPEG, WebP, BMP, TIFF "
        f"or GIF) or all as arrays (H, W, {card.sample_shape[0]}) of integers 0 to 255. `predictions` has the same "
        "form: base64 text of PNG files, or arrays, each of its image's size. An image has at most "
        f"{MAX_PIXELS} pixels and sides of at least 8 pixels. For the generator {scale} {side} pixels, and the "
        "result is enlarged again; the parameter `keep_detail` adds the finer detail of the source."
    )


def _scores(row: Row, metrics: Metrics) -> str:
    features = metrics.features
    named = f"; features {features.name} ({features.dim}, {features.sha256[:8]})" if features.sha256 else ""
    lines = [
        f"{metrics.n_source} translated samples of the source's test split against {metrics.n_reference} of the "
        f"target's{named}; seed {metrics.seed}. The tags of the registered version have the newest evaluation.",
        "",
        "| metric | value |",
        "|---|---|",
    ]
    scores = row.model_dump(include={*Scores.model_fields, "seconds_per_image"}, exclude_none=True)
    for name, value in _flat(scores):
        text = f"{value[0]:.4g} to {value[1]:.4g}" if isinstance(value, tuple) else f"{value:.4g}"
        lines.append(f"| `{name}` | {text} |")
    return "\n".join(lines)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings under names such as `paired.agreement.beard`."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
