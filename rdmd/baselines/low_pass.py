"""The low-pass filter phi_N that ILVR and EGSDE keep of the source."""

from torch import Tensor
from torch.nn.functional import interpolate


def low_pass(x: Tensor, factor: int) -> Tensor:
    """phi_N: antialiased bicubic down-sampling by `factor`, then bicubic up-sampling to the old size.

    Linear, and constants pass unchanged. (B, C, H, W) -> the same shape; `factor` must divide H and W, or ValueError is
    raised. It is the filter of both public codes, and not quite a projection: phi(phi(x)) differs from phi(x) by a
    quarter of its size on white noise, and by nothing for factor = H = W. Points (B, d) have no frequencies: they pass
    whole.
    """
    if x.ndim == 2:
        return x
    height, width = x.shape[2:]
    if height % factor or width % factor:
        raise ValueError(f"the low-pass factor {factor} does not divide the size {height}x{width}")
    small = interpolate(x, size=(height // factor, width // factor), mode="bicubic", antialias=True)
    return interpolate(small, size=(height, width), mode="bicubic", antialias=True)
