"""The report in a headless Chromium: on a desktop, on a phone, pointed at, and printed."""

import dataclasses
from pathlib import Path

import pytest

from rdmd.evaluation.report import write_report
from tests.chromium import Tab, browser
from tests.integration.test_report import ACCOUNT, CURVES, VALIDATION, image_metrics, image_samples, point_report

# What the smaller metrics of the other tests lack: with it every column of pictures is there, as wide as it gets.
SCORES = {
    "kid": 1270.0, "kid_std": 22.0, "precision": 0.123, "recall": 0.698, "class_share": 0.997, "cost_sum": 23.9,
    "l2_norm01": 2.43, "l2_norm01_se": 0.0118, "psnr": 15.2, "psnr_se": 0.043, "ssim": 0.582, "ssim_se": 0.0048,
    "colour_error": 0.0423, "colour_error_se": 0.0011, "seconds_per_image": 0.00763, "train_seconds": 64.4,
}  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A report of pictures and one of points, as addresses."""
    folders = [tmp_path_factory.mktemp(name) for name in ("images", "points")]
    metrics = image_metrics()
    metrics = metrics.model_copy(update={"rows": [row.model_copy(update=SCORES) for row in metrics.rows]})
    samples = image_samples()
    panels = [dataclasses.replace(panel, row=row) for panel, row in zip(samples.panels, metrics.rows, strict=False)]
    samples = dataclasses.replace(samples, panels=panels)
    write_report(metrics, samples, CURVES, VALIDATION, ACCOUNT, folders[0])
    write_report(*point_report(), CURVES, None, ACCOUNT, folders[1])
    return [(folder / "index.html").as_uri() for folder in folders]


@pytest.mark.parametrize("width", [1200, 390, 320])
def test_the_page_never_scrolls_sideways_and_asks_for_nothing(pages: list[str], width: int):
    with browser() as tab:
        for page in pages:
            tab.open(page, width)
            assert tab.get("document.documentElement.scrollWidth") <= width
            # Tables and pictures that are wider scroll in a box of their own.
            assert tab.get("[...document.querySelectorAll('.scroll')].every((box) => "
                           f"box.getBoundingClientRect().right <= {width})")
        assert {url for url in tab.asked if not url.startswith("data:")} == set(pages)
        assert tab.complaints == []


def test_on_a_desktop_no_table_has_to_be_scrolled(pages: list[str]):
    with browser() as tab:
        tab.open(pages[0], 1200)
        assert tab.get("[...document.querySelectorAll('.scroll')].every((box) => box.scrollWidth <= box.clientWidth)")


def shown_notes(tab: Tab) -> list[str]:
    return tab.get("[...document.querySelectorAll('.note')].filter((note) => note.offsetHeight > 0)"
                   ".map((note) => note.innerText)")


@pytest.mark.parametrize("width", [1200, 390])
def test_pointing_at_a_mark_shows_its_settings_inside_the_figure(pages: list[str], width: int):
    with browser() as tab:
        tab.open(pages[0], width)
        assert shown_notes(tab) == []
        # Marks are placed in shares of the picture.
        assert tab.get("[document.querySelector('.plot').offsetWidth, document.querySelector('.plot img').offsetWidth]"
                       ".every((each, _, [first]) => each === first)")
        tab.point_at('[aria-label="SDEdit, σ = 1"]')
        (note,) = shown_notes(tab)
        assert note.startswith("SDEdit, σ = 1") and "FID 128" in note and "sigma = 1" in note
        for label in ("RDMD, λ = 0.02", "source as it is"):
            # As a tap or the tab key does.
            tab.get(f"document.querySelector('[aria-label=\"{label}\"]').focus()")
            assert any(text.startswith(label) for text in shown_notes(tab))
        assert tab.get("""[...document.querySelectorAll('.note')].filter((note) => note.offsetHeight > 0)
            .every((note) => { const [a, b] = [note, note.parentElement].map((e) => e.getBoundingClientRect());
              return a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom; })""")


def test_it_prints_without_cutting_a_table(pages: list[str], tmp_path: Path):
    with browser() as tab:
        tab.open(pages[0], 1200)
        pdf = tab.printed()
        assert pdf.startswith(b"%PDF") and len(pdf) > 10_000
        tab.call("Emulation.setEmulatedMedia", media="print")
        # A4 without its margins, in CSS pixels.
        tab.call("Emulation.setDeviceMetricsOverride", width=703, height=1000, deviceScaleFactor=1, mobile=False)
        assert tab.get("[...document.querySelectorAll('table, img')].every((each) => "
                       "each.getBoundingClientRect().right <= 703)")
