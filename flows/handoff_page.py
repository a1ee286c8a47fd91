"""The page that travels inside a registered model: what it is, how good it is, how to call it."""

from rdmd.evaluation.row import Metrics, Row, Scores
from rdmd.pipeline.model_card import ModelCard
from rdmd.serving.request import MAX_PICTURES, MAX_PIXELS, MAX_POINTS

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
        f"{serve}\n`inputs` is a list of 1 to {MAX_PICTURES} pictures, all as base64 text of a PNG file (JPEG, WebP, "
        "BMP, TIFF and GIF are read too) or all as arrays (H, W, 3) of whole numbers 0 to 255. `predictions` has their "
        f"form: base64 text of PNG files, or arrays, of {side}x{side} pixels. A picture may have any size up to "
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
