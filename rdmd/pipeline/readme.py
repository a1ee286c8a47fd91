"""What a README tells of a generator: for the registry, and as the model card of a repository of Hugging Face."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rdmd.evaluation.row import GENERATOR, Metrics, Row, Scores
from rdmd.evaluation.table import read_metrics
from rdmd.pipeline.model_card import ModelCard


def about(card: ModelCard) -> str:
    """What the generator is, and what it is for."""
    return f"""A one-step translator of the experiment `{card.experiment}`, from its source to its target domain, with
one network evaluation for a sample. It was distilled from a diffusion model of the target by Regularized Distribution
Matching Distillation (RDMD). Lambda is the weight of the transport cost: a larger lambda stays closer to the input, a
smaller lambda looks more like the target. It is meant for inputs like its source domain. It translates other inputs
too, but nobody has measured how well."""


def measured(metrics: Metrics) -> str:
    """What the scores were measured on."""
    features = metrics.features
    named = f"; features {features.name} ({features.dim}, {features.sha256[:8]})" if features.sha256 else ""
    return (
        f"{metrics.n_source} translated samples of the source's test split against {metrics.n_reference} of the "
        f"target's{named}; seed {metrics.seed}."
    )


def scores(rows: Sequence[Row]) -> str:
    """A table of every score, with a column for each row, which its lambda names."""
    named = [dict(_flat(row.model_dump(include={*Scores.model_fields, "seconds_per_image"}))) for row in rows]
    lines = [
        f"| metric | {' | '.join('value' if row.lam is None else f'lambda {row.lam:g}' for row in rows)} |",
        "|---|" + "---|" * len(rows),
    ]
    for name in named[0]:
        values = [of_row.get(name) for of_row in named]
        if any(value is not None for value in values):
            lines.append(f"| `{name}` | {' | '.join(map(_shown, values))} |")
    return "\n".join(lines)


def origin(card: ModelCard) -> str:
    """A table of the training run, its inputs and its result."""
    facts = {
        "training run": card.run,
        "trained on": f"{card.trained_on}, {card.train_seconds:.0f} s",
        "source data, SHA-256": card.source_digest,
        "target data, SHA-256": card.target_digest,
        "weights, SHA-256": card.sha256,
        "codec, SHA-256": card.codec and card.codec.sha256,
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | `{fact}` |" for name, fact in facts.items() if fact)])


def hub_card(name: str, card: ModelCard, metrics: Path) -> str:
    """The README of the repository `name`: its metadata, how to call the model, and the scores that the file `metrics`
    has of this generator."""
    known = read_metrics(metrics) if metrics.is_file() else None
    rows = [row for row in known.rows if row.method == GENERATOR and row.run == card.run] if known else []
    good = f"{measured(known)}\n\n{scores(rows)}" if known and rows else "Nothing was measured."
    of_images = len(card.outer_shape) == 3
    metadata = "library_name: diffusers\npipeline_tag: image-to-image\n" if of_images else ""
    lam = "" if card.lambdas is None else f", lam={card.lam:g}"
    range_ = "" if card.lambdas is None else f" `lam` lies in {card.lambdas}."
    return f"""---
{metadata}tags:
- rdmd
- one-step
- unpaired-translation
---

# {name.rpartition("/")[2]}

{about(card)}

    import huggingface_hub, rdmd

    translator = rdmd.Translator.from_pretrained(huggingface_hub.snapshot_download("{name}"))
    translator({"image" if of_images else "points"}{lam})

{"PIL images have any size." if of_images else "Points are an array (N, d)."}{range_}

## Scores

{good}

## Origin

{origin(card)}
"""


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
