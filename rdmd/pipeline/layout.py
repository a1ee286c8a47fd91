"""The folders and files of a project."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Layout:
    """The folders and files that stages read and write. Relative paths are taken from the current folder.

    kept: the folder of runs/ and of caches, if it is not `root`: a queued DVC experiment runs in a copy of the project,
    which DVC deletes afterwards.
    """

    root: Path = Path()
    kept: Path | None = None

    def __post_init__(self) -> None:
        kept = self.kept or self.root
        self.runs = kept / "runs"
        self.feature_cache = kept / ".cache" / "features"
        self.shards = self.root / "data" / "shards"
        self.teacher = self.root / "models" / "teacher"
        self.features = self.root / "models" / "features"
        self.generators = self.root / "models" / "generators"
        self.baselines = self.root / "models" / "baselines"
        self.reports = self.root / "reports"
        self.curves = self.reports / "curves"
        self.metrics = self.reports / "metrics.json"
        self.summary = self.reports / "summary.json"
        self.champion = self.reports / "champion.json"
        self.validation = self.reports / "validation.json"
        self.registry = self.reports / "registry.json"


def use_local_tracking(root: Path | None = None) -> None:
    """Let MLflow use the project's own store below `root` (default: here), unless MLFLOW_TRACKING_URI is set."""
    store = (root or Path.cwd()).resolve() / "mlflow" / "store" / "mlflow.db"
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    # A store that does not answer is reported within seconds, not after minutes of retries.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    # Its bars fill a log with a line for every file, and models are small.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
