"""One training run in one process: `python -m rdmd.training.run runs/<fingerprint> [--device cpu|cuda]`.

`rdmd.pipeline.launch` starts it, or a user on a machine with little more than torch and accelerate. Exit status:
0 finished, 2 an error that the user can correct (one sentence on stderr), 3 stopped on request with a checkpoint.
"""

import argparse
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from rdmd.data.view import OpenDomain, open_domain
from rdmd.errors import UserError, reporting, sentence
from rdmd.files import sha256_of, write_text
from rdmd.networks.build import save_weights
from rdmd.training.checkpoint import Progress
from rdmd.training.cut import CUTObjective
from rdmd.training.distill import DistillObjective
from rdmd.training.domain_classifier import DomainClassifierObjective
from rdmd.training.evaluation import evaluations_of
from rdmd.training.loop import StopRequest, train
from rdmd.training.neural_ot import NeuralOTObjective
from rdmd.training.objective import Objective
from rdmd.training.run_config import CUTRun, DistillRun, DomainClassifierRun, NeuralOTRun, TeacherRun, TrainingRun
from rdmd.training.run_folder import EXIT_STOPPED, LESS_MEMORY, Point, Result, RunFolder
from rdmd.training.teacher import TeacherObjective

# Torch's words for it, on a GPU and on a CPU.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


def main(arguments: list[str] | None = None) -> int:
    """Train the run in a folder to its end, or until a signal stops it."""
    parser = argparse.ArgumentParser(description="Train one run, resuming from its checkpoint.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: torch's own choice)")
    parser.add_argument(
        "--lock-seconds", type=float, default=0.0, help="how long to wait for another process that trains this run"
    )
    parsed = parser.parse_args(arguments)
    stop = StopRequest().listen()
    if parsed.threads:
        torch.set_num_threads(parsed.threads)
    folder = RunFolder(parsed.folder)
    with reporting(debug=False), _recording_errors(folder):
        run = folder.read_run()
        if run_training(run, folder, parsed.device, stop, parsed.lock_seconds):
            return 0
        print(f"stopped before step {run.settings.steps}; the same command goes on", file=sys.stderr)
        return EXIT_STOPPED


@contextmanager
def _recording_errors(folder: RunFolder) -> Iterator[None]:
    """Write an error's sentence to the run's folder, where the launcher reads it."""
    folder.error_file.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        if any(words in str(error) for words in OUT_OF_MEMORY):
            error = UserError(f"{folder.path} needs more memory than there is; {LESS_MEMORY}.")
        # The disk may be full; the launcher reports that itself.
        with suppress(OSError):
            write_text(folder.error_file, sentence(error) or f"{type(error).__name__}: {error} (see {folder.log}).")
        raise error


def run_training(
    run: TrainingRun,
    folder: RunFolder,
    device: str = "auto",
    stop: StopRequest | None = None,
    lock_seconds: float = 0.0,
    open_domain: OpenDomain = open_domain,
    follow: Callable[[list[Point]], None] = lambda points: None,
) -> bool:
    """Train `run` in its folder, from its checkpoint if there is one. Returns False if `stop` ended it before its end.

    A training process and the library both call this function. `open_domain` opens the run's domains, and `follow`
    takes each new point of its curves. The function changes torch's global random state and asks for deterministic
    algorithms. Raises UserError if another process trains the run and does not end within `lock_seconds`.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic mode fills every new tensor before it is written, which costs time.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (torch does not declare it)
    # The buffers of these networks are constants: no need to send them to the other processes at every pass.
    averaging = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    precision = "bf16" if run.precision == "bf16" else "no"
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision, kwargs_handlers=[averaging])
    with folder.locked(lock_seconds) if accelerator.is_main_process else nullcontext():
        objective = build_objective(run, accelerator, open_domain)
        evaluations = None
        if isinstance(run, TeacherRun | DistillRun) and run.features is not None:
            assert isinstance(objective, TeacherObjective | DistillObjective)
            evaluations = evaluations_of(run, objective, open_domain)
        progress = train(objective, run, folder, accelerator, stop or StopRequest(), follow, evaluations)
        if progress.finished and accelerator.is_main_process:
            _write_result(folder, run, objective, progress, accelerator.device)
        accelerator.wait_for_everyone()
    return progress.finished


def _write_result(
    folder: RunFolder, run: TrainingRun, objective: Objective, progress: Progress, device: torch.device
) -> None:
    """Write the weights, then `result.json`. Of an evaluated run the weights of the last step and of the best
    evaluation are kept: those that the settings name as the model, the others beside it."""
    kept, best, kept_step = objective.kept(), progress.best, None
    if best is None:
        save_weights(kept, folder.weights)
    else:
        keeps_best = isinstance(run, TeacherRun | DistillRun) and run.settings.keep == "best"
        save_weights(kept, folder.last_weights if keeps_best else folder.weights)
        kept.load_state_dict(best.weights)
        save_weights(kept, folder.weights if keeps_best else folder.best_weights)
        kept_step = best.step if keeps_best else progress.steps
    result = Result(
        steps=progress.steps,
        sha256=sha256_of(folder.weights),
        train_seconds=round(progress.seconds, 3),
        device=device_name(device),
        peak_memory_mib=round(peak_memory_mib(device), 1),
        parameters=sum(weight.numel() for weight in kept.parameters()),
        kept_step=kept_step,
    )
    write_text(folder.result_file, result.model_dump_json(indent=2) + "\n")


def build_objective(run: TrainingRun, accelerator: Accelerator, open_domain: OpenDomain = open_domain) -> Objective:
    """The objective of a run, with its data, networks and optimizers on the device."""
    match run:
        case TeacherRun():
            return TeacherObjective(run, accelerator, open_domain)
        case DistillRun():
            return DistillObjective(run, accelerator, open_domain)
        case DomainClassifierRun():
            return DomainClassifierObjective(run, accelerator)
        case NeuralOTRun():
            return NeuralOTObjective(run, accelerator)
        case CUTRun():
            return CUTObjective(run, accelerator)


def device_name(device: torch.device) -> str:
    """The GPU's model, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory in MiB: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10  # ru_maxrss is bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


if __name__ == "__main__":
    sys.exit(main())
