"""The container files, which no container has run here: their commands and versions hold."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINS = dict(re.findall(r"^([a-z0-9.-]+)(?:\[[^]]*\])?==([^ ]+)", LOCK, re.MULTILINE))


def test_the_lock_of_a_cpu_image_keeps_every_pin_and_drops_the_hashes_of_torch_alone(tmp_path: Path):
    (edit,) = re.findall(r"(sed -i .*? requirements\.lock)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    (tmp_path / "requirements.lock").write_text(LOCK, encoding="utf-8")
    subprocess.run(edit, shell=True, check=True, cwd=tmp_path)
    edited = (tmp_path / "requirements.lock").read_text(encoding="utf-8")

    def packages(lock: str) -> dict[str, list[str]]:
        stanzas = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
        return {stanza.split(" ")[0].strip(): re.findall(r"sha256:\w+", stanza) for stanza in stanzas}

    before, after = packages(LOCK), packages(edited)
    assert list(before) == list(after)
    changed = {name.split("==")[0] for name in before if before[name] != after[name]}
    assert changed == {"torch", "torchvision"}
    assert not any(after[f"{name}=={PINS[name]}"] for name in changed)


@pytest.mark.parametrize(
    ("file", "pattern", "package"),
    [
        ("serve.Dockerfile", r"uv==([0-9.]+)", "uv"),
        ("compose/mlflow.Dockerfile", r'"mlflow==([0-9.]+)"', "mlflow"),
        ("compose/compose.yaml", r"prefecthq/prefect:([0-9.]+)-python", "prefect"),
    ],
)
def test_the_images_have_the_versions_of_the_lock(file: str, pattern: str, package: str):
    assert re.findall(pattern, (ROOT / file).read_text(encoding="utf-8")) == [PINS[package]]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_pipeline_image_names_a_user_whom_the_image_does_not_know():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    variables = dict(re.findall(r"\b([A-Z_]+)=(\S+)", " ".join(re.findall(r"^ENV (.*)", text, re.MULTILINE))))
    # What DVC calls for its cache of the machine.
    code = "import getpass, os; os.setuid(54321); print(getpass.getuser())"
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert done.stdout.strip() == "rdmd", done.stderr


def test_the_pipeline_image_installs_the_project_from_the_files_that_it_copies(tmp_path: Path):
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for name in " ".join(re.findall(r"^COPY (.*) \./$", text, re.MULTILINE)).split():
        shutil.copy(ROOT / name, tmp_path)
    code = "from setuptools import build_meta; build_meta.build_editable('.')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        (path,) = [wheel.read(name).decode().strip() for name in wheel.namelist() if name.endswith(".pth")]
    assert path == str(tmp_path)
