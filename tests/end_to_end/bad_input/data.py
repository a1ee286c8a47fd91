"""Wrong folders, images, archives, IDX files and shards."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bad_input.project import IMAGES, noise, save_image
from bad_input.row import Row, both, cut_short, edited, removed, written
from rdmd import config
from rdmd.data.preprocess import preprocess

SOURCE = Path("data/raw/source")
PATH = "reader: images\n    path: data/raw/source"
PREPROCESS = "rdmd preprocess source"


def png(pixels: np.ndarray) -> bytes:
    """An image as a PNG's bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


# --- folders and images -----------------------------------------------------------------------------------


def only_one_pixel() -> None:
    """A source of one image of 1x1."""
    removed(str(SOURCE))()
    save_image(SOURCE / "dot.png", noise(1, 1, 1))


def only_a_strip() -> None:
    """A source of one image that is a thousand times as wide as it is high."""
    removed(str(SOURCE))()
    save_image(SOURCE / "strip.png", noise(1, 8, 8000))


def without_images() -> None:
    """A source that holds a text alone."""
    removed(str(SOURCE))()
    written(str(SOURCE / "notes.txt"), "none yet")()


def emptied() -> None:
    """A source with nothing in it."""
    removed(str(SOURCE))()
    SOURCE.mkdir()


FOLDERS = [
    Row("no source", removed(str(SOURCE)), PREPROCESS, "data/raw/source does not exist", "change domains.source.path"),
    Row("a file for a folder", written(str(SOURCE), "?"), PREPROCESS, "data/raw/source is a file", "give a folder"),
    Row("a source without images", without_images, PREPROCESS, "data/raw/source holds no images", "put some there"),
    Row("an empty source", emptied, PREPROCESS, "data/raw/source holds no images", "put some there"),
    Row(
        "no such split",
        edited(PATH, f"{PATH}\n    train: a\n    test: b"),
        PREPROCESS,
        "`a`, which domains.source.train",
        "correct the key or the folder",
    ),
    Row("a zip for the reader images", written(str(SOURCE), "?"), "rdmd check", "domains.source.path", "to `archive`"),
    Row(
        "a folder for the reader archive",
        edited(PATH, "reader: archive\n    path: data/raw/source"),
        "rdmd check",
        "domains.source.path",
        "to `images`",
    ),
    Row(
        "a dangling link",
        lambda: (SOURCE / "x.png").symlink_to("nowhere"),
        "rdmd check",
        "data/raw/source/x.png is a link that leads nowhere",
        "mend or remove",
    ),
    Row("an image of 1x1", only_one_pixel, PREPROCESS, "dot.png: 1x1 pixels", "mend or remove them"),
    Row("an image 8 pixels high", only_a_strip, PREPROCESS, "strip.png: 8000x8; a side", "mend or remove them"),
    Row(
        "unreadable images",
        both(cut_short(str(SOURCE / "03.png")), written(str(SOURCE / "04.png"), "no image")),
        PREPROCESS,
        f"2 of {IMAGES} images in data/raw/source cannot be used (03.png",
        "raise preprocess.max_broken_fraction",
    ),
]

# --- archives -----------------------------------------------------------------------------------------------


def archived(path: str, make: Callable[[Path], None]) -> Callable[[], None]:
    """The source as an archive."""
    return both(edited(PATH, f"reader: archive\n    path: {path}"), lambda: make(Path(path)))


def leading_out(path: Path) -> None:
    """A zip with a member above its root."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../dot.png", png(noise(1)))


def nameless(path: Path) -> None:
    """A zip whose member has a name that ends before it begins."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("dot.png", png(noise(1)))
    path.write_bytes(path.read_bytes().replace(b"dot.png", b"\0ot.png"))


def misdirected(path: Path) -> None:
    """A zip that says of its member that it begins before the file."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("dot.png", png(noise(1)))
    content = bytearray(path.read_bytes())
    end = content.index(b"PK\x05\x06")
    content[end + 16 : end + 20] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)


def swelling(path: Path) -> None:
    """A zip whose directory promises 2 GiB."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("big.png", png(noise(1)))
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)


