"""One evaluator for all translators: on images with a real classifier, on points with exact transport."""

import dataclasses

import pytest
import torch
from matplotlib.text import Text
from torch import Tensor

from rdmd.config import ClassifierFeatures, Evaluate, NoFeatures
from rdmd.data.transforms import to_unit
from rdmd.errors import UserError
from rdmd.evaluation import transport
from rdmd.evaluation.classifier import FeatureClassifier, train_classifier
from rdmd.evaluation.evaluator import (
    NamedTranslator,
    evaluate,
    identity_row,
    target_row,
    translate,
)
from rdmd.evaluation.row import FeaturesRecord, Metrics, Row
from rdmd.evaluation.selection import mark_front
from rdmd.evaluation.table import format_table, measured_realism, realism_name
from rdmd.evaluation.task import (
    ImageFeatures,
    ImageTask,
    PointTask,
    groups_of,
    image_task,
    places_of,
    point_task,
    sample_of,
)
from rdmd.pipeline.evaluation import evaluate_one
from rdmd.report.figures import metrics_figure, realism_figure

CPU = torch.device("cpu")


def bars(count: int, upright: bool, seed: int) -> Tensor:
    """8x8 images of one bright bar on noise, upright or lying: two domains that a classifier tells apart."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (count, 3, 8, 8), generator=rng, dtype=torch.uint8)
    places = torch.randint(0, 8, (count,), generator=rng)
    for image, place in zip(images, places.tolist(), strict=True):
        (image[:, :, place] if upright else image[:, place]).fill_(230)
    return images


@pytest.fixture(scope="module")
def classifier() -> FeatureClassifier:
    images = torch.cat([bars(200, True, 0), bars(200, False, 1)])
    labels = torch.tensor([0] * 200 + [1] * 200)
    return train_classifier(images, labels, ClassifierFeatures(network="classifier", dim=8, steps=40), 2, seed=0)


@pytest.fixture(scope="module")
def images(classifier: FeatureClassifier) -> ImageTask:
    settings = Evaluate(
        features=ClassifierFeatures(network="classifier"), n_source=100, n_reference=150, batch=32, bootstrap=20,
        target_class=1,
    )  # fmt: skip
    return image_task(bars(120, True, 2), bars(300, False, 3), ImageFeatures(classifier, classifier), settings, 0, CPU)


@pytest.fixture(scope="module")
def points() -> PointTask:
    settings = Evaluate(
        features=NoFeatures(network="none"), n_source=600, n_reference=500, batch=256, bootstrap=20, projections=64,
        n_transport=400,
    )  # fmt: skip
    rng = torch.Generator().manual_seed(4)
    return point_task(
        torch.randn(600, 2, generator=rng), 0.5 * torch.randn(500, 2, generator=rng) + 2, settings, 0, CPU
    )


def test_turning_the_images_is_the_perfect_translation(images: ImageTask) -> None:
    turn = NamedTranslator(
        lambda source, rng: source.transpose(2, 3), "rdmd", 1, lam=0.1, train_seconds=3.0, settings={"run": "ab12"}
    )
    turned, same = evaluate_one(turn, images).row, identity_row(images)
    assert turned.class_share > 0.98
    assert same.class_share < 0.02
    assert turned.fid < 0.1 * same.fid
    assert turned.fid_ci[0] < turned.fid < turned.fid_ci[1]
    assert turned.precision > 0.7
    assert (turned.method, turned.lam, turned.run, turned.nfe, turned.train_seconds) == ("rdmd", 0.1, "ab12", 1, 3.0)
    assert turned.cost_sum == pytest.approx(192 * turned.cost)
    assert turned.seconds_per_image > 0
    assert turned.sw2 is None


def test_the_source_as_it_is_costs_nothing(images: ImageTask) -> None:
    row = identity_row(images)
    assert (row.cost, row.l2_norm01, row.colour_error, row.nfe) == (0.0, 0.0, 0.0, 0)
    assert (row.psnr, row.ssim) == (100.0, pytest.approx(1.0))


def test_the_target_itself_is_the_floor(images: ImageTask) -> None:
    row = target_row(images, bars(200, False, 5))
    assert row.fid < 0.05 * identity_row(images).fid
    assert row.class_share > 0.98
    assert row.cost is None


def test_colour_error_and_psnr_of_a_known_change(images: ImageTask) -> None:
    """Ten levels brighter everywhere, far from clipping: the difference is 20/255 in [-1, 1]."""
    brighter = NamedTranslator(lambda source, rng: source + 20 / 255, "shift", 1)
    row = evaluate_one(brighter, images).row
    assert row.cost == pytest.approx((20 / 255) ** 2)
    assert row.psnr == pytest.approx(28.13, abs=0.01)  # 20 log10(25.5)


def test_points_are_compared_with_the_exact_map(points: PointTask) -> None:
    near = evaluate_one(NamedTranslator(lambda x, rng: 0.5 * x + 2, "rdmd", 1, lam=0.1), points).row
    same, floor = identity_row(points), target_row(points, 0.5 * torch.randn(800, 2) + 2)
    # The Monge map of N(0, I) to N(2, I / 4) moves by E|x/2 - 2|^2 = 0.5 + 8; 600 samples know it to 5% or so.
    assert near.cost_sum == pytest.approx(8.5, rel=0.1)
    assert near.ot_cost == pytest.approx(8.5, rel=0.1)
    # 400 points give the exact map to within ten percent; the identity is off by all of the displacement.
    assert near.l2_uvp < 15
    assert same.l2_uvp > 1000
    assert same.cost == 0.0
    assert same.w2 == pytest.approx(same.ot_cost**0.5)
    assert near.sw2 < 0.15 * same.sw2
    assert floor.sw2 < 0.15 * same.sw2
    assert near.sw2_ci[0] < near.sw2 < near.sw2_ci[1]
    assert (near.fid, near.psnr, floor.cost, floor.l2_uvp) == (None, None, None, None)


def test_noise_is_one_stream_from_the_seed_and_warm_up_takes_none_of_it(points: PointTask) -> None:
    noise = NamedTranslator(lambda x, rng: torch.randn(x.shape, generator=rng), "noise", 1)
    rng = torch.Generator().manual_seed(0)
    expected = torch.cat([torch.randn(count, 2, generator=rng) for count in (256, 256, 88)])
    assert torch.equal(translate(noise, points).samples, expected)
    assert not torch.equal(translate(noise, dataclasses.replace(points, seed=1)).samples, expected)


def test_an_output_that_is_not_finite_names_the_method(points: PointTask) -> None:
    broken = NamedTranslator(lambda x, rng: x / 0, "rdmd", 1, lam=0.5)
    with pytest.raises(FloatingPointError, match=r"'rdmd' at lambda 0\.5 gave a value that is not finite in batch 0"):
        evaluate_one(broken, points)


def test_samples_are_drawn_from_all_of_a_sorted_split() -> None:
    split = torch.arange(1000)
    drawn = sample_of(split, 100, seed=0)
    assert len(drawn.unique()) == 100
    # Means of 100 and of 20 draws from 0..999, within four standard errors.
    assert abs(drawn.float().mean() - 500) < 4 * 289 / 10
    assert abs(drawn[:20].float().mean() - 500) < 4 * 289 / 20**0.5
    everything = sample_of(split, 2000, seed=0)
    assert torch.equal(everything.sort().values, split)
    assert not torch.equal(everything[:20], split[:20])


def test_the_target_class_is_found_by_its_name(images: ImageTask, classifier: FeatureClassifier) -> None:
    """The class 1 is named 7 here; the network is the same."""
    named = FeatureClassifier(classifier.net, classifier.side, [4, 7])
    settings = images.settings.model_copy(update={"target_class": 7})
    task = dataclasses.replace(images, features=ImageFeatures(named, named), settings=settings)
    assert task.score_target(bars(150, False, 5)).class_share > 0.98
    with pytest.raises(UserError, match=r"evaluate\.target_class is 3, .* 4, 7"):
        image_task(
            bars(20, True, 2),
            bars(20, False, 3),
            ImageFeatures(named, named),
            settings.model_copy(update={"target_class": 3}),
            0,
            CPU,
        )


def test_groups_follow_the_samples_that_are_drawn() -> None:
    scans = ("a", "a", "b", "b", "b", "c")
    samples = torch.tensor([0, 0, 1, 1, 1, 2])
    places = places_of(6, 4, seed=3)
    picked, groups = samples[places], groups_of(scans, places)
    assert groups.max() + 1 == len(picked.unique())
    assert torch.equal(picked[:, None] == picked, groups[:, None] == groups)
    assert torch.equal(picked, sample_of(samples, 4, seed=3))
    assert groups_of(None, places).tolist() == [0, 1, 2, 3]


def test_sw2_is_averaged_over_disjoint_references(points: PointTask) -> None:
    """References of two laws: the mean lies halfway between the two distances."""
    settings = points.settings.model_copy(update={"n_reference": 200, "references": 2, "bootstrap": 0})
    reference = 0.5 * torch.randn(400, 2, generator=torch.Generator().manual_seed(9))
    task = point_task(points.source, reference, settings, 0, CPU)
    joined = torch.cat([task.reference, *task.more])
    assert torch.equal(joined.sort(dim=0).values, reference.sort(dim=0).values), "every point in one part"
    # 600 sources are enough for a sample against each reference: to the references themselves, in their order, the
    # distance is 0, and in the other order it is not.
    assert dataclasses.replace(task, source=joined).score(joined).sw2 == 0
    assert dataclasses.replace(task, source=joined).score(joined.roll(200, dims=0)).sw2 > 0.01
    few = dataclasses.replace(task, source=points.source[:300], plan=None)
    alone = [transport.sliced_w2(few.source, part, 64, 0) for part in (task.reference, *task.more)]
    assert few.score(few.source).sw2 == pytest.approx(sum(alone) / 2, rel=1e-12)
    assert alone[0] != alone[1]
    with pytest.raises(UserError, match=r"evaluate.references is 3 times 200 points.* has 400; lower it"):
        point_task(points.source, reference, settings.model_copy(update={"references": 3}), 0, CPU)


COUNTS = [(sources, references) for sources in (1, 2, 3, 4) for references in (1, 2, 3, 4)]


@pytest.mark.parametrize(("sources", "references"), COUNTS)
def test_what_few_images_do_not_measure_is_left_out(
    images: ImageTask, classifier: FeatureClassifier, sources: int, references: int
) -> None:
    task = image_task(
        bars(sources, True, 2),
        bars(references, False, 3),
        ImageFeatures(classifier, classifier),
        images.settings,
        0,
        CPU,
    )
    rows = [
        evaluate_one(NamedTranslator(lambda x, rng: x.transpose(2, 3), "rdmd", 1, lam=0.1), task).row,
        identity_row(task),
        target_row(task, bars(2, False, 5)),
    ]
    turned, floor = rows[0], rows[2]
    fewest = min(sources, references)
    for name, least in (("fid", 50), ("kid", 2), ("fid_ci", 50), ("precision", 4), ("recall", 4)):
        assert (getattr(turned, name) is None) == (fewest < least), name
    assert turned.cost is not None and turned.psnr is not None and turned.class_share is not None
    assert (turned.cost_se is None) == (sources < 2)
    assert (floor.realism is None) == (fewest < 2)
    sentence = task.left_out()
    assert ("FID and KID" in sentence, "precision" in sentence) == (fewest < 2, fewest < 4)
    assert ("standard errors" in sentence) == (sources < 2)
    _is_reported(rows)


@pytest.mark.parametrize(("sources", "references"), COUNTS)
def test_what_few_points_do_not_measure_is_left_out(points: PointTask, sources: int, references: int) -> None:
    rng = torch.Generator().manual_seed(6)
    task = point_task(
        torch.randn(sources, 2, generator=rng), torch.randn(references, 2, generator=rng), points.settings, 0, CPU
    )
    rows = [
        evaluate_one(NamedTranslator(lambda x, rng: x + 1, "rdmd", 1, lam=0.1), task).row, identity_row(task),
        target_row(task, torch.randn(3, 2, generator=rng)),
    ]  # fmt: skip
    moved = rows[0]
    assert moved.sw2 is not None and moved.w2 is not None and moved.cost_sum == pytest.approx(2)
    assert (moved.sw2_ci is None) == (min(sources, references) < 2)
    assert (moved.l2_uvp is None) == (references < 2)
    assert (moved.cost_se is None) == (sources < 2)
    assert ("SW2" in task.left_out(), "L2-UVP" in task.left_out()) == (min(sources, references) < 2, references < 2)
    _is_reported(rows)


def test_evaluate_scores_tensors_as_a_task_does(images: ImageTask, classifier: FeatureClassifier) -> None:
    source, reference, turned = images.source, images.reference, images.source.transpose(2, 3)
    scores = evaluate(turned, source, reference, classifier, batch=32, bootstrap=20)
    row = evaluate_one(NamedTranslator(lambda x, rng: x.transpose(2, 3), "rdmd", 1), images).row
    assert dict(scores) == {name: None if name == "class_share" else getattr(row, name) for name in dict(scores)}
    assert evaluate(to_unit(turned), to_unit(source), to_unit(reference), classifier, batch=32, bootstrap=20) == scores
    realism = evaluate(turned, None, reference, classifier, bootstrap=0)
    assert (realism.fid, realism.cost, realism.fid_ci) == (pytest.approx(scores.fid), None, None)
    with pytest.raises(ValueError, match="99, 3"):
        evaluate(turned[:99], source, reference, classifier)


def test_evaluate_scores_points_with_exact_transport(points: PointTask) -> None:
    moved = 0.5 * points.source + 2
    scores = evaluate(moved, points.source, points.reference, bootstrap=20, projections=64, n_transport=400)
    assert scores == points.score(moved)
    assert scores.l2_uvp is not None and evaluate(moved, None, points.reference, bootstrap=0).l2_uvp is None


def test_copies_of_one_scan_measure_no_spread(images: ImageTask, classifier: FeatureClassifier) -> None:
    """The draws of a single scan are all equal, and the third neighbour of another scan is infinitely far."""
    scans = ["a"] * 60
    task = image_task(
        bars(60, True, 2),
        bars(60, False, 3),
        ImageFeatures(classifier, classifier),
        images.settings,
        0,
        CPU,
        scans,
        scans,
    )
    row = identity_row(task)
    assert row.fid is not None and (row.fid_ci, row.precision, row.recall) == (None, None, None)
    assert "interval of FID" in task.left_out()


def test_kid_takes_the_place_of_fid_under_fifty_images(images: ImageTask) -> None:
    """On either side, and for all rows alike, so that they are ranked by one metric."""
    settings = images.settings
    for sources, references, name in ((100, 50, "FID"), (50, 150, "FID"), (49, 150, "KID"), (100, 49, "KID")):
        task = image_task(bars(sources, True, 2), bars(references, False, 3), images.features, settings, 0, CPU)
        turn = NamedTranslator(lambda x, rng: x.transpose(2, 3), "rdmd", 1, lam=0.1)
        rows = [evaluate_one(turn, task).row, identity_row(task), target_row(task, bars(150, False, 5))]
        assert {realism_name(row) for row in rows} == {name}
        assert rows[0].realism < 0.2 * rows[1].realism
        assert ("KID takes its place" in task.left_out()) == (name == "KID")
        _is_reported(rows)


def _is_reported(rows: list[Row]) -> None:
    """The front, the table and both figures take rows with gaps."""
    metrics = Metrics(
        experiment="x",
        seed=0,
        features=FeaturesRecord(name="none", sha256=None, dim=2),
        n_source=1,
        n_reference=1,
        rows=mark_front(rows),
    )
    assert metrics.rows[0].on_front == (rows[0].realism is not None)
    ranked_by_kid = measured_realism(rows) == "KID"
    heading, names, *_ = format_table(metrics).splitlines()
    assert ("KID takes the place of FID" in heading) == ("KID" in names.split()) == ranked_by_kid
    axes_and_caption = " ".join(text.get_text() for text in metrics_figure(metrics).findobj(Text))
    assert ("KID of features to the target" in axes_and_caption) == ranked_by_kid
    assert "None" not in format_table(metrics) and "nan" not in format_table(metrics)
    drawn = [text.get_text() for text in realism_figure(metrics).findobj(Text)]
    assert any("No realism was measured" in text for text in drawn) == (rows[0].realism is None)
    assert metrics_figure(metrics).axes
