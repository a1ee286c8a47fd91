"""Says when each Python process of a pipeline lives and when it does the pipeline's work.

Python imports this at its start where this folder is on PYTHONPATH. It appends lines of JSON to the file that
RDMD_TIMELINE names, and changes nothing else: functions are wrapped as their modules are imported.
"""

import atexit
import functools
import importlib.abc
import importlib.machinery
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

_FILE = os.environ.get("RDMD_TIMELINE")

# What a stage is there for, and what it would import in the midst of it, which then is imported before.
_WORK = {
    "rdmd.domains.preprocess": (("preprocess",), ("sklearn.datasets",)),
    "rdmd.domains.validation": (("validate",), ("great_expectations",)),
    "rdmd.pipeline.features": (("train_features",), ()),
    "rdmd.training.loop": (("train",), ()),
    "rdmd.pipeline.evaluation": (
        ("evaluation_task", "evaluate_one", "write_evaluation"), ("matplotlib.pyplot", "skimage.metrics"),
    ),
}  # fmt: skip
_FLOW = {"flows.stage": (("run_stage",), ())}
# What a copy of the warm process does from its begin to its end.
_COPY = {"rdmd.warm.child": (("run",), ())}


def _note(kind: str, name: str, begun: float, cpu: float) -> None:
    used = time.process_time() - cpu
    line = json.dumps({"kind": kind, "name": name, "begun": begun, "ended": time.time(), "cpu": round(used, 3)})
    # One write to a file opened for appending is not torn apart by those of other processes.
    handle = os.open(_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def _noted(kind: str, function: Callable, before: tuple[str, ...]) -> Callable:
    @functools.wraps(function)
    def wrapper(*args: object, **kwargs: object) -> object:
        for module in before:
            importlib.import_module(module)
        begun, cpu = time.time(), time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            _note(kind, function.__name__, begun, cpu)

    return wrapper


def _copied(function: Callable) -> Callable:
    @functools.wraps(function)
    def wrapper(request: object) -> int:
        # A copy's CPU time counts from its fork, to what it does at its exit.
        atexit.register(_note, "copy", request.module.rpartition(".")[2], time.time(), cpu=0.0)
        return function(request)

    return wrapper


class _Loader(importlib.abc.Loader):
    """Loads as another loader does, then wraps functions."""

    def __init__(self, own: importlib.abc.Loader, kind: str, names: tuple[str, ...], before: tuple[str, ...]) -> None:
        self._own, self._kind, self._names, self._before = own, kind, names, before

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> object:
        return self._own.create_module(spec)

    def exec_module(self, module: object) -> None:
        self._own.exec_module(module)
        for name in self._names:
            function = getattr(module, name)
            wrapped = _copied(function) if self._kind == "copy" else _noted(self._kind, function, self._before)
            setattr(module, name, wrapped)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that have something to wrap."""

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        for kind, modules in (("work", _WORK), ("flow", _FLOW), ("copy", _COPY)):
            if name in modules:
                spec = importlib.machinery.PathFinder.find_spec(name, path)
                if spec is not None:
                    spec.loader = _Loader(spec.loader, kind, *modules[name])
                return spec
        return None


def _life(begun: float, pid: int) -> None:
    # A fork that ends by itself is no process of its own here.
    if os.getpid() == pid:
        _note("process", Path(sys.argv[0]).stem if sys.argv else "", begun, cpu=0.0)


if _FILE:
    sys.meta_path.insert(0, _Finder())
    atexit.register(_life, time.time(), os.getpid())
