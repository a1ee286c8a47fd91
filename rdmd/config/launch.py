"""The section `launch`: where trainings run and how their networks are computed. Nothing here is part of the method."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rdmd.config.section import Count, Section, bare_name


def _on_or_off(value: object) -> object:
    """Undo YAML, which reads a bare `on` or `off` as yes or no."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return value


Compile = Annotated[Literal["auto", "on", "off", "cuda_graphs"], BeforeValidator(_on_or_off)]


class Compute(Section):
    """How a run computes its networks."""

    # `torch.compile` of the networks: `auto` compiles image networks on a GPU if there is a C compiler. `cuda_graphs`
    # also replays a network's kernels as one graph, for networks too small to fill a GPU. It delays the first steps.
    compile: Compile = "auto"
    # Parts that a process cuts its batch into: the memory of a part, the gradient of the whole.
    accumulate: Count = 1
    # U-Net blocks at this resolution and above keep only their input and are computed again in the backward pass: less
    # memory, about a third more time. null keeps all activations.
    activation_checkpointing: Count | None = None


def _of_a_cluster(address: str) -> str:
    if "://" in address or address == "local":
        raise ValueError(
            f"{address!r} is no address of a cluster that this machine is part of; join it (`ray start "
            "--address HOST:6379 --num-cpus 0`) and give HOST:6379, or auto"
        )
    return address


class LocalRunner(Section):
    """The machine that the flow runs on."""

    name: Literal["local"]


def _absolute(project: Path) -> Path:
    if not project.is_absolute():
        raise ValueError(f"{str(project)!r} is relative; give the absolute path of the project's folder on the nodes")
    return project


class RayRunner(Section):
    """The nodes of a Ray cluster, which share the project's folder (docs/cluster.md)."""

    name: Literal["ray"]
    # `host:6379`, or `auto`: the value of RAY_ADDRESS, or else the cluster that this machine is part of.
    address: Annotated[str, Field(min_length=1), AfterValidator(_of_a_cluster)] = "auto"
    # The project's folder on the nodes; null if it has the same path there as on this machine.
    project: Annotated[Path, AfterValidator(_absolute)] | None = None


Runner = Annotated[
    LocalRunner | RayRunner,
    Field(discriminator="name"),
    bare_name("name", ["local", "ray"], "runner", '{name: ray, address: "head:6379"}'),
]


class Launch(Compute):
    """Where and how training runs. Nothing here changes the optimisation problem. Of these keys, fingerprints hold only
    `precision`, `processes`, `compile` and `accumulate`, which change how numbers are rounded."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    # Processes (GPUs) of one run.
    processes: Count = 1
    # Runs at once: `auto` is one per GPU (or group of `processes`), on a CPU one per `threads` cores.
    parallel: Literal["auto"] | Count = "auto"
    # CPU threads of a run; null shares all cores among the runs. Small networks are fastest on one thread.
    threads: Count | None = None
    # A bare name, or a section with the name and the runner's own keys. Ray ignores `parallel`: each task asks Ray for
    # `processes` GPUs, if there are any, and `threads` CPUs.
    runner: Runner = LocalRunner(name="local")
