"""The stage that makes the feature network of FID and KID, and where evaluation finds it."""

import json
import sys
from dataclasses import asdict, dataclass

import torch
from tqdm import tqdm

from rdmd import config
from rdmd.data.shards import LoadedDomain, read_split
from rdmd.errors import UserError
from rdmd.evaluation.classifier import FeatureClassifier, train_classifier
from rdmd.evaluation.classifier_folder import load_classifier, save_classifier
from rdmd.evaluation.corruption import FEWEST, STRENGTHS, check_corruptions
from rdmd.evaluation.features import FeatureCache, FeatureNetwork, load_inception
from rdmd.evaluation.task import ImageFeatures
from rdmd.files import replacing_folder, write_json
from rdmd.networks.efficientnet_lite import load_efficientnet_lite0
from rdmd.pipeline.layout import Layout

_CHECK = "check.json"


@dataclass(frozen=True)
class LabelledSplits:
    """What a feature classifier learns from and is tested on: pictures (N, 3, H, W) uint8 with class indices (N,)."""

    train: tuple[torch.Tensor, torch.Tensor]
    test: tuple[torch.Tensor, torch.Tensor]
    classes: list[str | int]
    sentence: str


def train_features(settings: config.Settings, layout: Layout) -> str:
    """Make models/features as params.yaml asks, and say in a sentence what it is.

    A classifier is trained here; the others need nothing trained, so the folder only says so. What a network gives for
    corrupted images of the target's test split is in `check.json`. InceptionV3 is taken at its word: its FID rises with
    corruption (Heusel et al. 2017, figure 3), and it may be downloaded later.
    """
    features = settings.evaluate.features
    if not isinstance(features, config.ClassifierFeatures):
        with replacing_folder(layout.features) as temporary:
            write_json(temporary / "features.json", features.model_dump(mode="json"))
        said = f"the feature network is {features.network}: nothing to train"
    else:
        said = _train_classifier(features, settings, layout)
    if isinstance(features, config.InceptionFeatures | config.NoFeatures):
        return said
    refused = _check(settings, layout)
    if refused is None:
        return f"{said}; every corruption of the target's test images raises its Frechet distance"
    return f"{said}\nREALISM RANKS NOTHING ON THESE FEATURES, and no champion can be registered: {refused}"


def _train_classifier(features: config.ClassifierFeatures, settings: config.Settings, layout: Layout) -> str:
    splits = _labelled(settings, layout)
    device = evaluation_device(settings)
    with tqdm(total=features.steps, desc="features", unit="step", disable=not sys.stderr.isatty()) as bar:
        classifier = train_classifier(
            splits.train[0].to(device),
            splits.train[1],
            features,
            len(splits.classes),
            settings.seed,
            lambda step, loss: bar.update(step - bar.n),
        )
    accuracy = {name: classifier.accuracy(*data) for name, data in {"train": splits.train, "test": splits.test}.items()}
    card = save_classifier(
        classifier, layout.features, splits.classes, accuracy["train"], accuracy["test"], splits.sentence
    )
    return (
        f"a classifier of {len(card.classes)} classes, {card.dim} features, sha256 {card.sha256[:12]}: "
        f"{card.test_accuracy:.1%} right on {len(splits.test[1])} test pictures"
    )


def load_features(settings: config.Settings, layout: Layout, device: torch.device) -> ImageFeatures:
    """The feature network with the outcome of its check, and with a cache.

    Raises UserError if the network or its check is missing or damaged.
    """
    network, classifier = _load_network(settings, layout, device)
    refused = None
    if not isinstance(settings.evaluate.features, config.InceptionFeatures):
        file = layout.features / _CHECK
        try:
            refused = json.loads(file.read_bytes())["refused"]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{file} cannot be read; make it again with `rdmd features`.") from None
    return ImageFeatures(network, classifier, refused, FeatureCache(layout.feature_cache))


def _check(settings: config.Settings, layout: Layout) -> str | None:
    """Check the network that was just made, write the outcome beside it, and give why it is refused, if it is."""
    device = evaluation_device(settings)
    held_out = read_split(layout.shards / "target", "test").data
    if len(held_out) < FEWEST:
        refused = f"the target has {len(held_out)} test images, and a check needs {FEWEST}"
        write_json(layout.features / _CHECK, {"images": len(held_out), "refused": refused})
        return refused
    network, _ = _load_network(settings, layout, device)
    check = check_corruptions(network, held_out, settings.evaluate.batch, settings.seed, device)
    write_json(layout.features / _CHECK, {**asdict(check), "strengths": STRENGTHS, "refused": check.refused})
    return check.refused


def _load_network(
    settings: config.Settings, layout: Layout, device: torch.device
) -> tuple[FeatureNetwork, FeatureClassifier | None]:
    features = settings.evaluate.features
    if isinstance(features, config.InceptionFeatures):
        return load_inception(features.weights, device), None
    if isinstance(features, config.EfficientNetLite0Features):
        return load_efficientnet_lite0(device), None
    classifier, _ = load_classifier(layout.features)
    classifier.to(device)
    return classifier, classifier if settings.domains.features is not None else None


def evaluation_device(settings: config.Settings) -> torch.device:
    """Where evaluation runs: the first GPU unless launch.device is cpu. On a CPU it keeps to `launch.threads`."""
    if settings.launch.threads is not None:
        torch.set_num_threads(settings.launch.threads)
    gpu = settings.launch.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def _labelled(settings: config.Settings, layout: Layout) -> LabelledSplits:
    if settings.domains.features is not None:
        folder = layout.shards / "features"
        train, test = read_split(folder, "train"), read_split(folder, "test")
        classes = list(getattr(settings.domains.features, "classes", []))
        if not classes:
            raise UserError(
                "params.yaml: domains.features needs a reader with labels (digits or mnist); remove the "
                "section to learn features from source against target."
            )
        return LabelledSplits(
            _indexed(train, classes),
            _indexed(test, classes),
            classes,
            f"the train split of the domain `features`: {len(train.data)} pictures of classes "
            f"{', '.join(map(str, classes))}",
        )
    both = {
        split: [read_split(layout.shards / name, split).data for name in ("source", "target")]
        for split in ("train", "test")
    }
    return LabelledSplits(
        _stacked(both["train"]),
        _stacked(both["test"]),
        ["source", "target"],
        "telling source from target on their train splits: "
        f"{len(both['train'][0])} and {len(both['train'][1])} pictures",
    )


def _indexed(domain: LoadedDomain, classes: list[str | int]) -> tuple[torch.Tensor, torch.Tensor]:
    index = torch.zeros(max(int(c) for c in classes) + 1, dtype=torch.long)
    for i, label in enumerate(classes):
        index[int(label)] = i
    return domain.data, index[domain.labels]


def _stacked(domains: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.cat([torch.full((len(data),), i) for i, data in enumerate(domains)])
    return torch.cat(domains), labels
