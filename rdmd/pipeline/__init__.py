"""The stages as functions, which DVC's commands, Prefect's flows and the `rdmd` command call.

`layout` names the folders of a project. `jobs` plans training runs, `launch` starts them as processes, `training` joins
both to the training stages. `features`, `translators`, `evaluation` and `provenance` are the other stages.
`model_card`, `model_folder` and `model_source` read and write models; `store` asks MLflow's registry for them;
`translate` translates files.
"""
