"""Denoisers of diffusers checkpoints, against the schedulers of diffusers, and the checkpoints that are refused."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, EDMEulerScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rdmd import config
from rdmd.diffusion.preconditioning import EDMPrecond, Preconditioned, VPPrecond
from rdmd.errors import UserError
from rdmd.networks.build import build_denoiser, load_weights, save_weights
from rdmd.networks.diffusers_import import open_checkpoint
from rdmd.networks.unet2d import load_checkpoint

SHAPE = (3, 8, 8)
RANGE = config.LambdaRange.model_validate({"from": 0.02, "to": 0.5})
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
# Of float32 sums and products in another order, for networks of about ten layers.
TOLERANCE = 1e-5


def small_unet(**changes: object) -> UNet2DModel:
    """Two levels, with attention at the lower."""
    torch.manual_seed(0)
    own = {
        "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4,
        "attention_head_dim": 4, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "dropout": 0.3,
    }  # fmt: skip
    return UNet2DModel(**own | changes).eval()


def saved(folder: Path, scheduler: object = None, unet: UNet2DModel | None = None) -> Path:
    """A pipeline as diffusers saves it."""
    DDPMPipeline(unet or small_unet(), scheduler or DDPMScheduler()).save_pretrained(folder)
    return folder


def loaded(folder: Path) -> Preconditioned:
    checkpoint = open_checkpoint(folder, SHAPE)
    denoiser = build_denoiser(checkpoint.network, SHAPE)
    load_checkpoint(denoiser, checkpoint.weights)
    return denoiser.eval()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    "scheduler",
    [
        DDPMScheduler(clip_sample=False),
        DDIMScheduler(clip_sample=False, beta_schedule="squaredcos_cap_v2"),
        DDIMScheduler(clip_sample=False, beta_schedule="scaled_linear", rescale_betas_zero_snr=True),
    ],
    ids=["ddpm", "ddim", "zero snr"],
)
@torch.no_grad()
def test_a_denoiser_is_the_schedulers_estimate_at_every_step(scheduler, prediction: str, tmp_path: Path):
    scheduler = type(scheduler).from_config(scheduler.config, prediction_type=prediction)
    unet = small_unet()
    D = loaded(saved(tmp_path, scheduler, unet))
    scheduler.set_timesteps(1000)
    abar = scheduler.alphas_cumprod.double()
    # The last step of a schedule with zero signal at its end is at infinite sigma.
    t = torch.arange(len(abar))[abar > 0]
    sigma = ((1 - abar) / abar).sqrt()[t]
    x_0, eps = torch.rand(len(t), *SHAPE) * 2 - 1, torch.randn(len(t), *SHAPE)
    x_t = scheduler.add_noise(x_0, eps, t)
    output = unet(x_t, t).sample
    expected = torch.cat([scheduler.step(output[i : i + 1], i, x_t[i : i + 1]).pred_original_sample for i in t])
    x = (x_t.double() / abar[t].sqrt().view(-1, 1, 1, 1)).float()
    # The terms of both are as large as sigma, and so are their errors: against float64 both are 1.3e-4 off at sigma 141
    # for epsilon, and no closer to each other than to that.
    error = (D(x, sigma.float()) - expected).abs().amax((1, 2, 3)) / (1 + sigma)
    assert error.max() < TOLERANCE


@torch.no_grad()
def test_the_denoiser_of_edm_is_the_schedulers(tmp_path: Path):
    scheduler, unet = EDMEulerScheduler(sigma_data=0.7), small_unet()
    D = loaded(saved(tmp_path, scheduler, unet))
    assert isinstance(D, EDMPrecond)
    # sigma_data also weights the losses.
    assert open_checkpoint(tmp_path, SHAPE).network.sigma_data == 0.7
    for sigma in scheduler.sigmas[:-1:50]:
        x = torch.randn(2, *SHAPE) * (1 + sigma)
        output = unet(scheduler.precondition_inputs(x, sigma), scheduler.precondition_noise(sigma)).sample
        expected = scheduler.precondition_outputs(x, output, sigma)
        assert (D(x, sigma) - expected).abs().max() < TOLERANCE * (1 + sigma)


def test_between_the_steps_t_is_linear_in_the_logarithm_of_sigma():
    class Step(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return t[:, None].expand_as(x)

    abar = DDPMScheduler().alphas_cumprod
    D = VPPrecond(Step(), abar, "sample")
    log_sigma = ((1 - abar.double()) / abar.double()).log() / 2
    ends = torch.tensor([1e-6, 1e6])
    between = (0.75 * log_sigma[:-1] + 0.25 * log_sigma[1:]).exp().float()
    found = D(torch.zeros(1001, 2), torch.cat([between, ends]))[:, 0]
    # ln(sigma) is below 5 in float32, whose rounding is up to 4e-7, and grows by at least 0.005 from step to step.
    torch.testing.assert_close(
        found, torch.cat([torch.arange(999) + 0.25, torch.tensor([0.0, 999.0])]), atol=1e-4, rtol=0
    )


@torch.no_grad()
def test_weights_of_older_versions_have_other_names(tmp_path: Path):
    D = loaded(saved(tmp_path / "new"))
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    tensors = load_file(tmp_path / "new" / WEIGHTS)
    for new, old in names.items():
        tensors = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in tensors.items()}
    assert any("proj_attn" in name for name in tensors)
    save_file(tensors, tmp_path / "old" / WEIGHTS)
    # Older pipelines of one network have all files in one folder.
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in ("unet/config.json", "scheduler/scheduler_config.json", WEIGHTS):
        shutil.copy(tmp_path / "old" / file, flat)
    x = torch.randn(2, *SHAPE)
    for folder in (tmp_path / "old", flat):
        assert torch.equal(loaded(folder)(x, 1.0), D(x, 1.0))


@torch.no_grad()
def test_lambda_is_added_to_the_noise_embedding_and_begins_at_nothing(tmp_path: Path):
    network = open_checkpoint(saved(tmp_path / "checkpoint"), SHAPE).network
    teacher = loaded(tmp_path / "checkpoint")
    save_weights(teacher, tmp_path / "teacher.safetensors")
    conditioned = build_denoiser(network, SHAPE, RANGE)
    load_weights(conditioned, tmp_path / "teacher.safetensors", of_teacher=True)
    x, lam = torch.randn(3, *SHAPE), torch.tensor([0.02, 0.1, 0.5])
    # Adding the zero embedding changes no bit.
    assert torch.equal(conditioned(x, 1.0, lam), teacher(x, 1.0))
    for name, weight in conditioned.named_parameters():
        if "class_embedding.layer1" in name:
            weight += torch.randn_like(weight)
    assert (conditioned(x, 1.0, lam) - teacher(x, 1.0)).abs().amax((1, 2, 3)).min() > 1e-3


def test_only_a_teacher_in_training_drops_out(tmp_path: Path):
    network = open_checkpoint(saved(tmp_path), SHAPE).network

    def rates(D: nn.Module) -> set[float]:
        return {part.p for part in D.modules() if isinstance(part, nn.Dropout)}

    assert rates(build_denoiser(network, SHAPE, dropout=True)) >= {0.3}
    assert rates(build_denoiser(network, SHAPE)) == {0.0}


def test_recomputed_activations_give_the_same_gradients(tmp_path: Path):
    x, gradients = torch.randn(2, *SHAPE), []
    saved(tmp_path)
    for resolution in (None, 8):
        D = loaded(tmp_path).train()
        D.get_submodule("model").recompute_activations(resolution)  # type: ignore[operator]
        D(x, 1.0).square().mean().backward()
        gradients.append([weight.grad for weight in D.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert D.get_submodule("model.unet").is_gradient_checkpointing


def test_a_checkpoint_of_the_hub_comes_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="checkpoint some/faces cannot be downloaded"):
        open_checkpoint(Path("hf:some/faces"), SHAPE)
    with pytest.raises(UserError, match="cannot be downloaded"):
        open_checkpoint(Path("hf:not a name"), SHAPE)
    kept = tmp_path / "models--some--faces"
    saved(kept / "snapshots" / "abc")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    assert open_checkpoint(Path("hf:some/faces"), SHAPE).weights == kept / "snapshots" / "abc" / WEIGHTS


def changed(file: str, **values: object):
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "unet" / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["conv_in.weight"]
    save_file(tensors, folder / WEIGHTS)


def test_a_pickle_of_weights_is_never_read(tmp_path: Path):
    checkpoint = open_checkpoint(saved(tmp_path), SHAPE)
    as_pickle(tmp_path)
    with pytest.raises(UserError, match="diffusers cannot load"):
        load_checkpoint(build_denoiser(checkpoint.network, SHAPE), checkpoint.weights)


UNET, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"
REFUSED = {
    "another network": (changed(UNET, _class_name="UNet2DConditionModel"), "class UNet2DConditionModel"),
    "a class for each image": (changed(UNET, num_class_embeds=10), "a class for each image"),
    "another time embedding": (changed(UNET, time_embedding_type="fourier"), "time embedding 'fourier'"),
    "learned variances": (changed(UNET, out_channels=6), "from 3 to 6 channels"),
    "too many levels": (changed(UNET, down_block_types=["DownBlock2D"] * 5), "halves images 4 times"),
    "levels that do not fit": (changed(UNET, block_out_channels=[8]), "diffusers builds no UNet2DModel"),
    "another scheduler": (changed(SCHEDULER, _class_name="ScoreSdeVeScheduler"), "class ScoreSdeVeScheduler"),
    "another prediction": (changed(SCHEDULER, prediction_type="flow"), "the prediction 'flow'"),
    "no scheduler": (lambda folder: (folder / SCHEDULER).unlink(), "neither scheduler/scheduler_config.json nor"),
    "pickled weights": (as_pickle, "neither unet/diffusion_pytorch_model.safetensors nor"),
    "settings that are none": (lambda folder: (folder / UNET).write_text("?"), "not a JSON file of settings"),
    "damaged weights": (lambda folder: (folder / WEIGHTS).write_bytes(b"?"), "diffusers cannot load"),
    "a tensor too few": (without_a_tensor, "no tensor `conv_in.weight`"),
    "another width": (changed(UNET, block_out_channels=[16, 16]), "diffusers cannot load"),
    "no folder": (shutil.rmtree, "not a folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_such_checkpoint_is_refused_in_a_sentence(case: str, tmp_path: Path):
    change, message = REFUSED[case]
    change(saved(tmp_path / "checkpoint"))
    with pytest.raises(UserError, match=message) as refused:
        loaded(tmp_path / "checkpoint")
    assert str(tmp_path) in str(refused.value) or "diffusers builds" in message
