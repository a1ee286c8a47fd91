"""Folders, archives, MNIST's files and the bundled digits: what is read, in which order, what is refused."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdmd.config import Digits, ImageFolder
from rdmd.data.readers import archives, digits, images, mnist
from rdmd.data.samples import Broken, Sample
from rdmd.errors import UserError


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (level, level, level)).save(file, "PNG")
    return file.getvalue()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def folder(path: Path, **more: str) -> ImageFolder:
    return ImageFolder(reader="images", path=path, **more)


def archive(path: Path, **more: str) -> ImageFolder:
    return ImageFolder(reader="archive", path=path, **more)


def levels(items) -> dict[str, int]:
    return {item.name: int(item.array[0, 0, 0]) for item in items if isinstance(item, Sample)}


# --- folders ----------------------------------------------------------------------------------------------


def test_a_nested_folder_is_read_in_the_order_of_its_paths(tmp_path):
    for name, level in {"b/z.PNG": 1, "a/x.png": 2, "c.Jpeg": 3, "b/a/q.webp": 4}.items():
        put(tmp_path / name, png(level))
    put(tmp_path / "notes.txt", b"hello")
    put(tmp_path / ".hidden.png", png(9))
    put(tmp_path / ".cache/x.png", png(9))
    put(tmp_path / "__MACOSX/._x.png", png(9))
    reading = images.read(folder(tmp_path), "domains.source")
    items = list(reading.items)
    assert list(levels(items).items()) == [("a/x.png", 2), ("b/a/q.webp", 4), ("b/z.PNG", 1), ("c.Jpeg", 3)]
    assert reading.total == len(items)


def test_linked_folders_are_followed_and_a_loop_ends(tmp_path):
    put(tmp_path / "elsewhere/x.png", png(1))
    put(tmp_path / "root/y.png", png(2))
    (tmp_path / "root/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/loop").symlink_to(tmp_path / "root")
    assert levels(images.read(folder(tmp_path / "root"), "k").items) == {"link/x.png": 1, "y.png": 2}


def test_a_folder_that_has_two_names_is_read_once_under_the_first(tmp_path):
    for name in ("m", "b", "q", "z"):
        put(tmp_path / name / "x.png", png(ord(name)))
        (tmp_path / f"a{name}").symlink_to(tmp_path / name)
    read = levels(images.read(folder(tmp_path), "k").items)
    assert read == {f"a{name}/x.png": ord(name) for name in "bmqz"}


def test_broken_files_are_named_and_the_others_read(tmp_path):
    put(tmp_path / "bad.png", png(1)[:45])
    put(tmp_path / "good.png", png(1))
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    items = list(images.read(folder(tmp_path), "k").items)
    assert [item.name for item in items] == ["bad.png", "gone.png", "good.png", "pipe.png"]
    assert [isinstance(item, Broken) for item in items] == [True, True, False, True]
    assert items[1].reason == "No such file or directory"


def test_a_name_that_is_not_utf8_is_escaped(tmp_path):
    put(tmp_path / os.fsdecode(b"caf\xe9.png"), png(5))
    assert levels(images.read(folder(tmp_path), "k").items) == {"caf\\xe9.png": 5}


def test_a_split_of_its_own(tmp_path):
    for name, level in {"train/cat/a.png": 1, "test/cat/b.png": 2, "train/dog/c.png": 3}.items():
        put(tmp_path / name, png(level))
    items = list(images.read(folder(tmp_path, train="train/cat", test="test/cat"), "k").items)
    assert {item.name: item.split for item in items} == {"test/cat/b.png": "test", "train/cat/a.png": "train"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"train": "trn", "test": "test"}, r"below `trn`, which domains\.source\.train names.* test, train"),
        ({"train": "train", "test": "train/cat"}, "one inside the other"),
    ],
)
def test_a_wrong_split_is_explained(tmp_path, names, message):
    put(tmp_path / "train/cat/a.png", png(1))
    put(tmp_path / "test/b.png", png(2))
    with pytest.raises(UserError, match=message):
        images.read(folder(tmp_path, **names), "domains.source")


def test_a_missing_empty_or_mistaken_path_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist.*domains\.target\.path"):
        images.read(folder(tmp_path / "nowhere"), "domains.target")
    put(tmp_path / "images/readme.txt", b"none yet")
    with pytest.raises(UserError, match=r"images holds no images .*but 1 TXT"):
        images.read(folder(tmp_path / "images"), "k")
    file = put(tmp_path / "cats.zip", b"")
    with pytest.raises(UserError, match=r"cats\.zip is a file; set domains\.source\.reader to `archive`"):
        images.read(folder(file), "domains.source")
    with pytest.raises(UserError, match=r"images is a folder; set .*reader to `images`"):
        archives.read(archive(tmp_path / "images"), "domains.source")
    with pytest.raises(UserError, match=r"none\.zip does not exist"):
        archives.read(archive(tmp_path / "none.zip"), "domains.source")


def test_a_git_lfs_pointer_is_called_by_its_name(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    with pytest.raises(UserError, match=r"a\.zip is a Git LFS pointer"):
        archives.read(archive(put(tmp_path / "a.zip", pointer)), "k")
    write_pair(tmp_path, "t10k", [2], zipped=True)
    put(tmp_path / "t10k-labels-idx1-ubyte.gz", pointer)
    with pytest.raises(UserError, match=r"labels-idx1-ubyte\.gz is a Git LFS pointer"):
        mnist.read(digits_of(tmp_path, [2]), "k")


# --- archives ---------------------------------------------------------------------------------------------

MEMBERS = {"set/b.png": 1, "set/a/x.PNG": 2, "__MACOSX/set/._b.png": 9, "set/.c.png": 9}


def packed(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(name, content)
    else:
        mode = {".gz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2", ".tar": "w"}[path.suffix]
        with tarfile.open(path, mode) as file:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return path


FILES = ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz", "x.tar.bz2"]


@pytest.mark.parametrize("file", FILES)
def test_an_archive_is_read_without_unpacking_it(tmp_path, file):
    path = packed(tmp_path / file, {f"./{name}": png(level) for name, level in MEMBERS.items()})
    reading = archives.read(archive(path), "k")
    items = list(reading.items)
    assert {Path(name).as_posix(): level for name, level in levels(items).items()} == {
        "set/b.png": 1,
        "set/a/x.PNG": 2,
    }
    assert reading.total == len(items)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("file", ["x.zip", "x.tar"])
def test_an_archive_can_have_a_split_of_its_own(tmp_path, file):
    path = packed(tmp_path / file, {"train/a.png": png(1), "test/b.png": png(2), "more/c.png": png(3)})
    items = list(archives.read(archive(path, train="train", test="test"), "k").items)
    assert [(item.name, item.split) for item in items] == [("train/a.png", "train"), ("test/b.png", "test")]


@pytest.mark.parametrize("file", FILES[:3])
@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png", "..\\x.png", "C:/x.png", "../x.txt"])
def test_a_member_that_leads_out_of_the_archive_is_refused(tmp_path, file, name):
    path = packed(tmp_path / file, {"a.png": png(1), name: png(2)})
    with pytest.raises(UserError, match=r"x\.\S+: the member .*x\.(png|txt)' is refused .* leads out"):
        archives.read(archive(path), "k")


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.FIFOTYPE, "pipe"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind, problem):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as file:
        info = tarfile.TarInfo("odd.png")
        info.type, info.linkname = kind, "/etc/passwd"
        file.addfile(info)
    with pytest.raises(UserError, match=f"odd.png.*{problem}"):
        archives.read(archive(path), "k")


def test_a_link_or_an_encrypted_member_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("link.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match=r"link\.png' is refused because it is a link"):
        archives.read(archive(tmp_path / "x.zip"), "k")
    plain = bytearray(packed(tmp_path / "y.zip", {"a.png": png(1)}).read_bytes())
    # Bit 0 of the flags in the central directory says "encrypted".
    plain[plain.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "y.zip").write_bytes(plain)
    with pytest.raises(UserError, match="encrypted"):
        archives.read(archive(tmp_path / "y.zip"), "k")


def test_one_member_too_large_is_refused_from_its_header_alone(tmp_path):
    info = tarfile.TarInfo("huge.png")
    info.size = 10 * 2**30
    (tmp_path / "x.tar").write_bytes(info.tobuf() + bytes(1024))
    with pytest.raises(UserError, match=r"huge\.png' is refused because it unpacks to 10737418240 bytes"):
        archives.read(archive(tmp_path / "x.tar"), "k")


@pytest.mark.parametrize("file", ["x.zip", "x.tar.gz"])
def test_an_archive_that_swells_is_refused(tmp_path, file):
    path = packed(tmp_path / file, {f"{i}.bmp": bytes(100_000) for i in range(8)})
    small = archives.Limits(member=200_000, free=300_000, ratio=100.0)
    with pytest.raises(UserError, match=r"'3\.bmp' is refused .*over 100 times"):
        archives.read(archive(path), "k", small)
    allowed = archives.Limits(member=200_000, free=900_000, ratio=100.0)
    assert archives.read(archive(path), "k", allowed).total == 8


def test_a_damaged_member_of_a_zip_is_broken_and_the_others_are_read(tmp_path):
    path = packed(tmp_path / "x.zip", {"a.png": png(1), "b.png": png(2)})
    content = bytearray(path.read_bytes())
    content[45] ^= 0xFF
    path.write_bytes(content)
    first, second = archives.read(archive(path), "k").items
    assert isinstance(first, Broken) and first.name == "a.png"
    assert second.array[0, 0, 0] == 2


@pytest.mark.parametrize("file", ["x.tar", "x.tar.gz", "x.tar.xz", "x.zip"])
def test_an_archive_cut_short_is_named(tmp_path, file):
    noise = np.random.default_rng(0).bytes(5000)
    path = packed(tmp_path / file, {f"{i}.png": noise for i in range(4)})
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(UserError, match=rf"{file} (is damaged|is not a whole)"):
        list(archives.read(archive(path), "k").items)


def test_what_is_no_archive_is_named(tmp_path):
    with pytest.raises(UserError, match=r"x\.rar is not a whole zip or tar archive"):
        archives.read(archive(put(tmp_path / "x.rar", b"Rar!" * 500)), "k")


# --- MNIST ------------------------------------------------------------------------------------------------


def idx(magic: int, array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.astype(np.uint8).tobytes()


def write_pair(path: Path, prefix: str, labels: list[int], zipped: bool) -> None:
    scans = np.stack([np.full((28, 28), 10 * i) for i in range(len(labels))])
    for name, content in (
        (f"{prefix}-images-idx3-ubyte", idx(2051, scans)),
        (f"{prefix}-labels-idx1-ubyte", idx(2049, np.array(labels))),
    ):
        if zipped:
            put(path / f"{name}.gz", gzip.compress(content))
        else:
            put(path / name, content)


def digits_of(path: Path, classes: list[int]) -> Digits:
    return Digits(reader="mnist", path=path, classes=classes)


def test_both_pairs_give_the_official_split(tmp_path):
    write_pair(tmp_path, "train", [2, 3, 2], zipped=True)
    write_pair(tmp_path, "t10k", [3, 2], zipped=False)
    reading = mnist.read(digits_of(tmp_path, [2]), "k")
    items = list(reading.items)
    assert [(item.name, item.label, item.split, int(item.array[5, 5, 1])) for item in items] == [
        ("train-images-idx3-ubyte[0]", 2, "train", 0),
        ("train-images-idx3-ubyte[2]", 2, "train", 20),
        ("t10k-images-idx3-ubyte[1]", 2, "test", 10),
    ]
    assert items[0].array.shape == (28, 28, 3) and reading.total == 3


@pytest.mark.parametrize("prefix", ["train", "t10k"])
def test_one_pair_is_enough_and_has_no_split(tmp_path, prefix):
    write_pair(tmp_path, prefix, [2, 3, 2], zipped=True)
    items = list(mnist.read(digits_of(tmp_path, [2, 3]), "k").items)
    assert [(item.label, item.split) for item in items] == [(2, None), (3, None), (2, None)]


def test_no_mnist_names_the_files_and_the_folder(tmp_path):
    with pytest.raises(UserError) as caught:
        mnist.read(digits_of(tmp_path / "mnist", [2]), "domains.source")
    for part in (
        *(f"{a}-{b}-ubyte.gz" for a in ("train", "t10k") for b in ("images-idx3", "labels-idx1")),
        str(tmp_path / "mnist"),
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "t10k-labels-idx1-ubyte.gz").unlink(), "t10k-images.* is there but t10k-labels"),
        (lambda p: (p / "t10k-images-idx3-ubyte.gz").unlink(), "t10k-labels.* is there but t10k-images"),
        (
            lambda p: put(p / "t10k-images-idx3-ubyte.gz", gzip.compress(idx(2049, np.zeros((1, 28, 28))))),
            "t10k-images-idx3-ubyte.gz starts with 2049 instead of IDX's 2051",
        ),
        (
            lambda p: put(p / "t10k-labels-idx1-ubyte.gz", gzip.compress(idx(2049, np.zeros(5)))),
            "holds 3 scans but .*t10k-labels-idx1-ubyte.gz 5 labels",
        ),
        (
            lambda p: put(p / "t10k-images-idx3-ubyte.gz", (p / "t10k-images-idx3-ubyte.gz").read_bytes()[:-20]),
            "t10k-images-idx3-ubyte.gz is damaged",
        ),
        (
            lambda p: put(p / "t10k-images-idx3-ubyte.gz", b"<html>not found</html>"),
            "t10k-images-idx3-ubyte.gz is damaged",
        ),
        (
            lambda p: put(p / "t10k-images-idx3-ubyte", idx(2051, np.zeros((3, 28, 28)))[:-1]),
            "t10k-images-idx3-ubyte holds fewer bytes",
        ),
        (
            lambda p: put(p / "t10k-images-idx3-ubyte", idx(2051, np.zeros((3, 28, 28))) + b"x"),
            "t10k-images-idx3-ubyte holds more bytes",
        ),
        (
            lambda p: put(p / "t10k-images-idx3-ubyte", struct.pack(">4I", 2051, 2**31, 2**15, 2**15)),
            "t10k-images-idx3-ubyte promises 2147483648 x 32768",
        ),
        (lambda p: put(p / "t10k-images-idx3-ubyte", b"\0\0"), "t10k-images-idx3-ubyte is cut short"),
    ],
)
def test_a_faulty_mnist_file_is_named(tmp_path, damage, message):
    write_pair(tmp_path, "t10k", [2, 3, 2], zipped=True)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        list(mnist.read(digits_of(tmp_path, [2]), "k").items)


# --- bundled digits ---------------------------------------------------------------------------------------


def test_the_bundled_digits_fill_the_range_and_keep_their_labels():
    from sklearn.datasets import load_digits

    reading = digits.read(Digits(reader="digits", path=Path("x"), classes=[2, 7]))
    items = list(reading.items)
    bundle = load_digits()
    assert len(items) == reading.total == int(np.isin(bundle.target, [2, 7]).sum())
    for item in items[:20]:
        index = int(item.name.removeprefix("digits[").removesuffix("]"))
        assert item.label == bundle.target[index]
        assert np.array_equal(item.array[..., 2], np.rint(bundle.images[index] / 16 * 255))
    assert max(item.array.max() for item in items) == 255
