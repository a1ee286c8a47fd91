"""The stages as functions: what DVC's commands, Prefect's flows and the `rdmd` command all call.

`layout` (where things lie), `plan` (from settings to runs), `model_folder` (a model as files), `stages` (one function
a stage), `translate` (pictures in, pictures out).
"""
