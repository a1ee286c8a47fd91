"""Features on disk, by the content of what they are of: a set of pictures goes through a feature network once."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from rdmd.code_digest import code_digest
from rdmd.evaluation.features import FeatureNetwork, network_features
from rdmd.files import canonical_json, replacing

# What all files together may take; beyond it, those go that were used longest ago.
MOST_BYTES = 8 * 2**30
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class FeatureCache:
    """A folder of features. It may be deleted at any time."""

    folder: Path
    most_bytes: int = MOST_BYTES

    def features_of(self, network: FeatureNetwork, images: Tensor, batch: int, device: torch.device) -> Tensor:
        """As `rdmd.evaluation.features.features_of`, which is asked where the folder has nothing.

        A file is named by the pictures, their order, the network's weights and code, the version of torch and the kind
        of device: whatever the features depend on beyond rounding.
        """
        file = self.folder / f"{_key(network, images, device)}{_SUFFIX}"
        kept = _read(file, len(images), network.dim)
        if kept is not None:
            return kept.double()
        found = network_features(network, images, batch, device)
        with replacing(file) as temporary:
            safetensors.torch.save_file({"features": found}, temporary)
        self._make_room(file)
        return found.double()

    def _make_room(self, newest: Path) -> None:
        """Remove what was used longest ago until the rest is within `most_bytes`; the newest stays."""
        files = sorted(
            ((file.stat(), file) for file in self.folder.glob(f"*{_SUFFIX}") if file != newest),
            key=lambda one: one[0].st_mtime_ns,
        )
        over = newest.stat().st_size + sum(stat.st_size for stat, _ in files) - self.most_bytes
        for stat, file in files:
            if over <= 0:
                return
            file.unlink(missing_ok=True)
            over -= stat.st_size


def _key(network: FeatureNetwork, images: Tensor, device: torch.device) -> str:
    content = images.detach().cpu().contiguous()
    described = {
        "pictures": hashlib.sha256(content.numpy()).hexdigest(),
        "shape": list(content.shape),
        "network": [network.name, network.sha256, network.dim],
        "code": code_digest((type(network).__module__,)),
        "torch": torch.__version__,
        "device": device.type,
    }
    return hashlib.sha256(canonical_json(described).encode()).hexdigest()[:32]


def _read(file: Path, count: int, dim: int) -> Tensor | None:
    """The features in a file; None if there is none, or not a whole one of this shape."""
    try:
        features = safetensors.torch.load_file(file)["features"]
        os.utime(file)
    except (FileNotFoundError, SafetensorError, KeyError):
        return None
    return features if features.shape == (count, dim) else None
