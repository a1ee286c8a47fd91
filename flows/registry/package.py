"""The page that travels inside a registered model: what it is, how good it is, how to call it."""

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

from rdmd.evaluation.row import Metrics, Row, Scores
from rdmd.files import write_text
from rdmd.pipeline.model_card import ModelCard
from rdmd.serving.request import MAX_IMAGES, MAX_PIXELS, MAX_POINTS

REFUSED = "A wrong request gets HTTP 400 with a sentence in `message`."


def page(name: str, card: ModelCard, row: Row, metrics: Metrics) -> str:
    """Markdown. The numbers are those of the evaluation after which it was registered."""
    parts = [
        f"# {name}, lambda {card.lam:g}",
        _what(card),
        "## Call it",
        _call(name, card),
        "## How good it is",
        _scores(row, metrics),
        "## Where it came from",
        _origin(card),
    ]
    return "\n\n".join(parts) + "\n"


def _what(card: ModelCard) -> str:
    return (
        f"A one-step translator from the source domain to the target domain of the experiment `{card.experiment}`: "
        "one network evaluation for a sample. It was distilled from a diffusion model of the target by Regularized "
        f"Distribution Matching Distillation (RDMD), with weight {card.lam:g} on the transport cost: a larger weight "
        "stays closer to the input, a smaller one looks more like the target.\n\nIt is meant for inputs like its "
        "source domain. On others it gives something all the same, and nobody has measured what."
    )


def _call(name: str, card: ModelCard) -> str:
    serve = (
        "In the folder that holds this page (`mlflow artifacts download --artifact-uri "
        f"models:/{name}@champion` fetches it):\n\n"
        "    pip install -r requirements.txt\n"
        "    mlflow models serve --model-uri . --env-manager local --port 5001\n"
        "    curl -H 'Content-Type: application/json' -d @serving_input_example.json "
        "http://127.0.0.1:5001/invocations\n"
    )
    if len(card.sample_shape) == 1:
        dims = card.sample_shape[0]
        return (
            f"{serve}\n`inputs` is a list of 1 to {MAX_POINTS} points of {dims} finite numbers; so is `predictions`."
            f"\n\n{REFUSED}"
        )
    side = card.sample_shape[-1]
    made_square = "cut to its central square" if card.fit == "crop" else "padded to a square with white"
    return (
        f"{serve}\n`inputs` is a list of 1 to {MAX_IMAGES} images, all as base64 text of a PNG file (JPEG, WebP, "
        "BMP, TIFF and GIF are read too) or all as arrays (H, W, 3) of whole numbers 0 to 255. `predictions` has their "
        f"form: base64 text of PNG files, or arrays, of {side}x{side} pixels. An image may have any size up to "
        f"{MAX_PIXELS} pixels with sides of at least 8; it is {made_square} and resized to {side}x{side}."
        f"\n\n{REFUSED}"
    )


def _scores(row: Row, metrics: Metrics) -> str:
    features = metrics.features
    measured_on = f"; features {features.name} ({features.dim}, {features.sha256[:8]})" if features.sha256 else ""
    header = (
        f"{metrics.n_source} translated samples of the source's test split against {metrics.n_reference} of the "
        f"target's{measured_on}; seed {metrics.seed}. The tags of the registered version have the newest evaluation."
    )
    known = {name: getattr(row, name) for name in Scores.model_fields}
    lines = [f"| `{metric}` | {_number(value)} |" for metric, value in known.items() if value is not None]
    timing = row.seconds_per_image
    if timing is not None:
        lines.append(f"| `seconds_per_image` | {timing:.4g} |")
    return "\n".join([header, "", "| metric | value |", "|---|---|", *lines])


def _number(value: float | tuple[float, float]) -> str:
    return f"{value[0]:.4g} to {value[1]:.4g}" if isinstance(value, tuple) else f"{value:.4g}"


def _origin(card: ModelCard) -> str:
    facts = {
        "training run": card.run,
        "trained on": f"{card.trained_on}, {card.train_seconds:.0f} s",
        "source data, SHA-256": card.source_digest,
        "target data, SHA-256": card.target_digest,
        "weights, SHA-256": card.sha256,
    }
    table = "\n".join(f"| {fact} | `{value}` |" for fact, value in facts.items())
    return f"| | |\n|---|---|\n{table}\n\nThe code in `code/rdmd` is under the Apache License 2.0."


CODE = Path(__file__).resolve().parents[2]
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
    images = [np.stack([right, down, 255 - right], axis=2), np.stack([down, 255 - right, right], axis=2)]
    return [_png(image) for image in images]


def _png(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
