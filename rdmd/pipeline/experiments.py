"""List the experiments in experiments/, and copy one to params.yaml."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rdmd import config
from rdmd.errors import UserError
from rdmd.files import write_text


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


NO_GIT = "This folder is not in a git repository, which DVC and make need; run `git init` in the project's root."


def in_git(folder: Path = Path()) -> bool:
    """Whether `folder` or a parent is the root of a git work tree."""
    return any((place / ".git").exists() for place in (folder.resolve(), *folder.resolve().parents))


def missing_files(settings: config.Settings) -> list[str]:
    """What is wrong with the files and folders that params.yaml names: a sentence for each, with the remedy."""
    from rdmd.pipeline.domain_files import unusable

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
    if initial is not None and not initial.is_file():
        problems.append(
            f"params.yaml: teacher.init is {initial}, which is not a file; give a safetensors file (see "
            "`rdmd convert-edm --help`), or null."
        )
    if isinstance(cost, config.LPIPS | config.FeatureCost) and not cost.weights.exists():
        problems.append(
            f"params.yaml: distill.cost.weights is {cost.weights}, which does not exist; put the network of the cost "
            f"{cost.name!r} there or use another cost."
        )
    return problems


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
