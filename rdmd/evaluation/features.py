"""Feature networks, on whose features realism is measured, and a cache of features."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import joblib
import numpy as np
import torch
from torch import Tensor, nn

from rdmd.code_digest import code_digest
from rdmd.data.transforms import as_rgb
from rdmd.errors import UserError
from rdmd.networks.efficientnet_lite import load_efficientnet_lite0

# The size at which the cache drops the features that were read longest ago.
MOST_BYTES = 8 * 2**30
# The weights of the original FID (Heusel et al. 2017), converted from TensorFlow; torch-fidelity publishes them.
WEIGHTS_FILE = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class FeatureNetwork(Protocol):
    """A fixed network whose features a realism metric compares.

    Attributes:
        name: "classifier", "efficientnet_lite0", "inception".
        dim: features of an image.
        sha256: of its weights, in hex; numbers are comparable only under one hash.
    """

    name: str
    dim: int

    @property
    def sha256(self) -> str: ...

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W), uint8 or uint16, to (B, dim), on the device of the network. Grey is repeated."""
        ...


def load_network(name: Literal["inception", "efficientnet_lite0"], device: torch.device) -> FeatureNetwork:
    """A published feature network. Raises `UserError` if its weights are missing or are not the published ones."""
    return load_inception(None, device) if name == "inception" else load_efficientnet_lite0(device)


@torch.no_grad()
def features_of(network: FeatureNetwork, images: Tensor, batch: int, device: torch.device) -> Tensor:
    """The features of (N, C, H, W) images of 8 or 16 bits, `batch` at a time on `device`: (N, dim) float64 on the CPU.

    Raises `FloatingPointError` if a feature is not finite.
    """
    return torch.from_numpy(_computed("", network, images, batch, device)).double()


@dataclass(frozen=True)
class FeatureCache:
    """A folder of features, which joblib keeps by the content of the images. It may be deleted at any time."""

    folder: Path
    most_bytes: int = MOST_BYTES

    def features_of(self, network: FeatureNetwork, images: Tensor, batch: int, device: torch.device) -> Tensor:
        """As `rdmd.evaluation.features.features_of`, which is called only if the folder lacks the features."""
        code, network_id = code_digest((type(network).__module__,)), (network.name, network.sha256, network.dim)
        key = joblib.hash((images.cpu().numpy(), network_id, code, torch.__version__, device.type))
        memory = joblib.Memory(self.folder, verbose=0)
        compute = memory.cache(_computed, ignore=["network", "images", "batch", "device"])
        known = compute.check_call_in_cache(key, network, images, batch, device)
        features = compute(key, network, images, batch, device)
        if not known:
            memory.reduce_size(bytes_limit=self.most_bytes)
        return torch.from_numpy(features).double()


@torch.no_grad()
def _computed(key: str, network: FeatureNetwork, images: Tensor, batch: int, device: torch.device) -> np.ndarray:
    features = torch.cat([network(part.to(device)).cpu() for part in images.split(batch)])
    if not torch.isfinite(features).all():
        raise FloatingPointError(f"the feature network {network.name!r} gave a value that is not finite")
    return features.numpy()


class InceptionV3:
    """A `FeatureNetwork`: the 2048 pooled features of images resized to 299x299 as TensorFlow 1 does."""

    name = "inception"
    dim = 2048

    def __init__(self, network: nn.Module, sha256: str) -> None:
        self._network = network
        self.sha256 = sha256

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 2048) float32; 16 bits become 8, which is all that the network reads."""
        (features,) = self._network(as_rgb(images))
        return features


def inception_is_here(weights: Path | None) -> bool:
    """Whether `load_inception(weights)` would find a file without a download."""
    return (weights or _hub_file()).is_file()


def _hub_file() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE


def load_inception(weights: Path | None, device: torch.device) -> InceptionV3:
    """InceptionV3 from a local file, or, with None, from torch's hub folder, to which it is downloaded once.

    Raises `UserError` if the file is missing, cannot be downloaded, or is not the published one (by its SHA-256).
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = weights if weights is not None else _downloaded()
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
    # torch-fidelity unpickles any file without `weights_only`, so it gets a copy that holds the tensors alone.
    tensors = io.BytesIO()
    torch.save(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), tensors)
    tensors.seek(0)
    network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=tensors)
    return InceptionV3(network.to(device), WEIGHTS_SHA256)


def _downloaded() -> Path:
    """The weights in torch's hub folder. Raises `UserError` if they are not there and cannot be downloaded."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = _hub_file()
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
