"""Progress with an ETA on a terminal, a line every few minutes in a log."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm

from rdmd.training.run_folder import Point

LINE_SECONDS = 180.0
# The values of one lambda among several, such as `eval_fid_0.05`, would fill the line.
AT_A_LAMBDA = re.compile(r"^eval_[a-z0-9]+_")


class RunBar:
    """The progress bar of a training run, updated from its curves."""

    def __init__(self, bar: "tqdm[NoReturn]", name: str, steps: int, lines: bool) -> None:
        """`lines`: print a line every few minutes, because there is no bar."""
        self._bar, self._name, self._steps, self._lines = bar, name, steps, lines
        self._said = time.monotonic()
        self._values: dict[str, float] = {}

    def follow(self, points: list[Point]) -> None:
        """Move to the last point and show the newest value of each curve; evaluations are on few of the points."""
        for point in points:
            self._values |= point.values
        if points:
            shown = {name: f"{value:.3g}" for name, value in self._values.items() if not AT_A_LAMBDA.search(name)}
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(points[-1].step - self._bar.n)
            if self._lines and time.monotonic() - self._said >= LINE_SECONDS:
                self._said = time.monotonic()
                scores = "".join(f", {name} {value}" for name, value in shown.items() if name.startswith("eval_"))
                print(f"{self._name}: step {points[-1].step} of {self._steps}{scores}", file=sys.stderr, flush=True)


@contextmanager
def run_bar(name: str, steps: int, disable: bool | None = None) -> Iterator[RunBar]:
    """A bar over `steps` optimizer steps; if `disable` is None, on a terminal alone, and lines elsewhere."""
    with tqdm(total=steps, desc=name, unit="step", disable=disable, dynamic_ncols=True) as bar:
        yield RunBar(bar, name, steps, lines=disable is None and not sys.stderr.isatty())
