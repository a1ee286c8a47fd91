"""Feed damaged input to everything that reads input: `python -m benchmarks.fuzz [--minutes N] [--only TARGET]`.

Every execution changes a valid input a little. It must end in a result or in an error with a sentence for the user,
within 5 s and 1 GiB. Execution i of a target and a seed is always the same, so `--only TARGET --first i` repeats it.
The findings are printed with their tracebacks.
"""

import argparse
import base64
import copy
import faulthandler
import gzip
import io
import json
import pickle
import random
import resource
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import types
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image, features
from torch import nn

from benchmarks.record import record, say
from rdmd import config
from rdmd.config.reading import parse
from rdmd.data.readers import archives, mnist
from rdmd.data.readers.images import UnreadableError, decode
from rdmd.data.samples import Broken
from rdmd.data.transforms import fit, random_crops
from rdmd.diffusion.preconditioning import EDMPrecond
from rdmd.errors import UserError, reporting
from rdmd.networks.build import build_denoiser, load_weights, save_weights
from rdmd.networks.edm_import import convert
from rdmd.serving.demo import enlarged, reduced
from rdmd.serving.images import translate_images
from rdmd.serving.model import Model
from rdmd.serving.request import RequestError, answer

SECONDS, MEMORY_KIB = 5.0, 2**20
# What does not return ends the whole run, with its traceback.
HANG_SECONDS = 60.0
EXPERIMENTS = Path(__file__).parents[1] / "experiments"
# Numbers at which sizes, counts and offsets overflow.
EDGES = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
NETWORK = config.PointNetwork(kind="mlp", width=4, depth=1)
# Of leaves in trees of settings and requests.
VALUES = (
    None, True, False, 0, -1, 1, 10**30, -(10**400), 0.5, float("inf"), float("nan"), "", "x", "../..", "\ud800", "0",
    "null", [], {}, [[]], [None], {"a": 1}, {1: 2}, [0] * 50, "data:;base64,", b"\0",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What is fuzzed: a run on one damaged input, and how an input is made from a random state."""

    run: Callable[[Any], None]
    make: Callable[[random.Random], Any]


class Same(nn.Module):
    """Translates a sample to itself."""

    def forward(self, x: torch.Tensor, lam: float | None, z: torch.Tensor | None = None) -> torch.Tensor:
        return x


IMAGES = Model(Same(), (3, 32, 32), "crop", torch.device("cpu"))
PADDED = Model(Same(), (3, 32, 32), "pad", torch.device("cpu"))
POINTS = Model(Same(), (2,), "crop", torch.device("cpu"))


# --- damage -------------------------------------------------------------------------------------------------


def damaged(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """The bytes with one to eight changes."""
    content = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        at = rng.randrange(len(content) + 1)
        length = rng.choice((1, 2, 4, 8, rng.randrange(1, 64)))
        match rng.randrange(8):
            case 0 if at < len(content):
                content[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(content):
                content[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
            case 2:
                size, order = rng.choice((2, 4, 8)), rng.choice(("little", "big"))
                content[at : at + size] = (rng.choice(EDGES) % 2 ** (8 * size)).to_bytes(size, order)
            case 3:
                del content[at : at + length]
            case 4:
                content[at:at] = rng.randbytes(length)
            case 5:
                content[at:at] = content[at : at + length] * rng.choice((1, 2, 50))
            case 6 if other:
                start = rng.randrange(len(other))
                content[at : at + length] = other[start : start + length]
            case 7 if rng.random() < 0.2:
                del content[at:]
    return bytes(content)


def damaged_tree(tree: Any, rng: random.Random) -> Any:
    """A tree of lists and dictionaries with one or two changes."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2))):
        places = list(_places(tree))
        if not places:
            return tree
        parent, key = rng.choice(places)
        match rng.randrange(6):
            case 0:
                del parent[key]
            case 1:
                other, at = rng.choice(places)
                parent[key] = copy.deepcopy(other[at]) if key in parent or isinstance(parent, list) else None
            case 2 if isinstance(parent, dict):
                parent[rng.choice(("x", 1, None, "kind", str(key)[:-1], True))] = parent.pop(key)
            case 3 if isinstance(parent[key], int | float) and abs(parent[key]) < 1e30:
                parent[key] = parent[key] * rng.choice((-1, 0, 0.5, 2, 1e9))
            case 4 if isinstance(parent[key], str):
                parent[key] = damaged(parent[key].encode("utf-8", "replace"), rng).decode("utf-8", "replace")
            case _:
                parent[key] = copy.deepcopy(rng.choice(VALUES))
    return tree


def _places(tree: Any) -> Any:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks, or a tar whose headers, have right checksums, so that the damage behind them is read."""
    content = bytearray(data)
    if content.startswith(b"\x89PNG"):
        at = 8
        while at + 12 <= len(content):
            end = at + 8 + int.from_bytes(content[at : at + 4], "big")
            if end + 4 > len(content):
                break
            content[end : end + 4] = zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")
            at = end + 4
    elif content[257:262] == b"ustar":
        for at in range(0, len(content) - 511, 512):
            if content[at + 257 : at + 262] == b"ustar":
                content[at + 148 : at + 156] = b" " * 8
                content[at + 148 : at + 156] = f"{sum(content[at : at + 512]):06o}\0 ".encode()
    return bytes(content)


def from_seeds(seeds: list[bytes]) -> Callable[[random.Random], bytes]:
    """Inputs from a list of valid ones."""

    def make(rng: random.Random) -> bytes:
        data = damaged(rng.choice(seeds), rng, rng.choice(seeds))
        return with_checksums(data) if rng.random() < 0.7 else data

    return make


# --- valid inputs -------------------------------------------------------------------------------------------


def image_seeds() -> list[bytes]:
    """Small image files of every format that is read, in its modes and compressions."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 4), np.uint8)
    rgba = Image.fromarray(noise, "RGBA")
    rgb, exif = rgba.convert("RGB"), Image.Exif()
    exif[0x0112] = 6
    palette = rgb.quantize(16)
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    frames = {"save_all": True, "append_images": [rgb]}
    files: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("PNG", rgb, {"exif": exif}), ("PNG", rgba, {}), ("PNG", palette, {"transparency": 3}), ("PNG", deep, {}),
        ("PNG", rgb.convert("LA"), {}), ("PNG", rgb.convert("1"), {}), ("PNG", rgb, frames),
        ("JPEG", rgb, {"exif": exif}), ("JPEG", rgb.convert("CMYK"), {}), ("JPEG", rgb, {"progressive": True}),
        ("JPEG", rgb.convert("L"), {}), ("GIF", palette, frames | {"transparency": 1}),
        ("WEBP", rgba, {"lossless": True}), ("WEBP", rgb, {"exif": exif}), ("WEBP", rgb, frames),
        ("BMP", rgb, {}), ("BMP", palette, {}), ("BMP", rgba, {}), ("TIFF", deep, {}), ("TIFF", rgb, frames),
        ("TIFF", rgba, {"tiffinfo": exif}), ("TIFF", rgb.convert("CMYK"), {}),
    ]  # fmt: skip
    compressions = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    files += [("TIFF", rgb, {"compression": one}) for one in compressions]
    if features.check("avif"):
        files.append(("AVIF", rgb, {}))
    return [_saved(image, kind, options) for kind, image, options in files]


