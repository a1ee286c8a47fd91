"""The report as a reader finds it: two figures and a page that needs nothing else."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rdmd.evaluation.report import (
    Account,
    Curve,
    ImageSamples,
    Panel,
    PointSamples,
    TrainedModel,
    write_report,
)
from rdmd.evaluation.report.pareto_figure import pareto_plot
from rdmd.evaluation.report.style import styles
from rdmd.evaluation.row import FeaturesRecord, Metrics, Row

VALIDATION = {
    "success": False,
    "domains": {"source": {"train": 2336, "test": 1011, "digest": "d1" * 32}},
    "outcomes": [
        {"domain": "source", "title": "has at least 100 training samples", "success": True, "failing": 0},
        {"domain": "source", "title": "has no <broken> pictures", "success": False, "failing": 3},
    ],
}
CURVES = [
    Curve("teacher", list(range(10, 210, 10)), {"loss": [1 / step for step in range(1, 21)]}),
    Curve("λ = 0.1", list(range(10, 210, 10)), {"cost": [0.1] * 20, "loss": [2 / step for step in range(1, 21)]}),
]
ACCOUNT = Account(
    facts=[("source", "reader <images>, path data/raw/source"), ("teacher", "700 steps of 64 samples")],
    settings="experiment: digits\nteacher: {steps: 700}\n",
    trained=[TrainedModel("teacher", 50.0, "CPU", 200, 779.4), TrainedModel("lambda-0.1", 80.0, "CPU")],
    without_curves=[],
    commit="c0" * 20,
    edited=False,
)


def image_rows() -> list[Row]:
    return [
        Row(method="rdmd", lam=0.02, nfe=1, fid=42.5, fid_ci=(39.1, 46.3), cost=0.118, cost_se=0.001, on_front=True),
        Row(method="rdmd", lam=0.1, nfe=1, fid=90.2, fid_ci=(85.0, 95.0), cost=0.063, cost_se=0.001, on_front=True),
        Row(method="sdedit", settings={"sigma": 1.0}, nfe=19, fid=128.4, cost=0.101, cost_se=0.002),
        Row(method="<script>alert(1)</script>", nfe=3, fid=250.0, cost=0.2),
        Row(method="identity", fid=621.0, cost=0.0, cost_se=0.0),
        Row(method="target", fid=20.3, fid_ci=(18.0, 22.0)),
    ]


def image_metrics() -> Metrics:
    return Metrics(
        experiment="digits", seed=7, features=FeaturesRecord(name="classifier", sha256="c0ffee" * 10 + "0000", dim=64),
        n_source=512, n_reference=2000, rows=image_rows(),
    )


def image_samples() -> ImageSamples:
    """Source k is plain grey of level 10 k; every method adds its place."""
    source = (10 * torch.arange(1, 21, dtype=torch.uint8))[:, None, None, None].expand(20, 3, 8, 8).contiguous()
    panels = [Panel(row, source + 1 + place) for place, row in enumerate(image_rows()[:4])]
    return ImageSamples(source, panels)


def point_report() -> tuple[Metrics, PointSamples]:
    rng = torch.Generator().manual_seed(0)
    source, target = torch.randn(300, 2, generator=rng), torch.randn(300, 2, generator=rng) * 0.4 + 1
    rows = [
        Row(method="rdmd", lam=0.1, nfe=1, sw2=0.031, sw2_ci=(0.02, 0.04), cost=0.6, cost_se=0.01, cost_sum=1.2,
            l2_uvp=2.34, ot_cost=1.6, on_front=True),
        Row(method="rdmd", lam=0.0, nfe=1, sw2=0.030, cost=1.5, cost_se=0.01, cost_sum=3.0, l2_uvp=90.0, ot_cost=1.6,
            on_front=True),
        Row(method="identity", sw2=1.2, cost=0.0, cost_se=0.0, cost_sum=0.0, ot_cost=1.6, l2_uvp=500.0),
        Row(method="target", sw2=0.022),
    ]  # fmt: skip
    panels = [Panel(rows[0], 0.4 * source + 1), Panel(rows[1], 0.4 * source.flip(0) + 1)]
    metrics = Metrics(
        experiment="swissroll", seed=0, features=FeaturesRecord(name="none", sha256=None, dim=2),
        n_source=300, n_reference=300, rows=rows,
    )
    return metrics, PointSamples(source, target, 0.4 * source + 1, panels)


def test_methods_are_told_apart_without_colour():
    methods = ["rdmd", "sdedit", "sdedit-sde", "ilvr", "egsde", "ddib", "neural-ot", "teacher", "another"]
    looks = styles(methods)
    assert len({look.marker for look in looks.values()}) == len(methods)
    assert styles(["neural-ot"])["neural-ot"] == looks["neural-ot"], "the same in every figure"


def test_a_grid_of_two_dials_is_drawn_as_its_front_without_words():
    def figure(*settings: dict) -> bytes:
        grid = [Row(method="egsde", settings=each, nfe=3, fid=50.0 + i, cost=0.1 + 0.01 * (-1) ** i)
                for i, each in enumerate(settings)]
        return pareto_plot(image_metrics().model_copy(update={"rows": [*image_rows(), *grid]})).png

    # The names of two dials are not written, so other values of them change nothing; one dial's are.
    two = figure({"sigma": 1.0, "repel": 1.0}, {"sigma": 2.0, "repel": 2.0})
    assert two == figure({"sigma": 3.0, "repel": 1.0}, {"sigma": 4.0, "repel": 2.0})
    assert figure({"sigma": 1.0}, {"sigma": 2.0}) != figure({"sigma": 3.0}, {"sigma": 4.0})


class Page(HTMLParser):
    """The tags, addresses and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("images")
    write_report(image_metrics(), image_samples(), CURVES, VALIDATION, ACCOUNT, out)
    return out


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("points")
    write_report(*point_report(), [], None, ACCOUNT, out)
    return out


