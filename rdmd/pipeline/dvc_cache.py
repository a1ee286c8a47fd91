"""What DVC's cache holds of the models that dvc.lock names, read without DVC."""

import json
import shutil
from pathlib import Path

import yaml

from rdmd.errors import UserError
from rdmd.files import replacing
from rdmd.training.run_folder import RunFolder

_FILES = Path(".dvc/cache/files/md5")
# The folder of a model where its training left what `runs/` holds beside the weights.
RUN = "run"


def publish_run(folder: RunFolder, model: Path) -> None:
    """Copy the result, the curves and the grids of a finished run into the folder of its model."""
    for file in (folder.result_file, folder.curves_file, *sorted(folder.samples.glob("*.png"))):
        if file.is_file():
            copy = model / RUN / file.relative_to(folder.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def bring_back(root: Path, folder: RunFolder) -> None:
    """Give a run, which has no files yet, those of its model in the cache, so that a clone after `dvc pull` trains
    nothing again. DVC has removed models/ when a stage begins, and dvc.lock still names the models."""
    files = locked_models(root).get(folder.fingerprint, {})
    inside = {name.removeprefix(f"{RUN}/"): file for name, file in files.items() if name != "model.json"}
    if folder.result_file.name not in inside or not all(file.is_file() for file in inside.values()):
        return
    with folder.locked():
        # The result last: it says that the run is finished.
        for name in sorted(inside, key=lambda name: name == folder.result_file.name):
            with replacing(folder.path / name) as temporary:
                shutil.copyfile(inside[name], temporary)


def locked_models(root: Path) -> dict[str, dict[str, Path]]:
    """The training runs of the models that dvc.lock names and the cache holds; for each the files of the model's folder
    in the cache, by their names in that folder."""
    lock = root / "dvc.lock"
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {}) if lock.is_file() else {}
    found = {}
    for md5 in (out["md5"] for stage in stages.values() for out in stage.get("outs", [])):
        listing = _cached(root, md5)
        if md5.endswith(".dir") and listing.is_file():
            every = json.loads(listing.read_text(encoding="utf-8"))
            files = {entry["relpath"]: _cached(root, entry["md5"]) for entry in every}
            for name, card in files.items():
                if Path(name).name == "model.json" and card.is_file():
                    folder = name.removesuffix("model.json")
                    inside = {other.removeprefix(folder): files[other] for other in files if other.startswith(folder)}
                    found[run_of(card)] = inside
    return found


def _cached(root: Path, md5: str) -> Path:
    return root / _FILES / md5[:2] / md5[2:]


def run_of(card: Path) -> str:
    """The run in a model's card, of any version of this project."""
    try:
        return str(json.loads(card.read_text(encoding="utf-8"))["run"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{card} is damaged, so its run is not known; restore or delete it, then repeat.") from None
