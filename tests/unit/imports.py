"""What a module of ours imports, read from its syntax tree: imports inside functions count, those for types alone do
not."""

import ast
from collections.abc import Iterator
from functools import cache

from tests.conftest import ROOT

OURS = ("rdmd", "flows", "studies")


def file_of(module: str) -> str | None:
    """The file of a module or package of ours, relative to the root; None if `module` is neither."""
    base = module.replace(".", "/")
    return next((name for name in (f"{base}.py", f"{base}/__init__.py") if (ROOT / name).is_file()), None)


@cache
def modules(package: str) -> tuple[str, ...]:
    """Every module of `package`, itself included."""
    names = (path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / package).rglob("*.py")))
    return tuple(".".join(name.parts).removesuffix(".__init__") for name in names)


@cache
def imports(module: str, lazy: bool = True) -> frozenset[str]:
    """The modules that `module` imports, ours and others. `lazy=False` leaves out imports inside functions."""
    file = file_of(module)
    assert file is not None, f"{module} does not exist"
    return frozenset(imports_of(ast.parse((ROOT / file).read_text(encoding="utf-8")), lazy))


def imports_of(node: ast.AST, lazy: bool = True) -> Iterator[str]:
    """As `imports`, of a part of a module."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return
    if isinstance(node, ast.FunctionDef | ast.Lambda) and not lazy:
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            yield name if file_of(name) else str(node.module)
    for child in ast.iter_child_nodes(node):
        yield from imports_of(child, lazy)
