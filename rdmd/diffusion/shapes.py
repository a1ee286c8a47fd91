"""Per-sample scalars against batches of any shape."""

from torch import Tensor


def like(scalars: Tensor, x: Tensor) -> Tensor:
    """View (B,) as (B, 1, ..., 1) so that it broadcasts over `x` of shape (B, ...)."""
    return scalars.view(-1, *([1] * (x.ndim - 1)))


def mean_over_dimensions(x: Tensor) -> Tensor:
    """(B, ...) -> (B,): the reduction shared by the transport cost and the matching term, so that lambda means the
    same at every resolution."""
    return x.flatten(1).mean(1)