def _saved(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def archive_seeds() -> list[bytes]:
    """Zip and tar archives of two images."""
    images, seeds = image_seeds()[:2], []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            for i, one in enumerate(images):
                archive.writestr(f"a/{i}.png", one)
        seeds.append(file.getvalue())
    for mode, form in (("w", tarfile.PAX_FORMAT), ("w", tarfile.GNU_FORMAT), ("w:gz", tarfile.PAX_FORMAT), ("w:xz", 1)):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode, format=form) as packed:  # type: ignore[call-overload]
            for i, one in enumerate(images):
                member = tarfile.TarInfo(f"{'a' * 99 * i}/ä{i}.png")
                member.size, member.pax_headers = len(one), {"comment": "x"}
                packed.addfile(member, io.BytesIO(one))
        seeds.append(file.getvalue())
    return seeds


def idx_seeds() -> list[bytes]:
    """IDX files of six digits, plain and gzipped."""
    plain = struct.pack(">4I", 2051, 6, 9, 9) + bytes(range(243)) * 2
    return [plain, gzip.compress(plain)]


def edm_seed() -> bytes:
    """A pickle as the published EDM networks are, of two layers."""

    def rebuild(meta: dict[str, Any]) -> None:
        raise AssertionError("the pickle was run")

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = (
        "torch_utils.persistence",
        *["_reconstruct_persistent_obj"] * 2,
    )
    module = types.ModuleType("torch_utils.persistence")
    setattr(module, rebuild.__name__, rebuild)

    class Pickler(pickle.Pickler):
        def reducer_override(self, one: object) -> Any:
            if not isinstance(one, nn.Module) or isinstance(one, nn.ModuleDict):
                return NotImplemented
            name = "EDMPrecond" if isinstance(one, EDMPrecond) else type(one).__name__
            meta = {"type": "class", "version": 6, "module_src": "", "class_name": name, "state": dict(one.__dict__)}
            return rebuild, (meta,)

    network = EDMPrecond(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), 0.5)
    file = io.BytesIO()
    sys.modules["torch_utils"], sys.modules[module.__name__] = types.ModuleType("torch_utils"), module
    try:
        Pickler(file, 4).dump({"ema": network})
    finally:
        del sys.modules["torch_utils"], sys.modules[module.__name__]
    return file.getvalue()


