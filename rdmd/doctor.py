"""`rdmd doctor`: what this machine has, and what would fail on it."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from rdmd import config
from rdmd.errors import UserError
from rdmd.pipeline.experiments import NO_GIT, NO_PROJECT, in_git, in_project, missing_files
from rdmd.pipeline.layout import Layout, use_local_tracking
from rdmd.pipeline.store import check_sqlite, sqlite_file, unregistered

GIB = 2**30
# Measured on the default experiment: its evaluation peaks at 1.5 GiB with the servers, a training process at 0.9 GiB,
# and runs, caches and store take well under 1 GiB.
MEMORY_NEEDED = 4 * GIB
DISK_NEEDED = 2 * GIB
PIPELINE_PACKAGES = ("torch", "accelerate", "webdataset", "dvc", "prefect", "mlflow", "great-expectations")


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it would do, and what to do about it."""

    verdict: Literal["ok", "warn", "FAIL"]
    subject: str
    text: str


def examine(layout: Layout) -> Iterator[Finding]:
    """Look at the interpreter, packages, device, memory, disk, settings, data and stores."""
    yield from _software()
    yield from _device()
    yield from _room(layout)
    if not in_project(layout.root):
        yield Finding("FAIL", "project", NO_PROJECT)
        return
    yield Finding("ok", "git", "this folder is in a git repository") if in_git() else Finding("warn", "git", NO_GIT)
    yield from _settings()
    yield from _domains(layout)
    use_local_tracking()
    yield _store("mlflow", os.environ["MLFLOW_TRACKING_URI"], "MLFLOW_TRACKING_URI")
    yield _champion(layout)
    uri = os.environ.get("PREFECT_API_URL")
    none = Finding("ok", "prefect", "no PREFECT_API_URL; each stage starts a server of its own")
    yield none if uri is None else _store("prefect", uri, "PREFECT_API_URL")
    # The address of a proxy may hold a password.
    if names := sorted(getproxies_environment().keys() - {"no"}):
        direct = "this project's own servers on the loopback interface are reached directly"
        yield Finding("ok", "proxy", f"set for {', '.join(names)}; {direct}")


def _software() -> Iterator[Finding]:
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    text = f"{platform.python_version()} on {platform.platform(terse=True)}"
    yield Finding("ok", "python", text) if fits else Finding("FAIL", "python", f"{text}; 3.11 to 3.13 is needed")
    found, missing = [], []
    for name in PIPELINE_PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    yield Finding("ok", "packages", ", ".join(found))
    if missing:
        remedy = "run `make venv` in a checkout, or `pip install 'rdmd[pipeline]'`"
        yield Finding("FAIL", "packages", f"missing: {', '.join(missing)}; {remedy}")


def _device() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", "cpu", f"{cores} cores, {torch.get_num_threads()} torch threads")
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        name = torch.cuda.get_device_name(i)
        yield Finding("ok", "gpu", f"{name}, {free / GIB:.0f} of {total / GIB:.0f} GiB free")
    if not torch.cuda.device_count():
        yield Finding("ok", "gpu", "none; avatars, digits and swissroll run on the CPU, 64x64 images need a GPU")


def _room(layout: Layout) -> Iterator[Finding]:
    """Memory and disk."""
    import psutil

    memory, free = psutil.virtual_memory(), shutil.disk_usage(layout.root).free
    text = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available"
    if memory.available >= MEMORY_NEEDED:
        yield Finding("ok", "memory", text)
    else:
        yield Finding("warn", "memory", f"{text}; set launch.parallel to 1 if runs are killed")
    text = f"{free / GIB:.1f} GiB free here"
    if free >= DISK_NEEDED:
        yield Finding("ok", "disk", text)
    else:
        yield Finding("FAIL", "disk", f"{text}; the default experiment needs {DISK_NEEDED // GIB} GiB, free some")
    if not os.access(layout.root, os.W_OK):
        yield Finding("FAIL", "disk", "this folder is not writable; change its permissions")


def _settings() -> Iterator[Finding]:
    try:
        settings = config.load()
    except UserError as error:
        yield Finding("FAIL", "params.yaml", str(error))
        return
    yield Finding("ok", "params.yaml", f"experiment {settings.experiment}, lambda {settings.distill.described}")
    yield from (Finding("FAIL", "data", problem) for problem in missing_files(settings))


def _domains(layout: Layout) -> Iterator[Finding]:
    from rdmd.data.manifest import describe, read_manifest

    folders = sorted(path for path in layout.shards.glob("*") if path.is_dir())
    for folder in folders:
        try:
            yield Finding("ok", "shards", describe(read_manifest(folder)))
        except UserError as error:
            yield Finding("warn", "shards", str(error))
    if not folders:
        yield Finding("ok", "shards", "none yet; `rdmd preprocess` makes them")


def _champion(layout: Layout) -> Finding:
    """Whether the champion that reports/registry.json names can be loaded."""
    import json

    import torch

    from rdmd.pipeline.model_source import open_generator

    if not layout.registry.exists():
        return Finding("ok", "champion", "none yet; `make repro` registers one")
    try:
        champion = json.loads(layout.registry.read_text(encoding="utf-8"))["champion"]
    except (OSError, ValueError, KeyError, TypeError):
        return Finding("warn", "champion", f"{layout.registry} is damaged; repeat `dvc repro -f register`")
    if champion is None:
        return Finding("ok", "champion", "none: a generator from noise does not translate")
    try:
        reason = unregistered(layout.registry)
        if reason is None:
            open_generator(champion, torch.device("cpu"))
            return Finding("ok", "champion", f"{champion} loads")
    except (UserError, OSError) as error:
        reason = str(error)
    remedy = "run `make repro`, which registers again what it can; or promote another version (`rdmd registry list`)"
    return Finding("warn", "champion", f"{champion} cannot be used: {reason}; {remedy}")


def _store(subject: str, uri: str, variable: str) -> Finding:
    """Whether a store answers: an HTTP server by a connection, SQLite by its file."""
    import socket

    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        try:
            with socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), 5):
                return Finding("ok", subject, f"{uri} answers")
        except OSError as error:
            return Finding(
                "FAIL", subject, f"{uri} does not answer ({error.strerror or error}); start it or correct {variable}"
            )
    file = sqlite_file(uri)
    if file is not None:
        try:
            check_sqlite(uri)
        except UserError as error:
            return Finding("FAIL", subject, str(error))
        state = f", {file.stat().st_size / 2**20:.1f} MiB" if file.exists() else " will be made"
        return Finding("ok", subject, f"{file}{state}")
    return Finding("ok", subject, f"{uri} (not looked at)")
