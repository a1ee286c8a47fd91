"""One loop for the teacher and for distillation: steps, EMA, checkpoints, curves, sample grids.

A training run is one folder and one process: `python -m rdmd.training.run FOLDER` reads `run.json` there, resumes from
`checkpoint.pt` if there is one, and leaves `model.safetensors` and `result.json`.
"""
