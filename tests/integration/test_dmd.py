"""DMD, noise to data, through every stage as library calls: images and points whose source is noise."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from rdmd import config
from rdmd.data.expectations import validate
from rdmd.data.preprocess import preprocess
from rdmd.data.sampling import StepRandom
from rdmd.data.shards import read_split
from rdmd.data.view import FreshNoise
from rdmd.errors import UserError
from rdmd.evaluation.row import Metrics
from rdmd.evaluation.table import format_table, read_metrics
from rdmd.pipeline.evaluation import evaluate
from rdmd.pipeline.features import train_features
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_source import open_generator
from rdmd.pipeline.training import train_generators, train_teacher
from rdmd.training.run_folder import RunFolder
from tests.conftest import ROOT, params, tiny_digits, tiny_points
from tests.in_process import InThisProcess

CPU = torch.device("cpu")


@contextlib.contextmanager
def unwatched(folder: object, run: object) -> Iterator[Callable[[list], None]]:
    yield lambda points: None


def tiny_dmd(settings: dict) -> None:
    source = settings["domains"].pop("source")
    tiny_digits(settings)
    settings["domains"] = {"source": source | {"train": 60, "test": 70}, **settings["domains"]}
    settings["distill"]["lambdas"] = [0]
    del settings["baselines"]


def plane_dmd(settings: dict) -> None:
    tiny_points(settings)
    settings["domains"]["source"] = {"reader": "noise", "path": "n", "std": 10.0, "train": 200, "test": 300}
    settings["distill"] |= {"lambdas": [0], "sigma_init": 10.0}
    del settings["baselines"]


def run(text: str, layout: Layout) -> Metrics:
    settings = config.parse(text, "params.yaml")
    for name in ("source", "target", "features"):
        if getattr(settings.domains, name) is not None:
            preprocess(settings, name, layout.shards / name)
    validate(settings, layout.shards, layout.validation, layout.reports / "data_docs")
    train_features(settings, layout)
    train_teacher(settings, layout, unwatched, InThisProcess())
    train_generators(settings, layout, unwatched, InThisProcess())
    return evaluate(settings, layout)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("images"))
    run(params("digits_dmd", tiny_dmd), layout)
    return layout


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("plane"))
    run(params("swissroll", plane_dmd), layout)
    return layout


def test_the_shards_hold_noise_of_the_deviation_asked_for(images: Layout, plane: Layout):
    drawn = read_split(images.shards / "source", "test").data
    assert drawn.dtype == torch.float32
    assert drawn.shape == (70, 3, 8, 8)
    # 70 * 192 draws: the standard error of their deviation is 80 / sqrt(2 * 13440) = 0.5.
    assert drawn.std().item() == pytest.approx(80, abs=2)
    assert drawn.mean().item() == pytest.approx(0, abs=4 * 80 / 13440**0.5)
    assert not torch.equal(drawn[:60], read_split(images.shards / "source", "train").data)
    assert read_split(plane.shards / "source", "train").data.shape == (200, 2)


def test_rows_have_realism_and_nothing_about_faithfulness(images: Layout, plane: Layout):
    for layout, realism in ((images, "fid"), (plane, "sw2")):
        rows = {row.method: row for row in read_metrics(layout.metrics).rows}
        assert set(rows) == {"rdmd", "teacher", "target"}
        for row in rows.values():
            assert getattr(row, realism) is not None
            faithful = ("cost", "cost_sum", "l2_norm01", "psnr", "ssim", "colour_error", "l2_uvp", "ot_cost")
            assert not [name for name in faithful if getattr(row, name) is not None]
        assert rows["rdmd"].on_front and rows["rdmd"].nfe == 1
        assert rows["teacher"].nfe == 35


def test_the_report_shows_samples_and_one_axis(images: Layout, plane: Layout):
    for layout in (images, plane):
        page = (layout.reports / "index.html").read_text(encoding="utf-8")
        assert "The source is noise" in page
        assert "by cost" not in page
        assert (layout.reports / "pareto.csv").read_text(encoding="utf-8").count("\n") == 1  # the header alone
        for figure in ("pareto.png", "samples.png"):
            pixels = np.asarray(Image.open(layout.reports / figure).convert("RGB"))
            assert (pixels < 250).any(axis=2).mean() > 0.005, figure
        assert "RDMD" in format_table(read_metrics(layout.metrics))


def test_every_step_sees_noise_of_its_own():
    source = FreshNoise((3, 8, 8), 80.0)
    first, again, other = (source.batch(64, StepRandom(seed, 0, 0, torch.device("cpu")), "x") for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # 64 * 192 draws, whose deviation has a standard error of 80 / sqrt(2 * 12288) = 0.5.
    assert first.std().item() == pytest.approx(80, abs=2)


def test_the_run_says_that_its_source_is_fresh_noise(images: Layout):
    sources = {getattr(RunFolder(folder).read_run(), "source_noise", "a teacher") for folder in images.runs.iterdir()}
    assert sources == {"a teacher", 80.0}
    curves = [set(RunFolder(folder).curves()[-1].values) for folder in images.runs.iterdir()]
    assert {"gradient_norm", "fake_loss"} in curves  # and no cost


def test_a_generator_from_noise_does_not_translate(images: Layout):
    with pytest.raises(UserError, match="makes samples of noise and does not translate"):
        open_generator(str(images.generators / "lambda-0"), CPU)
    (generated,) = [f for f in images.runs.iterdir() if RunFolder(f).read_run().kind == "distill"]
    with pytest.raises(UserError, match="makes samples of noise and does not translate"):
        open_generator(str(generated), CPU)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda s: s["distill"].update(lambdas=[0, 0.1]), r"distill.lambdas is \[0.0, 0.1\]; set it to \[0\]"),
        (lambda s: s["distill"].update(sigma_init=1.0), "sigma_init is 1 but domains.source.std is 80.*make them"),
        (lambda s: s["distill"].update(input_noise=0.5), "input_noise is 0.5 but domains.source is noise.*set it to 0"),
        (lambda s: s.update(baselines={"sdedit": {"sigmas": [1.0]}}), "remove `baselines`"),
        (lambda s: s["domains"].pop("features"), "add domains.features"),
        (lambda s: s["domains"].update(target=s["domains"]["source"]), "domains.target.reader is 'noise'"),
        (lambda s: s["domains"]["source"].update(std=0), "`domains.source.std` is 0: input should be greater"),
    ],
)
def test_settings_that_noise_contradicts_are_named(change: Callable[[dict], None], names: str):
    settings = yaml.safe_load((ROOT / "experiments" / "digits_dmd.yaml").read_text(encoding="utf-8"))
    change(settings)
    with pytest.raises(UserError, match=names):
        config.parse(yaml.safe_dump(settings), "params.yaml")


def test_the_shipped_experiment_is_dmd():
    settings = config.load(Path(ROOT / "experiments" / "digits_dmd.yaml"))
    assert isinstance(settings.domains.source, config.Noise)
    assert settings.distill.lambdas == [0]
