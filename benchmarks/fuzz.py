"""Feed damaged input to everything that reads input: `python -m benchmarks.fuzz [--minutes N] [--only TARGET]`.

Every execution changes a valid input a little. It must end in a result or in an error with a sentence for the user,
within 5 s of the processor's time and 1 GiB. Execution i of a target and a seed is always the same, so
`--only TARGET --first i` repeats it. The findings are printed with their tracebacks.
"""

import argparse
import base64
import copy
import faulthandler
import gzip
import io
import json
import os
import pickle
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn

from benchmarks.record import record, say
from rdmd import config
from rdmd.config.reading import parse
from rdmd.data.readers import archives, mnist
from rdmd.data.readers.images import UnreadableError, decode
from rdmd.data.transforms import fit, random_crops
from rdmd.diffusion.preconditioning import EDMPrecond
from rdmd.errors import UserError, reporting
from rdmd.networks.build import build_denoiser, load_weights, save_weights
from rdmd.networks.edm_import import PERSISTENT, convert
from rdmd.serving.demo import enlarged, reduced
from rdmd.serving.images import translate_images
from rdmd.serving.model import Model
from rdmd.serving.request import RequestError, answer

SECONDS, MEMORY_KIB = 5.0, 2**20
# What does not return ends the whole run, with its traceback; a busy machine needs long.
HANG_SECONDS = 300.0
EXPERIMENTS = Path(__file__).parents[1] / "experiments"
NETWORK = config.PointNetwork(kind="mlp", width=4, depth=1)
# Bytes at which sizes, counts and offsets overflow, and texts that YAML reads in its own way.
PIECES = (
    *(value.to_bytes(size, order) for size in (2, 4, 8) for order in ("little", "big")
      for value in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)),
    b"!!int ''", b"!!bool x", b"!!timestamp x", b"&a [*a]", b"{<<: 1}", b"[" * 2000, b"? [a]\n: b", b"1:1",
)  # fmt: skip
# Leaves of trees of settings and requests.
VALUES = (
    None, True, 0, -1, 1, 10**30, -(10**400), 0.5, float("inf"), float("nan"), "", "x", "../..", "\ud800", "null", [],
    {}, [[]], [None], {"a": 1}, {1: 2}, [0] * 50, "data:;base64,", b"\0",
)  # fmt: skip


# A run on one damaged input, and how an input is made from a random state.
Target = tuple[Callable[[Any], object], Callable[[random.Random], Any]]


class Same(nn.Module):
    """Translates a sample to itself."""

    def forward(self, x: torch.Tensor, lam: float | None, z: torch.Tensor | None = None) -> torch.Tensor:
        return x


IMAGES, PADDED, POINTS = (
    Model(Same(), shape, fit, torch.device("cpu"))
    for shape, fit in (((3, 32, 32), "crop"), ((3, 32, 32), "pad"), ((2,), "crop"))
)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to eight changes; chunks of a PNG keep right checksums, so that damage in them is read."""
    content = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        at, length = rng.randrange(len(content) + 1), rng.choice((1, 2, 4, 8, rng.randrange(1, 64)))
        piece = rng.choice((rng.choice(PIECES), rng.randbytes(length), bytes(content[at : at + length]) * 9))
        match rng.randrange(5):
            case 0 if at < len(content):
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                del content[at : at + length]
            case 2 if rng.random() < 0.1:
                del content[at:]
            case 3:
                content[at:at] = piece
            case _:
                content[at : at + len(piece)] = piece
    at = 8
    while content.startswith(b"\x89PNG") and at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        content[end : end + 4] = zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(content)


def damaged_tree(tree: Any, rng: random.Random) -> Any:
    """A tree of lists and dictionaries with one or two changes."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2))):
        places = list(_places(tree))
        (parent, key), (other, at) = rng.choice(places), rng.choice(places)
        match rng.randrange(5):
            case 0:
                # Not its removal: a later change may be at this place.
                parent[key] = copy.deepcopy(other[at])
            case 1 if isinstance(parent, dict):
                parent[rng.choice(("x", 1, None, "kind", str(key)[:-1], True))] = parent[key]
            case 2 if isinstance(parent[key], int | float) and abs(parent[key]) < 1e30:
                parent[key] *= rng.choice((-1, 0, 0.5, 2, 1e9))
            case 3 if isinstance(parent[key], str):
                parent[key] = damaged(parent[key].encode("utf-8", "replace"), rng).decode("utf-8", "replace")
            case 4:
                del parent[key]
                return tree
            case _:
                parent[key] = copy.deepcopy(rng.choice(VALUES))
    return tree


