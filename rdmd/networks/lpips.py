"""LPIPS, the learned perceptual distance (Zhang et al. 2018, section 3), version 0.1, and its published weights.

Activations of five layers of a network trained on ImageNet are brought to unit length over channels, subtracted,
squared, weighted by channel, and averaged over space. Modules have the published names.
"""

import pickle
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from rdmd.errors import UserError

# The mean and the standard deviation of ImageNet's pixels, as LPIPS has them in [-1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)

# Further names in the published state dicts: the heads once more, and the two constants above.
_REPEATED = ("lins.", "scaling_layer.")

_REMEDY = "save the state dict of the lpips package's LPIPS(net='alex') there, or use another cost"


class LPIPS(nn.Module):
    """d(x, y) of two batches (B, 3, H, W) in [-1, 1] -> (B,).

    The published heads' weights are not negative, nor are activations, so d lies in [0, 2 sum_l max_c w_lc], and is 0
    for x = y.
    """

    def __init__(self, layers: list[nn.Module], ends: list[int]) -> None:
        """`layers` are the trunk; each of its slices ends before one of `ends`, at an activation to compare."""
        super().__init__()
        self.net = nn.Module()
        for k, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            named = OrderedDict((str(i), layers[i]) for i in range(start, end))
            self.net.add_module(f"slice{k + 1}", nn.Sequential(named))
            channels = [layer.out_channels for layer in named.values() if isinstance(layer, nn.Conv2d)][-1]
            head = nn.Conv2d(channels, 1, 1, bias=False)
            # Index 0 is a dropout in the published training code.
            self.add_module(f"lin{k}", nn.ModuleDict({"model": nn.ModuleDict({"1": head})}))
        for name, values in (("shift", _SHIFT), ("scale", _SCALE)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    shift: Tensor
    scale: Tensor

    def activations(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) in [-1, 1], of which grey is repeated, to the activations to compare, (B, C_l, H_l, W_l)."""
        h, kept = (x - self.shift) / self.scale, []
        for part in self.net.children():
            h = part(h)
            kept.append(h)
        return kept

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance of each pair, (B,)."""
        total = x.new_zeros(len(x))
        for k, (a, b) in enumerate(zip(self.activations(x), self.activations(y), strict=True)):
            difference = (normalize(a, dim=1, eps=1e-10) - normalize(b, dim=1, eps=1e-10)).square()
            total = total + self.get_submodule(f"lin{k}.model.1")(difference).mean(dim=(1, 2, 3))
        return total


def alexnet_lpips() -> LPIPS:
    """LPIPS on AlexNet (Krizhevsky 2014, one tower), after each of its five ReLUs. Weights are to be loaded."""
    layers = [
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(),
        nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip
    return LPIPS(layers, [2, 5, 8, 10, 12])


def vgg16_lpips() -> LPIPS:
    """LPIPS on VGG16 (Simonyan and Zisserman 2015), before each of its poolings. Weights are to be loaded."""
    layers: list[nn.Module] = []
    ends: list[int] = []
    before = 3
    for channels, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        if layers:
            layers.append(nn.MaxPool2d(2, 2))
        for _ in range(convolutions):
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
            before = channels
        ends.append(len(layers))
    return LPIPS(layers, ends)


# Each trunk by a tensor that it alone has.
_TRUNKS = {"net.slice5.10.weight": alexnet_lpips, "net.slice5.28.weight": vgg16_lpips}


def load_lpips(path: Path) -> LPIPS:
    """LPIPS on AlexNet or VGG16, frozen, from a state dict saved as safetensors or by torch.

    Raises `UserError` if the file is missing, damaged, or holds other tensors. Nothing in it is executed.
    """
    found = {name: value for name, value in _read(path).items() if not name.startswith(_REPEATED)}
    build = next((build for mark, build in _TRUNKS.items() if mark in found), None)
    if build is None:
        raise UserError(f"{path} holds no LPIPS on AlexNet or VGG16; {_REMEDY}.")
    lpips = build()
    wanted = lpips.state_dict()
    odd = sorted(wanted.keys() ^ found.keys()) + [
        name for name in wanted if name in found and wanted[name].shape != found[name].shape
    ]
    if odd:
        raise UserError(f"{path} does not fit LPIPS at the tensor `{odd[0]}`; {_REMEDY}.")
    lpips.load_state_dict(found)
    return lpips.eval().requires_grad_(False)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"the LPIPS weights {path} are not a file; {_REMEDY}.")
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
        raise UserError(f"{path} is not a whole file of weights; {_REMEDY}.") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} is not a state dict; {_REMEDY}.")
    return state
