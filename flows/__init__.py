"""Prefect flows: `stages`, one for each stage that trains, evaluates or registers, and `reproduce`, which drives DVC.

`python -m flows.stages.NAME` is what `dvc.yaml` runs. The work is in `rdmd.pipeline`; this package runs it (`backends`,
`server`) and records it (`tracking`, `registry`).
"""

from flows import environment

# Prefect and MLflow read their settings when they are imported, so this comes before any module of the package.
environment.prepare()
