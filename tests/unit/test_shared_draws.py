"""One pass of the fake denoiser for both updates."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rdmd import config
from rdmd.data.sampling import StepRandom
from rdmd.diffusion.noise import NoisyBatch
from tests.objectives import CPU, Materials, apart, gradients, take_step

# Sums in another order differ by a few roundings of float32 (6e-8) in each of about ten layers.
ROUNDING = 1e-5


@pytest.fixture(scope="module", params=["digits", "swissroll"])
def materials(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Materials:
    return Materials.make(request.param, tmp_path_factory.mktemp(request.param))


def test_the_joint_step_gives_both_updates_of_two_steps_at_the_same_draws(materials: Materials):
    apart_, joint = materials.distill(batch=8, fake_draws="own"), materials.distill(batch=8, fake_draws="shared")
    batch = joint.draw(StepRandom(0, 0, 0, CPU))
    x_0, logged = apart_.generator_step(batch)
    logged |= apart_.fake_step(NoisyBatch(x_0, batch.sigma, batch.eps))
    x_0_joint, logged_joint = joint.generator_step(batch)
    assert torch.equal(x_0_joint, x_0)
    for name, expected in gradients(apart_).items():
        assert apart(gradients(joint)[name], expected) < ROUNDING
    assert logged_joint == {name: pytest.approx(value.item(), rel=ROUNDING) for name, value in logged.items()}


def test_a_step_with_shared_draws_passes_each_network_once(materials: Materials):
    def passes(**settings: object) -> dict[str, int]:
        objective = materials.distill(batch=8, **settings)
        seen = dict.fromkeys(("generator", "fake", "teacher"), 0)

        def count(name: str) -> None:
            seen[name] += 1

        networks = {**objective.modules, "teacher": objective.teacher}
        for name, network in networks.items():
            network.register_forward_pre_hook(lambda *_, name=name: count(name))
        take_step(objective)
        return seen

    assert passes(fake_draws="shared") == {"generator": 1, "fake": 1, "teacher": 1}
    assert passes() == passes(fake_draws="shared")
    assert passes(fake_draws="own") == {"generator": 1, "fake": 2, "teacher": 1}
    assert passes(fake_draws="shared", fake_steps=3) == {"generator": 3, "fake": 3, "teacher": 1}


def test_the_fakes_gradient_does_not_reach_the_generator_nor_the_other_way(materials: Materials):
    """A fake that is at a loss of zero weight leaves the generator's gradient as it is."""
    shared = {"fake_draws": "shared", "batch": 8}
    usual, other = materials.distill(**shared), materials.distill(**shared)
    other.loss = replace(other.loss, sigma_data=1e3 * usual.loss.sigma_data)
    take_step(usual), take_step(other)
    assert torch.equal(gradients(usual)["generator"], gradients(other)["generator"])
    assert apart(gradients(other)["fake"], gradients(usual)["fake"]) > 100 * ROUNDING
    pulled = materials.distill(run={"lam": 5.0}, **shared)
    take_step(pulled)
    assert torch.equal(gradients(pulled)["fake"], gradients(usual)["fake"])
    assert apart(gradients(pulled)["generator"], gradients(usual)["generator"]) > 100 * ROUNDING


def test_parts_of_a_batch_share_their_draws(materials: Materials):
    shared = {"fake_draws": "shared", "batch": 8}
    whole = materials.distill(**shared)
    parts = materials.distill({"compute": config.Compute(accumulate=4)}, **shared)
    logged, logged_parts = take_step(whole), take_step(parts)
    for name, expected in gradients(whole).items():
        assert apart(gradients(parts)[name], expected) < ROUNDING
    assert logged_parts["fake_loss"] == pytest.approx(logged["fake_loss"].item(), rel=ROUNDING)


def test_nothing_of_a_step_is_kept(tmp_path: Path):
    """The pass that is kept for the fake's update goes with it."""
    objective = Materials.make("swissroll", tmp_path).distill(fake_draws="shared", batch=8)
    x_0, logged = objective.generator_step(objective.draw(StepRandom(0, 0, 0, CPU)))
    assert x_0.grad_fn is None
    assert all(value.grad_fn is None for value in logged.values())
