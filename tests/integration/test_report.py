"""The report as a reader finds it: two figures and a page that needs nothing else."""

import base64
import dataclasses
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rdmd.evaluation.row import FeaturesRecord, Metrics, Row
from rdmd.report.page import Provenance, TrainedModel, write_report
from rdmd.report.samples import Samples, samples_figure
from rdmd.training.run_folder import Point

VALIDATION = {
    "success": False,
    "domains": {"source": {"train": 2336, "test": 1011, "digest": "d1" * 32}},
    "outcomes": [
        {"domain": "source", "title": "has at least 100 training samples", "success": True, "failing": 0},
        {"domain": "source", "title": "has no <broken> images", "success": False, "failing": 3},
    ],
}
STEPS = list(range(10, 210, 10))
MODELS = [
    TrainedModel("teacher", 50.0, "CPU", 200, 779.4, [Point(step, {"loss": 1 / i}) for i, step in enumerate(STEPS, 1)]),
    TrainedModel("lambda-0.1", 80.0, "CPU", curve=[Point(step, {"cost": 0.1}) for step in STEPS]),
]
PROVENANCE = Provenance(
    facts=[("source", "reader <images>, path data/raw/source"), ("teacher", "700 steps of 64 samples")],
    settings="experiment: digits\nteacher: {steps: 700}\n",
    models=MODELS,
    commit="c0" * 20,
    edited=False,
)
WITHOUT_CURVES = dataclasses.replace(PROVENANCE, models=[dataclasses.replace(one, curve=None) for one in MODELS])


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
        experiment="digits",
        seed=7,
        features=FeaturesRecord(name="classifier", sha256="c0ffee" * 10 + "0000", dim=64),
        n_source=512,
        n_reference=2000,
        rows=image_rows(),
    )


def image_samples() -> Samples:
    """Source k is plain grey of level 10 k; every method adds its place."""
    source = (10 * torch.arange(1, 21, dtype=torch.uint8))[:, None, None, None].expand(20, 3, 8, 8).contiguous()
    return Samples(source, [(row, source + 1 + place) for place, row in enumerate(image_rows()[:4])])


def test_true_counterparts_stand_in_the_last_column_of_the_grid():
    samples = image_samples()
    white = torch.full_like(samples.source, 255)

    def titles(samples: Samples) -> list[str]:
        return [text.get_text() for text in samples_figure(samples, image_rows()).axes[0].texts]

    figure = samples_figure(dataclasses.replace(samples, counterparts=white), image_rows())
    assert [text.get_text() for text in figure.axes[0].texts] == [*titles(samples), "true\ncounterpart"]
    pixels = np.asarray(figure.axes[0].get_images()[0].get_array())
    assert (pixels[:, -8:] == 255).all()
    assert (pixels[:8, :8] == 10).all()


def point_report() -> tuple[Metrics, Samples]:
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
    translations = [(rows[0], 0.4 * source + 1), (rows[1], 0.4 * source.flip(0) + 1)]
    metrics = Metrics(
        experiment="swissroll",
        seed=0,
        features=FeaturesRecord(name="none", sha256=None, dim=2),
        n_source=300,
        n_reference=300,
        rows=rows,
    )
    return metrics, Samples(source, translations, target, 0.4 * source + 1)


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
    write_report(image_metrics(), image_samples(), PROVENANCE, VALIDATION, out)
    return out


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("points")
    write_report(*point_report(), WITHOUT_CURVES, None, out)
    return out


def test_three_files_and_no_leftovers(images: Path, points: Path) -> None:
    for folder in (images, points):
        assert sorted(path.name for path in folder.iterdir()) == ["index.html", "pareto.png", "samples.png"]


def test_page_refers_to_nothing_outside_itself(images: Path, points: Path) -> None:
    # Samples and the front; for images also the extremes of three methods, and the curves.
    for folder, images_ in ((images, 6), (points, 2)):
        text = (folder / "index.html").read_text(encoding="utf-8")
        page = Page(text)
        assert len(page.addresses) == images_
        assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
        assert not {"script", "link", "iframe"} & set(page.tags)
        assert not re.search(r"https?:|url\(|@import", text)


def test_page_holds_the_figures_that_lie_beside_it(images: Path) -> None:
    page = Page((images / "index.html").read_text(encoding="utf-8"))
    embedded = [base64.b64decode(address.split(",", 1)[1]) for address in page.addresses]
    assert embedded[0] == (images / "samples.png").read_bytes()
    assert embedded[1] == (images / "pareto.png").read_bytes()


def test_images_come_first_then_results_then_their_provenance(images: Path) -> None:
    text = (images / "index.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*)</h2>", text) == [
        "Samples", "Faithfulness against realism", "Results", "All metrics", "Data checks",
        "How the numbers came about", "How to run it again",
    ]  # fmt: skip


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
        "2 expectations of the data: 1 failed",
        "failed (3 samples)",
        "1011",
    ):
        assert expected in text, expected


