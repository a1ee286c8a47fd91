"""The figures of the report: labels, markers and pixels."""

import dataclasses

import numpy as np
import pytest
import torch

from rdmd.evaluation.row import Row
from rdmd.report.figures import Plane, Point, Series, curves_figure, front_figure, metrics_figure, realism_figure
from rdmd.report.samples import extremes_figure, image_grid, samples_figure
from rdmd.report.style import CYCLE, styles
from rdmd.training import run_folder
from tests.integration.test_report import image_metrics, image_rows, image_samples, point_report

# The first image's corner in a grid of 8 x 8 images below titles of three lines; the step from image to image.
TOP, LEFT, SIDE, STEP = 8 + 3 * 15, 8, 112, 112 + 6


def pixels(figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def test_methods_differ_in_their_markers_and_look_the_same_in_every_figure():
    methods = ["rdmd", "sdedit", "sdedit-sde", "ilvr", "egsde", "ddib", "neural-ot", "cut", "teacher", "another"]
    looks = styles(methods)
    assert len({look.marker for look in looks.values()}) == len(methods)
    assert styles(["neural-ot"]) == {"neural-ot": looks["neural-ot"]}


def labels(*settings: dict) -> list[str]:
    grid = [
        Row(method="egsde", settings=each, nfe=3, fid=50.0 + i, cost=0.1 + 0.01 * i) for i, each in enumerate(settings)
    ]
    rows = [*image_rows(), *grid]
    figure = metrics_figure(image_metrics().model_copy(update={"rows": rows}))
    return [text.get_text() for text in figure.axes[0].texts]


def test_one_hyperparameter_is_labelled_and_a_grid_of_two_is_not():
    assert labels() == ["λ = 0.1", "λ = 0.02", "σ = 1"]
    assert "σ = 2" in labels({"sigma": 2.0}, {"sigma": 3.0})
    assert labels({"sigma": 2.0, "repel": 1.0}, {"sigma": 3.0, "repel": 2.0}) == labels()


def test_a_registered_generator_is_filled_and_another_one_hollow():
    rows = image_rows()
    rows[1] = rows[1].model_copy(update={"on_front": False})
    figure = metrics_figure(image_metrics().model_copy(update={"rows": rows}))
    markers = {
        float(line.get_xdata()[0]): line.get_markerfacecolor()
        for line in figure.axes[0].lines
        if line.get_marker() == "o" and len(line.get_xdata()) == 1
    }
    assert markers == {rows[0].cost: "#0b3c6f", rows[1].cost: "white"}


def test_labels_stay_clear_of_each_other_and_of_the_points():
    rng = np.random.default_rng(0)
    points = [Point(x, 1 / (0.1 + x) + y, label=f"λ = {x:.2f}") for x, y in rng.uniform(0, 0.4, (12, 2))]
    figure = front_figure([Plane("x", "y", [Series("RDMD", points, CYCLE[0])])])
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == len(points)
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])
        assert not any(box.contains(*axes.transData.transform((point.x, point.y))) for point in points)
        assert axes.get_window_extent().contains(box.x0, box.y0) and axes.get_window_extent().contains(box.x1, box.y1)


def test_planes_share_a_legend_and_a_wide_range_is_logarithmic():
    series = [Series("one", [Point(1.0, 1.0, y_interval=(0.5, 2.0)), Point(20.0, 30.0)], CYCLE[0])]
    figure = front_figure([Plane("a", "b", series), Plane("c", "d", series, log_x=True)], "caption")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one"]
    assert [(axes.get_xscale(), axes.get_yscale()) for axes in figure.axes] == [("linear", "log"), ("log", "log")]


def test_without_any_realism_the_figure_says_so():
    metrics = image_metrics()
    rows = [row.model_copy(update={"fid": None, "fid_ci": None}) for row in metrics.rows]
    figure = metrics_figure(metrics.model_copy(update={"rows": rows}))
    assert "No realism was measured" in figure.axes[0].texts[0].get_text()


def test_realism_alone_has_a_line_for_every_method():
    metrics, _ = point_report()
    figure = realism_figure(metrics)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        "RDMD, λ = 0.1\nNFE 1", "RDMD, λ = 0\nNFE 1", "source as it is\nNFE 0"
    ]  # fmt: skip


def test_curves_have_a_panel_for_each_metric_and_a_line_for_each_training_that_logged_it():
    curves = {
        "a": [run_folder.Point(1, {"loss": 1.0}), run_folder.Point(2, {"loss": 100.0})],
        "b": [run_folder.Point(1, {"loss": 1.0, "cost": 0.1}), run_folder.Point(2, {"loss": 2.0, "cost": 0.2})],
    }
    loss, cost = curves_figure(curves).axes
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["a", "b"]
    assert [text.get_text() for text in cost.get_legend().get_texts()] == ["b"]
    assert (loss.get_yscale(), cost.get_yscale()) == ("log", "linear")


def test_a_metric_that_few_steps_have_is_drawn_through_these():
    logged = {5: {}, 10: {"eval_fid": 9.0}, 15: {}, 20: {"eval_fid": 7.0}}
    curves = {"a": [run_folder.Point(step, values) for step, values in logged.items()]}
    (panel,) = curves_figure(curves).axes
    logged, mean = (line.get_xydata().tolist() for line in panel.lines)
    assert logged == [[10, 9], [20, 7]]
    assert np.isfinite(mean).all()


def test_samples_show_every_source_and_translation():
    shown = pixels(samples_figure(image_samples(), image_rows()))
    order = [0, 2, 1, 3, 4]  # the source, generators by falling lambda, then the others
    for row, column in np.ndindex(8, 5):
        top, left = TOP + STEP * row, LEFT + STEP * column
        assert (shown[top : top + SIDE, left : left + SIDE] == 10 * (row + 1) + order[column]).all(), (row, column)


def test_an_enlarged_image_keeps_its_pixels_and_a_large_one_is_reduced():
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shown = pixels(image_grid([("a\nb\nc", image)]))[TOP : TOP + SIDE, LEFT : LEFT + SIDE]
    assert (shown[7::14, 7::14] == image[0].permute(1, 2, 0).numpy()).all()
    wide = pixels(image_grid([("", torch.full((1, 3, 300, 600), 9, dtype=torch.uint8))]))
    assert wide.shape[1] == 256 + 2 * LEFT and (wide[-60, 100] == 9).all()


@pytest.mark.parametrize(("count", "ends"), [(1, (100, 100)), (3, (100, 255)), (40, (100, 255))])
def test_extremes_are_the_least_and_the_most_changed_images(count: int, ends: tuple[int, int]):
    source = torch.full((count, 3, 8, 8), 100, dtype=torch.uint8)
    changed = source + 50
    changed[-1], changed[0] = 255, 100
    shown = pixels(extremes_figure(source, changed))
    translations = shown[8 + 15 + STEP + SIDE // 2, :, 0]
    assert (translations[LEFT + SIDE // 2], translations[-LEFT - SIDE // 2]) == ends


def test_points_are_drawn_for_every_method_with_exact_transport():
    metrics, samples = point_report()
    titles = [axes.get_title().split("\n")[0] for axes in samples_figure(samples, metrics.rows).axes if axes.axison]
    assert titles == ["source", "target", "exact transport", "RDMD, λ = 0.1", "RDMD, λ = 0"]
    noise = dataclasses.replace(samples, exact=None)
    assert all(not axes.collections[2:] for axes in samples_figure(noise, metrics.rows).axes), "no segments from noise"
