"""Good and bad training curves, made on purpose: `python -m studies.curves` writes docs/results/curves.png.

The experiment `digits` is distilled four times from one teacher, with other settings each time. Minutes on two cores.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.image

from rdmd import config
from rdmd.data.preprocess import preprocess
from rdmd.files import replacing
from rdmd.pipeline.features import train_features
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import train_generators, train_teacher
from rdmd.report.style import CYCLE, new_figure, plain_axes, png_bytes
from rdmd.training.run_folder import Point, RunFolder

PICTURE = Path("docs/results/curves.png")
EXPERIMENT = Path("experiments/digits.yaml")
STEPS, EVERY = 200, 10


@dataclass(frozen=True)
class Case:
    """A title, and what differs from the experiment's section `distill`."""

    title: str
    changed: dict[str, Any]


CASES = (
    Case("λ = 0.02", {"lambdas": [0.02]}),
    Case("λ = 0.02, generator_lr 0.01, fake_lr 0.0001", {"lambdas": [0.02], "generator_lr": 1e-2, "fake_lr": 1e-4}),
    Case("λ = 3", {"lambdas": [3.0]}),
    Case("λ = 0", {"lambdas": [0.0]}),
)


@contextlib.contextmanager
def _unwatched(*_: object) -> Iterator[Callable[[list[Point]], None]]:
    yield lambda points: None


def trained(root: Path) -> list[RunFolder]:
    """The finished run of each case, below the empty folder `root`."""
    settings, layout, processes = config.load(EXPERIMENT), Layout(root), TrainingProcesses()
    for name in settings.domains.named:
        preprocess(settings, name, layout.shards / name)
    train_features(settings, layout)
    train_teacher(settings, layout, _unwatched, processes)
    found = []
    for case in CASES:
        evaluated = {"steps": STEPS, "sample_every": STEPS, "evaluate_every": EVERY} | case.changed
        distill = settings.distill.model_copy(update=evaluated)
        changed = settings.model_copy(update={"distill": distill})
        found += train_generators(changed, layout, _unwatched, processes)
    return found


def main() -> None:
    """Train the cases and draw them: FID, cost, and the last sample grid."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = trained(Path(temporary))
        figure = new_figure(3.2 * len(CASES), 5.2)
        panels = figure.subplots(3, len(CASES), sharey="row", height_ratios=[1, 1, 0.6])
        for column, (case, folder) in enumerate(zip(CASES, folders, strict=True)):
            evaluated = [point for point in folder.curves() if "eval_fid" in point.values]
            for axes, name, title in zip(panels[:2, column], ("eval_fid", "eval_cost"), ("FID", "cost"), strict=True):
                values = [point.values[name] for point in evaluated]
                axes.plot([point.step for point in evaluated], values, color=CYCLE[column].colour)
                axes.set_title(f"{case.title}\n{title}" if name == "eval_fid" else title, fontsize=9)
                plain_axes(axes)
            panels[0, column].set_yscale("log")
            grid = matplotlib.image.imread(folder.samples / f"{STEPS}.png")
            # A row of sources above their translations.
            panels[2, column].imshow(grid[: grid.shape[0] // 4])
            panels[2, column].set_axis_off()
        with replacing(PICTURE) as partial:
            partial.write_bytes(png_bytes(figure))


if __name__ == "__main__":
    main()
