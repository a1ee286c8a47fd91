"""On which machines the flows run their tasks."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from rdmd.config.section import Section


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
    # `host:6379`, or `auto`: what RAY_ADDRESS names, else the cluster that this machine is part of.
    address: Annotated[str, Field(min_length=1), AfterValidator(_of_a_cluster)] = "auto"
    # The project's folder as the nodes see it; null where that is the path it has on this machine.
    project: Annotated[Path, AfterValidator(_absolute)] | None = None


_Runner = LocalRunner | RayRunner
_NAMES = [get_args(runner.model_fields["name"].annotation)[0] for runner in get_args(_Runner)]


def _named(given: object) -> object:
    """A bare name stands for a section of that name and nothing else."""
    if isinstance(given, str):
        if given not in _NAMES:
            raise ValueError(f"{given!r} runs nothing; use one of {', '.join(_NAMES)}")
        return {"name": given}
    if not isinstance(given, dict | Section):
        raise ValueError('needs `local` or `ray`, or a section such as `{name: ray, address: "head:6379"}`')
    return given


Runner = Annotated[_Runner, Field(discriminator="name"), BeforeValidator(_named)]
