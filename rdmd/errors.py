"""Errors of the user's input, files and system, reported in a sentence.

`UserError` carries one sentence that names the file or key and the remedy. Every entry point (the `rdmd` command and
the stages in `flows/`) runs inside `reporting`, which prints that sentence and exits with status 2. Only `--debug` and
defects of this project show a traceback.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
STOPPED = "stopped; finished steps are kept, repeat the same command to go on"

_MAKE_ROOM = "free some space and repeat the command"
_ALLOW = "make it readable and writable for this user and repeat the command"
_NOT_A_FOLDER = "a file lies where a folder belongs, so move it aside or name another place"
# Errors of the system that the user can mend, with the remedy. Any other OSError is a defect of this project.
REMEDIES = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EFBIG: "raise this user's limit on the size of a file (`ulimit -f`) and repeat the command",
    errno.EROFS: _ALLOW,
    errno.EACCES: _ALLOW,
    errno.EPERM: _ALLOW,
    errno.EISDIR: "a folder lies where a file belongs, so move it aside or name another place",
    errno.ENOTDIR: _NOT_A_FOLDER,
    errno.EEXIST: _NOT_A_FOLDER,
    errno.ENAMETOOLONG: "give a shorter name",
}


# The extra of this project that holds an optional package, by the package's name in an import.
EXTRAS = {
    "dicebear": "avatars",
    "dicebear_styles": "avatars",
    "diffusers": "diffusers",
    "gradio": "demo",
    "huggingface_hub": "diffusers",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "prefect_ray": "ray",
    "ray": "ray",
    "resvg_py": "avatars",
} | dict.fromkeys(
    (
        "dvc",
        "great_expectations",
        "mlflow",
        "networkx",
        "pandas",
        "prefect",
        "ruamel",
        "sklearn",
        "torch_fidelity",
    ),
    "pipeline",
)


class UserError(Exception):
    """An error that the user can mend; its text is one sentence with the remedy."""


class Interrupted(Exception):  # noqa: N818 (it is not an error: somebody pressed Ctrl-C, and nothing was lost)
    """Work stopped on request and can be resumed; the text says how."""


def sentence(error: Exception) -> str | None:
    """The cause of `error` and the remedy, for the user. None for a defect of this project."""
    if isinstance(error, UserError):
        # A quoted message of a library may have several lines.
        return " ".join(str(error).splitlines())
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        package = error.name.split(".")[0]
        if package in EXTRAS:
            return (
                f"this needs the package {package}, which is missing here; install it with "
                f"`pip install 'rdmd[{EXTRAS[package]}]'`."
            )
        if package == "flows":
            return "this needs the folder flows/ of the project, which is not installed; run it in a checkout."
    if isinstance(error, OSError) and error.errno in REMEDIES:
        # For a copy or a rename, the second name is the file that was to be written.
        named = error.filename2 or error.filename
        where = f"{named}: " if named else ""
        return f"{where}{os.strerror(error.errno)}; nothing was lost: {REMEDIES[error.errno]}."
    return None


@contextlib.contextmanager
def reporting(debug: bool) -> Iterator[None]:
    """Turn an error that the user can mend into one line on stderr and an exit status.

    A `UserError`, a missing package of an extra and what the system refuses (`REMEDIES`) exit with 2, Ctrl-C with 130.
    With `debug` the exception goes through as it is. A reader that closes the pipe, such as `head`, ends it with 0.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would try to write again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except (Interrupted, KeyboardInterrupt) as stop:
        print(f"rdmd: {str(stop) or STOPPED}", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except (UserError, OSError, ModuleNotFoundError) as error:
        explained = sentence(error)
        if debug or explained is None:
            raise
        print(f"rdmd: {explained}", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR) from None
