"""Training on the latents of a codec: images go in and come out, by the library, the stages and all that serves."""

import json
import shutil
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
from flows.registry.package import PACKAGES, example, packages
from rdmd import config
from rdmd.config.reading import parse
from rdmd.data.manifest import read_manifest
from rdmd.data.preprocess import preprocess
from rdmd.data.readers import avatars
from rdmd.data.shards import read_split, trained_array
from rdmd.data.transforms import to_uint8, to_unit
from rdmd.data.view import open_domain
from rdmd.distillation.generator import own_noise
from rdmd.evaluation.faithfulness import psnr
from rdmd.networks.codec import encoder_for
from rdmd.pipeline.evaluation import evaluate
from rdmd.pipeline.features import train_features
from rdmd.pipeline.jobs import plan_generators
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card, weights_of, write_model
from rdmd.pipeline.training import train_generators, train_teacher
from rdmd.serving.demo import Front
from rdmd.serving.export import export_onnx
from rdmd.serving.model import open_folder
from rdmd.serving.request import answer
from tests.conftest import ROOT, params, tiny_digits
from tests.in_process import InThisProcess
from tests.unit.test_codec import kl, saved

FEW = {"steps": 3, "batch": 4, "progress": False, "device": "cpu"}


def test_the_library_translates_images_by_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    images = torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    teacher = rdmd.train_teacher(images, codec=saved(tmp_path / "codec"), model_channels=8, **FEW)
    assert (teacher.card.sample_shape, teacher.card.outer_shape) == ((4, 8, 8), (3, 16, 16))
    assert teacher.card.network.sigma_data == 1.0
    assert teacher.sample(2, steps=2).shape == (2, 3, 16, 16)
    # The model needs the codec's own folder no more.
    shutil.rmtree(tmp_path / "codec")
    teacher.save_pretrained(tmp_path / "teacher")
    assert torch.equal(rdmd.Teacher.from_pretrained(tmp_path / "teacher", "cpu").sample(2, 2), teacher.sample(2, 2))
    evaluated = {"evaluate_every": 3, "evaluate_n": 8, "target": images}
    translator = rdmd.distill(
        tmp_path / "teacher", images, lam=(0.02, 0.5), input_noise=0.5, cost_on="pixels", folder=tmp_path / "runs",
        **FEW | evaluated,
    )  # fmt: skip
    assert translator.card.source is not None
    (run,) = (tmp_path / "runs").glob("*/result.json")
    again = rdmd.Translator.from_pretrained(run.parent, device="cpu")
    assert torch.equal(again(images, lam=0.1), translator(images, lam=0.1))
    # By hand: encode, read at sigma_init, decode.
    codec, G = translator.codec, translator.model.generator
    z = codec.encoded(images / 127.5 - 1)
    noise = own_noise(images / 127.5 - 1, codec)
    sigma, lam = torch.ones(len(z)), torch.full((len(z),), 0.1)
    by_hand = codec.decoded(G.denoiser(z + 0.5 * noise, sigma, lam)).clamp(-1, 1)
    torch.testing.assert_close(translator(images / 127.5 - 1, lam=0.1), by_hand, atol=1e-5, rtol=0)
    folder = str(tmp_path / "saved")
    translator.save_pretrained(folder)
    again = rdmd.Translator.from_pretrained(folder, device="cpu")
    assert torch.equal(again(images, lam=0.1), translator(images, lam=0.1))
    # Sides that neither the codec nor the U-Net can halve, and an image that is cut into tiles.
    assert again(images[:2, :, :, :13].repeat(1, 1, 1, 9)).shape == (2, 3, 16, 117)
    pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (18, 33, 3), dtype=np.uint8))
    assert np.array_equal(np.asarray(pipe(picture, lam=0.05).images[0]), np.asarray(again(picture, lam=0.05)))
    export_onnx(again.model, tmp_path / "generator.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "generator.onnx", providers=["CPUExecutionProvider"])
    pixels = {"source": images.permute(0, 2, 3, 1).numpy(), "lambda": np.full(len(images), 0.1, dtype=np.float32)}
    (exported,) = session.run(None, pixels | {"noise": noise.numpy()})
    expected = again(images, lam=0.1).permute(0, 2, 3, 1).numpy()
    # Both round the same number, which may lie a float's error to either side of a half.
    assert np.abs(exported.astype(int) - expected.astype(int)).max() <= 1
    codec_file = tmp_path / "saved" / "codec" / "diffusion_pytorch_model.safetensors"
    saved(tmp_path / "saved" / "codec", kl(scaling_factor=3.0))
    assert codec_file.is_file()
    with pytest.raises(rdmd.UserError, match="another codec than the model's"):
        rdmd.Translator.from_pretrained(folder, device="cpu")


def test_the_stages_train_on_latents_and_evaluate_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = saved(tmp_path / "codec")

    def change(settings: dict) -> None:
        tiny_digits(settings)
        settings["preprocess"]["codec"] = str(folder)
        settings["network"] |= {"sigma_data": 1.0, "attn_resolutions": [2]}
        settings["teacher"] |= {"steps": 2, "evaluate_every": 2, "evaluate_n": 8, "sample_every": 2}
        settings["distill"] |= {"lambdas": {"from": 0.02, "to": 0.5}, "steps": 2, "evaluate_every": 2, "evaluate_n": 8}
        settings["distill"] |= {"sample_every": 2}
        settings["evaluate"] |= {"lambdas": [0.02, 0.5]}

    settings, layout = parse(params("digits", change), "params.yaml"), Layout(tmp_path)
    monkeypatch.chdir(ROOT)
    codec = encoder_for(settings)
    manifests = [preprocess(settings, name, layout.shards / name, codec) for name in settings.domains.named]
    assert [None if one.latents is None else one.latents.shape for one in manifests] == [(4, 4, 4), (4, 4, 4), None]
    assert manifests[0].latents.codec == codec.sha256
    latents = trained_array(layout.shards / "target", "train")
    images = read_split(layout.shards / "target", "train").data
    # Other batches round otherwise, by one step of float16.
    expected = codec.latents(images.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(latents, expected, rtol=2**-10, atol=1e-6)
    assert manifests[1].latents.std == pytest.approx(latents.astype(np.float64).std(), rel=1e-6)
    view = open_domain(layout.shards / "target", "train", torch.device("cpu"))
    assert torch.equal(view._at(torch.tensor([3]))[0], torch.from_numpy(latents[3]).permute(2, 0, 1).float())
    monkeypatch.chdir(tmp_path)

    def watch(*_: object) -> nullcontext:
        return nullcontext(lambda points: None)

    processes = InThisProcess()
    train_features(settings, layout)
    train_teacher(settings, layout, watch, processes)
    (run,) = layout.runs.iterdir()
    # A preview of 32 images, eight in a row, above as many samples, each eight times as large as it is.
    assert Image.open(run / "samples" / "2.png").size == (8 * 64, 8 * 64)
    train_generators(settings, layout, watch, processes)
    metrics = evaluate(settings, layout)
    assert {row.method for row in metrics.rows} == {"rdmd", "sdedit", "identity", "target"}
    # Faithfulness is to the images: the identity is not the codec's reconstruction.
    assert next(row for row in metrics.rows if row.method == "identity").cost == 0
    assert all(row.psnr < 100 for row in metrics.rows if row.method in ("rdmd", "sdedit"))
    generator = layout.generators / "lambda-0.02-to-0.5"
    card = read_card(generator)
    assert str(card.codec.path) == "codec"
    # As the registry copies it.
    write_model(tmp_path / "registered", card, weights_of(generator, card))
    shutil.rmtree(folder)
    model = open_folder(tmp_path / "registered", torch.device("cpu"))
    assert model.multiple == 2 * 2 ** (len(settings.network.channel_mult) - 1)
    (text, _) = answer(model.at(0.1), example(card))
    assert isinstance(text, str)
    assert packages(card) == (*PACKAGES, "diffusers")
    front = Front(layout, torch.device("cpu"))
    assert front.translate(np.zeros((9, 20, 3), dtype=np.uint8), 0.1).shape == (9, 20, 3)
    # A later stage needs the codec, and finds out if it is another one.
    with pytest.raises(rdmd.UserError, match="not a folder"):
        plan_generators(settings, layout)
    saved(folder, kl(scaling_factor=3.0))
    with pytest.raises(rdmd.UserError, match="encoded by another codec"):
        plan_generators(settings, layout)
    assert json.loads((layout.shards / "source" / "manifest.json").read_text())["latents"]["codec"] == codec.sha256
    assert read_manifest(layout.shards / "source").trained_shape == (4, 4, 4)


@pytest.mark.slow
def test_portraits_are_translated_by_an_autoencoder_that_is_trained_on_them(tmp_path: Path):
    reader = ROOT / "rdmd" / "data" / "readers" / "avatars.py"

    def images(style: str, name: str) -> dict[str, Tensor]:
        given = {"reader": "avatars", "path": reader, "style": style, "train": 300, "test": 64}
        samples = list(avatars.read(config.Avatars.model_validate(given), 64, name, 0).items)
        parts = {split: np.stack([one.array for one in samples if one.split == split]) for split in ("train", "test")}
        return {split: torch.from_numpy(part).permute(0, 3, 1, 2) for split, part in parts.items()}

    source, target = images("personas", "source"), images("toon-head", "target")
    both = to_unit(torch.cat([source["train"], target["train"]]))
    torch.manual_seed(0)
    widths = {"block_out_channels": (16, 32, 32), "norm_num_groups": 8, "layers_per_block": 1, "shift_factor": 0.0}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    autoencoder = kl(**widths, **blocks).train()
    adam = torch.optim.Adam(autoencoder.parameters())
    for step in range(400):
        adam.param_groups[0]["lr"] = 2e-3 * (1 - step / 400)
        x = both[torch.randint(len(both), (8,))]
        adam.zero_grad()
        (autoencoder.decode(autoencoder.encode(x).latent_dist.mode()).sample - x).square().mean().backward()
        adam.step()
    with torch.no_grad():
        std = autoencoder.encode(both[:64]).latent_dist.mode().std().item()
    autoencoder.register_to_config(scaling_factor=1 / std)
    noise = {"distribution": "lognormal", "mean": -0.4, "std": 1.2}
    common = {"batch": 32, "progress": False, "device": "cpu", "noise": noise}
    codec = saved(tmp_path, autoencoder.eval())
    teacher = rdmd.train_teacher(target["train"], codec=codec, steps=300, model_channels=32, ema=0.99, **common)
    translator = rdmd.distill(teacher, source["train"], lam=0.05, steps=80, ema=0.9, **common)
    x, truth = source["test"], target["test"]
    reconstructed = to_uint8(translator.codec.decoded(translator.codec.encoded(to_unit(x))))
    translated = translator(x)
    # Another portrait of the same style is at 10 dB, and a blur that leaves the features readable at 20.
    assert psnr(x, reconstructed).mean() > 18
    assert translator.codec.encoded(to_unit(x)).std() == pytest.approx(1, abs=0.2)

    def apart(images: Tensor) -> float:
        """From the true counterparts, in levels."""
        return (images.float() - truth.float()).abs().mean().item()

    # 26 against 33: the translations have come nearer to the portraits of the same people in the target's style.
    assert apart(translated) < 0.9 * apart(reconstructed)
