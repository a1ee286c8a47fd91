"""The step of teacher and distillation: nothing waits for the device, and how it is computed changes no update."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from rdmd import config
from rdmd.config.reading import parse
from rdmd.data.sampling import StepRandom, seed_global
from rdmd.diffusion.noise import noise_distribution
from rdmd.errors import UserError
from rdmd.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from rdmd.training.compute import Compute
from rdmd.training.distill import DistillObjective
from rdmd.training.loop import StopRequest, train
from rdmd.training.run_folder import RunFolder
from tests.conftest import params, tiny_points
from tests.objectives import CPU, Materials, Objective, accelerator, apart, gradients, take_step

# What is summed in another order differs by a few roundings of float32 (6e-8) a layer, and the networks have about ten.
ROUNDING = 1e-5
KARRAS = config.KarrasLevels(distribution="karras")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    return Materials.make("digits", tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    return Materials.make("swissroll", tmp_path_factory.mktemp("points"))


def both(materials: Materials, **compute: object) -> list[Objective]:
    """Teacher and distillation, computed as `compute` says, with dropout."""
    network = materials.settings.network
    if isinstance(network, config.ImageNetwork):
        network = network.model_copy(update={"dropout": compute.pop("dropout", 0.0)})
    run = {"network": network, "compute": config.Compute(**compute)}
    return [materials.teacher(run), materials.distill(run, fake_steps=2)]


class Waits(TorchDispatchMode):
    """Counts the operations for which the host waits, on a device that works by itself."""

    WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"}

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in self.WAITING:
            self.seen.append(func._schema.name)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(
    "noise", [config.LogNormal(distribution="lognormal"), KARRAS], ids=lambda noise: noise.distribution
)
def test_the_host_waits_for_nothing_in_a_step(digits: Materials, noise: config.NoiseDistribution):
    for objective in (digits.teacher(noise=noise), digits.distill(noise=noise, fake_steps=2)):
        with Waits() as waits:
            take_step(objective)
        assert waits.seen == []


def test_waiting_would_be_seen():
    with Waits() as waits:
        torch.ones(3)[torch.ones(3).argmax()]
    assert waits.seen == ["aten::_local_scalar_dense"]


def test_noise_levels_are_on_the_device_once():
    """A copy at every draw would make the host wait, which on a CPU shows in nothing but the tensor's identity."""

    class OnDevice(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.tables: set[int] = set()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func._schema.name == "aten::index":
                self.tables.add(args[0].data_ptr())
            return func(*args, **kwargs or {})

    draw = noise_distribution(KARRAS)
    with OnDevice() as seen:
        for step in range(3):
            draw(4, StepRandom(0, 0, step, CPU).stream("sigma"))
    assert len(seen.tables) == 1


def test_the_seed_of_a_step_is_the_global_one_of_torch():
    torch.manual_seed(11)
    expected = torch.rand(4)
    seed_global(11, CPU)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_gives_the_update_of_the_whole(digits: Materials, parts: int):
    for whole, cut in zip(both(digits), both(digits, accumulate=parts), strict=True):
        logged, logged_cut = take_step(whole), take_step(cut)
        for name, expected in gradients(whole).items():
            assert apart(gradients(cut)[name], expected) < ROUNDING
        for name, value in logged.items():
            assert logged_cut[name].item() == pytest.approx(value.item(), rel=ROUNDING)


def test_a_last_part_that_is_smaller_counts_for_less(points: Materials):
    run = {"compute": config.Compute(accumulate=3)}
    for whole, cut in [
        (points.teacher(batch=10), points.teacher(run, batch=10)),
        (points.distill(batch=10), points.distill(run, batch=10)),
    ]:
        take_step(whole), take_step(cut)
        for name, expected in gradients(whole).items():
            assert apart(gradients(cut)[name], expected) < ROUNDING


def test_on_and_off_are_words_where_yaml_reads_yes_and_no():
    text = params("swissroll", tiny_points)
    for word, read in [("on", "on"), ("off", "off"), ("cuda_graphs", "cuda_graphs")]:
        assert parse(text.replace("launch:", f"launch:\n  compile: {word}"), "params").launch.compile == read


def test_a_cpu_compiles_only_where_it_is_asked_to(digits: Materials, monkeypatch: pytest.MonkeyPatch):
    def mode(setting: str) -> str | None:
        return digits.teacher({"compute": config.Compute(compile=setting)}).compute.compile_mode

    assert (mode("auto"), mode("off"), mode("on")) == (None, None, "default")
    monkeypatch.setattr("rdmd.training.compute.shutil.which", lambda name: None)
    assert mode("auto") is None
    with pytest.raises(UserError, match=r"launch\.compile is on, .* a C and C\+\+ compiler.*set launch"):
        mode("on")


@contextmanager
def kept_for_the_backward() -> Iterator[list[int]]:
    """Bytes of the tensors that autograd keeps, each storage once."""
    storages: dict[int, Tensor] = {}
    total = [0]

    def keep(saved: Tensor) -> Tensor:
        storages.setdefault(saved.untyped_storage()._cdata, saved)
        return saved

    with saved_tensors_hooks(keep, lambda saved: saved):
        yield total
    total[0] = sum(saved.untyped_storage().nbytes() for saved in storages.values())


@pytest.mark.parametrize("least", [8, 4])
def test_activations_made_again_give_the_same_bits(digits: Materials, least: int):
    """Dropout falls on the same places in both passes."""
    whole, again = both(digits, dropout=0.3), both(digits, dropout=0.3, activation_checkpointing=least)
    for objective, other in zip(whole, again, strict=True):
        take_step(objective), take_step(other)
        for name, expected in gradients(objective).items():
            assert torch.equal(gradients(other)[name], expected)


def test_activations_made_again_are_not_kept(digits: Materials):
    def kept(**compute: object) -> int:
        objective = both(digits, **compute)[0]
        batch = objective.draw(StepRandom(0, 0, 0, CPU))
        with kept_for_the_backward() as total:
            objective.D(batch.x, batch.sigma)
        return total[0]

    everything, upper, all_levels = kept(), kept(activation_checkpointing=8), kept(activation_checkpointing=4)
    assert all_levels < upper < everything
    # A residual block keeps eight tensors of its size or so, and then one.
    assert all_levels < everything / 3


def test_parts_of_a_batch_are_kept_one_at_a_time(digits: Materials):
    """Nothing of a part's graph outlives its backward pass."""
    objective = both(digits, accumulate=4)[1]
    batch = objective.draw(StepRandom(0, 0, 0, CPU))
    sizes = [len(part) for part, _ in objective.parts(batch, "generator")]
    assert sizes == [len(batch) // 4] * 4
    made, _ = objective.generator_step(batch)
    assert made.grad_fn is None


def test_the_frozen_teacher_holds_in_bf16_what_autocast_would_round_to(digits: Materials):
    objective = digits.distill({"precision": "bf16"})
    reference = digits.distill().teacher
    convolutions = [part for part in objective.teacher.modules() if isinstance(part, torch.nn.Conv2d)]
    norms = [part for part in objective.teacher.modules() if isinstance(part, torch.nn.GroupNorm)]
    assert {part.weight.dtype for part in convolutions} == {torch.bfloat16}
    assert {part.weight.dtype for part in norms} == {torch.float32}
    batch = objective.draw(StepRandom(0, 0, 0, CPU))
    with torch.no_grad():
        seen = objective.D_teacher(batch.x, batch.sigma)
        rounded_at_every_call = objective.compute.call(reference)(batch.x, batch.sigma)
        exact = reference(batch.x, batch.sigma)
    assert seen.dtype == torch.float32
    assert torch.equal(seen, rounded_at_every_call)
    assert 1e-4 < apart(seen, exact) < 0.03  # bf16 rounds to 4e-3, in each of about ten layers


def test_identical_fake_and_teacher_give_a_gradient_of_zero_whatever_the_teachers_dropout(digits: Materials):
    network = digits.settings.network.model_copy(update={"dropout": 0.3})
    for draws in ("own", "shared"):
        logged = take_step(digits.distill({"network": network}, fake_draws=draws))
        assert logged["gradient_norm"].item() == 0.0
    # The teacher itself does train with it.
    with_dropout, without = digits.teacher({"network": network}), digits.teacher()
    assert take_step(with_dropout)["loss"] != take_step(without)["loss"]


def test_at_the_start_bf16_sees_no_difference_between_fake_and_teacher(digits: Materials):
    """Both are computed alike, so that the generator is not pulled along a difference of roundings."""
    logged = take_step(digits.distill({"precision": "bf16"}))
    assert logged["gradient_norm"].item() == 0.0


def test_under_bf16_costs_and_losses_are_float32(digits: Materials):
    """A blur is a matrix product, which autocast would do in bf16."""
    cost = config.LowPass(name="low_pass", sigma=1.0)
    objective = digits.distill({"precision": "bf16"}, cost=cost)
    batch = objective.draw(StepRandom(0, 0, 0, CPU))
    made, logged = objective.generator_step(batch)
    assert made.dtype == torch.float32
    assert logged["cost"].item() == objective.loss.cost(batch.x, made).mean().item()
    assert all(value.dtype == torch.float32 for value in logged.values())


def test_moments_take_the_layout_of_their_weights(digits: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A checkpoint made without channels-last goes on with it, to the update that it would have had."""
    plain = digits.distill()
    take_step(plain)
    save_checkpoint(tmp_path / "checkpoint.pt", plain, Progress(steps=1))

    def placed(self: Compute, denoiser: torch.nn.Module) -> torch.nn.Module:
        return denoiser.to(memory_format=torch.channels_last)

    monkeypatch.setattr(Compute, "placed", placed)
    last = digits.distill()
    load_checkpoint(tmp_path / "checkpoint.pt", last)
    take_step(plain, 1), take_step(last, 1)
    for name, module in plain.modules.items():
        convolution = max(last.modules[name].parameters(), key=torch.numel)
        assert convolution.is_contiguous(memory_format=torch.channels_last)
        for weight, other in zip(module.parameters(), last.modules[name].parameters(), strict=True):
            state = last.optimizers[name].state[other]
            assert state["exp_avg_sq"].stride() == other.stride()
            expected = plain.optimizers[name].state[weight]
            torch.testing.assert_close(state["exp_avg_sq"], expected["exp_avg_sq"], rtol=1e-3, atol=1e-9)


def test_runs_of_one_experiment_draw_other_batches_noise_and_initial_weights(digits: Materials, tmp_path: Path):
    """What distinguishes runs, such as lambda, is in the seed: errors of several lambdas are not the same error."""
    batches, weights = [], []
    for number, lam in enumerate((0.1, 0.1, 0.2)):
        run = digits.distill_run({"lam": lam}, steps=1, init="scratch", sample_every=0)
        process = accelerator()
        objective = DistillObjective(run, process)
        draw = objective.draw
        objective.draw = lambda random, draw=draw: batches.append(draw(random)) or batches[-1]
        weights.append(torch.cat([weight.detach().flatten().clone() for weight in objective.generator.parameters()]))
        folder = RunFolder(tmp_path / str(number))
        folder.path.mkdir()
        train(objective, run, folder, process, StopRequest())
    first, again, other = batches
    for name in ("x", "sigma", "eps"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
