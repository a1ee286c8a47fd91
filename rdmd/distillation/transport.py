"""Transport costs c(x, y), sample by sample: what keeps a translation close to its source.

Each is a mean over dimensions, so that lambda means the same at every resolution. Here are those that compare pixel
with pixel (or coordinate with coordinate); `low_pass` and `feature_cost` hold the others, `rdmd.networks.lpips` LPIPS.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from rdmd.diffusion.shapes import mean_over_dimensions

# c(x, y): two (B, ...) batches -> (B,)
Cost = Callable[[Tensor, Tensor], Tensor]


def squared_l2(x: Tensor, y: Tensor) -> Tensor:
    """||x - y||^2, mean over dimensions. For images in [-1, 1] it lies in [0, 4]. The cost of the theorem."""
    return mean_over_dimensions((x - y).square())


def l1(x: Tensor, y: Tensor) -> Tensor:
    """||x - y||_1, mean over dimensions. For images in [-1, 1] it lies in [0, 2]."""
    return mean_over_dimensions((x - y).abs())


@dataclass(frozen=True)
class Huber:
    """d^2 where |d| <= delta, else delta (2 |d| - delta), for d = x - y, mean over dimensions (Huber 1964).

    Twice the textbook form, so that it is `squared_l2` for a large delta; over 2 delta it goes to `l1` as delta goes
    to 0. It is at most either: min(squared_l2, 2 delta l1). For images in [-1, 1] it lies in [0, delta (4 - delta)], or
    in [0, 4] where delta is 2 or more.
    """

    delta: float

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Two (B, ...) batches -> (B,)."""
        d = (x - y).abs()
        near = d.clamp(max=self.delta)
        return mean_over_dimensions(near * (2 * d - near))
