"""The stage `features`: it makes the feature network of FID and KID, which the evaluation loads."""

import json
import sys
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from rdmd import config
from rdmd.data.manifest import read_manifest
from rdmd.data.samples import SPLITS
from rdmd.data.shards import LoadedDomain, read_split
from rdmd.errors import UserError
from rdmd.evaluation.classifier import FeatureClassifier, load_feature_network, save_classifier, train_classifier
from rdmd.evaluation.corruption import FEWEST, STRENGTHS, check_corruptions
from rdmd.evaluation.features import FeatureCache, FeatureNetwork
from rdmd.evaluation.task import ImageFeatures
from rdmd.files import replacing_folder, write_json
from rdmd.pipeline.layout import Layout

_CHECK = "check.json"


@dataclass(frozen=True)
class LabelledSplits:
    """The splits on which a feature classifier is trained and tested: images (N, C, H, W) and class indices (N,).

    `sentence` describes them.
    """

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: list[str | int]
    sentence: str


def train_features(settings: config.Settings, layout: Layout) -> str:
    """Make models/features as params.yaml asks, and describe it in a sentence.

    A classifier is trained here; for other networks the folder holds their name alone. `check.json` holds the effect of
    corruptions of the target's test images on the network. InceptionV3 is not checked: its FID rises with corruption
    (Heusel et al. 2017, figure 3), and it may be downloaded later.
    """
    features = settings.evaluate.features
    if isinstance(features, config.ClassifierFeatures):
        sentence = _train_classifier(features, settings, layout)
    else:
        with replacing_folder(layout.features) as temporary:
            write_json(temporary / "features.json", features.model_dump(mode="json"))
        sentence = f"the feature network is {features.network}: nothing to train"
    if isinstance(features, config.InceptionFeatures | config.NoFeatures):
        return sentence
    tested = read_manifest(layout.shards / "target").counts["test"]
    if tested < FEWEST:
        # So few samples rank nothing anyway, which the table and the registry say.
        write_json(layout.features / _CHECK, {"images": tested, "refused": None})
        return f"{sentence}; not checked on corruptions, which needs {FEWEST} test images of the target, not {tested}"
    refused = _check(settings, layout)
    if refused is None:
        return f"{sentence}; every corruption of the target's test images raises its Frechet distance"
    return f"{sentence}\nREALISM RANKS NOTHING ON THESE FEATURES, and no champion can be registered: {refused}"


def load_features(settings: config.Settings, layout: Layout, device: torch.device) -> ImageFeatures:
    """The feature network with the outcome of its check, and with a cache.

    Raises UserError if the network or its check is missing or damaged.
    """
    network, classifier = _load_network(settings, layout, device)
    return ImageFeatures(network, classifier, refusal(settings, layout), FeatureCache(layout.feature_cache))


def refusal(settings: config.Settings, layout: Layout) -> str | None:
    """Why realism on the feature network ranks nothing; None if it does, or if nothing checks it.

    Raises UserError if the outcome of the check is missing or damaged.
    """
    if isinstance(settings.evaluate.features, config.InceptionFeatures | config.NoFeatures):
        return None
    file = layout.features / _CHECK
    try:
        refused: str | None = json.loads(file.read_bytes())["refused"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{file} cannot be read; make it again with `rdmd features`.") from None
    return refused


def evaluation_device(settings: config.Settings) -> torch.device:
    """The first GPU, unless there is none or launch.device is cpu. A CPU computes with `launch.threads` threads."""
    if settings.launch.threads is not None:
        torch.set_num_threads(settings.launch.threads)
    gpu = settings.launch.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def _train_classifier(features: config.ClassifierFeatures, settings: config.Settings, layout: Layout) -> str:
    splits = _labelled(settings, layout)
    images, labels = splits.train
    with tqdm(total=features.steps, desc="features", unit="step", disable=not sys.stderr.isatty()) as bar:

        def progress(step: int, loss: float) -> None:
            bar.update(step - bar.n)

        classifier = train_classifier(
            images.to(evaluation_device(settings)), labels, features, len(splits.classes), settings.seed, progress
        )
    train, test = (classifier.accuracy(*split) for split in (splits.train, splits.test))
    card = save_classifier(classifier, layout.features, splits.classes, train, test, splits.sentence)
    return (
        f"a classifier of {len(card.classes)} classes, {card.dim} features, sha256 {card.sha256[:12]}: "
        f"{card.test_accuracy:.1%} right on {len(splits.test[1])} test images"
    )


def _check(settings: config.Settings, layout: Layout) -> str | None:
    """Check the new network, write the outcome beside it, and give the reason if it is refused."""
    device = evaluation_device(settings)
    held_out = read_split(layout.shards / "target", "test").data
    network, _ = _load_network(settings, layout, device)
    check = check_corruptions(network, held_out, settings.evaluate.batch, settings.seed, device)
    write_json(layout.features / _CHECK, {**asdict(check), "strengths": STRENGTHS, "refused": check.refused})
    return check.refused


def _load_network(
    settings: config.Settings, layout: Layout, device: torch.device
) -> tuple[FeatureNetwork, FeatureClassifier | None]:
    """The network, and once more as a classifier where it knows the classes of the domain `features`."""
    network = load_feature_network(settings.evaluate.features, layout.features, device)
    if isinstance(network, FeatureClassifier) and settings.domains.features is not None:
        return network, network
    return network, None


def _labelled(settings: config.Settings, layout: Layout) -> LabelledSplits:
    if settings.domains.features is None:
        source, target = (
            [read_split(layout.shards / name, split).data for split in SPLITS] for name in ("source", "target")
        )
        return LabelledSplits(
            _stacked(source[0], target[0]),
            _stacked(source[1], target[1]),
            ["source", "target"],
            f"telling source from target on their train splits: {len(source[0])} and {len(target[0])} images",
        )
    classes = list(getattr(settings.domains.features, "classes", []))
    if not classes:
        raise UserError(
            "params.yaml: domains.features needs a reader with labels (digits or mnist); remove the "
            "section to learn features from source against target."
        )
    train, test = (_indexed(read_split(layout.shards / "features", split), classes) for split in SPLITS)
    names = ", ".join(map(str, classes))
    sentence = f"the train split of the domain `features`: {len(train[0])} images of classes {names}"
    return LabelledSplits(train, test, classes, sentence)


def _indexed(domain: LoadedDomain, classes: list[str | int]) -> tuple[Tensor, Tensor]:
    """The images, with the place of each label among `classes`."""
    index = torch.zeros(max(int(name) for name in classes) + 1, dtype=torch.long)
    for place, name in enumerate(classes):
        index[int(name)] = place
    return domain.data, index[domain.labels]


def _stacked(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([source, target]), torch.tensor([0] * len(source) + [1] * len(target))
