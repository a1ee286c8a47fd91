"""The converter of published EDM networks: what it reads, and what it refuses to run or to unfold."""

import io
import os
import pickle
import random
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from rdmd.config import ImageNetwork
from rdmd.diffusion.preconditioning import EDMPrecond
from rdmd.errors import UserError
from rdmd.networks.build import build_denoiser, load_weights
from rdmd.networks.edm_import import convert

NETWORK = ImageNetwork(
    kind="ddpmpp", model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4], augment_dim=9
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are too small to gain from more threads, which cost much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class EasyDict(dict):
    """The kind of dictionary that the published files hold."""


def _reconstruct_persistent_obj(meta: dict) -> object:
    raise AssertionError("the pickle was run")


@pytest.fixture
def persistence(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Modules of the names that the published files refer to, while one is written; `undo` removes them."""
    for name, value in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
        module = types.ModuleType(name)
        setattr(module, value.__name__, value)
        monkeypatch.setitem(sys.modules, name.split(".")[0], types.ModuleType(name.split(".")[0]))
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(value, "__module__", name)
    return monkeypatch


class PersistentPickler(pickle.Pickler):
    """Writes modules as EDM's persistence does: a name, source text and state; ModuleDict as torch does."""

    def reducer_override(self, obj: object) -> object:
        if not isinstance(obj, nn.Module) or isinstance(obj, nn.ModuleDict):
            return NotImplemented
        meta = {"type": "class", "version": 6, "module_src": "raise AssertionError('run')"}
        meta |= {"class_name": type(obj).__name__, "state": dict(obj.__dict__)}
        return _reconstruct_persistent_obj, (meta,)


def pickled(content: object, protocol: int = 4) -> bytes:
    buffer = io.BytesIO()
    PersistentPickler(buffer, protocol).dump(content)
    return buffer.getvalue()


def denoiser() -> EDMPrecond:
    """A denoiser with weights of ordinary size, and the odd things that the published ones hold."""
    torch.manual_seed(0)
    network = build_denoiser(NETWORK, (3, 8, 8)).requires_grad_(False)
    for tensor in network.parameters():
        tensor.normal_(0, 0.2)
    network.model.skip_scale = np.sqrt(0.5)
    network._init_kwargs = EasyDict(sigma_max=float("inf"), model_type="SongUNet")
    network.register_buffer("scratch", torch.zeros(3), persistent=False)
    return network


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_published_network_comes_through_whole(
    persistence: pytest.MonkeyPatch, tmp_path: Path, protocol: int
) -> None:
    original = denoiser()
    content = {"ema": original, "loss_fn": EasyDict(P_mean=-1.2), "augment_pipe": None}
    (tmp_path / "edm.pkl").write_bytes(pickled(content, protocol))
    persistence.undo()

    count = convert(tmp_path / "edm.pkl", tmp_path / "edm.safetensors")

    assert "torch_utils" not in sys.modules
    assert count == len(original.state_dict())
    loaded = build_denoiser(NETWORK, (3, 8, 8))
    load_weights(loaded, tmp_path / "edm.safetensors")
    x, sigma = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 4.0])
    assert torch.equal(loaded(x, sigma), original(x, sigma))


def test_views_of_one_storage_come_through(tmp_path: Path) -> None:
    """A transposed tensor and two tensors on one storage, in modules that torch alone pickled."""
    linear = nn.Linear(3, 5)
    flat = torch.arange(20.0)
    linear.weight = nn.Parameter(flat[:15].reshape(3, 5).t())
    linear.bias = nn.Parameter(flat[15:])
    (tmp_path / "edm.pkl").write_bytes(pickle.dumps({"ema": EDMPrecond(linear)}))

    assert convert(tmp_path / "edm.pkl", tmp_path / "edm.safetensors") == 2

    saved = load_file(tmp_path / "edm.safetensors")
    assert torch.equal(saved["model.weight"], flat[:15].reshape(3, 5).t())
    assert torch.equal(saved["model.bias"], flat[15:])


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[bytes, str], None]:
    """Convert bytes, expect one sentence that names the file and says `reason`, and nothing written."""

    def check(content: bytes, reason: str) -> None:
        path, out = tmp_path / "bad.pkl", tmp_path / "out.safetensors"
        path.write_bytes(content)
        sentence = rf"bad\.pkl is not a published EDM network \(.*{reason}"
        with pytest.raises(UserError, match=sentence) as error:
            convert(path, out)
        assert "\n" not in str(error.value)
        assert [entry.name for entry in tmp_path.iterdir()] == ["bad.pkl"]

    return check


class Call:
    """Something whose pickle calls `function` with `arguments`."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.function, self.arguments


def module_of(tensors: dict[str, object], **modules: object) -> Call:
    """What a persistent EDMPrecond with these tensors and modules is pickled as."""
    state = {"_parameters": tensors, "_buffers": {}, "_modules": modules}
    return Call(_reconstruct_persistent_obj, {"class_name": "EDMPrecond", "state": state})


def tensor_of(storage: bytes, size: tuple, stride: tuple) -> Call:
    """What a tensor on a storage of these bytes is pickled as."""
    on = Call(torch.storage._load_from_bytes, storage)
    return Call(torch._utils._rebuild_tensor_v2, on, 0, size, stride, False, OrderedDict())


def storage_of(length: int) -> bytes:
    """What torch writes for the storage of `length` float32 numbers."""
    (content,) = torch.ones(length)._typed_storage().__reduce__()[1]
    return content


@pytest.mark.usefixtures("persistence")
class TestNothingRuns:
    """A pickle that would run a command does so in Python's own unpickler, and not here."""

    @pytest.fixture
    def marker(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("marker") / "it-ran"

    def test_at_the_top(self, marker: Path, refused: Callable) -> None:
        bomb = pickled(Call(os.system, f"touch {marker}"))
        pickle.loads(bomb)
        assert marker.exists()
        marker.unlink()
        refused(bomb, "no network named `ema`")
        assert not marker.exists()

    def test_beside_a_network(self, marker: Path, tmp_path: Path) -> None:
        content = {"bomb": Call(os.system, f"touch {marker}"), "ema": denoiser()}
        (tmp_path / "edm.pkl").write_bytes(pickled(content))
        assert convert(tmp_path / "edm.pkl", tmp_path / "out.safetensors") > 0
        assert not marker.exists()

    def test_in_the_place_of_a_tensor(self, marker: Path, refused: Callable) -> None:
        bomb = Call(os.system, f"touch {marker}")
        refused(pickled({"ema": module_of({"w": bomb})}), "tensor of an unknown kind")
        assert not marker.exists()

    def test_inside_a_storage(self, marker: Path, refused: Callable) -> None:
        bomb = pickled(Call(os.system, f"touch {marker}"), 2)
        head = storage_of(1).partition(b".")[0] + b"."
        refused(pickled({"ema": module_of({"w": tensor_of(bomb, (1,), (1,))})}), "unknown format")
        for content in (head + bomb, head + bomb * 4):
            refused(pickled({"ema": module_of({"w": tensor_of(content, (1,), (1,))})}), "damaged tensor")
        assert not marker.exists()


@pytest.mark.usefixtures("persistence")
class TestExplosions:
    """Files that would unfold to more than they hold."""

    def test_one_storage_named_many_times(self, refused: Callable) -> None:
        content = storage_of(10_000)
        tensors = {f"w{i}": tensor_of(content, (1,), (1,)) for i in range(100)}
        refused(pickled({"ema": module_of(tensors)}), "more bytes than it has")

    @pytest.mark.parametrize("size", [(10_000,), (10**12,), (10**6, 10**6, 10**6)])
    def test_one_number_spread_wide(self, size: tuple, refused: Callable) -> None:
        tensor = tensor_of(storage_of(1), size, (0,) * len(size))
        refused(pickled({"ema": module_of({"w": tensor})}), "more bytes than it has")

    @pytest.mark.parametrize(
        ("size", "stride"), [((40,), (1,)), ((2,), (39,)), ((-1,), (1,)), ((2,), (-1,)), (("a",), (1,))]
    )
    def test_outside_its_storage(self, size: tuple, stride: tuple, refused: Callable) -> None:
        refused(pickled({"ema": module_of({"w": tensor_of(storage_of(39), size, stride)})}), "damaged tensor")

    def test_modules_within_themselves(self, refused: Callable) -> None:
        # Two ways down at each of 40 levels: 2^40 paths to one leaf.
        network = module_of({})
        for _ in range(40):
            network = module_of({}, left=network, right=network)
        refused(pickled({"ema": network}), "nested without end")
        network = module_of({})
        for _ in range(60):
            network = module_of({}, below=network)
        refused(pickled({"ema": network}), "nested without end")

    def test_lengths_that_the_file_has_not(self, refused: Callable) -> None:
        for opcode in (pickle.BINBYTES8, pickle.BINUNICODE8, pickle.FRAME):
            refused(b"\x80\x04" + opcode + (2**40).to_bytes(8, "little") + b"abc", "cut short")
        # A memo index for which the unpickler written in C would allocate 64 GB.
        refused(b"\x80\x04N" + pickle.LONG_BINPUT + (2**32 - 1).to_bytes(4, "little") + b".", "no network")


@pytest.mark.usefixtures("persistence")
def test_other_files_are_told_apart(refused: Callable, tmp_path: Path) -> None:
    refused(b"", "not a pickle")
    refused(b"\x89PNG\r\n\x1a\n" + bytes(100), "not a pickle")
    refused(b"<html>404 not found</html>", "not a pickle")
    refused(pickled([1, 2, 3]), "no network named `ema`")
    refused(pickled({"model": denoiser()}), "no network named `ema`")
    refused(pickled({"ema": nn.ModuleDict({"a": nn.Linear(2, 2)})}), "no `EDMPrecond`")
    refused(pickled({"ema": module_of({})}), "no tensors")
    for path in (tmp_path / "absent.pkl", tmp_path):
        with pytest.raises(UserError, match="is not a file"):
            convert(path, tmp_path / "out.safetensors")


def test_damage_is_one_sentence_wherever_it_is(
    persistence: pytest.MonkeyPatch, refused: Callable, tmp_path: Path
) -> None:
    whole = pickled({"ema": denoiser()})
    persistence.undo()
    for i in range(20):
        refused(whole[: len(whole) * i // 20], "cut short")
    # Change a byte anywhere: either the structure is still whole, or it is refused in a sentence.
    chance = random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] = chance.randrange(256)
        (tmp_path / "damaged.pkl").write_bytes(damaged)
        try:
            convert(tmp_path / "damaged.pkl", tmp_path / "damaged.safetensors")
        except UserError as error:
            assert "damaged.pkl is not a published EDM network" in str(error)
