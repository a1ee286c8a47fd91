"""What makes a resumed run the run: derived randomness, fingerprints, averages, checkpoints, curves."""

import ast
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

import rdmd
from rdmd import config
from rdmd.code_digest import _code_digest, _parsed, code_digest
from rdmd.data.sampling import StepRandom, derived_seed
from rdmd.errors import UserError
from rdmd.files import sha256_of
from rdmd.training.loop import LoggedSteps
from rdmd.training.objective import DECAYS, EMA
from rdmd.training.run_config import (
    CUTRun,
    DistillRun,
    FeatureInput,
    NeuralOTRun,
    Shards,
    TeacherRun,
    TrainingRun,
    Weights,
    fingerprint,
    lambda_name,
)
from rdmd.training.run_folder import Point, Result, RunFolder, curve_line
from tests.conftest import ROOT

CPU = torch.device("cpu")


def distill_run(**changes: object) -> DistillRun:
    settings = config.load(Path(__file__).parents[2] / "experiments" / "digits.yaml")
    base = {
        "experiment": "digits",
        "seed": 0,
        "sample_shape": (3, 8, 8),
        "network": settings.network,
        "target": Shards(path=Path("data/shards/target"), digest="t"),
        "source": Shards(path=Path("data/shards/source"), digest="s"),
        "teacher": Weights(path=Path("models/teacher/model.safetensors"), sha256="w"),
        "settings": settings.distill,
        "lam": 0.1,
        "precision": "float32",
        "processes": 1,
    }
    return DistillRun(**base | changes)


def teacher_run() -> TeacherRun:
    return TeacherRun(settings=config.Teacher(steps=9, batch=8), target=distill_run().target, **_common())


def neural_ot_run() -> NeuralOTRun:
    settings, other = config.NeuralOT(steps=9, batch=8), distill_run()
    return NeuralOTRun(settings=settings, source=other.source, target=other.target, cost_weight=1.0, **_common())


def cut_run() -> CUTRun:
    settings, other = config.CUT(steps=9, batch=8), distill_run()
    return CUTRun(settings=settings, source=other.source, target=other.target, nce_weight=1.0, **_common())


def _common() -> dict:
    names = ("experiment", "seed", "sample_shape", "network", "precision", "processes")
    return {name: getattr(distill_run(), name) for name in names}


def draws(seed: int, rank: int, step: int, name: str) -> torch.Tensor:
    return torch.randn(8, generator=StepRandom(seed, rank, step, CPU).stream(name))


def test_randomness_is_a_function_of_seed_rank_step_and_name():
    assert torch.equal(draws(1, 0, 7, "eps"), draws(1, 0, 7, "eps"))
    others = [draws(2, 0, 7, "eps"), draws(1, 1, 7, "eps"), draws(1, 0, 8, "eps"), draws(1, 0, 7, "sigma")]
    assert not any(torch.equal(draws(1, 0, 7, "eps"), other) for other in others)


def test_neighbouring_steps_are_not_correlated():
    table = torch.stack([draws(0, 0, step, "eps") for step in range(4000)])
    correlation = torch.corrcoef(torch.stack([table[:-1].flatten(), table[1:].flatten()]))[0, 1].item()
    assert abs(correlation) < 4 / (8 * 4000) ** 0.5  # four standard errors of an estimate whose truth is 0


def test_derived_seeds_do_not_run_together():
    assert derived_seed(1, 23) != derived_seed(12, 3)
    assert derived_seed(1, 23) < 2**63


@pytest.mark.parametrize(
    "changed",
    [
        {"lam": 0.2},
        {"lam": config.LambdaRange.model_validate({"from": 0.05, "to": 0.1})},
        {"seed": 1},
        {"source": Shards(path=Path("data/shards/source"), digest="other")},
        {"teacher": Weights(path=Path("models/teacher/model.safetensors"), sha256="other")},
        {"precision": "bf16"},
        {"settings": distill_run().settings.model_copy(update={"fake_steps": 5})},
        {"settings": distill_run().settings.model_copy(update={"init": "scratch"})},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_whatever_changes_the_weights_changes_the_fingerprint(changed: dict):
    assert fingerprint(distill_run(**changed)) != fingerprint(distill_run())


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": distill_run().settings.model_copy(update={"lambdas": [0.1, 7.0]})},
        {"settings": distill_run().settings.model_copy(update={"checkpoint_every": 3})},
        {"source": Shards(path=Path("/elsewhere"), digest="s")},
    ],
    ids=["another lambda in the sweep", "checkpoints more often", "the same shards elsewhere"],
)
def test_whatever_does_not_leaves_it(changed: dict):
    assert fingerprint(distill_run(**changed)) == fingerprint(distill_run())


