"""A diffusers checkpoint as teacher: fine-tuned, distilled, served and exported, by the library and by the stages."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import dynamic_modules_utils
from PIL import Image
from torch import Tensor

import rdmd
from flows.registry.package import PACKAGES, packages
from rdmd import config
from rdmd.config.reading import parse
from rdmd.data.preprocess import preprocess
from rdmd.pipeline.experiments import missing_files
from rdmd.pipeline.jobs import plan_generators, plan_teacher
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.pipeline.training import train_generators, train_teacher
from rdmd.serving.diffusers_pipeline import RDMDPipeline
from rdmd.serving.export import export_onnx
from rdmd.serving.model import open_folder
from rdmd.serving.request import answer
from tests.conftest import ROOT, params, tiny_digits
from tests.in_process import InThisProcess
from tests.unit.test_diffusers import saved

FEW = {"steps": 3, "batch": 4, "progress": False, "device": "cpu"}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_library_goes_from_a_checkpoint_to_a_translator_that_takes_lambda(tmp_path: Path, images: Tensor):
    teacher = rdmd.train_teacher(images, init=saved(tmp_path / "checkpoint"), **FEW)
    assert teacher.card.network.kind == "unet2d"
    assert teacher.sample(2, steps=2).shape == (2, 3, 8, 8)
    translator = rdmd.distill(teacher, images, lam=(0.02, 0.5), **FEW)
    translator.save_pretrained(tmp_path / "saved")
    again = rdmd.Translator.from_pretrained(tmp_path / "saved", device="cpu")
    assert torch.equal(again(images, lam=0.1), translator(images, lam=0.1))
    assert not torch.equal(translator(images, lam=0.02), translator(images, lam=0.5))
    # Sides that its levels cannot halve, and an image that is cut into tiles.
    assert translator(images.repeat(1, 1, 1, 9)[..., :67]).shape == (12, 3, 8, 67)
    export_onnx(again.model, tmp_path / "generator.onnx")
    # More samples than the bound within which the export is traced.
    many = images.repeat(6, 1, 1, 1)
    session = onnxruntime.InferenceSession(tmp_path / "generator.onnx", providers=["CPUExecutionProvider"])
    pixels = {"source": many.permute(0, 2, 3, 1).numpy(), "lambda": np.full(len(many), 0.1, dtype=np.float32)}
    (exported,) = session.run(None, pixels)
    expected = translator(many, lam=0.1).permute(0, 2, 3, 1).numpy()
    # Both round the same number, which may lie a float's error to either side of a half.
    assert np.abs(exported.astype(int) - expected.astype(int)).max() <= 1


def test_diffusers_loads_a_saved_translator_as_a_pipeline(
    tmp_path: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
):
    # diffusers copies pipeline.py there.
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    # Our own network, which diffusers does not know.
    teacher = rdmd.train_teacher(images, model_channels=8, **FEW)
    translator = rdmd.distill(teacher, images, lam=(0.02, 0.5), **FEW)
    # After three steps lambda moves no pixel yet.
    for weight in translator.denoiser.parameters():
        weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    folder = str(tmp_path / "saved")
    translator.save_pretrained(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 13, 20, 3), dtype=np.uint8)
    sources = [Image.fromarray(one) for one in pixels]
    expected = [np.asarray(translator(source, lam=0.05)) for source in sources]
    trusted = {"custom_pipeline": folder, "trust_remote_code": True}
    for pipe in (RDMDPipeline.from_pretrained(folder), DiffusionPipeline.from_pretrained(folder, **trusted)):
        assert np.array_equal(np.asarray(pipe(sources[0], lam=0.05).images[0]), expected[0])
        assert np.array_equal(np.stack([np.asarray(one) for one in pipe(sources, lam=0.05).images]), expected)
        other = np.asarray(translator(sources[0], lam=0.5))
        assert not np.array_equal(other, expected[0])
        assert np.array_equal(np.asarray(pipe(sources[0], lam=0.5).images[0]), other)
        with pytest.raises(rdmd.UserError, match=r"takes lambda from 0\.02 to 0\.5"):
            pipe(sources[0], lam=0.9)
        with pytest.raises(rdmd.UserError, match="copy its folder"):
            pipe.save_pretrained(tmp_path / "again")


def test_the_library_and_serving_do_not_import_diffusers():
    code = "import sys, rdmd.library, rdmd.serving.request, rdmd.training.run; print('diffusers' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=environment) == "False\n"


def test_the_stages_do_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = saved(tmp_path / "checkpoint")

    def change(settings: dict) -> None:
        tiny_digits(settings)
        settings["network"] = {"kind": "unet2d"}
        settings["teacher"] |= {"init": str(checkpoint), "steps": 2, "sample_every": 0}
        settings["distill"] |= {"lambdas": {"from": 0.02, "to": 0.5}, "steps": 2, "sample_every": 0}

    settings, layout = parse(params("digits", change), "params.yaml"), Layout(tmp_path)
    monkeypatch.chdir(ROOT)
    for name in ("source", "target"):
        preprocess(settings, name, layout.shards / name)
    monkeypatch.chdir(tmp_path)

    def watch(*_: object) -> nullcontext:
        return nullcontext(lambda points: None)

    train_teacher(settings, layout, watch, InThisProcess())
    train_generators(settings, layout, watch, InThisProcess())
    card = read_card(layout.generators / "lambda-0.02-to-0.5")
    # The folder of a model needs the checkpoint no more, nor does a later stage.
    (tmp_path / "checkpoint").rename(tmp_path / "gone")
    assert plan_generators(settings, layout)[0].network == card.network == read_card(layout.teacher).network
    assert missing_files(settings)[-1].startswith(f"params.yaml: teacher.init is {checkpoint}, which is not a folder")
    with pytest.raises(rdmd.UserError, match="not a folder"):
        plan_teacher(settings, layout)
    model = open_folder(layout.generators / "lambda-0.02-to-0.5", torch.device("cpu"))
    pixels = [np.zeros((9, 20, 3), dtype=np.uint8).tolist()]
    assert np.asarray(answer(model.at(0.1), pixels)).shape == (1, 9, 20, 3)
    assert packages(card) == (*PACKAGES, "diffusers")


def test_settings_and_checkpoint_must_fit(tmp_path: Path, images: Tensor):
    checkpoint = saved(tmp_path / "checkpoint")
    network = config.DiffusersNetwork(kind="unet2d")
    with pytest.raises(rdmd.UserError, match=r"set `network` to \{kind: unet2d"):
        rdmd.train_teacher(images, init=checkpoint, network=config.ImageNetwork(kind="ddpmpp"), **FEW)
    with pytest.raises(rdmd.UserError, match=r"name it as teacher\.init"):
        rdmd.train_teacher(images, network=network, **FEW)
    with pytest.raises(rdmd.UserError, match="halves images 1 times"):
        rdmd.train_teacher(images[..., :7, :7], init=checkpoint, **FEW)

    def change(settings: dict) -> None:
        settings["network"] = {"kind": "unet2d", "unet": {"in_channels": 3}}
        settings["baselines"] = {"neural_ot": {"cost_weights": [1.0], "steps": 2, "batch": 2}}

    with pytest.raises(rdmd.UserError) as refused:
        parse(params("digits", change), "params.yaml")
    for reason in ("teacher.init is null", "remove its other keys", "set baselines.neural_ot to null"):
        assert reason in str(refused.value)