def linking(path: Path) -> None:
    """A tar with a link to elsewhere."""
    with tarfile.open(path, "w") as file:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)


def torn(path: Path) -> None:
    """A tar.gz of which the end is missing."""
    with tarfile.open(path, "w:gz") as file:
        file.add(SOURCE)
    cut_short(str(path))()


ARCHIVES = [
    Row(
        "no archive",
        archived("x.zip", lambda path: None),
        PREPROCESS,
        "x.zip does not exist",
        "put a zip or tar of images there",
    ),
    Row(
        "a zip that is none",
        archived("x.zip", lambda path: written(str(path), "no zip")()),
        PREPROCESS,
        "x.zip is not a whole zip or tar",
        "pack it again",
    ),
    Row(
        "a folder for an archive",
        edited(PATH, "reader: archive\n    path: data/raw/source"),
        PREPROCESS,
        "data/raw/source is a folder",
        "set domains.source.reader to `images`",
    ),
    Row(
        "a zip that leads out",
        archived("x.zip", leading_out),
        PREPROCESS,
        "x.zip: the member '../dot.png' is refused",
        "repack it",
    ),
    Row("a zip with a nameless member", archived("x.zip", nameless), PREPROCESS, "x.zip is damaged", "pack it again"),
    Row("a zip with a wrong offset", archived("x.zip", misdirected), PREPROCESS, "x.zip is damaged", "pack it again"),
    Row(
        "a zip that swells",
        archived("x.zip", swelling),
        PREPROCESS,
        "x.zip: the member 'big.png' is refused",
        "keep each file under",
    ),
    Row(
        "a tar with a link", archived("x.tar", linking), PREPROCESS, "x.tar: the member 'link.png' is refused", "repack"
    ),
    Row("a tar cut short", archived("x.tgz", torn), PREPROCESS, "x.tgz is", "pack it again"),
]

# --- MNIST --------------------------------------------------------------------------------------------------

MNIST = Path("data/raw/mnist")
IMAGES, LABELS = MNIST / "train-images-idx3-ubyte.gz", MNIST / "train-labels-idx1-ubyte.gz"


def idx(magic: int, array: np.ndarray) -> bytes:
    """An IDX file, gzipped."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(magic.to_bytes(4, "big") + sizes + array.astype(np.uint8).tobytes())


def mnist(*steps: Callable[[], object]) -> Callable[[], None]:
    """The source as six of MNIST's digits, spoilt by `steps`."""
    scans = np.random.default_rng(0).integers(0, 256, (6, 28, 28))
    return both(
        edited(PATH, f"reader: mnist\n    path: {MNIST}\n    classes: [2]"),
        written(str(IMAGES), idx(2051, scans)),
        written(str(LABELS), idx(2049, np.full(6, 2))),
        *steps,
    )


IDX = [
    Row(
        "MNIST without files",
        mnist(removed(str(IMAGES)), removed(str(LABELS))),
        PREPROCESS,
        "data/raw/mnist holds none",
        "change domains.source.path",
    ),
    Row("MNIST without labels", mnist(removed(str(LABELS))), PREPROCESS, "train-labels-idx1-ubyte", "put it in"),
    Row("MNIST cut short", mnist(cut_short(str(IMAGES))), PREPROCESS, f"{IMAGES} is damaged", "fetch it again"),
    Row(
        "MNIST of another kind",
        mnist(written(str(IMAGES), idx(2049, np.full(6, 2)))),
        PREPROCESS,
        f"{IMAGES}",
        "fetch it again",
    ),
    Row(
        "MNIST without the class",
        mnist(written(str(LABELS), idx(2049, np.full(6, 7)))),
        PREPROCESS,
        "holds no sample of these classes",
        "change domains.source.classes",
    ),
    Row(
        "equal copies",
        mnist(edited("classes: [2]", "classes: [2]\n    train_copies: 3")),
        PREPROCESS,
        "`domains.source`: several copies",
        "set `colour` to hue",
    ),
]

