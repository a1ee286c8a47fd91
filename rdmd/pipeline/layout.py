"""The folders and files of a project, and the git commit of its code."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Files in git that the pipeline and the benchmarks write themselves, and the settings, which every run records whole.
_NOT_CODE = tuple(f":(exclude){path}" for path in ("params.yaml", "reports", "dvc.lock", "benchmarks/results"))


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
        self.samples = self.reports / "samples.png"
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
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Its bars fill a log with a line for every file, and models are small.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@dataclass(frozen=True)
class Commit:
    """A commit, and whether the code differs from it. As text `<sha>`, or `<sha>+changes`."""

    sha: str
    edited: bool

    def __str__(self) -> str:
        return f"{self.sha}+changes" if self.edited else self.sha


def git_commit(root: Path) -> Commit | None:
    """The commit that is checked out in the folder `root`; None outside git, without git, or without a commit.

    Changes of settings, and of files that the pipeline and the benchmarks write, do not count.
    """
    try:
        sha = _git(root, "rev-parse", "HEAD")
        return Commit(sha, bool(_git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *_NOT_CODE)))
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
