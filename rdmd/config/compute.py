"""How the networks of a training run are computed: nothing here is part of the method."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from rdmd.config.section import Count, Section


def _on_or_off(given: object) -> object:
    """YAML reads a bare `on` or `off` as yes or no."""
    if isinstance(given, bool):
        return "on" if given else "off"
    return given


Compile = Annotated[Literal["auto", "on", "off", "cuda_graphs"], BeforeValidator(_on_or_off)]


class Compute(Section):
    """How a run computes its networks: compiled or not, a batch at once or in parts, activations kept or made again."""

    # `torch.compile` of the networks: `auto` for image networks on a GPU with a C compiler at hand. `cuda_graphs` also
    # replays a network's kernels as one graph, for networks too small to fill a GPU. The first steps wait for it.
    compile: Compile = "auto"
    # Parts into which a process's batch is cut: memory of a part, gradient of the whole.
    accumulate: Count = 1
    # U-Net blocks at this resolution and above keep only their input and are computed again in the backward pass:
    # memory for about a third more time. null keeps all activations.
    activation_checkpointing: Count | None = None
