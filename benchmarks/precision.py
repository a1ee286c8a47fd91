"""Whether bf16 lands where float32 does: teacher and generator trained in each, over seeds.

On the plane at lambda 0.02, from one set of points; a seed decides initial weights and every draw, so that the two
precisions of a seed see the same noise. `sw2_bf16_minus_float32` is the mean difference, with its standard error over
the seeds; `sd_over_seeds_float32` is what a change of the seed alone does.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.machine import default_device
from benchmarks.plane import Plane
from benchmarks.record import record, say
from rdmd.errors import reporting

LAM = 0.02
PRECISIONS = ("float32", "bf16")


def main() -> None:
    """Measure, and record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teacher-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=1000)
    given = parser.parse_args()
    device = default_device()
    cores = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)  # as the experiment has it: two threads would wait for each other
    found: dict[str, list[tuple[float, float]]] = {precision: [] for precision in PRECISIONS}
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name:
        for seed in range(given.seeds):
            for precision in PRECISIONS:
                plane = Plane.make(Path(name), seed, device, precision)
                teacher = plane.trained_teacher(given.teacher_steps)
                objective = plane.objective(plane.distill_run(LAM, given.steps, teacher))
                for t in range(given.steps):
                    plane.step(objective, t)
                found[precision].append(plane.quality(objective.ema.averaged))
                say(f"seed {seed}, {precision}: SW2 {found[precision][-1][0]:.4f}, cost {found[precision][-1][1]:.4f}")
        floor = plane.floor()
    torch.set_num_threads(cores)
    figures: dict[str, float] = {
        "seeds": given.seeds, "teacher_steps": given.teacher_steps, "steps": given.steps, "lambda": LAM,
        "sw2_of_two_target_samples": floor,
    }  # fmt: skip
    for i, measured in enumerate(("sw2", "cost")):
        values = {precision: [pair[i] for pair in found[precision]] for precision in PRECISIONS}
        differences = [b - a for a, b in zip(*values.values(), strict=True)]
        figures |= {f"{measured}_{precision}": statistics.mean(values[precision]) for precision in PRECISIONS}
        figures[f"{measured}_sd_over_seeds_float32"] = statistics.stdev(values["float32"])
        figures[f"{measured}_bf16_minus_float32"] = statistics.mean(differences)
        figures[f"{measured}_bf16_minus_float32_se"] = statistics.stdev(differences) / given.seeds**0.5
    record("precision", figures, device)


if __name__ == "__main__":
    with reporting(debug=False):
        main()
