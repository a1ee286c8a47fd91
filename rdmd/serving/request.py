"""A request to a served model: what a client may send, checked, and the answer in the same form.

Images are base64 texts of image files, data URLs of these (`data:image/png;base64,...`), or arrays (H, W, 3), of grey
models (H, W, 1), of whole numbers 0 to 255; points are lists of d numbers. Images of 16 bits are sent as files. The
limits below keep one request from filling the server's memory.
"""

import base64
import io
import re

import numpy as np
from PIL import Image

from rdmd.data.readers.images import MAX_ASPECT, MIN_SIDE, Form, Picture, UnreadableError, read_picture
from rdmd.serving.images import AS_TRAINED, Sizing, translate_images, translate_pictures
from rdmd.serving.model import Model, translate_points

# Of one image: phones take up to 50 megapixels, which are 150 MB while they are decoded, one image after another.
MAX_PIXELS = 50_000_000
# Of one request.
MAX_IMAGES = 256
MAX_POINTS = 1_000_000
_DATA_URL = re.compile(r"\Adata:[^,]*;base64,", re.IGNORECASE)


class RequestError(Exception):
    """A request that the model does not take; the text is one sentence for the client."""


def answer(model: Model, inputs: list[object], sizing: Sizing = AS_TRAINED) -> np.ndarray | list[str] | list[list]:
    """Translate `inputs`, and answer in their form: texts for texts (PNG files in base64), an array for arrays.

    Every image keeps its size: images of one size give uint8 (N, H, W, C), arrays of several sizes a list of nested
    lists. Points give float32 (N, d). Raises RequestError, naming the first input that is wrong.
    """
    most = MAX_POINTS if model.of_points else MAX_IMAGES
    if not 0 < len(inputs) <= most:
        raise RequestError(f"`inputs` holds {len(inputs)} samples; send 1 to {most} in one request.")
    if model.of_points:
        (dims,) = model.sample_shape
        points = as_points(inputs, dims)
        if points is None:
            raise RequestError(f"`inputs` is not a list of points; send finite numbers of shape (N, {dims}).")
        return translate_points(model, points)
    texts = [isinstance(sample, str) for sample in inputs]
    if all(texts):
        pictures = (_from_text(i, str(text), model.form) for i, text in enumerate(inputs))
        return [_to_text(image) for image in translate_pictures(model, pictures, sizing)]
    if any(texts):
        raise RequestError("`inputs` mixes texts and arrays; send images of one kind in one request.")
    arrays = (_from_array(i, sample, model.sample_shape[0]) for i, sample in enumerate(inputs))
    translated = list(translate_images(model, arrays, sizing))
    one_size = len({image.shape for image in translated}) == 1
    return np.stack(translated) if one_size else [image.tolist() for image in translated]


def as_points(values: object, dims: int) -> np.ndarray | None:
    """Points as float32 (N, dims); None if `values` is anything else, or a number is not finite in float32."""
    points = _array(values)
    if points is None or points.dtype.kind not in "fiu" or points.ndim != 2 or points.shape[1] != dims:
        return None
    with np.errstate(over="ignore"):
        points = points.astype(np.float32)
    return points if np.isfinite(points).all() else None


def _from_text(i: int, text: str, form: Form) -> Picture:
    try:
        # Some encoders break their text into lines.
        data = base64.b64decode(_DATA_URL.sub("", "".join(text.split()), count=1), validate=True)
    except ValueError:
        raise RequestError(f"image {i} of `inputs` is not base64; send the bytes of a PNG file in base64.") from None
    try:
        return read_picture(io.BytesIO(data), MAX_PIXELS, form)
    except UnreadableError as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"image {i} of `inputs` cannot be used ({reason}); send another one.") from None


def _from_array(i: int, sample: object, channels: int) -> np.ndarray:
    image = _array(sample)
    whole = image is not None and image.dtype.kind in "iu" and image.ndim == 3 and image.shape[2] == channels
    if image is None or not whole or image.size == 0 or image.min() < 0 or image.max() > 255:
        raise RequestError(
            f"image {i} of `inputs` is neither base64 text nor an array (H, W, {channels}) of whole numbers "
            "0 to 255; send a list of either."
        )
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE or height * width > MAX_PIXELS:
        raise RequestError(
            f"image {i} of `inputs` is {width}x{height}; a side needs at least {MIN_SIDE} pixels, and "
            f"an image has at most {MAX_PIXELS}."
        )
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise RequestError(
            f"image {i} of `inputs` is {width}x{height}; send one whose sides differ by at most {MAX_ASPECT} times."
        )
    return image.astype(np.uint8)


def _to_text(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _array(values: object) -> np.ndarray | None:
    """`values` as an array; None if their shape is ragged."""
    try:
        return np.asarray(values)
    except ValueError:
        return None
