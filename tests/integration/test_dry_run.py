"""`rdmd dry-run`: every stage of an experiment on a small part of its data, and an estimate."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdmd import cli, config
from rdmd.pipeline.dry_run import Cost, describe, dry_run, shrunk
from rdmd.pipeline.layout import Layout
from tests.conftest import ROOT, params, tiny_points
from tests.in_process import InThisProcess


@contextlib.contextmanager
def unwatched(folder: object, run: object) -> Iterator[Callable[[list], None]]:
    yield lambda points: None


def thin_afhq(settings: dict) -> None:
    """The AFHQ experiment, all but its size: images of 8x8, a thin network."""
    settings["preprocess"]["resolution"] = 8
    settings["network"] |= {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
    settings["teacher"]["batch"] = settings["distill"]["batch"] = 4
    settings["launch"]["threads"] = 1
    settings["domains"]["target"]["path"] = "nowhere"
    settings["baselines"] = {
        "sdedit": {"sigmas": [1.0], "steps": 3},
        "egsde": {"sigmas": [0.5], "repel": [1.0], "attract": [1.0], "factor": 2, "classifier": {"steps": 10}},
    }


def write_images(folder: Path, count: int, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def test_every_stage_runs_on_real_images_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # The next test trains in processes.
    monkeypatch.setattr("rdmd.pipeline.dry_run.TrainingProcesses", InThisProcess)
    monkeypatch.chdir(tmp_path)
    settings = config.parse(params("afhq_cat2wild", thin_afhq), "params.yaml")
    source = settings.domains.source
    assert isinstance(source, config.ImageFolder)
    rng = np.random.default_rng(0)
    for inside in (source.train, source.test):
        write_images(source.path / str(inside), 200, rng)
    said: list[str] = []
    found = {cost.kind: cost for cost in dry_run(settings, tmp_path / "dry", said.append, unwatched)}
    assert any("nowhere does not exist" in line for line in said)
    assert any("random weights replace it" in line for line in said)
    assert len(list((tmp_path / "dry/data/raw/source/train").iterdir())) == 128, "a small part"
    for report in ("index.html", "pareto.png", "samples.png", "metrics.json", "validation.json"):
        assert (tmp_path / "dry/reports" / report).stat().st_size > 0
    steps = {kind: cost.steps for kind, cost in found.items()}
    assert steps == {"target teacher": 20000, "distill": 30000, "EGSDE classifier": 10}
    assert found["distill"].batch == 4
    assert all(cost.step_seconds > 0 and cost.peak_mib > 100 for cost in found.values())


def test_the_command_takes_the_edited_params_file_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "params.yaml").write_text(params("swissroll", tiny_points), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["dry-run"])
    printed = capsys.readouterr()
    assert ended.value.code == 0, printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
    assert "DRY RUN of params.yaml" in printed.out
    assert "target teacher" in printed.out and "60 steps" in printed.out
    # Two lambdas of 40 steps.
    assert "80 steps" in printed.out
    (tmp_path / "teacher.yaml").write_text(params("folder", lambda settings: None), encoding="utf-8")
    (tmp_path / "data/raw/source").mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit):
        cli.main(["dry-run", "teacher.yaml"])
    assert "change domains.source.path" in capsys.readouterr().err
    assert len(list(tmp_path.glob("rdmd-dry-run-*"))) == 1, "what an error names was removed"
    with pytest.raises(SystemExit) as refused:
        cli.main(["dry-run", "other.yaml", "--keep", str(tmp_path)])
    assert refused.value.code == 2
    assert "other.yaml does not exist" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["dry-run", "--keep", str(tmp_path)])
    assert "is not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml")))
def test_every_shipped_experiment_can_be_shrunk(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rdmd.pipeline.dry_run._seconds_per_sample", lambda *_: 9.0)
    settings = config.load(ROOT / "experiments" / f"{name}.yaml")
    dry = shrunk(settings, Layout(tmp_path), lambda line: None)
    assert dry.network == settings.network
    assert dry.preprocess.resolution == settings.preprocess.resolution
    assert (dry.teacher.steps, dry.distill.steps, dry.distill.batch) == (2, 2, 2)
    assert dry.distill.lambdas == settings.distill.lambdas
    assert dry.distill.fake_steps == settings.distill.fake_steps


def test_hours_are_the_time_of_a_step_times_the_steps():
    cost = Cost("distill", "CPU", step_seconds=2.0, measured_batch=2, batch=8, steps=900, peak_mib=2048.0)
    # 8 s a step at batch 8.
    assert cost.hours == pytest.approx(2.0)
    text = describe([cost, cost])
    assert "2 hours: 900 steps of 8 s, batch 8 (measured at 2)" in text
    assert "2.00 GiB, batch 2" in text
    assert "together           4 hours" in text
