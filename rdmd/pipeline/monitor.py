"""`rdmd monitor LOG`: what a served model was asked, day by day, against its training source and its evaluation.

The log is that of `rdmd serve --log`: a line of JSON for each request, with the numbers that `rdmd.serving.watch`
notes of each image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from scipy.stats import chi2

from rdmd import config
from rdmd.data.likeness import SourceStatistics, names_of
from rdmd.errors import UserError

# What is an alarm: the share of images unlike the source, the shift of the images' mean in standard deviations of
# single images, and the factor between the mean cost and that of the evaluation.
UNLIKE, SHIFT, COST_FACTOR = 0.05, 0.5, 1.5


class Request(config.Section):
    """A line of the log; the lists have a value for each image. `lam` is None where the request translated nothing."""

    time: str
    status: int
    seconds: float
    lam: float | None
    distances: list[float]
    costs: list[float]
    numbers: list[list[float]]


@dataclass(frozen=True)
class Day:
    """The requests of a day (UTC), and what is wrong with them, in sentences."""

    name: str
    row: tuple[str, ...]
    alarms: tuple[str, ...]


HEADER = ("day", "requests", "failed", "p50 ms", "p95 ms", "images", "unlike", "cost", "shift", "by chance")


def read_log(file: Path) -> list[Request]:
    """The requests of a log; a last line that is still being written is left out. Raises UserError if it is none."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
        requests = [Request.model_validate_json(line) for line in lines]
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{file} is no file; `rdmd serve --log {file}` writes one.") from None
    except (ValidationError, UnicodeDecodeError):
        raise UserError(f"{file} is not a log of `rdmd serve --log`; give another file.") from None
    if not requests:
        raise UserError(f"{file} holds no request yet; send one to the server, or give another file.")
    return sorted(requests, key=lambda request: request.time)


def by_day(
    requests: list[Request], source: SourceStatistics, lam: float | None, evaluated_cost: float | None
) -> Iterator[Day]:
    """Compare each day's requests with the training source and, at the model's own lambda `lam`, with the
    evaluation."""
    for name, group in groupby(requests, key=lambda request: request.time[:10]):
        day = list(group)
        milliseconds = np.quantile([1000 * request.seconds for request in day], [0.5, 0.95])
        distances = np.array([value for request in day for value in request.distances])
        costs = [value for request in day if request.lam in (None, lam) for value in request.costs]
        row = [
            name,
            str(len(day)),
            str(sum(request.status >= 400 for request in day)),
            *(f"{ms:.0f}" for ms in milliseconds),
        ]
        row += [str(len(distances)), "–", f"{np.mean(costs):.3g}" if costs else "–", "–", "–"]
        alarms = []
        if len(distances):
            unlike = float((distances > 1).mean())
            row[6] = f"{unlike:.1%}"
            if unlike > UNLIKE:
                alarms.append(f"{unlike:.1%} of the images are unlike the training source")
        if numbers := [values for request in day for values in request.numbers]:
            shift, chance, most = shift_of(np.array(numbers), source)
            row[8], row[9] = f"{shift:.2f}", f"{chance:.2f}"
            if shift > max(SHIFT, chance):
                alarms.append(f"the images have moved by {shift:.2f} sd as a whole, most by {most}")
        if costs and evaluated_cost and not 1 / COST_FACTOR < np.mean(costs) / evaluated_cost < COST_FACTOR:
            alarms.append(f"the mean cost is {np.mean(costs):.3g}, and was {evaluated_cost:.3g} in the evaluation")
        yield Day(name, tuple(row), tuple(alarms))


def shift_of(numbers: np.ndarray, source: SourceStatistics) -> tuple[float, float, str]:
    """How far the mean of the `numbers_of` N images lies from the source's, as a Mahalanobis distance in standard
    deviations of single images; what N images of the source exceed in 1 of 100 cases; and the number that moved most.

    The mean shows a drift that leaves every single image within the limit of `SourceStatistics`.
    """
    precision = np.array(source.precision)
    moved = numbers.mean(0) - source.mean
    single = moved / np.sqrt(np.diag(np.linalg.inv(precision)))
    most = int(np.abs(single).argmax())
    chance = np.sqrt(chi2.ppf(0.99, len(moved)) / len(numbers))
    return (
        float(np.sqrt(moved @ precision @ moved)),
        float(chance),
        f"{single[most]:+.1f} sd in {names_of(len(moved))[most]}",
    )


def format_days(days: list[Day]) -> str:
    """A table with a line for each day, and the alarms below it."""
    table = [HEADER, *(day.row for day in days)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    return "\n".join([*lines, *(f"{day.name}: {alarm}" for day in days for alarm in day.alarms)])
