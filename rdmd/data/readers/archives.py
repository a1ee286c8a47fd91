"""Images inside a zip or tar archive, read from it without unpacking anything onto the disk."""

import contextlib
import errno
import io
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from rdmd.config import ImageFolder
from rdmd.data.readers.images import RGB, Form, UnreadableError, chosen, decode
from rdmd.data.samples import Broken, Reading, Sample, Split, printable, refuse_lfs_pointer
from rdmd.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Limits of what an archive unpacks to. Sizes are in bytes, uncompressed."""

    member: int = 512 * 2**20
    """One file; it is held in memory while it is decoded."""
    free: int = 2**30
    """All files together, whatever the ratio."""
    ratio: float = 100.0
    """All files together over the archive's own size, beyond `free`. Near 1 for compressed images."""


class _Gauge:
    """Checks each member before a byte of it is unpacked."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self.total = 0

    def check(self, name: str, size: int) -> None:
        unix = name.replace("\\", "/")
        if unix.startswith("/") or re.match(r"[A-Za-z]:", unix) or ".." in PurePosixPath(unix).parts:
            self.refuse(name, "its path leads out of the archive", "repack it with plain relative paths")
        self.total += size
        if size > self.limits.member:
            self.refuse(name, f"it unpacks to {size} bytes", f"keep each file under {self.limits.member} bytes")
        if self.total > max(self.limits.free, self.limits.ratio * self.path.stat().st_size):
            self.refuse(
                name,
                f"up to it the archive unpacks to {self.total} bytes, over {self.limits.ratio:g} times its own size",
                "unpack it yourself and use the reader `images`",
            )

    def refuse(self, name: str, problem: str, remedy: str) -> None:
        raise UserError(f"{self.path}: the member {printable(name)!r} is refused because {problem}; {remedy}.")


def read(domain: ImageFolder, key: str, limits: Limits = Limits(), form: Form = RGB) -> Reading:
    """Open the archive `domain.path` (zip, tar, tar.gz, .bz2, .xz): its images in the archive's order.

    The whole list of members is checked before the first image is read. `key` (such as `domains.source`)
    stands for the domain in messages. Raises `UserError`, naming the archive and the member, for members with
    absolute paths or `..`, links and devices, encrypted members and archives that unpack to more than `limits`; also
    if there is no such file, it is no archive or damaged, or holds no images.
    """
    path = domain.path
    if path.is_dir():
        raise UserError(f"{path} is a folder; set {key}.reader to `images`, or give a zip or tar file.")
    if not path.is_file():
        raise UserError(f"{path} does not exist; put a zip or tar of images there or change {key}.path.")
    refuse_lfs_pointer(path)
    gauge = _Gauge(path, limits)
    with _naming_damage(path):
        if zipfile.is_zipfile(path):
            names, stored = _zip_names(path, gauge), _zip_members
        else:
            names, stored = _tar_names(path, gauge), _tar_members
    listed, others = chosen(names, domain, key)
    # A tar may hold one name twice; both are read and counted.
    return Reading(len(listed), _read_all(path, dict(listed), stored, form), others)


@contextlib.contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    remedy = "download or pack it again"
    try:
        yield
    except tarfile.ReadError as error:
        # Where no method opens the file, the other lines are what each of them had to say.
        reason = str(error).splitlines()[0].rstrip(":")
        raise UserError(f"{path} is not a whole zip or tar archive ({reason}); {remedy}.") from None
    except UserError:
        raise
    except Exception as error:
        # gzip and bz2 report damage as an OSError without a number, and an offset out of range has EINVAL; other errors
        # of the system are no damage. For the rest, damaged bytes can raise nearly anything.
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
            raise
        raise UserError(f"{path} is damaged ({str(error) or type(error).__name__}); {remedy}.") from None


def _zip_names(path: Path, gauge: _Gauge) -> list[str]:
    names = []
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if stat.S_ISLNK(info.external_attr >> 16):
                gauge.refuse(info.orig_filename, "it is a link", "repack with the files themselves")
            if info.flag_bits & 1:
                gauge.refuse(info.orig_filename, "it is encrypted", "repack without a password")
            gauge.check(info.orig_filename, info.file_size)
            if not info.is_dir():
                names.append(info.filename)
    return names


def _tar_names(path: Path, gauge: _Gauge) -> list[str]:
    names = []
    with tarfile.open(path, "r:*") as archive:
        # One header at a time: a refused member stops this before its data is unpacked.
        for member in archive:
            if member.issym() or member.islnk():
                gauge.refuse(member.name, "it is a link", "repack with `tar --dereference --hard-dereference`")
            if not (member.isfile() or member.isdir()):
                gauge.refuse(member.name, "it is a device or pipe", "repack with plain files only")
            gauge.check(member.name, member.size)
            if member.isfile():
                names.append(_tidy(member.name))
    return names


def _tidy(name: str) -> str:
    """Without the `./` that `tar -c .` puts before every name."""
    return PurePosixPath(name).as_posix()


_Members = Iterator[tuple[str, Callable[[], bytes]]]


def _zip_members(path: Path) -> _Members:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            yield info.filename, partial(archive.read, info)


def _tar_members(path: Path) -> _Members:
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            if member.isfile() and (file := archive.extractfile(member)) is not None:
                yield _tidy(member.name), file.read


def _read_all(
    path: Path, splits: dict[str, Split | None], members: Callable[[Path], _Members], form: Form
) -> Iterator[Sample | Broken]:
    with _naming_damage(path):
        for name, unpack in members(path):
            if name in splits:
                yield _read_one(printable(name), unpack, splits[name], form)


def _read_one(name: str, unpack: Callable[[], bytes], split: Split | None, form: Form) -> Sample | Broken:
    try:
        return Sample(name, decode(io.BytesIO(unpack()), form=form), split=split)
    except UnreadableError as error:
        return Broken(name, str(error))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        # A zip's members stand alone: one damaged member leaves the others readable.
        return Broken(name, str(error))
