"""LPIPS: by hand on one layer, its trunks against torchvision, the whole against torch-fidelity, its weights' files."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lpips_weights import image, largest_lpips, saved_lpips, with_positive_heads
from torch import Tensor, nn

from rdmd.errors import UserError
from rdmd.networks.lpips import LPIPS, alexnet_lpips, load_lpips, vgg16_lpips


def test_lpips_of_one_layer_by_hand():
    """A trunk of one convolution of weight 1 on the first and second channel: unit vectors, weighted, averaged."""
    conv = nn.Conv2d(3, 2, 1, bias=False)
    lpips = LPIPS([conv], [1])
    conv.weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).view(2, 3, 1, 1)
    lpips.get_submodule("lin0.model.1").weight.data = torch.tensor([2.0, 5.0]).view(1, 2, 1, 1)

    def scaled_back(*channels: float) -> Tensor:
        # So that the published shift and scale leave these numbers.
        values = torch.tensor([*channels, 0.0]) * torch.tensor([0.458, 0.448, 0.450])
        return (values + torch.tensor([-0.030, -0.088, -0.188])).view(1, 3, 1, 1)

    x = torch.cat([scaled_back(3, 4), scaled_back(1, 0)], dim=3)
    y = torch.cat([scaled_back(40, 30), scaled_back(7, 0)], dim=3)
    # (0.6, 0.8) to (0.8, 0.6) at one pixel, nothing at the other.
    assert lpips(x, y).item() == pytest.approx((2 * 0.04 + 5 * 0.04) / 2)


@pytest.mark.parametrize(("ours", "theirs"), [(alexnet_lpips, "alexnet"), (vgg16_lpips, "vgg16")])
def test_the_trunks_are_torchvisions(ours, theirs: str):
    import torchvision.models as models

    trunk = models.AlexNet().features if theirs == "alexnet" else models.vgg.make_layers(models.vgg.cfgs["D"])
    # The published names are those places with a slice before them.
    place = {key.split(".", 2)[2]: key for key in ours().state_dict() if key.startswith("net.")}
    assert set(place) == set(trunk.state_dict())
    lpips = ours()
    lpips.load_state_dict({place[key]: value for key, value in trunk.state_dict().items()}, strict=False)
    x = image(16, batch=2, side=32, dtype=torch.float32)
    found, h = lpips.activations(x), (x - lpips.shift) / lpips.scale
    # What goes into a pooling, and the end; for AlexNet, whose last three convolutions no pooling parts, every ReLU.
    wanted = []
    for layer, after in itertools.pairwise(trunk):  # the last is a pooling
        h = layer(h.clone())
        if isinstance(layer, nn.ReLU) and (theirs == "alexnet" or isinstance(after, nn.MaxPool2d)):
            wanted.append(h)
    assert len(found) == len(wanted) == 5
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_vgg16_lpips_is_torch_fidelitys(monkeypatch: pytest.MonkeyPatch):
    from torch_fidelity import sample_similarity_lpips as fidelity
    from torchvision.models import vgg

    torch.manual_seed(0)
    ours = with_positive_heads(vgg16_lpips()).eval()
    state = ours.state_dict()
    layers = vgg.make_layers(vgg.cfgs["D"])
    layers.load_state_dict({key.split(".", 2)[2]: value for key, value in state.items() if key.startswith("net.")})
    heads = {key: value for key, value in state.items() if key.startswith("lin")}
    # Its two downloads.
    monkeypatch.setattr(fidelity, "torchvision_load_pretrained_vgg16", lambda: SimpleNamespace(features=layers))
    monkeypatch.setattr(fidelity, "load_state_dict_from_url", lambda *a, **k: heads)
    theirs = fidelity.SampleSimilarityLPIPS("lpips")
    images = torch.randint(256, (2, 2, 3, 32, 32)).float()
    with torch.no_grad():
        found, expected = ours(*(images / 127.5 - 1)), theirs(*images)
    # float32, and they add 1e-10 to the length where we bound it from below.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_saved_lpips_is_read_back(tmp_path: Path, name: str):
    saved_lpips(tmp_path / name)
    torch.manual_seed(0)
    expected = with_positive_heads(alexnet_lpips())
    x, y = (image(seed, batch=2, side=32, dtype=torch.float32) for seed in (17, 18))
    found = load_lpips(tmp_path / name)(x, y)
    torch.testing.assert_close(found, expected(x, y))
    assert (found <= largest_lpips(expected)).all()


def test_wrong_lpips_weights_get_one_sentence(tmp_path: Path):
    file = tmp_path / "a.pth"
    saved_lpips(file)
    whole = torch.load(file, weights_only=True)
    spoilt = {
        "are not a file": lambda: file.unlink(),
        "is not a whole file of weights": lambda: file.write_bytes(b"?"),
        "is not a state dict": lambda: torch.save([1], file),
        "holds no LPIPS on AlexNet or VGG16": lambda: torch.save({"a": torch.zeros(1)}, file),
        "at the tensor `lin3.model.1.weight`": lambda: torch.save(
            {name: value for name, value in whole.items() if name != "lin3.model.1.weight"}, file
        ),
        "at the tensor `net.slice1.0.bias`": lambda: torch.save(whole | {"net.slice1.0.bias": torch.zeros(3)}, file),
        "at the tensor `net.slice6.0.bias`": lambda: torch.save(whole | {"net.slice6.0.bias": torch.zeros(3)}, file),
    }
    for problem, spoil in spoilt.items():
        spoil()
        with pytest.raises(UserError) as told:
            load_lpips(file)
        assert str(file) in str(told.value)
        assert problem in str(told.value)
        assert "lpips package" in str(told.value)