def test_text_from_data_is_escaped(images: Path) -> None:
    text = (images / "index.html").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "has no &lt;broken&gt; images" in text


def words(folder: Path) -> str:
    return " ".join(Page((folder / "index.html").read_text(encoding="utf-8")).text.split())


def test_times_of_every_training_and_every_method(tmp_path: Path) -> None:
    rows = [image_rows()[0].model_copy(update={"seconds_per_image": 0.0025})]
    write_report(image_metrics().model_copy(update={"rows": rows}), image_samples(), PROVENANCE, None, tmp_path)
    text = words(tmp_path)
    assert "130 s of optimizer steps in total" in text
    assert "teacher 200 50.0 250 779 CPU" in text  # 50 s over 200 steps are 250 ms each
    assert "lambda-0.1 – 80.0 – – CPU" in text
    assert "RDMD, λ = 0.02 1 2.50 1.28" in text  # 512 sources at 2.5 ms


def test_the_page_says_what_is_missing(tmp_path: Path) -> None:
    provenance = dataclasses.replace(WITHOUT_CURVES, commit=None)
    write_report(image_metrics(), image_samples(), provenance, None, tmp_path)
    text = words(tmp_path)
    assert "Not available: the training curves of teacher, lambda-0.1" in text
    assert "Not available: the data were not validated" in text
    assert "made outside git" in text and "git checkout" not in text and "Copy the settings above" in text


def test_the_page_says_that_files_were_edited(tmp_path: Path) -> None:
    edited = dataclasses.replace(PROVENANCE, edited=True)
    write_report(image_metrics(), image_samples(), edited, None, tmp_path)
    assert "Files differed from that commit" in words(tmp_path)


def test_every_method_shows_its_extremes_at_a_cost_near_the_chosen_one(images: Path, tmp_path: Path) -> None:
    def titles(folder: Path) -> list[str]:
        return re.findall("<h4>(.*)</h4>", (folder / "index.html").read_text(encoding="utf-8"))

    # FID 90 at lambda 0.1 is more than twice the best, 42.5.
    assert titles(images) == ["RDMD, λ = 0.02", "SDEdit, σ = 1", "&lt;script&gt;alert(1)&lt;/script&gt;"]
    rows = [image_rows()[0]] + [
        Row(method="sdedit", settings={"sigma": sigma}, nfe=19, fid=100.0, cost=cost)
        for sigma, cost in ((0.5, 0.05), (1.0, 0.12), (2.0, 0.3))
    ]
    source = torch.full((10, 3, 8, 8), 100, dtype=torch.uint8)
    samples = Samples(source, [(row, source + 1 + i) for i, row in enumerate(rows)])
    write_report(image_metrics().model_copy(update={"rows": rows}), samples, PROVENANCE, None, tmp_path)
    assert titles(tmp_path) == ["RDMD, λ = 0.02", "SDEdit, σ = 1"]


def test_results_mark_the_front_and_what_has_drifted(points: Path) -> None:
    def headers(folder: Path) -> set[str]:
        page = (folder / "index.html").read_text(encoding="utf-8")
        return set(re.findall('<th scope="row">(.*RDMD, .*?)</th>', page))

    assert headers(points) == {"● RDMD, λ = 0.1", "● ⚠ RDMD, λ = 0"}


def test_figures_are_not_blank(images: Path, points: Path) -> None:
    for path in (images / "pareto.png", points / "pareto.png", points / "samples.png"):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert min(pixels.shape[:2]) > 300
        inked = (pixels < 250).any(axis=2).mean()
        assert 0.005 < inked < 0.7, path
        # The generator's blue.
        assert (np.abs(pixels.astype(int) - [0x0B, 0x3C, 0x6F]).sum(axis=2) < 40).sum() > 50, path


def test_a_source_of_noise_has_no_cost_and_no_front(tmp_path: Path) -> None:
    rows = [Row(method="rdmd", lam=0.0, nfe=1, fid=42.5, on_front=True), Row(method="target", fid=20.3)]
    source = torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8)
    metrics = image_metrics().model_copy(update={"rows": rows})
    write_report(metrics, Samples(source, [(rows[0], source)]), PROVENANCE, None, tmp_path)
    text = words(tmp_path)
    assert "The source is noise" in text and "on the front" not in text


def test_the_same_report_is_the_same_bytes(images: Path, points: Path, tmp_path: Path) -> None:
    write_report(image_metrics(), image_samples(), PROVENANCE, VALIDATION, tmp_path / "images")
    write_report(*point_report(), WITHOUT_CURVES, None, tmp_path / "points")
    for folder in (images, points):
        again = tmp_path / ("images" if folder is images else "points")
        for path in folder.iterdir():
            assert path.read_bytes() == (again / path.name).read_bytes(), path


def test_a_reader_that_closes_the_pipe_gets_no_traceback():
    command = [sys.executable, "-m", "rdmd.cli", "experiments"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
