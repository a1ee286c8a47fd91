"""Progress with an ETA on a terminal, silence in a log."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm

from rdmd.training.run_folder import Point


class RunBar:
    """The progress bar of a training run, updated from its curves."""

    def __init__(self, bar: "tqdm[NoReturn]") -> None:
        self._bar = bar

    def follow(self, points: list[Point]) -> None:
        """Move to the last point and show its values."""
        if points:
            self._bar.set_postfix({name: f"{value:.3g}" for name, value in points[-1].values.items()}, refresh=False)
            self._bar.update(points[-1].step - self._bar.n)


@contextmanager
def run_bar(name: str, steps: int, disable: bool | None = None) -> Iterator[RunBar]:
    """A bar over `steps` optimizer steps; if `disable` is None, only where stderr is a terminal."""
    with tqdm(total=steps, desc=name, unit="step", disable=disable, dynamic_ncols=True) as bar:
        yield RunBar(bar)
