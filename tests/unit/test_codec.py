"""Codecs against diffusers' own encoding and decoding, and the autoencoders that are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file

from rdmd.config.reading import parse
from rdmd.distillation.costs import InPixels, squared_l2
from rdmd.errors import UserError
from rdmd.networks.codec import Codec, codec_for, load_codec, open_codec
from rdmd.networks.diffusers_import import codec_folder
from rdmd.pipeline.experiments import missing_files
from tests.conftest import params, tiny_digits

WEIGHTS = "diffusion_pytorch_model.safetensors"


def kl(**changes: object) -> AutoencoderKL:
    """A random autoencoder that halves images once; its scale gives latents of random images about unit variance."""
    torch.manual_seed(0)
    own = {
        "block_out_channels": (8, 16), "down_block_types": ("DownEncoderBlock2D",) * 2, "norm_num_groups": 4,
        "up_block_types": ("UpDecoderBlock2D",) * 2, "latent_channels": 4, "scaling_factor": 2.0, "shift_factor": 0.1,
    }  # fmt: skip
    return AutoencoderKL(**own | changes).eval()


def tiny() -> AutoencoderTiny:
    torch.manual_seed(0)
    channels, blocks = (8, 8, 8), (1, 1, 1)
    return AutoencoderTiny(
        encoder_block_out_channels=channels, decoder_block_out_channels=channels,
        num_encoder_blocks=blocks, num_decoder_blocks=blocks,
    ).eval()  # fmt: skip


def saved(folder: Path, autoencoder: AutoencoderKL | AutoencoderTiny | None = None) -> Path:
    (autoencoder or kl()).save_pretrained(folder)
    return folder


@torch.no_grad()
def test_latents_are_those_of_diffusers_scaled_and_decode_to_its_images(tmp_path: Path):
    images = torch.rand(5, 3, 16, 16) * 2 - 1
    autoencoder = kl()
    file, codec = open_codec(str(saved(tmp_path / "pipeline" / "vae", autoencoder).parent))
    assert (file.path, file.factor, codec.shape(16, 16)) == (tmp_path / "pipeline" / "vae", 2, (4, 8, 8))
    mean = autoencoder.encode(images).latent_dist.mean
    assert torch.equal(codec.encode(images), (mean - 0.1) * 2.0)
    assert torch.equal(codec.encoded(images), codec.encode(images))
    # Up to the rounding of the scale.
    torch.testing.assert_close(codec(codec.encode(images)), autoencoder.decode(mean).sample, atol=1e-5, rtol=0)
    file, codec = open_codec(str(saved(tmp_path / "tiny", tiny())))
    assert (file.factor, codec.shape(16, 16)) == (4, (4, 4, 4))
    assert torch.equal(codec.encode(images), tiny().encode(images).latents)
    assert torch.equal(codec(codec.encode(images)), tiny().decode(tiny().encode(images).latents).sample)


def test_stored_images_become_stored_latents(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    codec = Codec(kl())
    latents = codec.latents(images)
    assert (latents.shape, latents.dtype) == ((3, 4, 4, 4), np.float16)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_array_equal(latents, codec.encoded(x).permute(0, 2, 3, 1).half().numpy())
    np.testing.assert_array_equal(codec.latents(x.permute(0, 2, 3, 1).numpy()), latents)
    # 257 v of 16 bits is v of 8; the rounding of float16 at most.
    np.testing.assert_allclose(codec.latents(images.astype(np.uint16) * 257), latents, atol=2e-3)
    with pytest.raises(UserError, match="9x8 does not allow"):
        codec.latents(np.zeros((1, 8, 9, 3), dtype=np.uint8))
    with pytest.raises(UserError, match="not finite"):
        Codec(kl(scaling_factor=1e6)).latents(images)


def test_a_codec_is_known_by_its_weights_and_its_scale(tmp_path: Path):
    codec = Codec(kl())
    file = codec.save(tmp_path / "copy")
    assert load_codec(Path(), file, torch.device("cpu")).sha256 == codec.sha256 == Codec(kl()).sha256
    assert Codec(kl(scaling_factor=0.5)).sha256 != codec.sha256
    other = kl()
    with torch.no_grad():
        other.decoder.conv_out.bias[0] += 1
    other.save_pretrained(tmp_path / "copy")
    with pytest.raises(UserError, match="another codec than the model's"):
        load_codec(Path(), file, torch.device("cpu"))


def test_the_cost_in_pixels_reaches_latents_through_the_decoder():
    A = torch.randn(12, 4)
    cost = InPixels(squared_l2, lambda z: z @ A.T)
    x, y = torch.randn(5, 4), torch.randn(5, 4, requires_grad=True)
    cost(x, y).sum().backward()
    torch.testing.assert_close(y.grad, 2 / 12 * (y - x).detach() @ A.T @ A)


def changed(**values: object):
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()


REFUSED = {
    "another network": (changed(_class_name="VQModel"), "class VQModel, and only AutoencoderKL and AutoencoderTiny"),
    "pickled weights": (as_pickle, "holds no diffusion_pytorch_model.safetensors"),
    "damaged weights": (lambda folder: (folder / WEIGHTS).write_bytes(b"?"), "diffusers cannot load"),
    "another width": (changed(block_out_channels=[8, 8]), "diffusers cannot load"),
    "no settings": (lambda folder: (folder / "config.json").unlink(), "neither vae/config.json nor config.json"),
    "no folder": (shutil.rmtree, "not a folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_codec_is_refused_in_a_sentence(case: str, tmp_path: Path):
    change, message = REFUSED[case]
    change(saved(tmp_path / "codec"))
    with pytest.raises(UserError, match=message) as refused:
        open_codec(str(tmp_path / "codec"))
    assert str(tmp_path) in str(refused.value) and "preprocess.codec" in str(refused.value)


def test_a_codec_of_grey_images_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="not of RGB images"):
        open_codec(str(saved(tmp_path, kl(in_channels=1, out_channels=1))))


def test_settings_and_codec_must_fit(tmp_path: Path):
    folder = saved(tmp_path / "codec")

    def change(settings: dict) -> None:
        tiny_digits(settings)
        settings["preprocess"]["codec"] = str(folder)
        settings["network"]["sigma_data"] = 1.0

    def parsed(**sections: dict):
        def more(settings: dict) -> None:
            change(settings)
            for name, values in sections.items():
                settings[name] = (settings.get(name) or {}) | values

        return parse(params("digits", more), "params.yaml")

    assert missing_files(parsed()) == []
    codec_for(parsed())
    with pytest.raises(UserError, match="side of latents 4 cannot be halved 3 times"):
        codec_for(parsed(network={"channel_mult": [1, 1, 1, 1]}))
    with pytest.raises(UserError, match=r"factors\.0 is 8, which does not divide the side of latents 4"):
        codec_for(parsed(baselines={"ilvr": {"factors": [8], "sigma_stops": [0.5], "steps": 2}}))
    with pytest.raises(UserError, match=r"preprocess\.resolution is 9, which the codec"):
        codec_for(parsed(preprocess={"resolution": 9}))
    with pytest.raises(UserError, match="compares images, but samples are latents"):
        parsed(distill={"cost": {"name": "features", "weights": "elsewhere"}})
    with pytest.raises(UserError, match=r"preprocess\.codec is null"):
        parsed(distill={"cost_on": "pixels"}, preprocess={"codec": None})
    (folder / WEIGHTS).unlink()
    assert missing_files(parsed())[-1].startswith(f"{folder} holds no {WEIGHTS}")
    with pytest.raises(UserError, match="cannot be downloaded"):
        codec_folder("hf:not a name")

    def without(settings: dict) -> None:
        change(settings)
        del settings["network"]["sigma_data"]

    with pytest.raises(UserError, match=r"network\.sigma_data is 0\.5, which is for pixels; set it to 1\.0"):
        parse(params("digits", without), "params.yaml")
