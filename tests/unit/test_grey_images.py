"""Grey images and 16 bits: the same values from reading to writing."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import rdmd
from rdmd import config
from rdmd.config import Digits, Domains, ImageFolder, Noise, Preprocess, Settings
from rdmd.data.expectations import checks, validate
from rdmd.data.preprocess import preprocess
from rdmd.data.readers.images import Form, UnreadableError, decode, picture_of, to_pil
from rdmd.data.sampling import StepRandom
from rdmd.data.shards import read_split
from rdmd.data.transforms import as_rgb, fit, random_crops, to_pixels, to_unit
from rdmd.data.view import open_domain
from rdmd.distillation.generator import Generator
from rdmd.errors import UserError
from rdmd.evaluation import faithfulness
from rdmd.evaluation.corruption import corrupt
from rdmd.networks.build import build_denoiser
from rdmd.networks.classifier import ClassifierNet
from rdmd.networks.efficientnet_lite import resized
from rdmd.pipeline.translate import translate_path
from rdmd.serving.export import export_onnx
from rdmd.serving.model import Model
from rdmd.serving.request import RequestError, answer

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
R = 8


def deep(height: int = R, width: int = R, white: int = 65535, seed: int = 0) -> np.ndarray:
    """A grey disc of 16 bits on black, uint16 (height, width), with a few values of its own."""
    y, x = np.mgrid[:height, :width]
    values = np.clip(1.2 - np.hypot(y - height / 2, x - width / 2) / (height / 2), 0, 1) * white
    return (values * np.random.default_rng(seed).uniform(0.5, 1, values.shape)).astype(np.uint16)


def file_of(image: Image.Image, format: str = "PNG") -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format)
    return io.BytesIO(file.getvalue())


class Same(nn.Module):
    def forward(self, x: Tensor, lam: object = None, z: object = None) -> Tensor:
        return x


def grey_model(white: int | None = None) -> Model:
    return Model(Same(), (1, R, R), "crop", CPU, white=white)


def settings_of(folder: Path, **chosen: object) -> Settings:
    settings = config.load(ROOT / "experiments" / "folder.yaml")
    domains = Domains(**{n: ImageFolder(reader="images", path=folder / n) for n in ("source", "target")})
    sized = Preprocess(kind="images", resolution=R, test_fraction=0.3, **chosen)
    return settings.model_copy(update={"domains": domains, "preprocess": sized})


def save(folder: Path, *images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")


# Reading


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_read_and_written_unchanged(format: str):
    values = deep()
    read = decode(file_of(Image.fromarray(values), format), form=Form(1))
    assert read.dtype == np.uint16 and np.array_equal(read[..., 0], values)
    again = Image.open(file_of(to_pil(read), format))
    assert again.mode == "I;16" and np.array_equal(np.asarray(again), values)


def test_white_brings_a_camera_of_12_bits_to_the_whole_range_and_back():
    values = deep(white=4095)
    with pytest.raises(UnreadableError, match=r"set preprocess\.white"):
        decode(file_of(Image.fromarray(values)), form=Form(1))
    read = decode(file_of(Image.fromarray(values)), form=Form(1, white=4095))
    assert np.abs(read[..., 0] - values * (65535 / 4095)).max() <= 0.5
    assert np.array_equal(np.asarray(to_pil(read, white=4095)), values)
    rgb = decode(file_of(Image.fromarray(values)), form=Form(3, white=4095))
    assert rgb.dtype == np.uint8 and rgb.max() == np.rint(int(values.max()) * 255 / 4095)


def test_auto_sees_grey_in_what_is_stored_as_rgb():
    grey = np.repeat(np.arange(64, dtype=np.uint8).reshape(R, R, 1), 3, axis=2)
    assert decode(file_of(Image.fromarray(grey)), form=Form("auto")).shape == (R, R, 1)
    grey[0, 0, 2] += 1
    assert decode(file_of(Image.fromarray(grey)), form=Form("auto")).shape == (R, R, 3)


@pytest.mark.parametrize("how", ["crop", "pad"])
def test_resizing_is_that_of_8_bits_but_finer(how: str):
    coarse = (deep(30, 22) // 257).astype(np.uint8)
    expected = fit(np.repeat(coarse[..., None], 3, axis=2), R, how)
    fine = fit((coarse.astype(np.uint16) * 257)[..., None], R, how)
    assert fine.dtype == np.uint16 and fine.shape == (R, R, 1)
    # Pillow rounds twice where it resizes 8 bits, once for each direction.
    assert np.abs(fine[..., 0] / 257 - expected[..., 0]).max() <= 1.01
    assert all(crop.shape == (R, R, 1) for crop in random_crops(deep(20, 30)[..., None], R, 3, 0.5))


def test_pixels_of_16_bits_pass_the_range_of_networks_unchanged():
    levels = torch.arange(65536).to(torch.uint16)
    unit = to_unit(levels)
    assert unit[0] == -1 and unit[-1] == 1 and torch.equal(to_pixels(unit, 16), levels)
    assert torch.equal(as_rgb(levels[None, None, None])[0, 0, 0], (torch.arange(65536) / 257).round().byte())


# Shards


def test_shards_keep_16_bits_and_training_sees_them(tmp_path: Path):
    images = [deep(seed=i) for i in range(9)]
    save(tmp_path / "source", *images, (deep(seed=9) // 257).astype(np.uint8))
    manifest = preprocess(settings_of(tmp_path, channels="auto"), "source", tmp_path / "shards")
    assert (manifest.channels, manifest.bits, manifest.sample_shape) == (1, 16, (R, R, 1))
    stored = [read_split(tmp_path / "shards", split).data for split in ("train", "test")]
    assert all(part.dtype == torch.uint16 and part.shape[1:] == (1, R, R) for part in stored)
    found = {part.numpy().tobytes() for part in torch.cat(stored)}
    assert {image.tobytes() for image in images} <= found
    assert (deep(seed=9) // 257 * 257).astype(np.uint16).tobytes() in found, "8 bits of a domain with 16 get 16"
    batch = open_domain(tmp_path / "shards", "train", CPU).batch(4, StepRandom(0, 0, 0, CPU), "x")
    assert batch.shape == (4, 1, R, R) and torch.equal(to_unit(to_pixels(batch, 16)), batch)


def test_one_colour_image_makes_a_domain_of_auto_coloured(tmp_path: Path):
    colour = np.random.default_rng(0).integers(0, 256, (R, R, 3), np.uint8)
    save(tmp_path / "source", *(deep(seed=i) for i in range(9)), colour)
    manifest = preprocess(settings_of(tmp_path, channels="auto"), "source", tmp_path / "shards")
    assert (manifest.channels, manifest.bits) == (3, 8)
    only = preprocess(settings_of(tmp_path, channels=1), "source", tmp_path / "grey")
    assert (only.channels, only.bits) == (1, 16)


def test_domains_must_agree_on_their_channels(tmp_path: Path):
    rng = np.random.default_rng(0)
    save(tmp_path / "source", *(deep(seed=i) for i in range(8)))
    save(tmp_path / "target", *(rng.integers(0, 256, (R, R, 3), np.uint8) for _ in range(8)))
    settings = settings_of(tmp_path, channels="auto")
    for name in ("source", "target"):
        preprocess(settings, name, tmp_path / "shards" / name)
    with pytest.raises(UserError, match=r"the source is grey, and the target has colours; set preprocess\.channels"):
        validate(settings, tmp_path / "shards", tmp_path / "v.json", tmp_path / "docs")


def test_the_expectations_know_the_range_of_16_bits(tmp_path: Path):
    settings = settings_of(tmp_path, channels="auto").settled(1)
    suite = checks(settings, "source", bits=16)
    assert suite[0].value_set == ["8x8x1"] and suite[1].value_set == ["uint16"] and suite[4].max_value == 65535


def test_what_has_no_channels_of_its_own_needs_a_number():
    settings = config.load(ROOT / "experiments" / "digits_dmd.yaml").model_dump(by_alias=True, exclude_unset=True)
    assert isinstance(config.load(ROOT / "experiments" / "digits_dmd.yaml").domains.source, Noise)
    for channels, problem in (("auto", "noise"), (1, "colour is 'hue'")):
        settings["preprocess"]["channels"] = channels
        settings["domains"]["target"] |= {"colour": "hue"}
        with pytest.raises(ValueError, match=problem):
            Settings.model_validate(settings)
    assert isinstance(
        Settings.model_validate(settings | {"preprocess": {**settings["preprocess"], "channels": 3}}).domains.target,
        Digits,
    )


# Translating


def test_a_translation_has_the_bits_the_units_and_the_transparency_of_its_file(tmp_path: Path):
    (tmp_path / "in").mkdir()
    values, small = deep(white=4095), (deep(seed=1) // 257).astype(np.uint8)
    alpha = np.arange(64, dtype=np.uint8).reshape(R, R)
    Image.fromarray(values).save(tmp_path / "in" / "deep.tif")
    Image.fromarray(small).save(tmp_path / "in" / "small.png")
    with_alpha = Image.fromarray(np.full_like(small, 255))
    with_alpha.putalpha(Image.fromarray(alpha))
    with_alpha.save(tmp_path / "in" / "alpha.png")
    model = grey_model(white=4095)
    assert translate_path(model, tmp_path / "in", tmp_path / "out").written == 3
    opened = {path.stem: Image.open(path) for path in (tmp_path / "out").iterdir()}
    assert {name: image.mode for name, image in opened.items()} == {"deep": "I;16", "small": "L", "alpha": "LA"}
    assert np.array_equal(np.asarray(opened["deep"]), values) and np.array_equal(np.asarray(opened["small"]), small)
    assert np.array_equal(np.asarray(opened["alpha"].getchannel("A")), alpha)
    translate_path(model, tmp_path / "in" / "deep.tif", tmp_path / "out" / "again.tif")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "again.tif")), values)
    translate_path(grey_model(), tmp_path / "in" / "alpha.png", tmp_path / "out" / "no-alpha.jpg")
    assert Image.open(tmp_path / "out" / "no-alpha.jpg").mode == "L"


def test_a_served_grey_model_answers_files_of_16_bits_and_arrays_of_8():
    values = deep()
    text = base64.b64encode(file_of(Image.fromarray(values)).getvalue()).decode()
    (answered,) = answer(grey_model(), [text])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(answered)))), values)
    array = (values[..., None] // 257).astype(np.uint8)
    assert np.array_equal(answer(grey_model(), [array.tolist()])[0], array)
    with pytest.raises(RequestError, match=r"\(H, W, 1\)"):
        answer(grey_model(), [np.repeat(array, 3, axis=2)])


def test_the_onnx_file_of_a_grey_model_is_the_model(tmp_path: Path):
    network = config.ImageNetwork(kind="ddpmpp", model_channels=8, channel_mult=[1], num_blocks=1, attn_resolutions=[])
    generator = Generator(build_denoiser(network, (1, R, R)), 1.0).eval()
    assert export_onnx(Model(generator, (1, R, R), "crop", CPU), tmp_path / "grey.onnx") <= 1


def test_the_library_takes_grey_arrays_of_16_bits(tmp_path: Path):
    target = np.stack([deep(seed=i) for i in range(12)])[:, None]
    teacher = rdmd.train_teacher(target, steps=2, batch=4, model_channels=8, progress=False)
    assert teacher.card.sample_shape == (1, R, R)
    translator = rdmd.distill(teacher, target, lam=0.1, steps=2, batch=4, progress=False)
    translator.save_pretrained(tmp_path / "saved")
    translator = rdmd.Translator.from_pretrained(tmp_path / "saved")
    outputs = translator(target)
    assert outputs.dtype == np.uint16 and outputs.shape == target.shape and len(np.unique(outputs % 257)) > 1
    assert translator(Image.fromarray(target[0, 0])).mode == "I;16"
    transparent = Image.fromarray((target[0, 0] // 257).astype(np.uint8))
    transparent.putalpha(77)
    assert translator(transparent).getchannel("A").getextrema() == (77, 77)
    assert rdmd.image_grid({"grey": target, "translated": outputs}, rows=2).mode == "RGB"
    scores = rdmd.evaluate(outputs, target, target)
    assert scores.colour_error is None and scores.cost is not None and scores.psnr < 100


# Measuring


def test_metrics_of_16_bits_have_the_white_of_16_bits():
    x = torch.from_numpy(deep()[None, None])
    y = torch.from_numpy(np.where(deep() == deep().max(), deep() - 1, deep()).astype(np.uint16)[None, None])
    assert faithfulness.cost(x, y).item() == pytest.approx((2 / 65535) ** 2 / 64)
    far = torch.zeros_like(x)
    mse = (x.double() ** 2).mean()
    assert faithfulness.psnr(x, far).item() == pytest.approx(10 * torch.log10(65535**2 / mse).item())
    small = torch.from_numpy((deep() // 257).astype(np.uint8)[None, None])
    same = torch.from_numpy(small.numpy().astype(np.uint16) * 257)
    for metric in (faithfulness.cost, faithfulness.psnr, faithfulness.ssim, faithfulness.l2_norm01):
        assert metric(same, torch.zeros_like(same)).item() == pytest.approx(
            metric(small, torch.zeros_like(small)).item()
        )
        assert metric(small, same).item() == metric(small, small).item(), "8 bits compare with 16"


def test_feature_networks_repeat_grey_and_read_16_bits_as_8():
    small = torch.from_numpy((deep() // 257).astype(np.uint8)[None, None])
    same = torch.from_numpy(small.numpy().astype(np.uint16) * 257)
    rgb = small.expand(-1, 3, -1, -1)
    for see in (ClassifierNet(R, 4, 2).features, lambda images: resized(images, 16)):
        assert torch.allclose(see(small), see(rgb), atol=1e-6) and torch.allclose(see(same), see(rgb), atol=1e-5)
    rng = torch.Generator().manual_seed(0)
    assert corrupt(same, "noise", 0.5, rng).dtype == torch.uint16


def test_a_picture_with_a_transparent_value_of_16_bits_keeps_it():
    values = deep()
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", transparency=0)
    picture = picture_of(Image.open(io.BytesIO(file.getvalue())), Form(1))
    assert picture.alpha is not None
    assert np.array_equal(np.asarray(picture.alpha) == 0, values == 0) and (picture.pixels[values == 0] == 65535).all()


def test_the_card_of_a_model_from_before_grey_images_is_read(tmp_path: Path):
    from rdmd.pipeline.model_card import ModelCard

    known = {
        "kind": "teacher", "experiment": "old", "network": {"kind": "mlp"}, "sample_shape": [2], "fit": "crop",
        "run": "0", "train_seconds": 1.0, "trained_on": "cpu", "sha256": "0", "target_digest": "0",
    }  # fmt: skip
    assert ModelCard.model_validate_json(json.dumps(known)).white is None
