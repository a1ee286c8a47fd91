"""What a served model takes and gives, on a generator that changes nothing."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rdmd.serving import request
from rdmd.serving.images import translate_images
from rdmd.serving.model import BATCH, Model
from rdmd.serving.request import RequestError, answer


class Same(nn.Module):
    """Translates a sample to itself, at any lambda."""

    def forward(self, x: torch.Tensor, lam: float | None, z: torch.Tensor | None = None) -> torch.Tensor:
        return x


IMAGES = Model(Same(), (3, 8, 8), "crop", torch.device("cpu"))
POINTS = Model(Same(), (2,), "crop", torch.device("cpu"))


def noise(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def text(image: np.ndarray, kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format=kind)
    return base64.b64encode(file.getvalue()).decode("ascii")


def read(answered: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answered)), formats=["PNG"]))


def test_images_come_back_in_the_form_in_which_they_came():
    images = [noise(0), noise(1)]
    texts = answer(IMAGES, [text(image) for image in images])
    assert isinstance(texts, list)
    np.testing.assert_array_equal([read(one) for one in texts], images)
    arrays = answer(IMAGES, [image.tolist() for image in images])
    assert isinstance(arrays, np.ndarray)
    assert arrays.dtype == np.uint8
    np.testing.assert_array_equal(arrays, images)


def test_sizes_may_differ_in_one_request():
    sizes = [(8, 8), (31, 9), (10, 64)]
    images = [noise(i, *size) for i, size in enumerate(sizes)]
    by_text = answer(IMAGES, [text(image) for image in images])
    by_array = answer(IMAGES, images)
    for image, one, other in zip(images, by_text, by_array, strict=True):
        assert read(one).shape == image.shape
        np.testing.assert_array_equal(read(one), other)


def test_base64_may_be_broken_into_lines():
    image = noise(3, 20, 20)
    lines = base64.encodebytes(base64.b64decode(text(image))).decode("ascii")
    assert "\n" in lines
    assert answer(IMAGES, [lines]) == answer(IMAGES, [text(image)])


def test_data_urls_are_read_as_their_base64():
    image = noise(3, 20, 20)
    url = f"data:image/png;name=cat.png;base64,{text(image)}"
    assert answer(IMAGES, [url, "DATA:;base64," + text(image)]) == answer(IMAGES, [text(image)] * 2)


def test_more_images_than_a_batch():
    images = [noise(i) for i in range(BATCH + 3)]
    np.testing.assert_array_equal(list(translate_images(IMAGES, images)), images)


def test_points_come_back_as_float32():
    points = answer(POINTS, [[1, 2], [0.5, -3]])
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, [[1, 2], [0.5, -3]])


WRONG_IMAGES = {
    "nothing": ([], "holds 0 samples"),
    "no base64": (["{}"], "image 0 of `inputs` is not base64"),
    "a data URL without base64": (["data:image/svg+xml,<svg/>"], "image 0 of `inputs` is not base64"),
    "no image": ([text(noise(0)), "aGVsbG8="], "image 1 of `inputs` cannot be used (not an image"),
    "cut short": ([text(noise(0, 40, 40))[:400]], "image 0 of `inputs` cannot be used"),
    "too small": ([text(noise(0, 4, 9))], "9x4 pixels"),
    "an array too small": ([noise(0, 4, 9)], "9x4"),
    "texts and arrays": ([text(noise(0)), noise(0).tolist()], "mixes"),
    "one image without its batch": (noise(0).tolist(), "image 0 of `inputs` is neither"),
    "ragged": ([[[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]], "neither"),
    "fractions": ([(noise(0) / 255).tolist()], "whole numbers"),
    "negative": ([(noise(0).astype(int) - 256).tolist()], "whole numbers"),
    "above 255": ([(noise(0).astype(int) + 256).tolist()], "whole numbers"),
    "huge numbers": ([[[[10**30] * 3] * 8] * 8], "whole numbers"),
    "grey": ([noise(0)[..., :1].tolist()], "(H, W, 3)"),
    "null": ([None], "neither"),
    "an object": ([{"png": 1}], "neither"),
    "empty arrays": ([[]], "neither"),
}


@pytest.mark.parametrize("wrong", WRONG_IMAGES)
def test_what_is_no_image_is_refused_in_a_sentence(wrong: str):
    inputs, words = WRONG_IMAGES[wrong]
    with pytest.raises(RequestError) as refused:
        answer(IMAGES, inputs)
    assert words in str(refused.value)
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong", [[1, 2], [[1, 2, 3]], [[1]], [["a", "b"]], [[1, None]], [[float("nan"), 0]], [[1e300, 0]], [[1, 2], [3]]]
)
def test_what_are_no_points_is_refused(wrong: list):
    with pytest.raises(RequestError, match=r"not a list of points; send finite numbers of shape \(N, 2\)"):
        answer(POINTS, wrong)


@pytest.mark.parametrize("form", [text, np.ndarray.tolist])
def test_a_strip_that_a_network_would_enlarge_to_gigabytes_is_refused(form):
    assert len(answer(IMAGES, [form(noise(0, 8, 800))])) == 1
    with pytest.raises(RequestError, match=r"801x8.* side.* 100 times"):
        answer(IMAGES, [form(noise(0, 8, 801))])


def test_an_image_that_would_unpack_to_gigabytes_is_refused_unread():
    # 8000x8000 pixels in a few kilobytes; its data end after the header, so reading it would fail otherwise.
    file = io.BytesIO()
    Image.new("1", (8000, 8000)).save(file, format="PNG")
    bomb = base64.b64encode(file.getvalue()[:100]).decode("ascii")
    with pytest.raises(RequestError, match=f"8000x8000 is more than {request.MAX_PIXELS} pixels"):
        answer(IMAGES, [bomb])


@pytest.mark.parametrize(
    ("model", "one", "most"),
    [
        (IMAGES, "", request.MAX_IMAGES),
        (POINTS, [0, 0], request.MAX_POINTS),
    ],
)
def test_a_request_has_a_limit(model: Model, one: object, most: int):
    with pytest.raises(RequestError, match=f"send 1 to {most} in one request"):
        answer(model, [one] * (most + 1))
