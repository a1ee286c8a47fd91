"""What a dry run is made of instead of data and trained weights: generated pictures and random numbers."""

import io
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rdmd import config
from rdmd.dry_run.shrink import Places, config_domains
from rdmd.evaluation.features import WEIGHTS_FILE, InceptionV3
from rdmd.networks.build import build_denoiser, save_weights

BLOBS = 5


def make_materials(settings: config.Settings, original: config.Settings, root: Path, count: int) -> None:
    """Write the raw input and the initial weights that the shrunk `settings` of `original` name, below `root`.

    Each domain of pictures gets 2 `count` for each of train and test, or 4 `count` where it has no split of its own.
    """
    places = Places(root)
    rng = np.random.default_rng(settings.seed)
    for name, domain in config_domains(original).items():
        if isinstance(domain, config.ImageFolder):
            _write_pictures(places.pictures(name, domain), domain, settings.preprocess.resolution, count, rng)
    if settings.teacher.init is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            save_weights(build_denoiser(settings.network, settings.sample_shape), places.initial_weights)


def picture(side: int, rng: np.random.Generator) -> Image.Image:
    """A smooth random picture in colour, half as wide again as `side` is high, so that fitting it is work."""
    grid = rng.integers(0, 256, (BLOBS, BLOBS, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize((side * 3 // 2, side), Image.Resampling.BICUBIC)


def _write_pictures(path: Path, domain: config.ImageFolder, side: int, count: int, rng: np.random.Generator) -> None:
    """Pictures in the folders that the domain names, as a folder or as a zip archive."""
    folder = path.with_suffix("")
    splits = [(".", 4 * count)] if domain.train is None else [(domain.train, 2 * count), (domain.test, 2 * count)]
    for inside, number in splits:
        place = folder / str(inside)
        place.mkdir(parents=True, exist_ok=True)
        for index in range(number):
            picture(max(side, 8), rng).save(place / f"{index:03d}.png")
    if domain.reader == "archive":
        shutil.make_archive(str(folder), "zip", folder)
        shutil.rmtree(folder)


def published_inception_is_here(features: config.InceptionFeatures) -> bool:
    """Whether the published weights lie where evaluation would take them from without a download."""
    if features.weights is not None:
        return features.weights.is_file()
    return (Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE).is_file()


def random_inception(device: torch.device, seed: int) -> InceptionV3:
    """InceptionV3 as evaluation runs it, with random weights: its FID means nothing."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        """Keeps the weights that it was made with."""

        def load_state_dict(self, *_: object, **__: object) -> None:
            """torch-fidelity insists on loading something."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Untrained("inception", ["2048"], feature_extractor_weights_path=nothing)
    return InceptionV3(network.to(device), "random weights")
