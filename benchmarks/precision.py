"""Difference of quality between bf16 and float32: teacher and generator trained in each precision, over seeds.

On the plane at lambda 0.02, from the same points. A seed sets the initial weights and all noise, so both precisions of
a seed see the same noise. `sw2_bf16_minus_float32` is the mean difference, `_se` its standard error over the seeds, and
`sd_over_seeds_float32` the standard deviation over the seeds.
"""

from benchmarks.machine import default_device
from benchmarks.plane import Plane, landing, lengths_given
from benchmarks.record import record
from rdmd.errors import reporting

PRECISIONS = ("float32", "bf16")


def main() -> None:
    """Measure and record."""
    lengths = lengths_given("python -m benchmarks.precision", __doc__, seeds=3)
    device = default_device()
    ways = {
        precision: lambda root, seed, precision=precision: Plane.make(root, seed, device, precision)
        for precision in PRECISIONS
    }
    record("precision", landing(ways, lengths, device), device)


if __name__ == "__main__":
    with reporting(debug=False):
        main()
