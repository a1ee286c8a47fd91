"""metrics.json and pareto.csv as other programs read them, and the table as a person does."""

import csv
import json
import math
from pathlib import Path

import pytest

from rdmd.errors import UserError
from rdmd.evaluation.row import FeaturesRecord, Metrics, Row
from rdmd.evaluation.table import (
    drifted,
    format_table,
    hyperparameters,
    number,
    read_metrics,
    row_labels,
    write_metrics,
    write_pareto,
    write_summary,
)

ROWS = [
    Row(
        method="rdmd", lam=0.02, settings={"sigma_init": 1.0}, run="ab12", nfe=1, fid=42.5, fid_ci=(39.0, 46.25),
        kid=0.01, kid_std=0.002, precision=0.7, recall=0.6, class_share=0.998, cost=0.118, cost_se=0.001,
        cost_sum=22.656, psnr=14.0, psnr_se=0.1, ssim=0.5, seconds_per_image=1e-4, train_seconds=120.5, on_front=True,
    ),
    Row(method="rdmd", lam=0.1, nfe=1, fid=90.0, fid_ci=(85.0, 95.0), cost=0.063, cost_se=0.001, on_front=True),
    Row(method="sdedit", settings={"sigma": 0.6, "steps": 10}, nfe=19, fid=259.0, cost=0.058, cost_se=0.001),
    Row(method="sdedit", settings={"sigma": 1.0, "steps": 10}, nfe=19, fid=128.0, cost=0.101, cost_se=0.001),
    Row(method="identity", fid=621.0, cost=0.0, cost_se=0.0),
    Row(method="target", fid=20.0, fid_ci=(18.0, 22.0)),
]  # fmt: skip
METRICS = Metrics(
    experiment="digits",
    seed=7,
    features=FeaturesRecord(name="classifier", sha256="c" * 64, dim=64),
    n_source=512,
    n_reference=2000,
    rows=ROWS,
)


def test_metrics_come_back_as_they_were(tmp_path: Path) -> None:
    write_metrics(METRICS, tmp_path / "metrics.json")
    assert read_metrics(tmp_path / "metrics.json") == METRICS


def test_json_has_the_keys_that_others_read(tmp_path: Path) -> None:
    write_metrics(METRICS, tmp_path / "metrics.json")
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["features"] == {"name": "classifier", "sha256": "c" * 64, "dim": 64, "refused": None}
    assert (found["experiment"], found["seed"], found["n_source"], found["n_reference"]) == ("digits", 7, 512, 2000)
    first, sdedit = found["rows"][0], found["rows"][2]
    assert first["lambda"] == 0.02
    assert first["fid_ci"] == [39.0, 46.25]
    assert first["run"] == "ab12"
    assert first["sw2"] is None
    assert sdedit["lambda"] is None
    assert sdedit["settings"] == {"sigma": 0.6, "steps": 10}
    assert sdedit["on_front"] is False


