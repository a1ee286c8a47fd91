"""Between stored bytes and what networks see."""

import torch


def to_unit(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 in 0..255, any shape, to float32 in [-1, 1]: x / 127.5 - 1."""
    return pixels.to(torch.float32) / 127.5 - 1


def to_uint8(unit: torch.Tensor) -> torch.Tensor:
    """Floats in [-1, 1] to uint8 in 0..255: round(127.5 x + 127.5), clamped. The inverse of `to_unit`.

    Raises `FloatingPointError` if a value is not finite, which would otherwise become a plausible pixel.
    """
    if not torch.isfinite(unit).all():
        raise FloatingPointError("a picture holds a value that is not finite")
    return quantise(unit)


def quantise(unit: torch.Tensor) -> torch.Tensor:
    """`to_uint8` without its check, whose branch on values no exporter can follow."""
    return (unit.to(torch.float32) * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
