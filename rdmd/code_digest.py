"""Which code a number depends on: a module and all that it imports of the method and the metrics."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[1]
# Rewording a message or laying out a report changes no number.
_COUNTED = tuple(f"rdmd.{name}" for name in ("baselines", "diffusion", "distillation", "evaluation", "networks"))


@cache
def code_digest(modules: tuple[str, ...]) -> str:
    """SHA-256 of the syntax trees, without docstrings, of `modules` and of what they import from one another."""
    trees: dict[str, ast.Module] = {}
    pending = list(modules)
    while pending:
        name = pending.pop()
        file = _file(name)
        if name in trees or file is None or not name.startswith(_COUNTED):
            continue
        trees[name] = ast.parse(file.read_text(encoding="utf-8"))
        pending += _imports(trees[name])
    digest = hashlib.sha256()
    for name in sorted(trees):
        digest.update(f"{name}\n{ast.dump(_without_docstrings(trees[name]))}\n".encode())
    return digest.hexdigest()


def _file(module: str) -> Path | None:
    path = _ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            # `from package import module`
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    documented: Iterable[ast.AST] = (
        node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    )
    for node in documented:
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree
