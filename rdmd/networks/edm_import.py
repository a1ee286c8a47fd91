"""Reading a pickle without bringing anything in it to life.

A pickle is a program that names functions and calls them. Here every name becomes an empty stand-in that
only remembers what it was called with, so nothing of the file runs and none of the modules it names is
imported.
"""

import io
import math
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rdmd.errors import UserError
from rdmd.files import replacing


class Inert:
    """Where a pickle would have made an object: its name, arguments, and the state and items given after."""

    origin: tuple[str, str]  # module and name, set by `InertUnpickler.find_class`
    args: tuple[object, ...]
    state: object
    items: dict[object, object]

    def __new__(cls, *args: object, **_: object) -> "Inert":
        inert = super().__new__(cls)
        inert.args = args
        inert.state = None
        inert.items = {}
        return inert

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        self.items[key] = value

    def append(self, item: object) -> None:
        """Forget what goes into lists and sets that are not Python's own: they hold no part of a network."""

    add = extend = append


# The unpickler written in Python: the one in C allocates whatever length or memo index a file asks for.
class InertUnpickler(pickle._Unpickler):
    """An unpickler for which every name is a stand-in. `load` may raise anything on a damaged file."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._stand_ins: dict[tuple[str, str], type[Inert]] = {}

    def find_class(self, module: str, name: str) -> type[Inert]:
        """A subclass of `Inert` that knows its name; nothing is looked up."""
        key = (module, name)
        if key not in self._stand_ins:
            self._stand_ins[key] = type("Inert", (Inert,), {"origin": key})
        return self._stand_ins[key]


DENOISER = "EDMPrecond"
PERSISTENT = ("torch_utils.persistence", "_reconstruct_persistent_obj")
PARAMETER = ("torch._utils", "_rebuild_parameter")
TENSOR = ("torch._utils", "_rebuild_tensor_v2")
STORAGE = ("torch.storage", "_load_from_bytes")
# The first bytes of torch's older file format, the only one in which torch puts a storage into a pickle.
LEGACY_STORAGE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# The largest published network has about a thousand tensors in modules four deep.
MAX_TENSORS = 100_000
MAX_DEPTH = 50


class _Unusable(Exception):  # noqa: N818 (a reason, told to the user as part of a sentence)
    """Why a file cannot be converted."""


def convert(pickle_path: Path, out: Path) -> int:
    """Write the tensors of the network `ema` of a published EDM pickle to `out`; return their number.

    Nothing in the pickle is executed or imported. Raises `UserError` if the file is missing, is damaged,
    is no such pickle, holds no EDM-preconditioned network, or would unfold to more bytes than it has.
    """
    try:
        data = pickle_path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{pickle_path} is not a file; name a published EDM network (.pkl).") from None
    try:
        tensors = _read(data)
    except _Unusable as reason:
        raise UserError(
            f"{pickle_path} is not a published EDM network ({reason}); download it again or name another."
        ) from None
    with replacing(out) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    return len(tensors)


def _read(data: bytes) -> dict[str, Tensor]:
    """The state dict of the network under `ema`."""
    try:
        content = InertUnpickler(data).load()
    # Bytes that are no pickle can fail in every way that a stack machine can.
    except Exception:
        raise _Unusable("not a pickle, or cut short") from None
    network = _entries(content).get("ema")
    if not isinstance(network, Inert):
        raise _Unusable("it holds no network named `ema`")
    if _class_name(network) != DENOISER:
        raise _Unusable(f"its network is no `{DENOISER}`, the one preconditioning known here")
    state_dict = _StateDict(_Storages(len(data)))
    state_dict.add(network, prefix="", depth=0)
    if not state_dict.tensors:
        raise _Unusable("its network has no tensors")
    return state_dict.tensors


@dataclass
class _Storages:
    """Storages read so far, by the stand-in they come from.

    An honest file holds every byte once: neither the storages nor the tensors on them may sum to more
    than the file's size, `limit`.
    """

    limit: int
    read: dict[int, Tensor] = field(default_factory=dict)
    stored: int = 0
    unfolded: int = 0

    def tensor(self, value: object) -> Tensor:
        """Rebuild what a stand-in for a parameter or a tensor describes, as a tensor of its own."""
        try:
            if isinstance(value, Inert) and value.origin == PARAMETER:
                value = value.args[0]
            if not isinstance(value, Inert) or value.origin != TENSOR:
                raise _Unusable("a tensor of an unknown kind")
            arguments: Any = value.args[:4]
            source, offset, size, stride = arguments
            storage = self._storage(source)
            self.unfolded += math.prod(size) * storage.element_size()
            if self.unfolded > self.limit:
                raise _Unusable("it unfolds to more bytes than it has")
            # as_strided refuses what lies outside the storage.
            return storage.as_strided(size, stride, offset).clone(memory_format=torch.contiguous_format)
        except _Unusable:
            raise
        # Arguments of a damaged file are anything, and torch refuses them in many ways.
        except Exception:
            raise _Unusable("a damaged tensor") from None

    def _storage(self, stand_in: object) -> Tensor:
        """All the numbers of a storage, as a flat tensor."""
        if not isinstance(stand_in, Inert) or stand_in.origin != STORAGE:
            raise _Unusable("a tensor without its numbers")
        if id(stand_in) not in self.read:
            content = stand_in.args[0]
            if not isinstance(content, bytes) or not content.startswith(LEGACY_STORAGE):
                raise _Unusable("a tensor in an unknown format")
            self.stored += len(content)
            if self.stored > self.limit:
                raise _Unusable("it unfolds to more bytes than it has")
            storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            if not isinstance(storage, torch.TypedStorage) or not storage.dtype.is_floating_point:
                raise _Unusable("a tensor of an unknown kind")
            self.read[id(stand_in)] = torch.empty(0, dtype=storage.dtype).set_(storage)
        return self.read[id(stand_in)]


@dataclass
class _StateDict:
    """The tensors of a tree of modules under their dotted names, in the order of torch's `state_dict`."""

    storages: _Storages
    tensors: dict[str, Tensor] = field(default_factory=dict)
    modules: int = 0

    def add(self, module: object, prefix: str, depth: int) -> None:
        """Add the tensors of one module, then those of the modules in it."""
        self.modules += 1
        if depth > MAX_DEPTH or max(self.modules, len(self.tensors)) > MAX_TENSORS:
            raise _Unusable("its modules are nested without end")
        state = _state(module)
        transient = _strings(state.get("_non_persistent_buffers_set"))
        for kind in ("_parameters", "_buffers"):
            for name, value in _entries(state.get(kind)).items():
                if value is not None and name not in transient:
                    self.tensors[prefix + name] = self.storages.tensor(value)
        for name, child in _entries(state.get("_modules")).items():
            if child is not None:
                self.add(child, f"{prefix}{name}.", depth + 1)


def _class_name(module: Inert) -> object:
    if module.origin == PERSISTENT and module.args:
        return _entries(module.args[0]).get("class_name")
    return module.origin[1]


def _state(module: object) -> dict[str, object]:
    """The `__dict__` of a module, whether persistent or plain."""
    if not isinstance(module, Inert):
        raise _Unusable("a part of its network is no module")
    if module.origin == PERSISTENT and module.args:
        return _entries(_entries(module.args[0]).get("state"))
    return _entries(module.state)


def _entries(mapping: object) -> dict[str, object]:
    """The named items of a dictionary, or of a stand-in for one; none for anything else."""
    items = mapping.items if isinstance(mapping, Inert) else mapping
    if not isinstance(items, dict):
        return {}
    return {key: value for key, value in items.items() if isinstance(key, str)}


def _strings(value: object) -> frozenset[str]:
    """The strings in a set; pickle protocols before 4 write a set as a call of `set` with a list."""
    if isinstance(value, Inert):
        value = value.args[0] if value.args else ()
    return frozenset(v for v in value if isinstance(v, str)) if isinstance(value, set | list) else frozenset()