def _places(tree: Any) -> Any:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def image_seeds() -> list[bytes]:
    """Small image files of every format that is read, in its modes and compressions."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 4), np.uint8)
    rgba, exif = Image.fromarray(noise, "RGBA"), Image.Exif()
    rgb, exif[0x0112] = rgba.convert("RGB"), 6
    palette, deep = rgb.quantize(16), Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    frames = {"save_all": True, "append_images": [rgb]}
    files: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        "PNG": [(rgb, {"exif": exif}), (rgba, {}), (palette, {"transparency": 3}), (deep, {}), (rgb, frames)],
        "JPEG": [(rgb, {"exif": exif}), (rgb.convert("CMYK"), {}), (rgb.convert("L"), {"progressive": True})],
        "GIF": [(palette, frames | {"transparency": 1})],
        "WEBP": [(rgba, {"lossless": True}), (rgb, {"exif": exif}), (rgb, frames)],
        "AVIF": [(rgb, {})],
        "BMP": [(rgb, {}), (palette, {}), (rgba, {})],
        "TIFF": [(deep, {}), (rgb, frames), (rgba, {"tiffinfo": exif}), (rgb.convert("CMYK"), {})]
        + [
            (rgb, {"compression": compression})
            for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
        ],
    }
    return [_saved(image, kind, options) for kind, images in files.items() for image, options in images]


def _saved(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def archive_seeds(folder: Path) -> list[bytes]:
    """A zip and tar archives of two images, made in an empty folder; every run makes the same."""
    content, seeds = folder / "in" / ("a" * 99), []
    content.mkdir(parents=True)
    for name, data in zip(("a.png", "ä.png"), image_seeds(), strict=False):
        (content / name).write_bytes(data)
    for path in (*content.iterdir(), content, content.parent):
        os.utime(path, (10**9, 10**9))
    for kind in ("zip", "tar", "bztar", "xztar"):
        seeds.append(Path(shutil.make_archive(str(folder / "out"), kind, content.parent)).read_bytes())
    return [*seeds, gzip.compress(seeds[1], mtime=0)]


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    raise AssertionError("the pickle was run")


class _EDMPickler(pickle.Pickler):
    """Writes modules as the published EDM networks are written."""

    def reducer_override(self, obj: object) -> Any:
        if not isinstance(obj, nn.Module) or isinstance(obj, nn.ModuleDict):
            return NotImplemented
        state = {"type": "class", "version": 6, "module_src": "", "class_name": type(obj).__name__}
        return _reconstruct_persistent_obj, (state | {"state": dict(obj.__dict__)},)


def edm_seed() -> bytes:
    """A pickle as the published EDM networks are, of two layers."""
    network = EDMPrecond(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), 0.5)
    _EDMPickler(file := io.BytesIO(), 3).dump({"ema": network})
    return file.getvalue().replace(f"c{__name__}\n".encode(), f"c{PERSISTENT[0]}\n".encode())


def made_params(rng: random.Random) -> str:
    """A text of params.yaml: the damaged tree of an experiment, or damaged text."""
    text = rng.choice(sorted(EXPERIMENTS.glob("*.yaml"))).read_text(encoding="utf-8")
    if rng.random() < 0.7:
        return yaml.dump(damaged_tree(yaml.safe_load(text), rng))
    return damaged(text.encode(), rng).decode("utf-8", "replace")


def made_requests() -> Callable[[random.Random], Any]:
    """Inputs of requests, each with the model that it is sent to."""
    texts = [base64.b64encode(image).decode() for image in image_seeds()[:8]]
    array = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3)).tolist()
    samples = [texts[:2], [f"data:image/png;base64,{texts[0]}"], array, [[0.5, 1.0], [2.0, 3.0]]]
    return lambda rng: (rng.choice((IMAGES, PADDED, POINTS)), damaged_tree(rng.choice(samples), rng))


def read_image(data: bytes) -> None:
    """As `rdmd preprocess` does."""
    image = decode(io.BytesIO(data))
    fit(image, 64, "crop")
    fit(image, 64, "pad")
    random_crops(image, 64, 2, 0.3)


def upload(data: bytes) -> None:
    """As the demo does with a file."""
    enlarged(next(translate_images(IMAGES, [reduced(decode(io.BytesIO(data)))])))


def request(case: tuple[Model, Any]) -> None:
    """As a served model does; what is not JSON does not reach it."""
    model, inputs = case
    try:
        json.dumps(inputs)
    except (TypeError, ValueError):
        return
    answer(model, inputs)


def targets(folder: Path) -> dict[str, Target]:
    """Every target; files go to `folder`."""
    folder.mkdir(exist_ok=True)
    idx, weights, pickled = folder / "train-images-idx3-ubyte", folder / "w.safetensors", folder / "x.pkl"
    idx.with_name("train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, 6) + bytes(6))
    digits = struct.pack(">4I", 2051, 6, 9, 9) + bytes(range(243)) * 2
    denoiser = build_denoiser(NETWORK, (2,))
    save_weights(denoiser, weights)
    of_archive = config.ImageFolder(reader="archive", path=folder / "x.zip")
    of_digits = config.Digits(reader="mnist", path=folder, classes=list(range(10)))

    def of_any(seeds: list[bytes]) -> Callable[[random.Random], bytes]:
        return lambda rng: damaged(rng.choice(seeds), rng)

    def read_archive(data: bytes) -> None:
        of_archive.path.write_bytes(data)
        list(archives.read(of_archive, "domains.source").items)

    def read_idx(data: bytes) -> None:
        gzipped = idx.with_name(f"{idx.name}.gz")
        here, away = (gzipped, idx) if data.startswith(b"\x1f\x8b") else (idx, gzipped)
        away.unlink(missing_ok=True)
        here.write_bytes(data)
        list(mnist.read(of_digits, "domains.source").items)

    def read_weights(data: bytes) -> None:
        weights.write_bytes(data)
        load_weights(denoiser, weights)

    def read_edm(data: bytes) -> None:
        pickled.write_bytes(data)
        convert(pickled, folder / "out.safetensors")

    return {
        "images": (read_image, of_any(image_seeds())),
        "archives": (read_archive, of_any(archive_seeds(folder / "archives"))),
        "idx": (read_idx, of_any([digits, gzip.compress(digits, mtime=0)])),
        "safetensors": (read_weights, of_any([weights.read_bytes()])),
        "edm": (read_edm, of_any([edm_seed()])),
        "params": (lambda text: parse(text, "params.yaml"), made_params),
        "request": (request, made_requests()),
        "upload": (upload, of_any(image_seeds())),
    }


def fuzz(target: Target, seed: int, first: int, seconds: float, most: int = sys.maxsize) -> tuple[int, dict[str, str]]:
    """Run a target for some time. Returns the number of executions, and an example for each kind of finding."""
    (run, make), findings = target, dict[str, str]()
    deadline, i = time.monotonic() + seconds, first
    while time.monotonic() < deadline and i < first + most:
        case = make(random.Random(f"{seed} {i}"))
        peak, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        try:
            run(case)
        except (UserError, UnreadableError, RequestError):
            pass
        except Exception as error:
            trace = traceback.extract_tb(error.__traceback__)
            ours = next((frame for frame in reversed(trace) if "/rdmd/" in frame.filename), trace[-1])
            findings.setdefault(
                f"{type(error).__name__} at {Path(ours.filename).name}:{ours.lineno}",
                f"execution {i}: {''.join(traceback.format_exception(error)[-4:])}",
            )
        faulthandler.cancel_dump_traceback_later()
        if (took := time.process_time() - begun) > SECONDS:
            findings.setdefault("slow", f"execution {i} took {took:.1f} s")
        if (grown := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) > MEMORY_KIB:
            findings.setdefault("memory", f"execution {i} took {grown // 1024} MiB")
        i += 1
    return i - first, findings


def main() -> int:
    """Fuzz every target and record the executions. Exits with 1 if something was found."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="for each target (default 60)")
    parser.add_argument("--only", help="this target alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the execution to begin with")
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, float] = {"minutes_per_target": parsed.minutes}
    with tempfile.TemporaryDirectory(prefix="rdmd-fuzz-") as folder:
        for name, target in targets(Path(folder)).items():
            if parsed.only in (None, name):
                executions, findings = fuzz(target, parsed.seed, parsed.first, 60 * parsed.minutes)
                figures |= {f"{name}_executions": executions, f"{name}_findings": len(findings)}
                say(f"{name}: {executions} executions, {len(findings)} findings")
                for kind, example in findings.items():
                    say(f"--- {name}: {kind}\n{example}")
    if parsed.only is None:
        record("fuzz", figures, torch.device("cpu"))
    return int(any(value for key, value in figures.items() if key.endswith("_findings")))


if __name__ == "__main__":
    with reporting(debug=False):
        sys.exit(main())
