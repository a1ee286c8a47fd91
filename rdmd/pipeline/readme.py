"""What a README tells of a generator: for the registry, and as the model card of a repository of Hugging Face."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rdmd.evaluation.row import GENERATOR, Metrics, Row, Scores
from rdmd.evaluation.table import read_metrics
from rdmd.pipeline.model_card import ModelCard
from rdmd.serving.request import MAX_IMAGES, MAX_PIXELS, MAX_POINTS


def registry_readme(name: str, card: ModelCard, row: Row, metrics: Metrics, samples: Path | None) -> str:
    """The README of a model that is registered as `name`: how to call it, and the evaluation before it was registered,
    with the picture `samples`, which lies beside it."""
    most = {"images": MAX_IMAGES, "pixels": MAX_PIXELS, "points": MAX_POINTS}
    return _render("registry", name=name, card=card, metrics=metrics, scores=_scores([row]), most=most, samples=samples)


def hub_card(name: str, card: ModelCard, metrics: Path) -> str:
    """The README of the repository `name`: its metadata, how to call the model, and the scores that the file `metrics`
    has of this generator."""
    known = read_metrics(metrics) if metrics.is_file() else None
    rows = [row for row in known.rows if row.method == GENERATOR and row.run == card.run] if known else []
    return _render("hub", name=name, card=card, metrics=known, scores=_scores(rows) if rows else None)


def _render(template: str, card: ModelCard, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rdmd.pipeline"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{template}.md.j2").render(
        card=card, of_images=len(card.outer_shape) == 3, **values
    )


def _scores(rows: Sequence[Row]) -> dict[str, Any]:
    """A table of every score that some row has: its lines, and the lambdas that name its columns."""
    named = [dict(_flat(row.model_dump(include={*Scores.model_fields, "seconds_per_image"}))) for row in rows]
    lines = [(name, [of_row.get(name) for of_row in named]) for name in named[0]]
    shown = [(name, map(_shown, values)) for name, values in lines if any(value is not None for value in values)]
    return {"lambdas": [row.lam for row in rows], "lines": shown}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings under names such as `paired.agreement.beard`."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value[0]:.4g} to {value[1]:.4g}" if isinstance(value, tuple) else f"{value:.4g}"
