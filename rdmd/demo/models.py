"""The generators of the front, as the demo steps through them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rdmd.errors import UserError
from rdmd.evaluation.metrics_file import read_metrics
from rdmd.evaluation.row import GENERATOR, Row
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.pipeline.model_source import open_generator
from rdmd.serving.model import Model
from rdmd.training.spec import lambda_name


@dataclass(frozen=True)
class Found:
    """A generator of the front: what `open_generator` takes, its row of the metrics, and its aliases."""

    model: str
    row: Row
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opened:
    """A generator of the front with its network."""

    found: Found
    model: Model


def front_on_disk(layout: Layout) -> list[Found]:
    """The front of reports/metrics.json, in models/generators.

    Raises UserError if there is none, or if the metrics are of another training than the generators.
    """
    if not layout.metrics.exists():
        raise UserError(f"nothing is registered and {layout.metrics} does not exist, so there is no front to show; run "
                        "`make repro` (or `dvc repro`) first.")
    rows = [row for row in read_metrics(layout.metrics).rows if row.method == GENERATOR and row.on_front]
    found = []
    for row in rows:
        folder = layout.generators / lambda_name(row.lam or 0.0)
        if read_card(folder).run != row.run:
            raise UserError(f"{layout.metrics} was measured on another generator than {folder} holds; repeat "
                            "`rdmd evaluate` or `dvc repro`.")
        found.append(Found(str(folder), row))
    if not found:
        raise UserError(f"{layout.metrics} holds no generator on the front; repeat `rdmd evaluate` or `dvc repro`.")
    return found


def open_front(front: Sequence[Found], device: torch.device) -> list[Opened]:
    """Load them, from the smallest lambda (realistic) to the largest (faithful).

    Raises UserError if one cannot be loaded, is of points, or is of another resolution than the first.
    """
    opened: list[Opened] = []
    for found in sorted(front, key=lambda one: (one.row.lam or 0.0, one.model)):
        generator, shape, fit = open_generator(found.model, device)
        if len(shape) == 1:
            raise UserError(f"{found.model} moves points, and the demo shows pictures; put an experiment of pictures "
                            "into params.yaml with `rdmd use`.")
        if opened and (shape, fit) != (opened[0].model.sample_shape, opened[0].model.fit):
            raise UserError(f"{found.model} prepares its pictures otherwise than {opened[0].found.model}, so they "
                            "cannot stand side by side; register this sweep anew with `dvc repro -f register`.")
        opened.append(Opened(found, Model(generator, shape, fit, device)))
    return opened
