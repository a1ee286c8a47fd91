"""Prefect flows, one a stage (`teacher`, `distill`, `baselines`, `evaluate`, `register`), and `reproduce`, which drives
DVC.

`python -m flows.<stage>` is what `dvc.yaml` runs. The work itself is in `rdmd.pipeline`; what lives here is running it
(`environment`, `stage`, `watch`) and recording it (`tracking`, `registry`).
"""

from flows import environment

# Prefect and MLflow read their settings when they are imported, so this comes before any module of the package.
environment.prepare()
