#!/usr/bin/env bash
# The tiny experiment at a base commit and at the one that is checked out, and the difference of their metrics:
#   bash .github/compare.sh BASE OUT.md
# It works in a clone of its own below .git, where the trainings that both have in common run once.
set -euo pipefail
base=$1 out=$(realpath "$2")
root=$(git rev-parse --show-toplevel) head=$(git rev-parse HEAD)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Of this environment, so that `rdmd` and `python -m flows...` come from the clone.
export PATH="$root/.venv/bin:$PATH" PYTHONPATH="$work/clone"
export MLFLOW_TRACKING_URI="sqlite:///$work/clone/mlflow/store/mlflow.db"

git clone --quiet --no-local "$root" "$work/clone"
cd "$work/clone"
git config user.name ci && git config user.email ci@localhost

# The tiny experiment at a commit, its metrics committed. Chained, since `if` switches errexit off.
run() {
  git checkout --quiet --force "$1" &&
    cp "$root/experiments/tiny.yaml" params.yaml &&
    python -m flows.server dvc repro &&
    git add --force reports/summary.json &&
    git commit --quiet --allow-empty --message "$2" -- reports/summary.json
}

{
  echo "### Metrics of the tiny experiment"
  echo
  if git cat-file -e "$base^{commit}" 2>/dev/null && run "$base" base >"$work/base.log" 2>&1; then
    git tag base-metrics
    run "$head" head >&2
    dvc metrics diff --md base-metrics HEAD --targets reports/summary.json
    echo
    echo "Base ${base:0:8} against ${head:0:8}, by \`dvc metrics diff\`; no rows: nothing changed."
  else
    tail -n 20 "$work/base.log" >&2 2>/dev/null || true
    run "$head" head >&2
    dvc metrics show --md reports/summary.json
    echo
    echo "${head:0:8} alone: the base commit could not run it."
  fi
  echo "One seed and far too few steps: this says what changed, not which is better."
} >"$out"
