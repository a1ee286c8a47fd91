"""Regularized Distribution Matching Distillation: one-step unpaired image-to-image translation.

    cats, dogs = (rdmd.ImageFolder(path, resolution=64) for path in ("cats/", "dogs/"))
    teacher = rdmd.train_teacher(dogs)
    translator = rdmd.distill(teacher, source=cats, lam=0.1)
    translator.save_pretrained("cat2dog/")
    rdmd.image_grid({"cat": cats, "dog": translator(cats)})

The packages, from the lowest to the highest: `config` (params.yaml as typed objects); `data`, `networks`, `diffusion`;
`distillation` (section 3 of the paper) and `baselines`; `training`; `evaluation`; `report` and `serving`; `pipeline`
(the stages, and runs by their content); the library and the command line. None imports Prefect or DVC: `flows/` does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rdmd.data.in_memory import ImageFolder
    from rdmd.errors import UserError
    from rdmd.library import distill, evaluate, image_grid, train_teacher
    from rdmd.pretrained import Teacher, Translator

# Imported at their first use, so that `import rdmd` and the command line do not wait for torch.
_PLACES = {
    "ImageFolder": "rdmd.data.in_memory",
    "Teacher": "rdmd.pretrained",
    "Translator": "rdmd.pretrained",
    "UserError": "rdmd.errors",
} | dict.fromkeys(("distill", "evaluate", "image_grid", "train_teacher"), "rdmd.library")

__all__ = [
    "ImageFolder",
    "Teacher",
    "Translator",
    "UserError",
    "distill",
    "evaluate",
    "image_grid",
    "train_teacher",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'rdmd' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
