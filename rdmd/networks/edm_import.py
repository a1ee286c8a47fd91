"""Import of a published EDM network (.pkl), without execution of anything in the file.

A pickle is a program that names functions and calls them. The unpickler here imports none of them: it has functions of
its own for the few names that a network needs, and any other name becomes a dictionary that notes what it is given.
"""

import io
import math
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rdmd.errors import UserError
from rdmd.files import replacing

PERSISTENT = ("torch_utils.persistence", "_reconstruct_persistent_obj")
DENOISER = "EDMPrecond"
# The first bytes of torch's older file format, the only one in which torch puts a storage into a pickle.
LEGACY_STORAGE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# The largest published network has about a thousand tensors in modules four deep.
MAX_MODULES = 100_000
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
        content = _Unpickler(data).load()
        network = content.get("ema") if isinstance(content, dict) else None
        if not isinstance(network, _Noted):
            raise _Unusable("it holds no network named `ema`")
        if network.name != DENOISER:
            raise _Unusable(f"its network is no `{DENOISER}`, the one preconditioning known here")
        tensors = _state_dict(network)
    except _Unusable:
        raise
    # Arbitrary bytes can raise any error.
    except Exception:
        raise _Unusable("not a pickle, or cut short, or with a damaged tensor") from None
    if not tensors:
        raise _Unusable("its network has no tensors")
    return tensors


def _state_dict(network: "_Noted") -> dict[str, Tensor]:
    """The tensors of a tree of modules under their dotted names, in the order of torch's `state_dict`."""
    tensors: dict[str, Tensor] = {}
    modules = 0

    def add(module: Any, prefix: str, depth: int) -> None:
        nonlocal modules
        modules += 1
        if depth > MAX_DEPTH or modules > MAX_MODULES:
            raise _Unusable("its modules are nested without end")
        transient = module.get("_non_persistent_buffers_set", ())
        for name, value in (module["_parameters"] | module["_buffers"]).items():
            if value is not None and name not in transient:
                if not isinstance(value, Tensor) or not value.is_floating_point():
                    raise _Unusable("a tensor of an unknown kind")
                tensors[prefix + name] = value
        for name, child in module["_modules"].items():
            if child is not None:
                add(child, f"{prefix}{name}.", depth + 1)

    add(network, "", 0)
    return tensors


class _Noted(dict[Any, Any]):
    """An object of the pickle: the items or the state that it is given, and the name of its class."""

    name = ""
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        self.update(state if isinstance(state, dict) else {})

    def append(self, item: object) -> None:
        """Ignore the items of list and set types that are not Python's own: they hold no part of a network."""

    add = extend = append


# Python's unpickler: that in C allocates any length or memo index that a file names.
class _Unpickler(pickle._Unpickler):
    """An unpickler that imports nothing. `load` may raise anything on a damaged file."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        # A regular file has each byte once in a storage and once in a tensor on it.
        self._bytes_left = 2 * len(data)
        self._known = {
            PERSISTENT: self._module,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch.storage", "_load_from_bytes"): self._storage,
            ("builtins", "set"): set,
        }

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of the pickle."""
        return self._known.get((module, name)) or type("_Noted", (_Noted,), {"name": name})

    def _module(self, meta: dict[str, Any]) -> _Noted:
        made: _Noted = self.find_class("", meta["class_name"])()
        made.update(meta["state"])
        return made

    def _tensor(
        self, storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
    ) -> Tensor:
        self._take(math.prod(size) * storage.element_size())
        # as_strided refuses what lies outside the storage.
        return storage.as_strided(size, stride, offset).clone(memory_format=torch.contiguous_format)

    def _storage(self, content: bytes) -> Tensor:
        """A whole storage as a flat tensor."""
        if not content.startswith(LEGACY_STORAGE):
            raise _Unusable("a tensor in an unknown format")
        self._take(len(content))
        storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return torch.empty(0, dtype=storage.dtype).set_(storage)

    def _take(self, count: int) -> None:
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise _Unusable("it unfolds to more bytes than it has")
