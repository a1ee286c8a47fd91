"""Imports within `rdmd` go one way, and none leads to what only `flows` may use."""

import pytest

from tests.unit.imports import imports, modules

# From the lowest layer up. A module imports from lower layers and from its own package.
LAYERS = [
    {"errors", "files", "code_digest", "ports"},
    {"config"},
    {"data", "networks", "diffusion"},
    {"distillation", "baselines", "evaluation"},
    {"training"},
    {"report", "serving", "progress"},
    {"pipeline"},
    {"pretrained"},
    {"library"},
    {"cli", "commands", "doctor"},
]
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
CLI = len(LAYERS) - 1
# (module, module that it imports): why.
EXCEPTIONS = {
    ("rdmd.networks.build", "rdmd.diffusion.preconditioning"): "a denoiser is a network under preconditioning",
    ("rdmd.serving.demo", "rdmd.pipeline.layout"): "the demo finds the sweep's generators",
    ("rdmd.serving.demo", "rdmd.pipeline.model_card"): "the demo reads their lambdas",
    ("rdmd.serving.model", "rdmd.pipeline.model_folder"): "a served model is a model folder",
}
# Modules that reach the orchestration, inside a function, and why.
ORCHESTRATION = {
    ("rdmd.commands", "flows"): "`rdmd registry` asks the registry, where there is a checkout",
    ("rdmd.pipeline.clean", "mlflow"): "asks which runs the registered versions came from",
    ("rdmd.pipeline.model_source", "mlflow"): "fetches a registered model",
    ("rdmd.pipeline.store", "mlflow"): "fetches a registered model",
    ("rdmd.serving.server", "mlflow"): "serves a registered model by MLflow's own server",
}


def _package(module: str) -> str:
    return module.split(".")[1]


def _roots(names: frozenset[str]) -> set[str]:
    return {name.split(".")[0] for name in names} & {"dvc", "flows", "mlflow", "prefect", "studies"}


def test_no_module_imports_from_its_own_layer_or_above():
    found = set()
    # `rdmd` itself is the library's public face, and imports from most layers.
    for module in set(modules("rdmd")) - {"rdmd"}:
        for imported in imports(module):
            if not imported.startswith("rdmd.") or _package(imported) == _package(module):
                continue
            own, other = LEVEL[_package(module)], LEVEL[_package(imported)]
            if other > own or (other == own and own not in (0, CLI)):
                found.add((module, imported))
    assert found <= set(EXCEPTIONS), "a lower layer imports a higher one: move the function"
    assert set(EXCEPTIONS) <= found, "an exception is no longer needed: remove it"


@pytest.mark.parametrize("module", modules("rdmd"))
def test_no_module_imports_the_orchestration(module: str):
    assert not _roots(imports(module, lazy=False))
    assert {(module, root) for root in _roots(imports(module))} <= set(ORCHESTRATION)
