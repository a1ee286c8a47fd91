"""Data, feature network and teacher of one seed of a study, made once and reused until their settings change."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rdmd import config
from rdmd.code_digest import code_digest
from rdmd.domains.manifest import read_manifest
from rdmd.domains.preprocess import preprocess
from rdmd.files import canonical_json, sha256_of, write_text
from rdmd.pipeline.features import train_features
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.training import Watch, train_teacher
from rdmd.results.workspace import StudyLayout


def prepare(settings: config.Settings, layout: StudyLayout, watch: Watch, processes: TrainingProcesses) -> None:
    """Make data/shards, models/features and models/teacher below the layout's root, as far as they are out of date."""
    for name in config.Domains.model_fields:
        domain = getattr(settings.domains, name)
        if domain is not None:
            _data(settings, layout, name, domain)
    described = {
        "features": settings.evaluate.features.model_dump(mode="json"),
        "seed": settings.seed,
        "data": {file.parent.name: read_manifest(file.parent).digest
                 for file in sorted(layout.shards.glob("*/manifest.json"))},
        "code": code_digest(("rdmd.evaluation.classifier",)),
    }
    _once(layout.root / "made" / "features.txt", described, lambda: train_features(settings, layout))
    train_teacher(settings, layout, watch, processes)


def _data(settings: config.Settings, layout: StudyLayout, name: str, domain: config.Domain) -> None:
    described = {
        "domain": domain.model_dump(mode="json"),
        "preprocess": settings.preprocess.model_dump(mode="json"),
        "seed": settings.seed,
        "code": _data_code(),
    }
    _once(layout.root / "made" / f"{name}.txt", described, lambda: preprocess(settings, name, layout.shards / name))


def _data_code() -> str:
    """A digest of the code that makes data."""
    root = Path(__file__).parents[1] / "domains"
    return hashlib.sha256("".join(sha256_of(file) for file in sorted(root.rglob("*.py"))).encode()).hexdigest()


def _once(stamp: Path, described: dict[str, Any], make: Callable[[], object]) -> None:
    """Call `make` unless it has ended well for the same description."""
    text = canonical_json(described)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == text:
        return
    make()
    write_text(stamp, text)
