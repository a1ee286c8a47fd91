"""Feature networks: what realism metrics see instead of pixels."""

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from rdmd.code_digest import code_digest
from rdmd.errors import UserError
from rdmd.files import canonical_json, replacing
from rdmd.networks.efficientnet_lite import load_efficientnet_lite0


class FeatureNetwork(Protocol):
    """A fixed network whose features a realism metric compares.

    Attributes:
        name: "classifier", "efficientnet_lite0", "inception".
        sha256: of its weights; numbers are comparable only under one hash.
        dim: features a picture.
    """

    name: str
    dim: int

    @property
    def sha256(self) -> str:
        """The SHA-256 of the weights, in hex."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 to (B, dim), on the device of the network."""
        ...


def load_network(name: Literal["inception", "efficientnet_lite0"], device: torch.device) -> FeatureNetwork:
    """A published feature network by its name. Raises `UserError` if its weights are missing or not the published."""
    return load_inception(None, device) if name == "inception" else load_efficientnet_lite0(device)


def features_of(network: FeatureNetwork, images: Tensor, batch: int, device: torch.device) -> Tensor:
    """The features of (N, 3, H, W) uint8 pictures, `batch` at a time on `device`: (N, dim) float64 on the
    CPU.

    Raises `FloatingPointError` if a feature is not finite.
    """
    return network_features(network, images, batch, device).double()


@torch.no_grad()
def network_features(network: FeatureNetwork, images: Tensor, batch: int, device: torch.device) -> Tensor:
    """As `features_of`, in the numbers that the network gives."""
    features = torch.cat([network(part.to(device)).cpu() for part in images.split(batch)])
    if not torch.isfinite(features).all():
        raise FloatingPointError(f"the feature network {network.name!r} gave a value that is not finite")
    return features


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


# The weights of the original FID (Heusel et al. 2017), converted from TensorFlow; published by torch-
# fidelity.
WEIGHTS_FILE = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class InceptionV3:
    """A `FeatureNetwork`: the 2048 pooled features, pictures resized to 299x299 as TensorFlow 1 does."""

    name = "inception"
    dim = 2048

    def __init__(self, network: nn.Module, sha256: str) -> None:
        self._network = network
        self._sha256 = sha256

    @property
    def sha256(self) -> str:
        """The SHA-256 of the weights' file, in hex."""
        return self._sha256

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 to (B, 2048) float32."""
        (features,) = self._network(images)
        return features


def load_inception(weights: Path | None, device: torch.device) -> InceptionV3:
    """InceptionV3 from a local file, or, with None, from torch's hub folder, downloaded there on first use.

    Raises `UserError` if the file is missing, cannot be downloaded, or is not the published one (by its
    SHA-256).
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = weights if weights is not None else _downloaded()
    content = _verified(path)
    # torch-fidelity unpickles whatever file it is given: hand it our own copy of the tensors instead.
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    ours = io.BytesIO()
    torch.save(state, ours)
    ours.seek(0)
    network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=ours)
    return InceptionV3(network.to(device), WEIGHTS_SHA256)


def _verified(path: Path) -> bytes:
    """The bytes of the weights' file. Raises `UserError` if it is missing or is another file."""
    remedy = f"give the published {WEIGHTS_FILE} as evaluate.features.weights"
    try:
        content = path.read_bytes()
    except OSError:
        raise UserError(f"the InceptionV3 weights {path} cannot be read; {remedy}.") from None
    found = hashlib.sha256(content).hexdigest()
    if found != WEIGHTS_SHA256:
        raise UserError(
            f"{path} is not the published InceptionV3 (its SHA-256 is {found[:12]}..., not "
            f"{WEIGHTS_SHA256[:12]}...), so its FID would compare with no other; {remedy}."
        )
    return content


def _downloaded() -> Path:
    """The weights in torch's hub folder, downloaded if need be. Raises `UserError` without a network."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=WEIGHTS_SHA256, progress=False)
        except (OSError, RuntimeError):
            raise UserError(
                f"the InceptionV3 weights could not be downloaded to {path}; put {WEIGHTS_FILE} there, or "
                "name your copy as evaluate.features.weights."
            ) from None
    return path
