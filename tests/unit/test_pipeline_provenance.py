"""The provenance that the report states, taken from real files."""

import subprocess
from pathlib import Path

import pytest
import yaml

from rdmd import config
from rdmd.files import sha256_of, write_json
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import ModelCard, write_model
from rdmd.pipeline.provenance import SECTIONS, provenance_of
from rdmd.training.run_folder import Point, RunFolder, curve_line
from tests.conftest import ROOT, params, tiny_digits


@pytest.fixture
def settings() -> config.Settings:
    return config.parse(params("digits", tiny_digits), "params.yaml")


@pytest.fixture
def layout(tmp_path: Path, settings: config.Settings) -> Layout:
    """A teacher, whose run is still there, and two generators, whose runs are gone."""
    made = Layout(tmp_path)
    for folder, lam in ((made.teacher, None), (made.generators / "lambda-0.5", 0.5), (made.generators / "a", 0.05)):
        weights = tmp_path / "weights"
        weights.write_bytes(b"w")
        card = ModelCard(
            kind="teacher" if lam is None else "generator",
            experiment="digits",
            network=settings.network,
            sample_shape=settings.sample_shape,
            fit="crop",
            lam=lam,
            run=f"run-of-{folder.name}",
            train_seconds=12.5,
            trained_on="CPU",
            sha256=sha256_of(weights),
            target_digest="b" * 64,
        )
        write_model(folder, card, weights)
    run = RunFolder(made.runs / "run-of-teacher")
    run.path.mkdir(parents=True)
    run.curves_file.write_text("".join(curve_line(Point(step, {"loss": 1 / step})) for step in (10, 20)))
    run.weights.write_bytes(b"w")
    write_json(
        run.result_file,
        {
            "steps": 20,
            "sha256": sha256_of(run.weights),
            "train_seconds": 12.5,
            "device": "CPU",
            "peak_memory_mib": 700.0,
            "parameters": 5,
        },
    )
    return made


def test_what_a_run_left_is_taken_and_what_is_gone_is_named(settings: config.Settings, layout: Layout):
    provenance = provenance_of(settings, layout)
    assert [(one.name, one.steps, one.seconds) for one in provenance.models] == [
        ("teacher", 20, 12.5),
        ("a", None, 12.5),
        ("lambda-0.5", None, 12.5),
    ]
    curves = [one.curve for one in provenance.models]
    assert curves == [[Point(10, {"loss": 0.1}), Point(20, {"loss": 0.05})], [], []]


def test_a_result_of_another_version_is_done_without(settings: config.Settings, layout: Layout):
    (layout.runs / "run-of-teacher" / "result.json").write_text('{"of": "another version"}')
    assert provenance_of(settings, layout).models[0].steps is None


def test_the_settings_are_those_of_the_run(settings: config.Settings, layout: Layout):
    provenance = provenance_of(settings, layout)
    shown = yaml.safe_load(provenance.settings)
    assert list(shown) == list(SECTIONS)
    assert shown["distill"]["lambdas"] == settings.distill.lambdas
    facts = dict(provenance.facts)
    assert facts["generators"].startswith("λ = 0.05, 0.5; 30 steps of 64 samples")
    assert "classes 2" in facts["source"]
    assert facts["baselines"] == "SDEdit (sigmas 1, steps 3)"


def test_every_section_that_is_shown_makes_the_stage_run_again():
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["evaluate"]
    assert set(stage["params"]) == set(SECTIONS)


def test_settings_and_what_a_run_writes_are_no_edits_of_the_code(settings: config.Settings, layout: Layout):
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
        return subprocess.run(command, cwd=layout.root, capture_output=True, text=True, check=True).stdout.strip()

    for name in ("code.py", "params.yaml", "dvc.lock"):
        (layout.root / name).write_text("a = 1\n")
    assert provenance_of(settings, layout).commit is None
    git("init", "--quiet")
    git("add", "code.py", "params.yaml", "dvc.lock")
    git("commit", "--quiet", "--message", "first")
    provenance = provenance_of(settings, layout)
    assert (provenance.commit, provenance.edited) == (git("rev-parse", "HEAD"), False)
    for name in ("params.yaml", "dvc.lock"):
        (layout.root / name).write_text("a = 2\n")
    assert not provenance_of(settings, layout).edited
    (layout.root / "code.py").write_text("a = 2\n")
    provenance = provenance_of(settings, layout)
    assert provenance.edited and "not committed" in dict(provenance.facts)["code"]
