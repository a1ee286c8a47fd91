"""The git commit of the code that runs."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

# Files in git that the pipeline and the benchmarks write themselves.
_WRITTEN = (":(exclude)reports", ":(exclude)dvc.lock", ":(exclude)benchmarks/results")


@dataclass(frozen=True)
class Commit:
    """A commit, and whether a tracked file differs from it. As text `<sha>`, or `<sha>+changes`."""

    sha: str
    edited: bool

    def __str__(self) -> str:
        return f"{self.sha}+changes" if self.edited else self.sha


def git_commit(root: Path) -> Commit | None:
    """The commit that is checked out in the folder `root`; None outside git, without git, or without a commit.

    Changes of files that the pipeline and the benchmarks write do not count.
    """
    try:
        sha = _git(root, "rev-parse", "HEAD")
        return Commit(sha, bool(_git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *_WRITTEN)))
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