def test_lambda_names():
    assert lambda_name(config.LambdaRange.model_validate({"from": 0.01, "to": 0.5})) == "lambda-0.01-to-0.5"
    assert [lambda_name(lam) for lam in (0.0, 0.1, 1.0, 1e-5)] == ["lambda-0", "lambda-0.1", "lambda-1", "lambda-1e-05"]


def test_ema_follows_the_recurrence():
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 0.0)
    ema, expected = EMA(module, decay=0.5), 0.0
    for t in range(30):
        nn.init.constant_(module.weight, float(t))
        ema.update(t)
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * t
    assert ema.averaged.weight.item() == pytest.approx(expected, rel=1e-6)  # float32 against float64
    assert module.weight.item() == 29.0


def test_a_non_finite_value_stops_with_step_name_and_sigma():
    logged = LoggedSteps(first=40)
    for loss in (1.0, float("nan"), 2.0):
        logged.rows.append({"fake_loss": torch.tensor(loss), "worst_sigma": torch.tensor(3.5)})
    with pytest.raises(UserError, match=r"step 41: fake_loss is not finite .*sigma 3\.5"):
        logged.means()


def test_logged_values_are_means_over_the_steps():
    logged = LoggedSteps(first=0, rows=[{"a": torch.tensor(v), "worst_sigma": torch.tensor(1.0)} for v in (1.0, 2.0)])
    assert logged.means() == {"a": 1.5}


def test_curves_are_read_up_to_a_line_cut_short_and_forgotten_after_a_checkpoint(tmp_path: Path):
    folder = RunFolder(tmp_path)
    lines = [curve_line(Point(step, {"loss": step / 10})) for step in (10, 20, 30)]
    folder.curves_file.write_text("".join(lines) + '{"step": 40, "lo')
    assert [point.step for point in folder.curves()] == [10, 20, 30]
    folder.forget_curves_after(20)
    assert folder.curves() == [Point(10, {"loss": 1.0}), Point(20, {"loss": 2.0})]


def test_a_run_whose_weights_were_altered_is_not_finished(tmp_path: Path):
    folder = RunFolder.prepare(tmp_path, distill_run())
    folder.weights.write_bytes(b"weights")
    result = Result(
        steps=1, sha256=sha256_of(folder.weights), train_seconds=1.0, device="CPU", peak_memory_mib=1.0, parameters=1
    )
    folder.result_file.write_text(result.model_dump_json())
    assert folder.result() == result
    folder.weights.write_bytes(b"wEights")
    assert folder.result() is None
    folder.weights.unlink()
    assert folder.result() is None


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path: Path):
    folder = RunFolder(tmp_path)
    with folder.locked(), pytest.raises(UserError, match="being trained by another process"), folder.locked():
        pass
    with folder.locked():
        pass


def test_a_run_waits_for_a_process_that_ends(tmp_path: Path):
    """As after the loss of a node, whose training needs a moment to stop."""
    hold = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]): print(flush=True); input()"
    folder = RunFolder(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match="being trained by another process"), folder.locked():
            pass
        threading.Timer(1.0, other.kill).start()
        with folder.locked(60.0):
            assert other.wait(0) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("name", "quarter", "half", "end"),
    [
        ("constant", 1.0, 1.0, 1.0),
        ("linear", 0.75, 0.5, 0.0),
        ("cosine", (1 + 2**-0.5) / 2, 0.5, 0.0),
    ],
)
def test_learning_rates_decay_as_named(name: str, quarter: float, half: float, end: float):
    decay = DECAYS[name]
    assert decay(0.0) == 1.0
    assert [decay(0.25), decay(0.5), decay(1.0)] == pytest.approx([quarter, half, end])


