"""A batch with the noise drawn for it, which can be cut into parts."""

from dataclasses import dataclass
from itertools import repeat

from torch import Tensor


@dataclass(frozen=True)
class Noised:
    """Samples x (B, ...), a noise level sigma (B,) for each, and standard normal noise eps (B, ...); z (B, ...) is the
    noise that a generator reads x with, if it does."""

    x: Tensor
    sigma: Tensor
    eps: Tensor
    z: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def parts(self, n: int) -> list["Noised"]:
        """The batch in at most n parts of equal size, but for the last."""
        if n == 1:
            return [self]
        x = self.x.chunk(n)
        z = repeat(None, len(x)) if self.z is None else self.z.chunk(n)
        return [Noised(*part) for part in zip(x, self.sigma.chunk(n), self.eps.chunk(n), z, strict=True)]