def made_params() -> Callable[[random.Random], str]:
    """Texts of params.yaml: damaged trees of every experiment, and damaged text."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(EXPERIMENTS.glob("*.yaml"))]
    trees = [yaml.safe_load(text) for text in texts]
    odd = [
        b"!!int ''",
        b"!!bool x",
        b"!!timestamp x",
        b"&a [*a]",
        b"{<<: 1}",
        b"[" * 2000,
        b"? [a]\n: b",
        b"1:1",
        b"!!set {a}",
    ]

    def make(rng: random.Random) -> str:
        if rng.random() < 0.7:
            return yaml.dump(damaged_tree(rng.choice(trees), rng))
        data = rng.choice(texts).encode()
        at = rng.randrange(len(data))
        piece = rng.choice(odd)
        data = data[:at] + piece + data[at:] if rng.random() < 0.5 else data
        if rng.random() < 0.3:
            at = data.index(b": ", at % (len(data) // 2)) + 2
            data = data[:at] + piece + data[data.index(b"\n", at) :]
        return damaged(data, rng).decode("utf-8", "replace")

    return make


def made_requests() -> Callable[[random.Random], Any]:
    """Bodies of requests, each with the model that it is sent to."""
    texts = [base64.b64encode(one).decode() for one in image_seeds()[:8]]
    array = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3)).tolist()
    samples = [texts[:2], [f"data:image/png;base64,{texts[0]}"], array, [[0.5, 1.0], [2.0, 3.0]]]

    def make(rng: random.Random) -> Any:
        model = rng.choice((IMAGES, PADDED, POINTS))
        inputs = samples[3] if model is POINTS and rng.random() < 0.8 else rng.choice(samples)
        body = damaged_tree({"inputs": inputs, "params": {"lambda": 0.5}}, rng)
        return model, body.get("inputs"), body

    return make


# --- what is fuzzed -----------------------------------------------------------------------------------------


def read_image(data: bytes) -> None:
    """As `rdmd preprocess` does."""
    image = decode(io.BytesIO(data))
    for how in ("crop", "pad"):
        fit(image, 64, how)
    random_crops(image, 64, 2, 0.3)


def upload(data: bytes) -> None:
    """As the demo does with a file."""
    image = decode(io.BytesIO(data))
    enlarged(next(translate_images(IMAGES, [reduced(image)])))


def request(given: tuple[Model, Any, Any]) -> None:
    """As a served model does; MLflow lets lists alone through."""
    model, inputs, body = given
    try:
        json.dumps(body)
    except (TypeError, ValueError):
        return
    if isinstance(inputs, list):
        answer(model, inputs)


def targets(folder: Path) -> dict[str, Target]:
    """Every target; files go to `folder`."""
    archive, images, labels = folder / "x.zip", folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    weights, pickled, out = folder / "w.safetensors", folder / "x.pkl", folder / "out.safetensors"
    labels.write_bytes(struct.pack(">2I", 2049, 6) + bytes(6))
    denoiser = build_denoiser(NETWORK, (2,))
    save_weights(denoiser, weights)
    of_archive = config.ImageFolder(reader="archive", path=archive)
    of_digits = config.Digits(reader="mnist", path=folder, classes=list(range(10)))

    def read_archive(data: bytes) -> None:
        archive.write_bytes(data)
        for item in archives.read(of_archive, "domains.source").items:
            assert not isinstance(item, Broken) or item.reason

    def read_idx(data: bytes) -> None:
        gzipped = images.with_name(f"{images.name}.gz")
        here, away = (gzipped, images) if data.startswith(b"\x1f\x8b") else (images, gzipped)
        away.unlink(missing_ok=True)
        here.write_bytes(data)
        list(mnist.read(of_digits, "domains.source").items)

    def read_weights(data: bytes) -> None:
        weights.write_bytes(data)
        load_weights(denoiser, weights)

    def read_edm(data: bytes) -> None:
        pickled.write_bytes(data)
        convert(pickled, out)

    return {
        "images": Target(read_image, from_seeds(image_seeds())),
        "archives": Target(read_archive, from_seeds(archive_seeds())),
        "idx": Target(read_idx, from_seeds(idx_seeds())),
        "safetensors": Target(read_weights, from_seeds([weights.read_bytes()])),
        "edm": Target(read_edm, from_seeds([edm_seed()])),
        "params": Target(lambda text: void(parse(text, "params.yaml")), made_params()),
        "request": Target(request, made_requests()),
        "upload": Target(upload, from_seeds(image_seeds())),
    }


def void(_: object) -> None:
    """Drop a result."""


# --- the run ------------------------------------------------------------------------------------------------


def fuzz(target: Target, seed: int, first: int, seconds: float, most: int = sys.maxsize) -> tuple[int, dict[str, str]]:
    """Run a target for some time. Returns the number of executions, and an example for each kind of finding."""
    findings: dict[str, str] = {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    deadline = time.monotonic() + seconds
    i = first
    while time.monotonic() < deadline and i < first + most:
        given = target.make(random.Random(f"{seed} {i}"))
        begun = time.monotonic()
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        try:
            target.run(given)
        except (UserError, UnreadableError, RequestError):
            pass
        except Exception as error:
            trace = traceback.extract_tb(error.__traceback__)
            ours = next((one for one in reversed(trace) if "/rdmd/" in one.filename), trace[-1])
            findings.setdefault(
                f"{type(error).__name__} at {Path(ours.filename).name}:{ours.lineno}",
                f"execution {i}: {''.join(traceback.format_exception(error)[-4:])}",
            )
        faulthandler.cancel_dump_traceback_later()
        if (took := time.monotonic() - begun) > SECONDS:
            findings.setdefault("slow", f"execution {i} took {took:.1f} s")
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if now > peak + MEMORY_KIB:
            findings.setdefault("memory", f"execution {i} took {(now - peak) // 1024} MiB")
        peak = max(peak, now)
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
    given = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, float] = {"minutes_per_target": given.minutes}
    with tempfile.TemporaryDirectory(prefix="rdmd-fuzz-") as folder:
        for name, target in targets(Path(folder)).items():
            if given.only in (None, name):
                executions, findings = fuzz(target, given.seed, given.first, 60 * given.minutes)
                figures |= {f"{name}_executions": executions, f"{name}_findings": len(findings)}
                say(f"{name}: {executions} executions, {len(findings)} findings")
                for kind, example in findings.items():
                    say(f"--- {name}: {kind}\n{example}")
    if given.only is None:
        record("fuzz", figures, torch.device("cpu"))
    return int(any(value for key, value in figures.items() if key.endswith("_findings")))


if __name__ == "__main__":
    with reporting(debug=False):
        sys.exit(main())
