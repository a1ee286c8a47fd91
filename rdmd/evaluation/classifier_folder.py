"""A feature classifier as files: `model.safetensors`, and `features.json`, which describes it."""

from pathlib import Path

import safetensors.torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError

from rdmd.config import Section
from rdmd.errors import UserError
from rdmd.evaluation.classifier import FeatureClassifier
from rdmd.files import replacing_folder, write_json
from rdmd.networks.classifier import ClassifierNet

WEIGHTS = "model.safetensors"
CARD = "features.json"


class FeaturesCard(Section):
    """What `features.json` holds. `classes` are names in the order of the class indices."""

    name: str
    sha256: str
    dim: int = Field(ge=1, le=65536)
    classes: list[str | int] = Field(min_length=1)
    side: int = Field(ge=1, le=4096)
    train_accuracy: float
    test_accuracy: float
    trained_on: str


def save_classifier(
    classifier: FeatureClassifier,
    folder: Path,
    classes: list[str | int],
    train_accuracy: float,
    test_accuracy: float,
    trained_on: str,
) -> FeaturesCard:
    """Write the folder, whole or not at all, and give back its card. `trained_on` is for readers."""
    if len(classes) != classifier.n_classes:
        raise ValueError(f"{len(classes)} class names for {classifier.n_classes} classes")
    card = FeaturesCard(
        name=classifier.name,
        sha256=classifier.sha256,
        dim=classifier.dim,
        classes=classes,
        side=classifier.side,
        train_accuracy=train_accuracy,
        test_accuracy=test_accuracy,
        trained_on=trained_on,
    )
    with replacing_folder(folder) as temporary:
        (temporary / WEIGHTS).write_bytes(classifier.weights())
        write_json(temporary / CARD, card.model_dump())
    return card


def load_classifier(folder: Path) -> tuple[FeatureClassifier, FeaturesCard]:
    """The classifier and its card.

    Raises `UserError` if a file is missing or damaged, or if the weights are not those that the card names.
    """
    remedy = "make it again with `rdmd features`"
    try:
        card = FeaturesCard.model_validate_json((folder / CARD).read_bytes())
        state = safetensors.torch.load((folder / WEIGHTS).read_bytes())
    except OSError as error:
        raise UserError(f"the feature network's file {error.filename} cannot be read; {remedy}.") from None
    except (ValidationError, SafetensorError):
        raise UserError(f"{folder} does not hold a feature network that this version reads; {remedy}.") from None
    net = ClassifierNet(card.side, card.dim, len(card.classes))
    try:
        net.load_state_dict(state)
    except RuntimeError:
        raise UserError(f"{folder / WEIGHTS} does not fit {CARD} beside it; {remedy}.") from None
    classifier = FeatureClassifier(net, card.side, card.classes)
    if classifier.sha256 != card.sha256:
        raise UserError(
            f"{folder / WEIGHTS} is not the file that {CARD} beside it names (its SHA-256 differs); {remedy}."
        )
    return classifier, card
