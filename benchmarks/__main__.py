"""Run benchmarks one after another, each in its own process: `python -m benchmarks [all|gpu|NAME ...]`.

`gpu` runs those that need only torch, accelerate and a few small packages. Exits with 1 if a benchmark fails.
"""

import argparse
import subprocess
import sys
import time

from benchmarks.record import say

# Run without Prefect, MLflow and DVC.
LIGHT = ("step", "plain_loop", "plane", "memory", "loader", "scale")
WHOLE_PROJECT = ("inference", "evaluation", "orchestration", "serving_load")


def main() -> int:
    """Run the named benchmarks and list those that failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", default=["all"], metavar="all|gpu|NAME", help=", ".join(LIGHT + WHOLE_PROJECT)
    )
    chosen = parser.parse_args().names
    sets = {"all": LIGHT + WHOLE_PROJECT, "gpu": LIGHT}
    wanted = list(dict.fromkeys(name for group in chosen for name in sets.get(group, (group,))))
    unknown = [name for name in wanted if name not in sets["all"]]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]}; there are {', '.join(sets['all'])}")
    failed = [name for name in wanted if not _run(name)]
    if failed:
        say(f"failed: {', '.join(failed)}; run `python -m benchmarks.{failed[0]}` by itself to see why.")
    return 1 if failed else 0


def _run(name: str) -> bool:
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode == 0
    say(f"{name}: {'done' if done else 'FAILED'} after {time.monotonic() - begun:.0f} s\n")
    return done


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
