"""A stage of dvc.yaml depends on the code that it runs, so that no edit leaves a stale result."""

import ast
import re
import shlex

import pytest
import yaml

from tests.conftest import ROOT
from tests.unit.imports import OURS, file_of, imports, imports_of

STAGES: dict[str, dict] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
# Processes and files that a stage runs without importing them.
RUNS = {
    "teacher": ["rdmd/training/run.py"],
    "distill": ["rdmd/training/run.py"],
    "baselines": ["rdmd/training/run.py"],
    "register": ["mlflow/translator.py"],
}
# Modules that change no result, and why.
EXCEPTIONS = {
    "rdmd": "the library's public names; stages import from the modules themselves",
    "rdmd.errors": "the sentences of errors",
    "rdmd.files": "writes files whole",
    "rdmd.code_digest": "names the entries of caches by the code behind them",
    "rdmd.progress": "progress bars",
    "rdmd.ports": "keeps proxies from the loopback interface",
    "flows.artifacts": "shows results in Prefect's UI",
    "flows.project_lock": "one run at a time, and DVC's lock mended",
    "flows.form": "the form of a run in Prefect's UI",
    "flows.environment": "settings of Prefect and MLflow",
    "flows.server": "starts Prefect's server",
}
OF_STAGE = {
    "teacher": {"flows.tracking": "records", "rdmd.baselines rdmd.report": "backends also evaluate"},
    "distill": {"flows.tracking": "records", "rdmd.baselines rdmd.report": "backends also evaluate"},
    "baselines": {"flows.tracking": "records", "rdmd.report": "backends also evaluate"},
    "evaluate": {"flows.tracking": "records"},
}


def _entries(name: str) -> set[str]:
    """The modules of ours that the command of a stage names: `python -m MODULE`, or what `rdmd COMMAND` imports."""
    stage = STAGES[name].get("do", STAGES[name])
    words = shlex.split(stage["cmd"])
    if words[:2] == ["python", "-m"]:
        found = {words[2]}
    else:
        tree = ast.parse((ROOT / "rdmd" / "commands.py").read_text(encoding="utf-8"))
        wanted = words[1].replace("-", "_")
        (command,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == wanted]
        found = set(imports_of(command))
    for file in RUNS.get(name, []):
        found |= set(imports_of(ast.parse((ROOT / file).read_text(encoding="utf-8"))))
    return found


def _closure(modules: set[str]) -> set[str]:
    seen: set[str] = set()
    pending = [module for module in modules if module.split(".")[0] in OURS]
    while pending:
        module = pending.pop()
        if module not in seen and file_of(module) and module != "rdmd":
            seen.add(module)
            pending += [name for name in imports(module) if name.split(".")[0] in OURS]
    return seen


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_all_code_that_it_loads(name: str):
    stage = STAGES[name].get("do", STAGES[name])
    excepted = [*EXCEPTIONS, *(module for modules in OF_STAGE.get(name, {}) for module in modules.split())]

    def is_covered(module: str) -> bool:
        file = str(file_of(module))
        below = any(file == dep or file.startswith(f"{dep}/") for dep in stage["deps"])
        return below or any(module == one or (one != "rdmd" and module.startswith(f"{one}.")) for one in excepted)

    loaded = _closure(_entries(name))
    assert loaded, "the stage's command names no module of ours"
    assert {module for module in loaded if not is_covered(module)} == set()
    for file in RUNS.get(name, []):
        assert any(file.startswith(dep) for dep in stage["deps"])


def test_every_code_dependency_exists():
    for name, stage in STAGES.items():
        for dep in stage.get("do", stage)["deps"]:
            if re.match("rdmd|flows|mlflow", dep):
                assert (ROOT / dep).exists(), f"{name} depends on {dep}, which does not exist"
