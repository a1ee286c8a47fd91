"""Which files of a folder or an archive are pictures of the domain, and which split each belongs to."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from rdmd.config import ImageFolder
from rdmd.domains.readers.pictures import SUFFIXES
from rdmd.domains.samples import Split
from rdmd.errors import UserError


def is_picture(name: str) -> bool:
    """Whether a relative path (forward slashes) is a picture: known suffix in any case, nothing hidden."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in SUFFIXES


def chosen(names: Iterable[str], domain: ImageFolder, key: str) -> list[tuple[str, Split | None]]:
    """The pictures among `names` (relative, forward slashes), each with the split that its folder gives it.

    Where the domain names `train` and `test` folders, only what lies below them counts. `key` (such as
    `domains.source`) stands for the domain in messages. Raises `UserError` if nothing is left.
    """
    pictures = [name for name in names if is_picture(name)]
    if domain.train is None or domain.test is None:
        if not pictures:
            raise UserError(
                f"{domain.path} holds no pictures ({', '.join(sorted(s[1:] for s in SUFFIXES))}); put some "
                f"there or change {key}.path."
            )
        return [(name, None) for name in pictures]
    folders: dict[Split, PurePosixPath] = {
        "train": PurePosixPath(domain.train),
        "test": PurePosixPath(domain.test),
    }
    if folders["train"].is_relative_to(folders["test"]) or folders["test"].is_relative_to(folders["train"]):
        raise UserError(
            f"{key}.train and {key}.test are `{domain.train}` and `{domain.test}`, one inside the other; "
            "name two separate folders."
        )
    found: list[tuple[str, Split | None]] = [
        (name, split)
        for name in pictures
        for split, folder in folders.items()
        if PurePosixPath(name).is_relative_to(folder)
    ]
    for split, folder in folders.items():
        if not any(where == split for _, where in found):
            tops = sorted({PurePosixPath(name).parts[0] for name in pictures if "/" in name})
            seen = (
                f"its folders with pictures are {', '.join(tops[:5])}"
                if tops
                else "it has no folders with pictures"
            )
            raise UserError(
                f"{domain.path} holds no pictures below `{folder}`, which {key}.{split} names; "
                f"{seen}: correct the key or the folder."
            )
    return found
