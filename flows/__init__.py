"""Prefect flows, one a stage (`teacher`, `distill`, `baselines`, `evaluate`, `register`), and `reproduce`, which drives
DVC.

`python -m flows.<stage>` is what `dvc.yaml` runs. The work itself is in `rdmd.pipeline`; what lives here is running it
(`environment`, `stage`, `watch`) and recording it (`tracking`, `registry`).
"""

from rdmd.warm import client

# Before anything slow: a stage may be run by a process that has all imports behind it.
_stage = client.stage_of(__name__)
if _stage is not None:
    client.hand_over(_stage)

from flows import environment  # noqa: E402

# Prefect and MLflow read their settings when they are imported, so this comes before any module of the package.
environment.prepare()
