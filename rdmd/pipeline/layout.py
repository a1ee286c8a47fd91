"""The folders and files of a project."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The folders that stages read and write. Relative paths are taken from the current folder.

    kept: the folder of runs/ and of caches, if it is not `root`: a queued DVC experiment runs in a copy of the project,
    which DVC deletes afterwards.
    """

    root: Path = Path()
    kept: Path | None = None

    @property
    def shards(self) -> Path:
        return self.root / "data" / "shards"

    @property
    def runs(self) -> Path:
        return (self.kept or self.root) / "runs"

    @property
    def teacher(self) -> Path:
        return self.root / "models" / "teacher"

    @property
    def features(self) -> Path:
        return self.root / "models" / "features"

    @property
    def generators(self) -> Path:
        return self.root / "models" / "generators"

    @property
    def baselines(self) -> Path:
        return self.root / "models" / "baselines"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def feature_cache(self) -> Path:
        return (self.kept or self.root) / ".cache" / "features"

    @property
    def metrics(self) -> Path:
        return self.reports / "metrics.json"

    @property
    def summary(self) -> Path:
        return self.reports / "summary.json"

    @property
    def champion(self) -> Path:
        return self.reports / "champion.json"

    @property
    def curves(self) -> Path:
        return self.reports / "curves"

    @property
    def validation(self) -> Path:
        return self.reports / "validation.json"

    @property
    def registry(self) -> Path:
        return self.reports / "registry.json"


def use_local_tracking(root: Path | None = None) -> None:
    """Let MLflow use the project's own store below `root` (default: here), unless MLFLOW_TRACKING_URI is set."""
    store = (root or Path.cwd()).resolve() / "mlflow" / "store" / "mlflow.db"
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    # A store that does not answer is reported within seconds, not after minutes of retries.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    # Its bars fill a log with a line for every file, and models are small.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