def test_a_row_reads_what_it_writes_under_the_name_lambda() -> None:
    written = ROWS[0].model_dump(mode="json", by_alias=True)
    assert list(written)[:5] == ["method", "lambda", "settings", "run", "nfe"]
    assert list(written)[-3:] == ["seconds_per_image", "train_seconds", "on_front"]
    assert Row.model_validate(written) == ROWS[0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_not_finite_never_makes_a_row(value: float) -> None:
    with pytest.raises(FloatingPointError, match="`kid` is"):
        Row(method="rdmd", kid=value)
    with pytest.raises(FloatingPointError, match="`fid_ci` is"):
        Row(method="rdmd", fid_ci=(1.0, value))


def test_a_file_that_is_not_ours_is_refused_with_the_key(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    with pytest.raises(UserError, match=r"metrics\.json cannot be read; make it again"):
        read_metrics(path)
    write_metrics(METRICS, path)
    good = json.loads(path.read_text())
    for break_it, message in [
        (lambda found: found["rows"][1].pop("fid"), r"`rows\.1\.fid`: Field required"),
        (lambda found: found["rows"][1].update(fid="low"), r"`rows\.1\.fid"),
        (lambda found: found["rows"][1].update(fid=True), r"`rows\.1\.fid"),
        (lambda found: found["rows"][1].update(fid=math.nan), "`fid` is nan, which is not finite"),
        (lambda found: found["rows"][2].pop("lambda"), r"`rows\.2\.lambda`: Field required"),
        (lambda found: found.update(extra=1), "`extra`"),
    ]:
        broken = json.loads(json.dumps(good))
        break_it(broken)
        path.write_text(json.dumps(broken))
        with pytest.raises(UserError, match=message):
            read_metrics(path)
    path.write_text("{")
    with pytest.raises(UserError, match="Invalid JSON"):
        read_metrics(path)


def test_pareto_csv_has_a_line_for_every_placed_row(tmp_path: Path) -> None:
    write_pareto(METRICS, tmp_path / "pareto.csv")
    lines = list(csv.DictReader((tmp_path / "pareto.csv").open(encoding="utf-8")))
    assert [line["label"] for line in lines] == [
        "RDMD, λ = 0.1",
        "RDMD, λ = 0.02",
        "SDEdit, σ = 0.6",
        "SDEdit, σ = 1",
        "source as it is",
    ]
    assert lines[1]["realism"] == "42.5"
    assert lines[1]["realism_metric"] == "fid"
    assert (lines[1]["realism_low"], lines[1]["realism_high"], lines[1]["on_front"]) == ("39.0", "46.25", "true")
    assert (lines[2]["lambda"], lines[2]["realism_low"], lines[2]["on_front"]) == ("", "", "false")


def test_the_summary_has_a_setting_of_each_method(tmp_path: Path) -> None:
    write_summary(METRICS, tmp_path / "summary.json")
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "rdmd": {"lambda": 0.02, "fid": 42.5, "cost": 0.118},
        # The other setting has more than twice the FID.
        "sdedit": {"fid": 128.0, "cost": 0.101},
        "target": {"fid": 20.0},
    }


def test_dials_name_what_tells_rows_apart() -> None:
    assert row_labels(ROWS)[2:4] == ["SDEdit, σ = 0.6", "SDEdit, σ = 1"]
    two = [Row(method="ilvr", settings={"n": n, "range": r}) for n in (2, 4) for r in (100, 200)]
    assert [hyperparameters(row, two) for row in two] == [
        "n = 2, range = 100", "n = 2, range = 200", "n = 4, range = 100", "n = 4, range = 200"
    ]  # fmt: skip
    again = [Row(method="rdmd", lam=0.1, settings={"sigma_init": s}) for s in (0.5, 1.0)]
    assert hyperparameters(again[1], again) == "λ = 0.1, sigma_init = 1"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (1.0, "1.00"), (42.512, "42.5"), (621.4, "621"), (12345.6, "12300"), (3e-7, "3.00e-07")],
)
def test_numbers_keep_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_table_states_what_its_numbers_depend_on() -> None:
    text = format_table(METRICS)
    head, names, first, *_ = text.splitlines()
    assert "512 translated" in head
    assert "2000 of the target's" in head
    assert "features classifier (64, sha256 cccccccc)" in head
    assert "seed 7" in head
    assert first.startswith("* RDMD, λ = 0.02")
    assert text.splitlines()[-1] == "* on the front: no other generator has both less cost and better realism"
    assert "MEANS NOTHING" not in text
    few = format_table(METRICS.model_copy(update={"n_source": 10, "n_reference": 6}))
    assert "THE RANKING MEANS NOTHING HERE: one side of the test split has 6 samples" in few.splitlines()[0]
    assert "42.5 [39.0, 46.2]" in first
    assert "0.118 ± 0.0020" in first  # 1.96 standard errors
    assert "SW2" not in names
    end_of_nfe = names.index("NFE") + len("NFE")
    assert [line[:end_of_nfe].split()[-1] for line in text.splitlines()[2:6]] == ["1", "1", "19", "19"]


def test_a_cost_above_exact_transport_is_shown_as_drift() -> None:
    cheap = Row(method="rdmd", lam=0.1, cost=0.13, cost_se=0.001, cost_sum=0.26, sw2=0.02, ot_cost=0.264)
    within_error = Row(method="rdmd", lam=0.1, cost=0.134, cost_se=0.002, cost_sum=0.268, sw2=0.02, ot_cost=0.264)
    dear = Row(method="rdmd", lam=0.005, cost=0.243, cost_se=0.002, cost_sum=0.486, sw2=0.042, ot_cost=0.264)
    baseline = Row(method="sdedit", cost=0.243, cost_se=0.002, cost_sum=0.486, sw2=0.042, ot_cost=0.264)
    assert [drifted(row) for row in (cheap, within_error, dear, baseline)] == [False, False, True, False]
    metrics = Metrics(
        experiment="swissroll",
        seed=0,
        features=FeaturesRecord(name="none", sha256=None, dim=2),
        n_source=10,
        n_reference=10,
        rows=[cheap, dear],
    )
    assert "! RDMD, λ = 0.005: costs more than exact transport" in format_table(metrics)
