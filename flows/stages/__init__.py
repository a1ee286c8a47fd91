"""The stages that train, evaluate and register: one Prefect flow each, run as `python -m flows.stages.NAME`."""