# --- shards -------------------------------------------------------------------------------------------------

SHARDS = Path("data/shards/target")
AGAIN = "`rdmd preprocess target` or `dvc repro"
RUN = ("runs", "runs/*", "runs/*/run.json", "runs/*/log.txt", "runs/*/error.txt", "runs/*/lock")


def another_format() -> None:
    """A manifest from a version to come."""
    path = SHARDS / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))


def again(*domains: str) -> None:
    """Preprocess in earnest, as params.yaml says now."""
    for domain in domains:
        preprocess(config.load(), domain, Path("data/shards") / domain)


def one_image() -> None:
    """A domain whose single image is for training."""
    for file in sorted(SOURCE.iterdir())[1:]:
        file.unlink()
    again("source")


STORED = [
    Row("no manifest", removed(str(SHARDS / "manifest.json")), "rdmd train-teacher", f"{SHARDS}/manifest.json", AGAIN),
    Row("no shards at all", removed("data/shards"), "rdmd train-teacher", f"{SHARDS}/manifest.json", AGAIN),
    Row(
        "a manifest cut short",
        cut_short(str(SHARDS / "manifest.json")),
        "rdmd distill",
        f"{SHARDS}/manifest.json",
        AGAIN,
    ),
    Row("a manifest of another version", another_format, "rdmd validate", f"{SHARDS}/manifest.json", AGAIN),
    Row("a shard cut short", cut_short(str(SHARDS / "train-000001.tar")), "rdmd features", "train-000001.tar", AGAIN),
    Row(
        "a shard cut short before training",
        cut_short(str(SHARDS / "train-000001.tar")),
        "rdmd train-teacher",
        "train-000001.tar",
        AGAIN,
        RUN,
    ),
    Row("a shard missing", removed(str(SHARDS / "test-000000.tar")), "rdmd validate", "test-000000.tar", AGAIN),
    Row(
        "samples.csv altered", cut_short(str(SHARDS / "samples.csv")), "rdmd validate", "samples.csv was changed", AGAIN
    ),
    Row(
        "no test samples",
        one_image,
        "rdmd features",
        "data/shards/source has no test samples",
        "add samples to the domain",
        adds=("data/shards/source/train-*.npy",),
    ),
]

# --- what Great Expectations finds --------------------------------------------------------------------------

REPORT = ("reports", "reports/validation.json", "reports/data_docs*")


def one_colour() -> None:
    """An image that shows nothing."""
    save_image(SOURCE / "flat.png", np.full((8, 8, 3), 200, np.uint8))
    again("source")


def shared() -> None:
    """One image on both sides."""
    save_image(SOURCE / "shared.png", noise(100))
    again("source")


def alike_once_cropped() -> None:
    """Two images that differ at their margins alone."""
    middle = noise(500)
    for name, margin in (("a", 0), ("b", 255)):
        pixels = np.full((8, 12, 3), margin, np.uint8)
        pixels[:, 2:10] = middle
        save_image(SOURCE / f"{name}.png", pixels)
    again("source")


VALIDATED = [
    Row("an image of one colour", one_colour, "rdmd validate", "flat.png", "mend or remove them", REPORT),
    Row("an image in both domains", shared, "rdmd validate", "shared.png", "remove it from one of the two", REPORT),
    Row("an image twice", alike_once_cropped, "rdmd validate", "a.png", "remove", REPORT),
    Row(
        "too few samples",
        edited("min_test: 2", "min_test: 20"),
        "rdmd validate",
        "at least 20 test samples",
        "lower validation.min_test",
        REPORT,
    ),
    Row(
        "no test samples to validate",
        both(edited("min_train: 5", "min_train: 1"), one_image),
        "rdmd validate",
        "at least 2 test samples, but it has 0",
        "add samples to data/raw/source, and preprocess source again",
        REPORT,
    ),
]

ROWS = [*FOLDERS, *ARCHIVES, *IDX, *STORED, *VALIDATED]