def test_three_files_and_no_leftovers(images: Path, points: Path) -> None:
    for folder in (images, points):
        assert sorted(path.name for path in folder.iterdir()) == ["index.html", "pareto.png", "samples.png"]


def test_page_refers_to_nothing_outside_itself(images: Path, points: Path) -> None:
    # Front and samples; for pictures also the extremes of three methods, and the curves.
    for folder, pictures in ((images, 6), (points, 2)):
        text = (folder / "index.html").read_text(encoding="utf-8")
        page = Page(text)
        assert len(page.addresses) == pictures
        assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
        assert not {"script", "link", "iframe"} & set(page.tags)
        assert not re.search(r"https?:|url\(|@import", text)


def test_page_holds_the_figures_that_lie_beside_it(images: Path) -> None:
    page = Page((images / "index.html").read_text(encoding="utf-8"))
    embedded = [base64.b64decode(address.split(",", 1)[1]) for address in page.addresses]
    assert embedded[0] == (images / "pareto.png").read_bytes()
    assert embedded[1] == (images / "samples.png").read_bytes()


def test_page_says_the_numbers_and_what_they_depend_on(images: Path) -> None:
    text = Page((images / "index.html").read_text(encoding="utf-8")).text
    for expected in (
        "RDMD: digits",
        "512 translated test samples against 2000 of the target's",
        "features classifier (64, sha256 c0ffeec0)",
        "seed 7",
        "42.5 [39.1, 46.3]",
        "0.118 ± 0.0020",
        "20.3 [18.0, 22.0]",
        "SDEdit, σ = 1",
        f"git checkout {'c0' * 20}",
        "make repro",
        "dvc repro",
        "reader <images>, path data/raw/source",
        "teacher: {steps: 700}",
        "2 expectations of the data, of which 1 does not hold",
        "no (3 samples)",
        "1011",
    ):
        assert expected in text, expected


