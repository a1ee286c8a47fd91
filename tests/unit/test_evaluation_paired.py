"""Scores against true counterparts, on constructed images whose counterparts are known."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rdmd import config
from rdmd.config import ClassifierFeatures, Evaluate
from rdmd.data.preprocess import preprocess
from rdmd.data.samples import REGIONS
from rdmd.data.shards import Known, read_split
from rdmd.data.transforms import to_unit
from rdmd.evaluation.classifier import train_attributes
from rdmd.evaluation.evaluator import NamedTranslator, counterpart_row, identity_row, target_row
from rdmd.evaluation.paired import PairedTruth, colour_error, counterparts, retrieval
from rdmd.evaluation.row import FeaturesRecord, Metrics
from rdmd.evaluation.table import format_table, read_metrics, write_metrics
from rdmd.evaluation.task import ImageFeatures, ImageTask, image_task
from rdmd.pipeline.evaluation import evaluate_one

CPU = torch.device("cpu")
SIDE = 12


class Pixels:
    """A feature network whose features are the pixels."""

    name, dim, sha256 = "pixels", 3 * SIDE * SIDE, "0" * 64

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1).float()


def faces(count: int, seed: int) -> tuple[Tensor, Tensor, list[dict]]:
    """Images of four quarters in random colours, their regions, and facts: a beard is a dark line in the first."""
    rng = torch.Generator().manual_seed(seed)
    regions = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    half = SIDE // 2
    for number in range(4):
        row, column = divmod(number, 2)
        regions[row * half : (row + 1) * half, column * half : (column + 1) * half] = number + 1
    colours = torch.randint(60, 256, (count, 4, 3), generator=rng, dtype=torch.uint8)
    images = colours[:, regions.long() - 1].permute(0, 3, 1, 2).contiguous()
    beards = torch.rand(count, generator=rng) < 0.4
    images[beards, :, 1, :half] = 0
    return images, regions.expand(count, SIDE, SIDE), [{"beard": bool(beard), "skin": "#123456"} for beard in beards]


@pytest.fixture(scope="module")
def task() -> ImageTask:
    """Sources are the targets turned upside down, so the perfect translation is known."""
    images, regions, facts = faces(80, 0)
    train, _, train_facts = faces(400, 1)
    with pytest.MonkeyPatch.context() as patch:
        # A third suffices for a beard as plain as these.
        patch.setattr("rdmd.evaluation.classifier._STEPS", 200)
        classifier = train_attributes(train, Known(train_facts, None), 0, CPU)
    attributes = classifier.indices(Known(facts, None))
    truth = PairedTruth(images, torch.arange(80), images.flatten(1).double(), regions, attributes, classifier)
    settings = Evaluate(features=ClassifierFeatures(network="classifier"), n_source=60, n_reference=20, bootstrap=0)
    return image_task(images.flip(2), images, ImageFeatures(Pixels()), settings, 0, CPU, truth=truth)


def test_the_perfect_translation_meets_every_counterpart(task: ImageTask) -> None:
    turn = NamedTranslator(lambda source, rng: source.flip(2), "rdmd", 1)
    paired = evaluate_one(turn, task).row.paired
    assert paired == counterpart_row(task).paired
    assert (paired.psnr, paired.feature_distance, paired.retrieval) == (100, 0, 1)
    assert paired.colour_error == dict.fromkeys(REGIONS, 0.0)
    # The classifier sees beards that it has not been trained on.
    assert paired.agreement["beard"] > 0.95


def test_random_target_images_are_at_chance(task: ImageTask) -> None:
    paired = target_row(task, faces(300, 2)[0]).paired
    # Two uniform levels in 60..255 differ by a third of the range on average; four standard errors of 180 such.
    assert paired.colour_error == pytest.approx(dict.fromkeys(REGIONS, 195 / 255 / 3), abs=0.06)
    # 1/60 on average; more than four of 60 by chance has a probability below 0.4%.
    assert paired.retrieval <= 4 / 60
    # 0.4^2 + 0.6^2, and four standard errors of a share of 60.
    assert paired.agreement["beard"] == pytest.approx(0.52, abs=0.26)
    assert paired.psnr < 15


def test_the_untouched_source_has_the_wrong_colours(task: ImageTask) -> None:
    same = identity_row(task).paired
    assert min(same.colour_error.values()) > 0.15
    assert same.psnr < 15


def test_a_part_of_a_region_in_another_colour_changes_no_median() -> None:
    truth, regions, _ = faces(5, 3)
    moved = truth.clone()
    moved[:, :, :2, :6] = 0
    assert colour_error(moved, truth, regions == 1).tolist() == [0] * 5
    moved[:, :, :6, :6] = 0
    expected = truth[:, :, 5, 5].double().mean(dim=1) / 255
    assert torch.allclose(colour_error(moved, truth, regions == 1), expected)
    assert len(colour_error(moved, truth, torch.zeros_like(regions, dtype=torch.bool))) == 0


def test_retrieval_counts_only_the_own_counterpart() -> None:
    truth = torch.eye(4, dtype=torch.float64)
    assert retrieval(truth, truth) == 1
    assert retrieval(truth[[1, 0, 2, 3]], truth) == 0.5


def test_counterparts_go_by_pair_and_need_every_source() -> None:
    def known(*pairs: int) -> Known:
        return Known([{"pair": pair} for pair in pairs], None)

    assert counterparts(known(2, 0), known(0, 1, 2)) == [2, 0]
    assert counterparts(known(3), known(0, 1)) is None
    assert counterparts(None, known(0)) is None
    assert counterparts(Known([{"beard": True}], None), known(0)) is None


def test_names_of_test_images_tell_counterparts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for domain, suffix in (("source", "png"), ("target", "bmp")):
        for name in ("train/a", "train/b", "test/x/1", "test/2"):
            file = tmp_path / domain / f"{name}.{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file)
    settings = config.load(Path("experiments/folder.yaml"))
    folder = {"reader": "images", "train": "train", "test": "test", "pairs": True}
    domains = {name: folder | {"path": tmp_path / name} for name in ("source", "target")}
    settings = settings.model_copy(update={"domains": config.Domains.model_validate(domains)})
    splits = {}
    for name in domains:
        preprocess(settings, name, tmp_path / "shards" / name)
        splits[name] = read_split(tmp_path / "shards" / name, "test")
    places = counterparts(splits["source"].known(), splits["target"].known())
    names = {name: [row.name.split("/", 1)[1].split(".")[0] for row in split.table()] for name, split in splits.items()}
    assert [names["target"][place] for place in places] == names["source"]
    assert read_split(tmp_path / "shards" / "source", "train").known() is None


def test_a_sample_of_the_sources_keeps_its_counterparts(task: ImageTask) -> None:
    assert len(task.source) == 60
    assert torch.equal(task.source.flip(2), task.truth.images)


def test_the_reference_holds_no_counterpart_of_a_source_unless_there_is_no_other(task: ImageTask) -> None:
    def rows(images: Tensor) -> set[bytes]:
        return {image.numpy().tobytes() for image in images}

    assert not rows(task.reference) & rows(task.truth.images)
    assert len(rows(task.reference)) == 20 and task.left_out().count("counterparts") == 0
    images, features = task.truth.images, task.features
    truth = dataclasses.replace(task.truth, places=torch.arange(60))
    crowded = image_task(
        images.flip(2), images, features, task.settings.model_copy(update={"n_source": 50}), 0, CPU, truth=truth
    )
    assert len(rows(crowded.reference) & rows(crowded.truth.images)) == crowded.own == 10
    assert "10 are among them, so that FID and KID favour" in crowded.left_out()
    assert counterpart_row(task).fid is None and counterpart_row(task).kid is not None
    assert counterpart_row(crowded).kid is None


def test_training_twice_gives_the_same_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdmd.evaluation.classifier._STEPS", 20)
    images, _, facts = faces(64, 4)
    first, again = (train_attributes(images, Known(facts, None), 0, CPU) for _ in range(2))
    x = to_unit(images)
    assert torch.equal(first.net(x), again.net(x))
    assert train_attributes(images, Known([{"skin": "#000000"}] * 64, None), 0, CPU) is None


def test_the_table_and_the_file_hold_the_paired_scores(task: ImageTask, tmp_path) -> None:
    rows = [identity_row(task), counterpart_row(task)]
    metrics = Metrics(
        experiment="faces", seed=0, features=FeaturesRecord(name="pixels", sha256="0" * 64, dim=432),
        n_source=60, n_reference=20, rows=rows,
    )  # fmt: skip
    text = format_table(metrics)
    assert "truth found" in text and "true counterpart" in text
    write_metrics(metrics, tmp_path / "metrics.json")
    assert read_metrics(tmp_path / "metrics.json") == metrics


def test_without_pairs_nothing_is_paired(task: ImageTask) -> None:
    unpaired = dataclasses.replace(task, truth=None)
    assert identity_row(unpaired).paired is None
    assert counterpart_row(unpaired) is None
