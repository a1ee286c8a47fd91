"""`rdmd translate MODEL IN OUT`: translate files by the code of the served model."""

import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from rdmd.data.readers.images import SUFFIXES, Form, Picture, UnreadableError, eight_bit, read_picture
from rdmd.errors import UserError
from rdmd.files import replacing
from rdmd.serving.images import AS_TRAINED, Sizing, translate_pictures
from rdmd.serving.model import Model, translate_points
from rdmd.serving.request import as_points


@dataclass(frozen=True)
class Outcome:
    """The number of images written, and the unreadable files with the reasons."""

    written: int
    broken: list[tuple[str, str]]


def translate_path(model: Model, inputs: Path, out: Path, sizing: Sizing = AS_TRAINED) -> Outcome:
    """Translate an image to the file `out`, or every image below a folder to PNG files of the same relative names below
    `out`, each of the size of its image, with its transparency and, of a grey model, its bits. A model of points reads
    and writes `.npy` files of shape (N, 2).

    Raises UserError if `inputs` is missing or holds nothing to translate, or if results would overwrite it.
    """
    if not inputs.exists():
        raise UserError(f"{inputs} does not exist; give an image or a folder of images.")
    if out.resolve() == inputs.resolve():
        raise UserError(f"{out} is the input itself; give another place for the result.")
    if model.of_points:
        return _translate_points(model, inputs, out)
    if inputs.is_file():
        return _translate_file(model, inputs, out, sizing)
    if out.is_file():
        raise UserError(f"{out} is a file, but {inputs} is a folder; give a folder for the results.")
    return _translate_folder(model, inputs, out, sizing)


def _translate_file(model: Model, inputs: Path, out: Path, sizing: Sizing) -> Outcome:
    target = out / f"{inputs.stem}.png" if out.is_dir() or not out.suffix else out
    if target.resolve() == inputs.resolve():
        raise UserError(f"{target} is the input itself; give another place for the result.")
    if target.suffix.lower() not in SUFFIXES:
        raise UserError(f"{target} is not the name of an image file; use .png, .jpg or .webp.")
    picture = _read(inputs, model.form)
    if isinstance(picture, str):
        raise UserError(f"{inputs} is not a readable image ({picture}); give a jpg, png, webp or bmp file.")
    _save(next(translate_pictures(model, [picture], sizing)), target)
    return Outcome(1, [])


def _translate_folder(model: Model, inputs: Path, out: Path, sizing: Sizing) -> Outcome:
    inside = out.resolve()
    names = sorted(
        path.relative_to(inputs)
        for path in inputs.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.resolve().is_relative_to(inside)
    )
    if not names:
        raise UserError(f"{inputs} holds no images; give another folder.")
    endings = {name: name.with_suffix(".png") for name in names}
    # a.jpg and a.webp would both become a.png
    taken = list(endings.values())
    targets = {n: t if taken.count(t) == 1 else n.with_name(f"{n.name}.png") for n, t in endings.items()}
    broken: list[tuple[str, str]] = []
    readable: list[Path] = []

    def pictures() -> Iterator[Picture]:
        for name in names:
            picture = _read(inputs / name, model.form)
            if isinstance(picture, str):
                broken.append((str(name), picture))
            else:
                readable.append(name)
                yield picture

    with tqdm(total=len(names), desc="translate", unit="image", disable=not sys.stderr.isatty()) as bar:
        for i, result in enumerate(translate_pictures(model, pictures(), sizing)):
            _save(result, out / targets[readable[i]])
            bar.update(i + 1 + len(broken) - bar.n)
    return Outcome(len(readable), broken)


def _read(path: Path, form: Form) -> Picture | str:
    """The image, or the reason why it cannot be read."""
    try:
        with path.open("rb") as file:
            return read_picture(file, form=form)
    except UnreadableError as error:
        return str(error)
    except OSError as error:
        return error.strerror or "cannot be read"


def _save(image: Image.Image, path: Path) -> None:
    """Write a translation, without the transparency or the second byte that the format does not have."""
    suffix = path.suffix.lower()
    if suffix not in (".png", ".tif", ".tiff"):
        image = eight_bit(image)
        if suffix != ".webp":
            image = image.convert(image.mode.removesuffix("A"))
    with replacing(path) as temporary, temporary.open("wb") as file:
        image.save(file, format=Image.registered_extensions()[suffix])


def _translate_points(model: Model, inputs: Path, out: Path) -> Outcome:
    (dims,) = model.sample_shape
    points = _read_points(inputs, dims)
    if points is None:
        raise UserError(
            f"{inputs} is not a .npy file of finite numbers of shape (N, {dims}), which this model of points"
            " takes; save one with numpy.save."
        )
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.save(file, translate_points(model, points))
    return Outcome(len(points), [])


def _read_points(path: Path, dims: int) -> np.ndarray | None:
    """Points (N, dims) as float32; None if the file holds anything else."""
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        return None
    return as_points(values, dims) if isinstance(values, np.ndarray) else None
