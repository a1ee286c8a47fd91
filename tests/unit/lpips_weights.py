"""Random images, and LPIPS of random weights, as several tests need them."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from rdmd.files import sha256_of
from rdmd.networks.lpips import LPIPS, alexnet_lpips
from rdmd.training.run_config import Weights

SIDE = 8


def image(seed: int, batch: int = 3, side: int = SIDE, dtype: torch.dtype = torch.float64) -> Tensor:
    """(batch, 3, side, side), uniform in [-1, 1]."""
    return 2 * torch.rand(batch, 3, side, side, dtype=dtype, generator=torch.Generator().manual_seed(seed)) - 1


def with_positive_heads(lpips: LPIPS) -> LPIPS:
    """Heads of weights that are not negative, as the published ones are."""
    for name, weight in lpips.named_parameters():
        if name.startswith("lin"):
            weight.data.abs_()
    return lpips


def largest_lpips(lpips: LPIPS) -> float:
    """The top of its range, 2 sum_l max_c w_lc."""
    heads = [weight for name, weight in lpips.named_parameters() if name.startswith("lin")]
    return sum(2 * weight.max().item() for weight in heads)


def saved_lpips(path: Path) -> Weights:
    """Random weights on AlexNet under all the names of the published state dict."""
    torch.manual_seed(0)
    lpips = with_positive_heads(alexnet_lpips())
    state = {name: value.clone() for name, value in lpips.state_dict().items()}
    state |= {f"lins.{k}.model.1.weight": state[f"lin{k}.model.1.weight"].clone() for k in range(5)}
    state |= {"scaling_layer.shift": lpips.shift.clone(), "scaling_layer.scale": lpips.scale.clone()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return Weights(path=path, sha256=sha256_of(path))
