"""Import of a published EDM network (.pkl), without execution of anything in the file.

A pickle is a program that names functions and calls them. The safe unpickler replaces every name by a placeholder that
only records the call, so nothing of the file runs and none of the modules that it names is imported.
"""

import io
import math
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors.torch import save_file
from torch import Tensor

from rdmd.errors import UserError
from rdmd.files import replacing


class Placeholder:
    """An object of the pickle: its name, the arguments of its constructor, and the state and items set after."""

    origin: tuple[str, str]  # module and name, set by `SafeUnpickler.find_class`
    args: tuple[object, ...]
    state: object
    items: dict[object, object]

    def __new__(cls, *args: object, **_: object) -> "Placeholder":
        made = super().__new__(cls)
        made.args = args
        made.state = None
        made.items = {}
        return made

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        self.items[key] = value

    def append(self, item: object) -> None:
        """Ignore the items of list and set types that are not Python's own: they hold no part of a network."""

    add = extend = append


# Python's unpickler: that in C allocates any length or memo index that a file names.
class SafeUnpickler(pickle._Unpickler):
    """An unpickler with placeholders for all names. `load` may raise anything on a damaged file."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._classes: dict[tuple[str, str], type[Placeholder]] = {}

    def find_class(self, module: str, name: str) -> type[Placeholder]:
        """A subclass of `Placeholder` with this name; nothing is imported."""
        key = (module, name)
        if key not in self._classes:
            self._classes[key] = type("Placeholder", (Placeholder,), {"origin": key})
        return self._classes[key]


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

    Nothing in the pickle is executed or imported. Raises `UserError` if the file is missing, damaged, no such pickle,
    holds no EDM-preconditioned network, or would give more bytes of tensors than the file has.
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
        content = SafeUnpickler(data).load()
    # Arbitrary bytes can raise any error.
    except Exception:
        raise _Unusable("not a pickle, or cut short") from None
    network = _entries(content).get("ema")
    if not isinstance(network, Placeholder):
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
    """Storages read so far, by the id of their placeholder. Neither the storages nor the tensors on them may have more
    bytes than the file, `limit`: a regular file has every byte once."""

    limit: int
    read: dict[int, Tensor] = field(default_factory=dict)
    stored: int = 0
    unfolded: int = 0

    def tensor(self, value: object) -> Tensor:
        """The tensor that a placeholder of a parameter or tensor describes, as a copy."""
        try:
            if isinstance(value, Placeholder) and value.origin == PARAMETER:
                value = value.args[0]
            if not isinstance(value, Placeholder) or value.origin != TENSOR:
                raise _Unusable("a tensor of an unknown kind")
            source, offset, size, stride = value.args[:4]
            if not isinstance(offset, int) or not _is_shape(size) or not _is_shape(stride):
                raise _Unusable("a damaged tensor")
            storage = self._storage(source)
            self.unfolded += math.prod(size) * storage.element_size()
            if self.unfolded > self.limit:
                raise _Unusable("it unfolds to more bytes than it has")
            # as_strided refuses what lies outside the storage.
            return storage.as_strided(size, stride, offset).clone(memory_format=torch.contiguous_format)
        except _Unusable:
            raise
        # A damaged file may give any arguments, and torch raises many errors.
        except Exception:
            raise _Unusable("a damaged tensor") from None

    def _storage(self, placeholder: object) -> Tensor:
        """A whole storage as a flat tensor."""
        if not isinstance(placeholder, Placeholder) or placeholder.origin != STORAGE:
            raise _Unusable("a tensor without its numbers")
        if id(placeholder) not in self.read:
            content = placeholder.args[0]
            if not isinstance(content, bytes) or not content.startswith(LEGACY_STORAGE):
                raise _Unusable("a tensor in an unknown format")
            self.stored += len(content)
            if self.stored > self.limit:
                raise _Unusable("it unfolds to more bytes than it has")
            storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            if not isinstance(storage, torch.TypedStorage) or not storage.dtype.is_floating_point:
                raise _Unusable("a tensor of an unknown kind")
            self.read[id(placeholder)] = torch.empty(0, dtype=storage.dtype).set_(storage)
        return self.read[id(placeholder)]


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


def _is_shape(value: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(value, tuple) and all(isinstance(n, int) for n in value)


def _class_name(module: Placeholder) -> object:
    if module.origin == PERSISTENT and module.args:
        return _entries(module.args[0]).get("class_name")
    return module.origin[1]


def _state(module: object) -> dict[str, object]:
    """The `__dict__` of a module, whether persistent or plain."""
    if not isinstance(module, Placeholder):
        raise _Unusable("a part of its network is no module")
    if module.origin == PERSISTENT and module.args:
        return _entries(_entries(module.args[0]).get("state"))
    return _entries(module.state)


def _entries(mapping: object) -> dict[str, object]:
    """The named items of a dictionary or of its placeholder; none for anything else."""
    items = mapping.items if isinstance(mapping, Placeholder) else mapping
    if not isinstance(items, dict):
        return {}
    return {key: value for key, value in items.items() if isinstance(key, str)}


def _strings(value: object) -> frozenset[str]:
    """The strings in a set; pickle protocols before 4 write a set as a call of `set` with a list."""
    if isinstance(value, Placeholder):
        value = value.args[0] if value.args else ()
    return frozenset(v for v in value if isinstance(v, str)) if isinstance(value, set | list) else frozenset()
