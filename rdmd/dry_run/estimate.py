"""From a dry run's step times and a network's work to what the whole experiment would take. All of it extrapolates."""

from dataclasses import dataclass

from rdmd import config
from rdmd.dry_run.work import Work

# What a GPU of the A100's class keeps up on such a U-Net in bf16: a sixth of its peak. Assumed, not measured.
ASSUMED_TFLOP_PER_S = 50.0
HOUR = 3600.0
GIB = 2**30


@dataclass(frozen=True)
class Measured:
    """A training run of the dry run: optimiser steps, the seconds they took, and its process's peak memory."""

    steps: int
    seconds: float
    peak_mib: float
    device: str

    @property
    def seconds_per_step(self) -> float:
        return self.seconds / self.steps


@dataclass(frozen=True)
class Stage:
    """What one training stage would take. `steps` are of all its runs; FLOP are of one step."""

    name: str
    measured: Measured
    dry_batch: int
    dry_flop: float
    dry_activation_bytes: float
    batch: int
    steps: int
    flop: float
    state_bytes: float
    activation_bytes: float

    @property
    def device_hours(self) -> float:
        """On the device of the dry run, if time goes with arithmetic."""
        return self.measured.seconds_per_step * self.flop / self.dry_flop * self.steps / HOUR

    @property
    def assumed_hours(self) -> float:
        """On a GPU that sustains `ASSUMED_TFLOP_PER_S`."""
        return self.flop * self.steps / (ASSUMED_TFLOP_PER_S * 1e12) / HOUR

    @property
    def sustained_tflop_per_s(self) -> float:
        """What the dry run's device kept up."""
        return self.dry_flop / self.measured.seconds_per_step / 1e12


def stages(
    settings: config.Settings, dry: config.Settings, work: Work, teacher: Measured, distill: Measured
) -> list[Stage]:
    """The two training stages of the experiment `settings` from the dry run of `dry`."""
    wanted, run = settings.distill, dry.distill
    parts = settings.launch.accumulate
    return [
        Stage(
            "teacher",
            teacher,
            dry.teacher.batch,
            work.teacher_flop(dry.teacher.batch),
            dry.teacher.batch * work.activations,
            settings.teacher.batch,
            settings.teacher.steps,
            work.teacher_flop(settings.teacher.batch),
            work.teacher_bytes(0),
            settings.teacher.batch // parts * work.activations,
        ),
        Stage(
            "distill",
            distill,
            run.batch,
            work.distill_flop(run),
            run.batch * work.distill_activations(run),
            wanted.batch,
            sweep_steps(wanted),
            work.distill_flop(wanted),
            work.distill_bytes(0),
            wanted.batch // parts * work.distill_activations(wanted),
        ),
    ]


def sweep_steps(distill: config.Distill) -> int:
    """Optimiser steps of all generators together, those of a refinement counted as steps of the sweep's batch."""
    later = distill.sweep.steps if isinstance(distill.sweep, config.Continuation) else distill.steps
    refining = sum(refine.steps * refine.batch for refine in distill.refine) / distill.batch
    return distill.steps + (len(distill.lambdas) - 1) * later + round(len(distill.lambdas) * refining)


def describe(settings: config.Settings, dry: config.Settings, work: Work, every: list[Stage], on_gpu: bool) -> str:
    """The estimate for a person, with what it assumes."""
    shown = "allocated" if on_gpu else "resident, with Python and libraries"
    lines = [
        f"ESTIMATE for {settings.experiment}, an extrapolation from {every[0].measured.steps} steps on "
        f"{every[0].measured.device}:",
        f"  network    {work.parameters / 1e6:.3g} M parameters, {work.forward_flop / 1e9:.4g} GFLOP a sample forward, "
        f"{work.training_flop / 1e9:.4g} with backward",
    ]
    for stage in every:
        took = stage.measured.seconds_per_step
        fakes = ("", "")
        runs = ""
        if stage.name == "distill":
            fakes = (f" and {dry.distill.fake_steps} fake steps", f" and {settings.distill.fake_steps} fake steps")
            runs = f" of {len(settings.distill.lambdas)} generators"
        dry_memory = stage.state_bytes + stage.dry_activation_bytes
        lines += [
            f"  {stage.name:<10} measured {took:.3g} s/step at batch {stage.dry_batch}{fakes[0]} "
            f"({stage.sustained_tflop_per_s:.3g} TFLOP/s)",
            f"             {took * stage.flop / stage.dry_flop:.3g} s/step at batch {stage.batch}{fakes[1]}, times "
            f"{stage.steps} steps{runs}: {duration(stage.device_hours)} on this device",
        ]
        if not on_gpu:
            lines.append(
                f"             {stage.flop / 1e12:.4g} TFLOP/step: {duration(stage.assumed_hours)} on a GPU that "
                f"sustains {ASSUMED_TFLOP_PER_S:g} TFLOP/s"
            )
        lines += [
            f"             memory {(stage.state_bytes + stage.activation_bytes) / GIB:.3g} GiB at batch {stage.batch}: "
            f"{stage.state_bytes / GIB:.3g} weights, gradients, Adam, averages; {stage.activation_bytes / GIB:.3g} "
            "activations",
            f"             (the dry run: {dry_memory / GIB:.3g} GiB predicted in this way, {measured_gib(stage):.3g} "
            f"measured, {shown})",
        ]
    lines.append(f"  together   {duration(sum(stage.device_hours for stage in every))} on this device")
    if not on_gpu:
        lines.append(
            f"             {duration(sum(stage.assumed_hours for stage in every))} at "
            f"{ASSUMED_TFLOP_PER_S:g} TFLOP/s, which is assumed and not measured"
        )
    lines += [
        "  It assumes that time goes with FLOP (where a network does not fill the device, more batch costs less), one",
        "  device, and float32 activations (bf16 keeps between half and all of them). Left out: preprocessing,",
        "  evaluation, baselines, checkpoints, preview pictures, kernels' workspace.",
    ]
    return "\n".join(lines)


def measured_gib(stage: Stage) -> float:
    """The dry run's peak."""
    return stage.measured.peak_mib / 1024


def duration(hours: float) -> str:
    """Hours, minutes or seconds, whichever reads well."""
    if hours >= 1:
        return f"{hours:.3g} hours"
    return f"{hours * 60:.2g} minutes" if hours * 60 >= 1 else f"{hours * HOUR:.2g} seconds"
