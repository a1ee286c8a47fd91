"""How far an image lies from the training source, by a few numbers of each image.

A model carries the statistics of its source, so that whoever serves it learns of inputs that it was not trained for.
"""

from typing import Self

import numpy as np

from rdmd import config

# Of images held out of the source 99% lie below a distance; what lies half as far again is unlike the source.
_QUANTILE, _MARGIN = 0.99, 1.5
FEWEST = 20
_BLOCKS = 8
# More images of the source change nothing.
_MOST = 4000
# Keeps the logarithm of a flat image finite: about a level of 255.
_LEAST = 0.01
# Below the variance of any of the numbers over a source that varies at all.
_FLOOR = 1e-4
# Of the numbers, in their order, each for every channel.
_PARTS = ("top left", "top right", "bottom left", "bottom right", "contrast", "texture")


class SourceStatistics(config.Section):
    """Mean and inverse covariance of `numbers_of` over the training source, and the distance from which an image is
    unlike it."""

    mean: list[float]
    precision: list[list[float]]
    limit: float

    @classmethod
    def of(cls, stored: np.ndarray) -> Self | None:
        """The statistics of images as they are stored: (N, H, W, C), unsigned integers or floats in [-1, 1]. None for
        points, and for fewer than `FEWEST` images. Every other block of the order gives the limit of the rest:
        neighbours may be crops of one image, and the order may be by kind."""
        if stored.ndim != 4 or len(stored) < FEWEST:
            return None
        images = stored[:: max(1, len(stored) // _MOST)].transpose(0, 3, 1, 2)
        if images.dtype.kind == "u":
            images = images * (2 / np.iinfo(images.dtype).max) - 1
        numbers = numbers_of(images)
        held = np.arange(len(numbers)) * _BLOCKS // len(numbers) % 2 == 1
        limit = _MARGIN * np.quantile(_distances(numbers[held], *_fitted(numbers[~held])), _QUANTILE)
        mean, precision = _fitted(numbers)
        return cls(mean=mean.tolist(), precision=precision.tolist(), limit=float(limit))

    def distances(self, images: np.ndarray) -> np.ndarray:
        """(N,) distances of (N, C, H, W) images in [-1, 1], as multiples of `limit`: above 1 an image is unlike the
        source."""
        return self.distances_of(numbers_of(images))

    def distances_of(self, numbers: np.ndarray) -> np.ndarray:
        """As `distances`, of the (N, 6 C) `numbers_of` the images."""
        return _distances(numbers, np.array(self.mean), np.array(self.precision)) / self.limit


def names_of(count: int) -> list[str]:
    """The names of the `count` numbers of an image: 18 of RGB, 6 of grey."""
    channels = ("",) if count == len(_PARTS) else (" red", " green", " blue")
    return [f"{part}{channel}" for part in _PARTS for channel in channels]


def numbers_of(images: np.ndarray) -> np.ndarray:
    """(N, 6 C) numbers of (N, C, H, W) images in [-1, 1], H and W at least 2: of each channel the means of the four
    quarters, the logarithm of the contrast, and that of the mean difference of neighbouring pixels."""
    images = images.astype(np.float64)
    down, right = images.shape[2] // 2, images.shape[3] // 2
    halves = [images[..., :down, :], images[..., down:, :]]
    quarters = [part.mean((2, 3)) for half in halves for part in (half[..., :right], half[..., right:])]
    contrast = images.std((2, 3))
    rough = sum(np.abs(np.diff(images, axis=axis)).mean((2, 3)) for axis in (2, 3))
    return np.concatenate([*quarters, np.log(contrast + _LEAST), np.log(rough + _LEAST)], axis=1)


def _fitted(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean, and the inverse of the covariance, which is shrunk to its diagonal where there are few samples."""
    n, dim = numbers.shape
    covariance = np.cov(numbers, rowvar=False, bias=True)
    share = min(1.0, dim / n)
    shrunk = (1 - share) * covariance + np.diag(share * np.diag(covariance) + _FLOOR)
    return numbers.mean(0), np.linalg.inv(shrunk)


def _distances(numbers: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
    away = numbers - mean
    return np.sqrt(np.clip(((away @ precision) * away).sum(1), 0, None))
