"""The report in a headless Chromium: on a desktop, on a phone, and printed."""

from collections.abc import Iterator

import pytest

from rdmd.report.page import write_report
from tests.chromium import Tab, browser
from tests.integration.test_report import PROVENANCE, VALIDATION, image_metrics, image_samples, point_report

# What the smaller metrics of the other tests lack: with it every column of images is there, as wide as it gets.
SCORES = {
    "kid": 1270.0, "kid_std": 22.0, "precision": 0.123, "recall": 0.698, "class_share": 0.997, "cost_sum": 23.9,
    "l2_norm01": 2.43, "l2_norm01_se": 0.0118, "psnr": 15.2, "psnr_se": 0.043, "ssim": 0.582, "ssim_se": 0.0048,
    "colour_error": 0.0423, "colour_error_se": 0.0011, "seconds_per_image": 0.00763, "train_seconds": 64.4,
}  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A report of images and one of points, as addresses."""
    folders = [tmp_path_factory.mktemp(name) for name in ("images", "points")]
    metrics = image_metrics()
    metrics = metrics.model_copy(update={"rows": [row.model_copy(update=SCORES) for row in metrics.rows]})
    write_report(metrics, image_samples(), PROVENANCE, VALIDATION, folders[0])
    write_report(*point_report(), PROVENANCE, None, folders[1])
    return [(folder / "index.html").as_uri() for folder in folders]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Tab]:
    with browser() as tab:
        yield tab


@pytest.fixture
def tab(chromium: Tab) -> Iterator[Tab]:
    """The browser's tab, which has asked for nothing yet."""
    chromium.asked.clear()
    chromium.complaints.clear()
    yield chromium
    chromium.call("Emulation.setEmulatedMedia", media="")


@pytest.mark.parametrize("width", [1200, 390, 320])
def test_the_page_never_scrolls_sideways_and_asks_for_nothing(pages: list[str], tab: Tab, width: int):
    for page in pages:
        tab.open(page, width)
        assert tab.get("document.documentElement.scrollWidth") <= width
        # Tables and images that are wider scroll in a box of their own.
        assert tab.get(
            f"[...document.querySelectorAll('.scroll')].every((box) => box.getBoundingClientRect().right <= {width})"
        )
    assert {url for url in tab.asked if not url.startswith("data:")} == set(pages)
    assert tab.complaints == []


def test_on_a_desktop_no_table_has_to_be_scrolled(pages: list[str], tab: Tab):
    tab.open(pages[0], 1200)
    assert tab.get("[...document.querySelectorAll('.scroll')].every((box) => box.scrollWidth <= box.clientWidth)")


def test_it_prints_without_cutting_a_table(pages: list[str], tab: Tab):
    tab.open(pages[0], 1200)
    pdf = tab.printed()
    assert pdf.startswith(b"%PDF") and len(pdf) > 10_000
    tab.call("Emulation.setEmulatedMedia", media="print")
    # A4 without its margins, in CSS pixels.
    tab.call("Emulation.setDeviceMetricsOverride", width=703, height=1000, deviceScaleFactor=1, mobile=False)
    assert tab.get(
        "[...document.querySelectorAll('table, img')].every((each) => each.getBoundingClientRect().right <= 703)"
    )
