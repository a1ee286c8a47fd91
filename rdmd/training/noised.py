"""A batch with the noise drawn for it, which can be cut into parts."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Noised:
    """Samples x (B, ...), a noise level sigma (B,) for each, and standard normal noise eps (B, ...)."""

    x: Tensor
    sigma: Tensor
    eps: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def parts(self, n: int) -> list["Noised"]:
        """The batch in at most n parts of equal size, but for the last."""
        if n == 1:
            return [self]
        cut = zip(self.x.chunk(n), self.sigma.chunk(n), self.eps.chunk(n), strict=True)
        return [Noised(x, sigma, eps) for x, sigma, eps in cut]
