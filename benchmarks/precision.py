"""Whether bf16 lands where float32 does: teacher and generator trained in each, over seeds.

On the plane at lambda 0.02, from one set of points; a seed decides initial weights and every draw, so that the two
precisions of a seed see the same noise. `sw2_bf16_minus_float32` is the mean difference, with its standard error over
the seeds; `sd_over_seeds_float32` is what a change of the seed alone does.
"""

from benchmarks.landing import landing, lengths_given
from benchmarks.machine import default_device
from benchmarks.plane import Plane
from benchmarks.record import record
from rdmd.errors import reporting

PRECISIONS = ("float32", "bf16")


def main() -> None:
    """Measure, and record."""
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