def fingerprints_with(
    edits: dict[str, tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The fingerprints of a run of every kind, with the package's files edited: file -> (text, its replacement)."""
    package = tmp_path / f"edited-{len(list(tmp_path.iterdir()))}"
    shutil.copytree(ROOT / "rdmd", package / "rdmd", ignore=shutil.ignore_patterns("__pycache__"))
    for file, (text, replacement) in edits.items():
        before = (package / "rdmd" / file).read_text(encoding="utf-8")
        assert text in before, f"{file} has another text now"
        (package / "rdmd" / file).write_text(before.replace(text, replacement), encoding="utf-8")
    features = FeatureInput(network=config.NoFeatures(network="none"))
    runs: dict[str, TrainingRun] = {run.kind: run for run in (teacher_run(), distill_run(), neural_ot_run(), cut_run())}
    runs["evaluated"] = teacher_run().model_copy(update={"features": features})
    # Code is read and not run.
    monkeypatch.setattr("rdmd.code_digest._ROOT", package)
    monkeypatch.setattr("rdmd.code_digest._code_digest", cache(_code_digest.__wrapped__))
    return {kind: fingerprint(run) for kind, run in runs.items()}


def test_the_code_of_a_run_is_that_of_its_objective_and_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    changed = {
        "nothing": {},
        "a docstring and a comment": {
            "diffusion/loss.py": ("Denoising score matching", "# A remark."),
            "training/teacher.py": ("import torch\n", "import torch  # Another remark.\n"),
        },
        "the range of pixels": {"data/transforms.py": ("/ 2) - 1", "/ 2) - 0.9")},
        "the order of samples": {"data/sampling.py": ("torch.randint(size", "torch.randint(1, size")},
        "neural OT": {"training/neural_ot.py": ("decay=s.decay", "decay='constant'")},
        "neural OT's losses": {"baselines/neural_ot.py": ("cost - f(mapped)", "cost - 2 * f(mapped)")},
        "CUT's losses": {"baselines/cut.py": ("TEMPERATURE = 0.07", "TEMPERATURE = 0.1")},
        "the generator's loss": {"distillation/rdmd.py": ("lam * cost", "2 * lam * cost")},
        "evaluations": {"training/evaluation.py": ("LEAST = 1e-12", "LEAST = 1e-11")},
    }
    found = {name: fingerprints_with(edits, tmp_path, monkeypatch) for name, edits in changed.items()}
    retrained = {
        name: {kind for kind, value in prints.items() if value != found["nothing"][kind]}
        for name, prints in found.items()
    }
    everything = {"teacher", "distill", "neural-ot", "cut", "evaluated"}
    assert retrained == {
        "nothing": set(),
        "a docstring and a comment": set(),
        "the range of pixels": everything,
        "the order of samples": everything,
        "neural OT": {"neural-ot"},
        # CUT's generator is neural OT's map, from the same file.
        "neural OT's losses": {"neural-ot", "cut"},
        "CUT's losses": {"cut"},
        "the generator's loss": {"distill"},
        "evaluations": {"evaluated"},
    }


def test_threads_may_take_digests_at_once():
    # Python 3.11's parser fails now and then where two threads are in it.
    modules = [("rdmd.training.teacher",), ("rdmd.training.distill",), ("rdmd.training.neural_ot",)] * 3
    with ThreadPoolExecutor(len(modules)) as threads:
        assert len(set(threads.map(code_digest, modules))) == 3


def test_the_digest_survives_a_parser_that_another_thread_disturbs(monkeypatch):
    """What Python 3.11.7 raised in one whole run of the pipeline among hundreds; no thread brings it about at will."""
    plain, parse, failing = code_digest(("rdmd.training.cut",)), ast.parse, iter([True, True])

    def disturbed(text: str) -> ast.Module:
        if next(failing, False):
            raise SystemError("AST constructor recursion depth mismatch (before=66, after=73)")
        return parse(text)

    _parsed.cache_clear()
    monkeypatch.setattr("rdmd.code_digest._code_digest", cache(_code_digest.__wrapped__))
    monkeypatch.setattr("rdmd.code_digest.ast.parse", disturbed)
    assert code_digest(("rdmd.training.cut",)) == plain


def test_a_run_that_is_killed_at_its_last_checkpoint_has_its_last_preview(tmp_path: Path, monkeypatch):
    """Nothing would make it later: a run of which all steps are in the checkpoint takes none."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rdmd.training.loop.save_checkpoint", killed)
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    settings = {"steps": 2, "batch": 4, "sample_every": 2, "model_channels": 8, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        rdmd.train_teacher(images, folder=tmp_path, **settings)
    assert [path.name for path in tmp_path.rglob("samples/*")] == ["2.png"]
