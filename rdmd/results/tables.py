"""The tables of docs/results.md, in Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rdmd.evaluation.labels import dial, method_name, number, plus_minus
from rdmd.evaluation.row import GENERATOR
from rdmd.results.collect import SeedTraining
from rdmd.results.front import BySeed, Front
from rdmd.results.summary import Summary, mean_std


@dataclass(frozen=True)
class Column:
    """A heading, the metric below it, and what it is multiplied by."""

    heading: str
    metric: str
    scale: float = 1.0


IMAGES = (
    Column("FID", "fid"),
    Column("cost", "cost"),
    Column("L2 in [0,1]", "l2_norm01"),
    Column("in class, %", "class_share", 100),
    Column("colour error", "colour_error"),
    Column("precision", "precision"),
    Column("recall", "recall"),
    Column("ms/sample", "seconds_per_image", 1000),
)
POINTS = (
    Column("SW2", "sw2"),
    Column("SW2 / data", "sw2_ratio"),
    Column("W2", "w2"),
    Column("cost, sum", "cost_sum"),
    Column("exact cost", "ot_cost"),
    Column("over exact, %", "over_exact", 100),
    Column("L2-UVP, %", "l2_uvp"),
)


def methods_table(summaries: Sequence[Summary], columns: Sequence[Column]) -> str:
    """One line a method and setting: mean ± deviation over the seeds. A drifted generator is marked."""
    rows = [one.as_row() for one in summaries]
    shown = [column for column in columns if any(column.metric in one.mean for one in summaries)]
    lines = []
    for one, row in zip(summaries, rows, strict=True):
        name = method_name(one.method)
        cells = [f"**{name}**" if one.method == GENERATOR else name, dial(row, rows), str(one.nfe)]
        cells += [one.shown(column.metric, column.scale) for column in shown]
        lines.append([*cells, "drift" if one.drifted else ""])
    drift = any(line[-1] for line in lines)
    heads = ["method", "setting", "NFE", *(column.heading for column in shown), "drift"]
    return markdown(heads if drift else heads[:-1], lines if drift else [line[:-1] for line in lines])


def front_table(front: Front) -> str:
    """Hypervolume and bettered share of every method, largest hypervolume first."""
    order = sorted(front.hypervolumes, key=lambda method: -front.hypervolumes[method].mean)
    lines = []
    for method in order:
        volume = front.hypervolumes[method]
        share = front.bettered_by_method.get(method)
        lines.append([method_name(method), by_seed(volume), number(100 * volume.mean / front.box),
                      "" if share is None else by_seed(share, 100)])
    return markdown(["method", "hypervolume", "of the box, %", "points bettered by RDMD, %"], lines)


def volumes_table(volumes: dict[str, BySeed], box: float, setting: str) -> str:
    """The hypervolume of every variant of a comparison."""
    lines = [[variant, by_seed(volume), number(100 * volume.mean / box)] for variant, volume in volumes.items()]
    return markdown([setting, "hypervolume", "of the box, %"], lines)


def training_table(training: Sequence[SeedTraining]) -> str:
    """What training each kind of model took: mean ± deviation over its runs, and the largest peak memory."""
    kinds: dict[str, list[SeedTraining]] = {}
    for one in training:
        kinds.setdefault(one.training.model, []).append(one)
    lines = []
    for model, runs in kinds.items():
        seconds, spread = mean_std([one.training.train_seconds for one in runs])
        first = runs[0].training
        steps = sorted({one.training.steps for one in runs})
        lines.append([
            model,
            str(len({one.training.run for one in runs})),
            " to ".join(str(count) for count in dict.fromkeys((steps[0], steps[-1]))),
            plus_minus(seconds, spread),
            number(max(one.training.peak_memory_mib for one in runs)),
            f"{first.parameters:,}",
            ", ".join(sorted({one.training.device for one in runs})),
        ])
    heads = ["model", "runs", "steps", "seconds a run", "peak memory, MiB", "parameters", "device"]
    return markdown(heads, lines)


def by_seed(values: BySeed, scale: float = 1.0) -> str:
    """ "12.3 ± 0.4" """
    return plus_minus(scale * values.mean, None if values.std is None else scale * values.std)


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; every cell on one line."""
    text = ["| " + " | ".join(heads) + " |", "|" + "|".join("---" for _ in heads) + "|"]
    text += ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join(text)
