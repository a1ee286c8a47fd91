"""Regularized Distribution Matching Distillation: one-step unpaired image-to-image translation.

The rooms, as data flows through them: `config` (params.yaml as typed objects), `domains` (readers, transforms, shards),
`networks`, `diffusion` (preconditioning, noise laws, losses, samplers), `distillation` (the paper's section 3),
`training` (the loop), `baselines`, `evaluation`, `selection` (front and champion by rule), `pipeline` (stages and
content-addressed runs), `serving` (what a registered model runs), `results` (the studies),
`cli`.

Nothing here imports Prefect or DVC: `flows/` does.
"""

__version__ = "0.1.0"
