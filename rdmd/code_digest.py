"""The code that a number depends on: a module and all that it imports of the data, the method and the metrics."""

import ast
import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[1]
# Other packages change no number: they parse settings, write reports and start processes.
_PACKAGES = ("baselines", "data", "diffusion", "distillation", "evaluation", "networks", "training")
_COUNTED = tuple(f"rdmd.{name}" for name in _PACKAGES)
_ONE_AT_A_TIME = threading.Lock()
_ATTEMPTS = 100


def code_digest(modules: tuple[str, ...]) -> str:
    """SHA-256 of the code of `modules` and of their imports, direct and indirect, within the counted packages.

    It is taken of syntax trees without docstrings: rewording or reformatting changes no digest.
    """
    with _ONE_AT_A_TIME:
        return _code_digest(modules)


@cache
def _code_digest(modules: tuple[str, ...]) -> str:
    dumps: dict[str, str] = {}
    pending = list(modules)
    while pending:
        name = pending.pop()
        file = _file(name)
        if name in dumps or file is None or not name.startswith(_COUNTED):
            continue
        dumps[name], imports = _parsed(file.read_text(encoding="utf-8"))
        pending += imports
    digest = hashlib.sha256()
    for name in sorted(dumps):
        digest.update(f"{name}\n{dumps[name]}\n".encode())
    return digest.hexdigest()


@cache
def _parsed(text: str) -> tuple[str, list[str]]:
    """The syntax tree of a module's text without docstrings, as text, and what the module imports.

    Objectives share most of their modules, so each is parsed once.
    """
    tree = _tree(text)
    imports = list(_imports(tree))
    return ast.dump(_without_docstrings(tree)), imports


def _tree(text: str) -> ast.Module:
    # Python 3.11's parser fails where two threads are in it at once, and other packages parse in threads of theirs.
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(SystemError):
            return ast.parse(text)
        time.sleep(0.01)
    return ast.parse(text)


def _file(module: str) -> Path | None:
    path = _ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            # `from package import module`
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree
