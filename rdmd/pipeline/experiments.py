"""List the experiments in experiments/, copy one to params.yaml, and check the files that it names."""

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rdmd import config
from rdmd.errors import UserError
from rdmd.files import write_text
from rdmd.networks.diffusers_import import HUB, codec_folder, is_checkpoint, not_a_checkpoint

# Files of a folder of images that a message names.
NAMED = 3
# Training images under which augmentation is recommended.
FEW = 5000
# Images, with repeats, that a teacher trains on before EDM's augmentation is recommended: it slows a short training
# (`python -m studies few_images`).
LONG = 10**6


@dataclass(frozen=True)
class Experiment:
    """One complete params file."""

    name: str
    path: Path
    summary: str


def experiments(folder: Path = config.EXPERIMENTS) -> list[Experiment]:
    """The experiments in `folder`, by name; the summary is the first comment of the file."""
    if not folder.is_dir():
        raise UserError(f"{folder}/ does not exist here; run this from the project's root.")
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise UserError(
            f"{folder}/ holds no .yaml file; save a complete params file there, or take the folder from "
            "the repository again."
        )
    return [Experiment(file.stem, file, _summary(file)) for file in files]


def find(name: str, folder: Path = config.EXPERIMENTS) -> Experiment:
    """The experiment of that name. Raises UserError if there is none."""
    known = experiments(folder)
    chosen = next((experiment for experiment in known if experiment.name == name), None)
    if chosen is None:
        names = ", ".join(experiment.name for experiment in known)
        raise UserError(f"there is no experiment {name!r} in {folder}/; use one of {names}.")
    return chosen


def use(name: str, force: bool, params: Path = config.PARAMS, folder: Path = config.EXPERIMENTS) -> Experiment:
    """Replace params.yaml by an experiment's file.

    Raises UserError if there is no such experiment, if its file is invalid, or if params.yaml holds edits that are
    neither committed nor saved as an experiment (unless `force`).
    """
    known = experiments(folder)
    chosen = find(name, folder)
    config.load(chosen.path)
    if not force and params.exists() and not _kept_elsewhere(params, known):
        raise UserError(
            f"{params} holds edits that are neither committed nor saved; commit it, save it as "
            f"{folder}/NAME.yaml, or overwrite it with `rdmd use {name} --force`."
        )
    write_text(params, chosen.path.read_text(encoding="utf-8"))
    return chosen


NO_PROJECT = (
    "This folder is no checkout of RDMD, since it has neither dvc.yaml nor params.yaml. Change to the root of a "
    "checkout. Without one, `rdmd translate`, `export`, `serve --model` and `import rdmd` work everywhere."
)
NO_GIT = "This folder is not in a git repository, which DVC and make need; run `git init` in the project's root."


def in_project(folder: Path = Path()) -> bool:
    """Whether `folder` looks like the root of a checkout."""
    return any((folder / name).exists() for name in ("dvc.yaml", config.PARAMS))


def in_git(folder: Path = Path()) -> bool:
    """Whether `folder` or a parent is the root of a git work tree."""
    return any((place / ".git").exists() for place in (folder.resolve(), *folder.resolve().parents))


def missing_files(settings: config.Settings) -> list[str]:
    """What is wrong with the files and folders that params.yaml names: a sentence for each, with the remedy."""
    problems = [
        f"params.yaml: domains.{name}.path is {domain.path}, which does not exist; put your data there or correct the "
        "path."
        for name, domain in settings.domains.named.items()
        if not domain.path.exists()
    ]
    for name, domain in settings.domains.named.items():
        if not isinstance(domain, config.ImageFolder) or not domain.path.exists():
            continue
        fits = domain.path.is_dir() if domain.reader == "images" else domain.path.is_file()
        if not fits:
            kind, other = ("file", "archive") if domain.reader == "images" else ("folder", "images")
            problems.append(
                f"params.yaml: domains.{name}.path is {domain.path}, a {kind}, which the reader `{domain.reader}` does "
                f"not take; set domains.{name}.reader to `{other}` or correct the path."
            )
        elif domain.path.is_dir() and (wrong := unusable(domain.path)):
            problems.append(f"domains.{name}: {'; '.join(wrong)}; rename, mend or remove what is named.")
    initial, cost = settings.teacher.init, settings.distill.cost
    if initial is not None and (problem := wrong_init(settings.network, initial)):
        problems.append(problem)
    codec = settings.preprocess.codec
    if codec is not None and not codec.startswith(HUB):
        try:
            codec_folder(codec)
        except UserError as error:
            problems.append(str(error))
    if isinstance(cost, config.LPIPS | config.FeatureCost) and not cost.weights.exists():
        problems.append(
            f"params.yaml: distill.cost.weights is {cost.weights}, which does not exist; put the network of the cost "
            f"{cost.name!r} there or use another cost."
        )
    return problems


def augmentation_advice(settings: config.Settings) -> str | None:
    """What to set where a folder has few images for training, in a sentence; None where nothing is to be said.

    Files are counted, not read. Archives are not counted, since a packed one would have to be unpacked. Raises
    UserError if a folder holds no image.
    """
    teacher, distill = settings.teacher, settings.distill
    pays = isinstance(settings.network, config.ImageNetwork) and teacher.steps * teacher.batch >= LONG
    # Domain -> what to set, unless something is set already.
    remedies = {
        "target": None if not pays or teacher.augment else "teacher.augment to 0.15 and network.augment_dim to 9",
        "source": None if distill.flip else "distill.flip to true if its images may be mirrored",
    }
    counts = {name: _training_images(settings, name) for name in remedies}
    few = [
        f"the {name} has about {count} training images; set {remedies[name]}"
        for name, count in counts.items()
        if count is not None and count < FEW and remedies[name]
    ]
    return f"FEW IMAGES (under {FEW}): {'. '.join(few)} (docs/images.md)" if few else None


def _training_images(settings: config.Settings, name: str) -> int | None:
    """The images in the folder of a domain, less those held out for the test; None if they are not counted."""
    from rdmd.data.readers.images import read

    domain = getattr(settings.domains, name)
    if not isinstance(domain, config.ImageFolder) or domain.reader != "images":
        return None
    if domain.train is None:
        return round(read(domain, f"domains.{name}").total * (1 - settings.preprocess.test_fraction))
    below = {"path": domain.path / domain.train, "train": None, "test": None}
    return read(domain.model_copy(update=below), f"domains.{name}").total


def wrong_init(network: config.Network, init: Path) -> str | None:
    """What is wrong with the name of a teacher's initial weights, in a sentence. Nothing is read or downloaded."""
    if isinstance(network, config.DiffusersNetwork):
        return None if is_checkpoint(init) else not_a_checkpoint(init)
    if is_checkpoint(init):
        return (
            f"params.yaml: teacher.init is {init}, which is not a file; if it is a diffusers checkpoint, set `network` "
            "to {kind: unet2d}, else give a safetensors file."
        )
    if not init.is_file():
        return (
            f"params.yaml: teacher.init is {init}, which is not a file; give a safetensors file (see "
            "`rdmd convert-edm --help`), or null to train from scratch."
        )
    return None


def unusable(root: Path) -> list[str]:
    """The paths below the folder `root` that stop or mislead the pipeline, each with the reason; the first few only.

    DVC hashes every file, whether or not it is an image.
    """
    # It imports NumPy, for which the command line does not wait.
    from rdmd.data.samples import printable

    found = [f"{printable(path)} {reason}" for path, reason in _walk(root)]
    more = len(found) - NAMED
    return found[:NAMED] + ([f"{more} more"] if more > 0 else [])


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    real_root = root.resolve()
    unreadable: list[str] = []
    for folder, subfolders, files in os.walk(root, onerror=lambda error: unreadable.append(str(error.filename))):
        for name in sorted([*subfolders, *files]):
            path = Path(folder) / name
            if reason := _reason(path, real_root):
                yield str(path), reason
    yield from ((path, "cannot be read") for path in unreadable)


def _reason(path: Path, root: Path) -> str | None:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    try:
        mode = path.stat().st_mode
    except OSError:
        return "is a link that leads nowhere" if path.is_symlink() else "cannot be read"
    if path.is_symlink() and stat.S_ISDIR(mode):
        target = path.resolve()
        if root.is_relative_to(target) or target.is_relative_to(root):
            return "is a link to a folder that holds it or lies beside it"
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        return "is a pipe, socket or device"
    # A folder that cannot be read is found by the walk.
    return None if stat.S_ISDIR(mode) or os.access(path, os.R_OK) else "cannot be read"


def _kept_elsewhere(params: Path, known: list[Experiment]) -> bool:
    """Whether an experiment's file or the last commit holds the same bytes."""
    current = params.read_bytes()
    if any(experiment.path.read_bytes() == current for experiment in known):
        return True
    try:
        committed = subprocess.run(
            ["git", "show", f"HEAD:./{params.name}"], cwd=params.resolve().parent, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return committed.stdout == current


def _summary(file: Path) -> str:
    first = re.match(r"#\s*(.*)", file.read_text(encoding="utf-8", errors="replace"))
    return first.group(1) if first else ""
