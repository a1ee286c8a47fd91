"""InceptionV3 as torch-fidelity has it: the features behind the FIDs of the literature."""

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn

from rdmd.errors import UserError

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