def test_text_from_data_is_escaped(images: Path) -> None:
    text = (images / "index.html").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "has no &lt;broken&gt; pictures" in text


def test_timings_are_of_every_training_and_every_method(tmp_path: Path) -> None:
    rows = [image_rows()[0].model_copy(update={"seconds_per_image": 0.0025})]
    write_report(image_metrics().model_copy(update={"rows": rows}), image_samples(), [], None, ACCOUNT, tmp_path)
    text = Page((tmp_path / "index.html").read_text(encoding="utf-8")).text
    timings = " ".join(text[text.index("Timings") :].split())
    assert "130 s of optimiser steps in all" in timings
    assert "teacher 200 50.0 250 779 CPU" in timings  # 50 s over 200 steps are 250 ms each
    assert "lambda-0.1 – 80.0 – – CPU" in timings
    assert "RDMD, λ = 0.02 1 2.50 1.28" in timings  # 512 sources at 2.5 ms


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    account = dataclasses.replace(ACCOUNT, without_curves=["teacher", "lambda-0.1"], commit=None, edited=False)
    write_report(image_metrics(), image_samples(), [], None, account, tmp_path)
    text = " ".join(Page((tmp_path / "index.html").read_text(encoding="utf-8")).text.split())
    assert "Not available: the curves of teacher, lambda-0.1" in text
    assert "Not available: the data were not validated" in text
    assert "outside git" in text and "git checkout" not in text and "put the settings above" in text.lower()


def test_changes_that_are_not_committed_are_said(tmp_path: Path) -> None:
    write_report(image_metrics(), image_samples(), [], None, dataclasses.replace(ACCOUNT, edited=True), tmp_path)
    text = " ".join(Page((tmp_path / "index.html").read_text(encoding="utf-8")).text.split())
    assert "Files differed from that commit" in text


def test_every_method_shows_its_best_and_worst_at_a_cost_near_the_knee(images: Path) -> None:
    # Both ends of a front of two are equally near its corner; the one of less cost is taken.
    titles = re.findall(r"<h3>([^<]*)</h3><figure>", (images / "index.html").read_text(encoding="utf-8"))
    assert titles == ["RDMD, λ = 0.1", "SDEdit, σ = 1", "&lt;script&gt;alert(1)&lt;/script&gt;"]


def test_the_setting_shown_of_a_baseline_is_the_one_nearest_to_the_knee(tmp_path: Path) -> None:
    rows = [image_rows()[0]] + [
        Row(method="sdedit", settings={"sigma": sigma}, nfe=19, fid=100.0, cost=cost)
        for sigma, cost in ((0.5, 0.05), (1.0, 0.12), (2.0, 0.3))
    ]
    source = torch.full((10, 3, 8, 8), 100, dtype=torch.uint8)
    samples = ImageSamples(source, [Panel(row, source + 1 + i) for i, row in enumerate(rows)])
    write_report(image_metrics().model_copy(update={"rows": rows}), samples, [], None, ACCOUNT, tmp_path)
    titles = re.findall(r"<h3>([^<]*)</h3><figure>", (tmp_path / "index.html").read_text(encoding="utf-8"))
    assert titles == ["RDMD, λ = 0.02", "SDEdit, σ = 1"]


