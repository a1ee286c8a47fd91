"""Noise at the generator's input, in training and in an exported file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rdmd import config
from rdmd.data.sampling import StepRandom
from rdmd.distillation.generator import Generator
from rdmd.networks.build import build_denoiser
from rdmd.serving.model import Model
from tests.objectives import CPU, Materials, apart, gradients, take_step

RANGE = config.LambdaRange.model_validate({"from": 0.02, "to": 0.5})
# Of float32 sums in another order, over ten layers.
ROUNDING = 1e-5


def test_parts_of_a_batch_keep_their_noise(tmp_path: Path):
    materials = Materials.make("digits", tmp_path)
    noisy = {"input_noise": 0.5, "batch": 8, "fake_steps": 2}
    whole = materials.distill(**noisy)
    parts = materials.distill({"compute": config.Compute(accumulate=2)}, **noisy)
    logged, logged_parts = take_step(whole), take_step(parts)
    for name, expected in gradients(whole).items():
        assert apart(gradients(parts)[name], expected) < ROUNDING
    assert logged_parts["cost"] == pytest.approx(logged["cost"].item(), rel=ROUNDING)
    # Without the noise it is another step.
    clean = materials.distill(batch=8, fake_steps=2)
    take_step(clean)
    assert apart(gradients(clean)["generator"], gradients(whole)["generator"]) > 100 * ROUNDING


def test_noise_is_new_at_every_step(tmp_path: Path):
    objective = Materials.make("digits", tmp_path).distill(input_noise=0.5, batch=8)
    first, second, again = (objective.draw(StepRandom(0, 0, t, CPU)).z for t in (0, 1, 0))
    assert first is not None and second is not None and again is not None
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


# test_latents exports a generator of images with noise that takes lambda.
@pytest.mark.parametrize(
    ("network", "shape", "lambdas"),
    [
        (
            config.ImageNetwork(kind="ddpmpp", model_channels=8, channel_mult=[1], num_blocks=1, attn_resolutions=[]),
            (3, 8, 8),
            None,
        ),
        (config.PointNetwork(kind="mlp", width=16, depth=2), (2,), RANGE),
    ],
    ids=["images, one lambda", "points, lambda as input"],
)
def test_an_exported_generator_takes_noise_and_lambda_as_inputs(
    network: config.Network, shape: tuple[int, ...], lambdas: config.LambdaRange | None, tmp_path: Path
):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    from rdmd.serving.export import export_onnx

    torch.manual_seed(0)
    denoiser = build_denoiser(network, shape, lambdas)
    with torch.no_grad():
        for weight in denoiser.parameters():
            # As built, what ends the network is almost zero, and every output is the same.
            weight.add_(torch.randn_like(weight), alpha=0.1)
    generator = Generator(denoiser, 1.0, (0.7, 0.3) if lambdas else 0.5, lambdas, 0.1).eval().requires_grad_(False)
    export_onnx(Model(generator, shape, "crop", CPU), tmp_path / "g.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == (
        ["source", "lambda", "noise"] if lambdas else ["source", "noise"]
    )

    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3, *shape)).astype(np.float32)
    more = {"lambda": np.array([0.02, 0.1, 0.5], dtype=np.float32)} if lambdas else {}
    lam = torch.from_numpy(more["lambda"]) if lambdas else None
    if len(shape) == 1:
        source = rng.normal(size=(3, 2)).astype(np.float32)
        expected = generator(torch.from_numpy(source), lam, z=torch.from_numpy(noise)).numpy()
        tolerance = 1e-4
    else:
        source = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
        seen = torch.from_numpy(source).permute(0, 3, 1, 2) / 127.5 - 1
        levels = (generator(seen, lam, z=torch.from_numpy(noise)) * 127.5 + 127.5).round().clamp(0, 255)
        expected, tolerance = levels.permute(0, 2, 3, 1).numpy(), 1  # a half rounded the other way
    (given,) = session.run(None, {"source": source, "noise": noise} | more)
    np.testing.assert_allclose(given.astype(float), expected.astype(float), atol=tolerance)
    (other,) = session.run(None, {"source": source, "noise": -noise} | more)
    assert np.abs(other.astype(float) - given.astype(float)).max() > 10 * tolerance
