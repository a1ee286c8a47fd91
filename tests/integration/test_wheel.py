"""The wheel in an environment of its own, where no package beside its base dependencies can be imported."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

from tests.conftest import ROOT, notebook_of

# Python runs this at its start. The packages of the tests' environment are there, but for those that the wheel does
# not ask for: these are as absent.
BLOCK = """
import sys
from importlib.machinery import PathFinder

# As if these packages were not installed: packages ask for others by `find_spec`, which then finds nothing.
find_installed = PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {blocked!r} else find_installed(name, path, target)

PathFinder.find_spec = find_spec
sys.path.append({packages!r})
"""
REFUSED = {
    "registry list": "no checkout of RDMD",
    "check": "no checkout of RDMD",
    "summary": "no checkout of RDMD",
    "serve": "name a model with --model",
    "doctor": "fail here: project",
    "serve --model models:/rdmd-digits@champion": "pip install 'rdmd[pipeline]'",
    "translate models:/rdmd-digits@champion in out": "pip install 'rdmd[pipeline]'",
    "export model generator.onnx": "pip install 'rdmd[onnx]'",
}


def needed(requirements: list[str], extras: frozenset[str] = frozenset()) -> set[str]:
    """The distributions that these requirements ask for, with all that those ask for."""
    found: set[str] = set()
    pending = [(Requirement(text), extras) for text in requirements]
    seen = set()
    while pending:
        requirement, wanted = pending.pop()
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in wanted | {""}):
            continue
        key = (requirement.name, frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        distribution = importlib.metadata.distribution(requirement.name)
        found.add(distribution.metadata["Name"].lower())
        pending += [(Requirement(text), key[1]) for text in distribution.requires or []]
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without network from the files of the checkout."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "rdmd", source / "rdmd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "flows", source / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    built = tmp_path_factory.mktemp("dist")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(built), str(source)], check=True)
    (file,) = built.iterdir()
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment that holds the wheel and what its base dependencies ask for."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, symlinks=True)
    with zipfile.ZipFile(wheel) as file:
        (metadata,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        requires = importlib.metadata.PathDistribution(zipfile.Path(file, f"{metadata.rpartition('/')[0]}/")).requires
    # The notebook draws its images by the packages of an extra.
    present = needed(requires or [], frozenset({"avatars"}))
    assert not present & {"dvc", "prefect", "mlflow", "great-expectations", "pandas", "gradio", "onnxruntime", "ray"}
    modules = importlib.metadata.packages_distributions()
    blocked = {module for module, owners in modules.items() if not {owner.lower() for owner in owners} & present}
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    here = sysconfig.get_path("purelib")
    python = Path(sysconfig.get_path("scripts", vars=paths)) / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        f"--python={python}",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(pip, check=True)
    (packages / "block.py").write_text(BLOCK.format(blocked=blocked - {"rdmd", "_distutils_hack"}, packages=here))
    (packages / "block.pth").write_text("import block\n")
    return python.parent


def run(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")
    }
    return subprocess.run(
        [installed / command[0], *command[1:]], cwd=folder, env=environment, text=True, capture_output=True, check=False
    )


def test_the_wheel_holds_rdmd_alone(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"rdmd"}
    assert {"rdmd/py.typed", "rdmd/report/templates/page.html.j2", "rdmd/report/templates/page.css"} <= set(names)


def test_the_notebook_and_translating_need_no_other_extra_than_avatars(installed: Path, tmp_path: Path):
    absent = run(installed, tmp_path, "python", "-c", "import mlflow")
    assert absent.returncode == 1 and "No module named 'mlflow'" in absent.stderr
    code = "\n".join(cell.source for cell in notebook_of("quickstart").cells if cell.cell_type == "code")
    (tmp_path / "quickstart.py").write_text(code, encoding="utf-8")
    ran = run(installed, tmp_path, "python", "quickstart.py")
    assert ran.returncode == 0, ran.stderr
    model = next(path.parent for path in tmp_path.rglob("model.json"))
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    translated = run(installed, tmp_path, "rdmd", "translate", str(model), "red.png", "out.png")
    assert translated.returncode == 0, translated.stderr
    assert Image.open(tmp_path / "out.png").size == (40, 30)
    model.rename(tmp_path / "model")
    for command, remedy in REFUSED.items():
        refused = run(installed, tmp_path, "rdmd", *command.split())
        assert refused.returncode == 2, refused.stderr
        assert remedy in refused.stderr
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