def test_every_mark_of_the_front_lies_on_its_point_and_has_its_settings(images: Path) -> None:
    page = (images / "index.html").read_text(encoding="utf-8")
    marks = re.findall(r'class="mark" style="left:([\d.]+)%;top:([\d.]+)%" aria-label="([^"]*)"', page)
    assert len(marks) == 5  # every row with a cost and a realism
    pixels = np.asarray(Image.open(images / "pareto.png").convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    left, top, _ = next(mark for mark in marks if mark[2] == "RDMD, λ = 0.02")
    at = pixels[round(height * float(top) / 100), round(width * float(left) / 100)]
    assert np.abs(at - [0x0B, 0x3C, 0x6F]).sum() < 10, "not the generator's blue"
    note = page[page.index('aria-label="SDEdit, σ = 1"') :]
    note = note[: note.index("</div>")]
    assert "sigma = 1" in note and "NFE 19" in note and "cost 0.101" in note


def test_drift_is_marked_for_points_and_only_where_it_is(points: Path) -> None:
    page = (points / "index.html").read_text(encoding="utf-8")
    assert re.search(r"<th scope=\"row\">● ⚠ RDMD, λ = 0</th>", page)
    assert re.search(r"<th scope=\"row\">● RDMD, λ = 0\.1</th>", page)
    assert "2.34" in page


def test_figures_are_not_blank(images: Path, points: Path) -> None:
    for path in (images / "pareto.png", points / "pareto.png", points / "samples.png"):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert min(pixels.shape[:2]) > 300
        inked = (pixels < 250).any(axis=2).mean()
        assert 0.005 < inked < 0.7, path
        # The generator's blue and, on the plane, black text.
        assert (np.abs(pixels.astype(int) - [0x0B, 0x3C, 0x6F]).sum(axis=2) < 40).sum() > 50, path


def test_samples_show_every_source_and_translation_enlarged_without_smoothing(images: Path) -> None:
    pixels = np.asarray(Image.open(images / "samples.png").convert("RGB"))
    # 8x8 pictures fourteen times enlarged, in steps of 112 + 6 pixels below a head of 62, beside a margin of 8.
    for row in range(8):
        for column in range(5):
            top, left = 62 + 118 * row, 8 + 118 * column
            cell = pixels[top : top + 112, left : left + 112]
            order = [0, 2, 1, 3, 4]  # the source, then generators by falling lambda, then the others
            assert (cell == 10 * (row + 1) + order[column]).all(), (row, column)


def test_an_enlarged_picture_keeps_its_pixels(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    source = torch.randint(0, 256, (2, 3, 8, 8), generator=rng, dtype=torch.uint8)
    samples = ImageSamples(source, [Panel(image_rows()[0], source)])
    write_report(image_metrics().model_copy(update={"rows": image_rows()[:1]}), samples, [], None, ACCOUNT, tmp_path)
    pixels = np.asarray(Image.open(tmp_path / "samples.png").convert("RGB"))
    shown = pixels[62 + 7 : 62 + 112 : 14, 8 + 7 : 8 + 112 : 14]  # the middle of each enlarged pixel
    assert np.array_equal(shown, source[0].permute(1, 2, 0).numpy())


def test_best_and_worst_are_those_of_the_knee(tmp_path: Path) -> None:
    """Of forty pictures one is changed most and one not at all: both are shown, at the right ends."""
    source = torch.full((40, 3, 8, 8), 100, dtype=torch.uint8)
    changed = source + 50
    changed[17], changed[23] = 255, 100
    metrics = image_metrics().model_copy(update={"rows": image_rows()[:1]})
    write_report(metrics, ImageSamples(source, [Panel(metrics.rows[0], changed)]), [], None, ACCOUNT, tmp_path)
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    extremes = np.asarray(Image.open(io.BytesIO(base64.b64decode(page.addresses[2].split(",", 1)[1]))).convert("RGB"))
    # Two strips, each a head of 26, source, gap of 6, translation, foot of 22.
    first = [extremes[26 + 118 + 56, 8 + 56, 0], extremes[278 + 26 + 118 + 56, 8 + 56, 0]]
    assert first == [100, 255]


def test_the_same_report_is_the_same_bytes(images: Path, points: Path, tmp_path: Path) -> None:
    write_report(image_metrics(), image_samples(), CURVES, VALIDATION, ACCOUNT, tmp_path / "images")
    write_report(*point_report(), [], None, ACCOUNT, tmp_path / "points")
    for folder in (images, points):
        again = tmp_path / ("images" if folder is images else "points")
        for path in folder.iterdir():
            assert path.read_bytes() == (again / path.name).read_bytes(), path
