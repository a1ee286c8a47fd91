"""`rdmd monitor`: the log of a served model against its training source and its evaluation."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from rdmd.data.likeness import SourceStatistics, numbers_of
from rdmd.errors import UserError
from rdmd.pipeline.monitor import Day, by_day, read_log, shift_of
from rdmd.serving import server
from rdmd.serving.watch import Watch
from tests.unit.test_serving_watch import as_networks_see, smooth


@pytest.fixture
def source() -> SourceStatistics:
    made = SourceStatistics.of(smooth(0, 400))
    assert made is not None
    return made


@pytest.fixture
def serve(source: SourceStatistics, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A function that notes images with darker translations and logs the request as the server does."""
    watch, log = Watch(source), tmp_path / "requests.jsonl"

    def request(images: np.ndarray, day: int, lam: float = 0.1, status: int = 200) -> Path:
        caplog.clear()
        with caplog.at_level(logging.INFO, "rdmd.serving"):
            if len(images):
                x = torch.from_numpy(images)
                watch(x, x - 0.1, lam)
        server._log(log, status, 0.25, [vars(record) for record in caplog.records])
        lines = log.read_text().splitlines()
        lines[-1] = f'{{"time": "2026-11-{day:02}T' + lines[-1].split("T", 1)[1]
        log.write_text("".join(f"{line}\n" for line in lines))
        return log

    return request


def days(log: Path, source: SourceStatistics, cost: float | None = 0.01) -> list[Day]:
    return list(by_day(read_log(log), source, 0.1, cost))


def test_each_day_is_told_apart(serve, source: SourceStatistics):
    like = as_networks_see(smooth(1, 300))
    serve(like, day=1)
    serve(like[:0], day=1, status=400)
    serve(like[np.argsort(like.mean((1, 2, 3)))[-100:]], day=2)
    log = serve(np.random.default_rng(0).uniform(-1, 1, (20, 3, 12, 12)), day=3)
    first, brighter, noise = days(log, source)
    assert first.row[:8] == ("2026-11-01", "2", "1", "250", "250", "300", "0.0%", "0.01")
    assert first.alarms == ()
    # No image alone is unlike the source, and all of them together are.
    assert brighter.row[6] == "0.0%"
    (alarm,) = brighter.alarms
    assert "have moved by" in alarm and "most by +0." in alarm
    assert noise.alarms[0] == "100.0% of the images are unlike the training source"


def test_grey_images_have_six_numbers_with_names_of_their_own():
    grey = np.random.default_rng(0).integers(100, 150, (400, 12, 12, 1), dtype=np.uint8)
    made = SourceStatistics.of(grey)
    assert made is not None
    brighter = grey[:50].transpose(0, 3, 1, 2) / 127.5 - 1
    brighter[:, :, :6, 6:] += 0.5
    numbers = numbers_of(brighter)
    assert numbers.shape == (50, 6)
    assert shift_of(numbers, made)[2].endswith("sd in top right")


def test_copies_of_an_image_do_not_make_the_limit_narrower():
    """Eight crops of each image lie beside each other: an image of the same source must not look unlike it."""

    def blocks(seed: int, n: int) -> np.ndarray:
        colours = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3))
        return colours.repeat(3, axis=1).repeat(3, axis=2)

    change = np.random.default_rng(0).integers(-1, 2, (240, 12, 12, 3))
    made = SourceStatistics.of(np.clip(blocks(10, 30).repeat(8, axis=0) + change, 0, 255).astype(np.uint8))
    assert made is not None
    # If copies lie in both halves, 7 to 23 in a hundred are unlike the source.
    assert (made.distances(as_networks_see(blocks(1, 300).astype(np.uint8))) > 1).mean() < 0.03


def test_a_source_sorted_by_kind_has_the_limit_of_a_mixed_one():
    dark, bright = smooth(0, 200) // 4, 191 + smooth(1, 200) // 4
    limits = []
    for order in (np.arange(400), np.random.default_rng(0).permutation(400)):
        made = SourceStatistics.of(np.concatenate([dark, bright])[order])
        assert made is not None
        limits.append(made.limit)
    # Quantiles of 200 images vary; a half of one kind would be many times as far from one of the other.
    assert limits[0] == pytest.approx(limits[1], rel=0.5)


def test_the_cost_is_compared_at_the_lambda_of_the_model_alone(serve, source: SourceStatistics):
    like = as_networks_see(smooth(1, 300))
    serve(like, day=1)
    log = serve(like, day=2, lam=0.5)
    first, second = days(log, source, cost=0.02)
    assert first.alarms == ("the mean cost is 0.01, and was 0.02 in the evaluation",)
    assert (second.row[7], second.alarms) == ("–", ())


def test_samples_of_the_source_move_less_than_chance_allows_in_99_of_100_cases(source: SourceStatistics):
    moved = [shift_of(numbers_of(as_networks_see(smooth(seed, 100))), source) for seed in range(1, 101)]
    # The source has 400 samples itself, so its mean is uncertain too: a factor of sqrt(1 + 100/400) in the distance.
    assert sum(shift > 1.12 * chance for shift, chance, _ in moved) <= 4


@pytest.mark.parametrize("content", [None, "", "no json\n", '{"time": "2026-11-01T00:00:00Z"}\n'])
def test_what_is_no_log_is_refused(content: str | None, tmp_path: Path):
    file = tmp_path / "log"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=str(file)):
        read_log(file)
