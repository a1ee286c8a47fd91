"""`rdmd dry-run`: every stage of an experiment on generated material, and an estimate, with nothing else touched."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from rdmd import cli, config
from rdmd.diffusion.loss import denoising_loss
from rdmd.dry_run.estimate import ASSUMED_TFLOP_PER_S, Measured, Stage, stages, sweep_steps
from rdmd.dry_run.shrink import scale_of, shrink
from rdmd.dry_run.stages import DryRun, dry_run
from rdmd.dry_run.work import FLOAT32, Work, work_of
from rdmd.networks.build import build_denoiser
from tests.conftest import ROOT, params, tiny_points

PICTURES = {"train": "train/{}", "test": "test/{}"}


@contextlib.contextmanager
def unwatched(folder: object, run: object) -> Iterator[Callable[[list], None]]:
    yield lambda points: None


def thin_afhq(settings: dict) -> None:
    """The AFHQ experiment, all but its size: pictures of 8x8, a thin network, features learned here."""
    settings["preprocess"]["resolution"] = 8
    settings["network"] |= {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
    settings["evaluate"]["features"] = {"network": "classifier", "dim": 16, "steps": 600}
    settings["teacher"]["batch"] = settings["distill"]["batch"] = 4


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def thin() -> config.Settings:
    return config.parse(params("afhq_cat2wild", thin_afhq), "params.yaml")


@pytest.fixture(scope="module")
def run(thin: config.Settings, said: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[DryRun, Path]:
    root = tmp_path_factory.mktemp("dry")
    return dry_run(thin, root, said.append, unwatched), root


def test_every_stage_leaves_what_the_experiment_would(run: tuple[DryRun, Path], said: list[str]):
    found, root = run
    stages_run = [line.split()[0] for line in said]
    assert stages_run == [
        "materials",
        "preprocess",
        "validate",
        "features",
        "teacher",
        "distill",
        "baselines",
        "evaluate",
    ]
    # The layout that the experiment's domains name.
    assert {path.relative_to(root / "data/raw").as_posix() for path in (root / "data/raw").glob("*/*/*")} == {
        "source/train/cat",
        "source/test/cat",
        "target/train/wild",
        "target/test/wild",
    }
    assert {path.name for path in (root / "models/generators").iterdir()} == {"lambda-0.01", "lambda-0.2"}
    for report in ("index.html", "pareto.png", "samples.png", "metrics.json", "validation.json"):
        assert (root / "reports" / report).stat().st_size > 0
    methods = [row.method for row in found.metrics.rows]
    assert methods.count("rdmd") == 2
    assert "sdedit" in methods
    # The settings that it ran under are a params file themselves.
    assert config.load(root / "params.yaml").teacher.init == root / "data/raw/initial.safetensors"


def test_the_estimate_says_what_it_is(run: tuple[DryRun, Path]):
    text = run[0].estimate
    for words in (
        "ESTIMATE for afhq_cat2wild, an extrapolation",
        "s/step at batch 4",
        "and 2 fake steps",
        "and 5 fake steps",
        "times 20000 steps",
        "times 100000 steps of 5 generators",
        "GiB at batch 4",
        "assumed and not measured",
        "It assumes that time goes with FLOP",
    ):
        assert words in text, words


def test_the_command_touches_nothing_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "experiments").mkdir()
    text = params("swissroll", tiny_points)
    (tmp_path / "experiments" / "mine.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "params.yaml").write_text("mine", encoding="utf-8")
    for name in ("runs", "models", "reports"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["dry-run", "mine", "--keep", str(tmp_path / "kept")])
    assert ended.value.code in (0, None)
    after = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "kept")}
    assert after == before
    assert (tmp_path / "params.yaml").read_text(encoding="utf-8") == "mine"
    printed = capsys.readouterr().out
    assert "Its metrics and models mean nothing" in printed
    assert "ESTIMATE for swissroll" in printed
    assert (tmp_path / "kept" / "reports" / "index.html").is_file()
    with pytest.raises(SystemExit) as refused:
        cli.main(["dry-run", "mine", "--keep", str(tmp_path / "kept")])
    assert refused.value.code == 2
    assert "is not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml")))
def test_every_shipped_experiment_can_be_cut_down(name: str, tmp_path: Path):
    settings = config.load(ROOT / "experiments" / f"{name}.yaml")
    scale = scale_of(settings, Work(1, 8e10, 2.5e11, 1.0), on_gpu=False)
    assert (scale.steps, scale.batch) == (2, 2)
    dry = shrink(settings, scale, tmp_path, on_gpu=False)
    assert dry.network == settings.network
    assert dry.preprocess.resolution == settings.preprocess.resolution
    assert dry.launch.precision == "float32"
    assert (dry.teacher.steps, dry.distill.steps, dry.distill.batch) == (2, 2, 2)
    assert dry.distill.lambdas[0] == settings.distill.lambdas[0]
    assert dry.distill.lambdas[-1] == settings.distill.lambdas[-1]
    assert dry.baselines.model_fields_set >= {n for n, grid in settings.baselines if grid is not None}
    for counted in re.findall(r"'?steps'?: \[?(\d+)", str(dry.baselines.model_dump())):
        assert int(counted) <= 2


def test_flop_and_activations_of_a_network_that_can_be_worked_out():
    """One hidden layer: three linear layers whose products are known, and what each keeps for its backward."""
    network = config.PointNetwork(kind="mlp", width=64, depth=2)
    work = work_of(network, (2,))
    denoiser = build_denoiser(network, (2,))
    weights = [weight for weight in denoiser.parameters() if weight.ndim == 2]
    assert work.parameters == sum(weight.numel() for weight in denoiser.parameters())
    assert work.forward_flop == sum(2 * weight.numel() for weight in weights)
    # Backward: a product for each weight, and one for each layer's input but the first, which needs no gradient.
    backward = sum(4 * weight.numel() for weight in weights) - 2 * weights[0].numel()
    assert work.training_flop == work.forward_flop + backward


def test_activations_are_what_autograd_keeps():
    """Counted on shapes, against the same step really taken."""
    network = config.ImageNetwork(
        kind="ddpmpp", model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4]
    )
    denoiser = build_denoiser(network, (3, 8, 8))
    own = {weight.data_ptr() for weight in denoiser.parameters()}

    def kept(batch: int) -> int:
        held: dict[int, torch.Tensor] = {}

        def keep(saved: torch.Tensor) -> torch.Tensor:
            held.setdefault(saved.untyped_storage().data_ptr(), saved)
            return saved

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            x = torch.randn(batch, 3, 8, 8)
            denoising_loss(denoiser, x, torch.ones(batch), torch.randn_like(x), 0.5)
        return sum(saved.untyped_storage().nbytes() for place, saved in held.items() if place not in own)

    counted, really = work_of(network, (3, 8, 8)).activations, kept(2) - kept(1)
    # On shapes alone attention keeps its matrices, and the fused kernel that runs here does not. Three blocks attend,
    # among 4x4 places: 16x16 float32 a matrix, of which each may keep up to four.
    assert 0 <= counted - really <= 3 * 4 * 16 * 16 * 4


def test_a_step_of_distillation_is_counted_network_by_network():
    work = Work(parameters=10, forward_flop=1.0, training_flop=3.0, activations=100.0)

    def distill(**settings: object) -> config.Distill:
        return config.Distill.model_validate({"lambdas": [0.1], "steps": 1, **settings})

    # Generator 3; fake and teacher 1 each; five fake steps 3 each; four more forwards of the generator.
    assert work.distill_flop(distill(batch=1, fake_steps=5, fake_draws="own")) == 3 + 2 + 5 * 3 + 4
    assert work.distill_flop(distill(batch=8, fake_draws="own")) == 8 * (3 + 2 + 3)
    # One pass of the fake denoiser fewer, whose activations are kept beside the generator's.
    assert work.distill_flop(distill(batch=1, fake_steps=5, fake_draws="shared")) == 3 + 1 + 5 * 3 + 4
    assert work.distill_flop(distill(batch=8, fake_draws="shared")) == 8 * (3 + 1 + 3)
    kept = [work.distill_activations(distill(batch=8, fake_draws=draws)) for draws in ("own", "shared")]
    assert kept == [100, 200]
    assert work.teacher_bytes(2) == 5 * FLOAT32 * 10 + 200
    assert work.distill_bytes(2) == 9 * FLOAT32 * 10 + 200


def test_hours_are_scaled_by_arithmetic_and_steps(thin: config.Settings, tmp_path: Path):
    work = Work(parameters=10, forward_flop=1e12, training_flop=3e12, activations=100.0)
    dry = shrink(thin, scale_of(thin, work, on_gpu=False), tmp_path, on_gpu=False)
    measured = Measured(steps=2, seconds=8.0, peak_mib=1.0, device="x")
    teacher, distill = stages(thin, dry, work, measured, measured)
    # Batch 4 instead of 2: 8 s a step, 20,000 steps.
    assert teacher.device_hours == pytest.approx(2 * 4 * 20000 / 3600)
    # 24 instead of 12 forwards' worth, at twice the batch.
    assert distill.device_hours == pytest.approx(4 * 4 * 5 * 20000 / 3600)
    assert teacher.assumed_hours == pytest.approx(4 * 3e12 * 20000 / (ASSUMED_TFLOP_PER_S * 1e12) / 3600)
    assert isinstance(teacher, Stage)


def test_a_continued_sweep_is_counted_by_its_own_steps(thin: config.Settings):
    continued = thin.distill.model_copy(update={"sweep": config.Continuation(mode="continuation", steps=100)})
    assert sweep_steps(thin.distill) == 5 * 20000
    assert sweep_steps(continued) == 20000 + 4 * 100


@pytest.mark.slow
def test_the_papers_experiment_runs_dry_at_full_size(tmp_path: Path):
    """62 million parameters at 64x64 and an untrained InceptionV3: minutes on a core."""
    settings = config.load(ROOT / "experiments" / "afhq_cat2wild.yaml")
    found = dry_run(settings, tmp_path, print, unwatched)
    assert "61.8 M parameters" in found.estimate
    assert {row.method for row in found.metrics.rows} >= {"rdmd", "sdedit", "identity", "target"}
    assert yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))["preprocess"]["resolution"] == 64
