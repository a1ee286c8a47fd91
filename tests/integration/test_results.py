"""The studies behind docs/results.md, end to end on tiny points."""

import json
import math
import statistics
from pathlib import Path

import pytest
import torch
import yaml

from rdmd import config
from rdmd.evaluation.row import Row
from rdmd.results.collect import Collected, SeedRow, collect
from rdmd.results.document import begin_marker, end_marker, update
from rdmd.results.experiment import run_comparison, run_study
from rdmd.results.front import front_of
from rdmd.results.listing import Facts
from rdmd.results.report import report
from rdmd.results.studies import Comparison, variant_settings
from rdmd.results.summary import summarise
from rdmd.results.tables import POINTS, methods_table
from rdmd.results.tasks import affine_plan
from rdmd.results.workspace import Workspace
from tests.conftest import params, tiny_points

METRICS_KEYS = {
    "method", "lambda", "settings", "nfe", "fid", "fid_ci", "kid", "precision", "recall", "cost", "cost_sum",
    "l2_norm01", "psnr", "ssim", "seconds_per_image", "train_seconds", "on_front", "sw2", "w2", "l2_uvp", "ot_cost",
}


def tiny(settings: dict) -> None:
    """The tiny points, with a baseline of two settings and little of everything."""
    tiny_points(settings)
    settings["distill"] |= {"lambdas": [0.05], "steps": 20}
    settings["teacher"] |= {"steps": 40}
    settings["baselines"] = {"sdedit": {"sigmas": [0.5, 2.0], "steps": 4}}
    settings["evaluate"] |= {"n_w2": 100}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[int, config.Settings], list[str]]:
    """Two seeds of a tiny swissroll and an ablation of it, with what was said meanwhile."""
    root = tmp_path_factory.mktemp("results")
    settings = config.parse(params("swissroll", tiny), "tiny")
    workspace, said = Workspace(root / "results", root / "docs"), []
    seeds = {seed: settings.model_copy(update={"seed": seed}) for seed in (0, 1)}
    for one in seeds.values():
        run_study("swissroll", one, ["references", "rdmd", "baselines"], workspace, said.append)
    run_comparison(COMPARISON, seeds[0], workspace, said.append)
    write_comparisons(root / "studies", [COMPARISON])
    report(workspace, root / "studies")
    return workspace, seeds, said


COMPARISON = Comparison(
    name="tiny-fake_steps", study="swissroll", title="fake steps", lambdas=[0.05],
    variants={"1": {"fake_steps": 1}, "2": {"fake_steps": 2}},
)


def write_comparisons(folder: Path, given: list[Comparison]) -> None:
    folder.mkdir()
    text = yaml.safe_dump([one.model_dump(mode="json") for one in given])
    (folder / "ablations.yaml").write_text(text, encoding="utf-8")


def read(workspace: Workspace, name: str) -> dict:
    return json.loads((workspace.published / f"{name}.json").read_text(encoding="utf-8"))


def test_a_variants_own_settings_go_before_what_all_variants_change():
    comparison = COMPARISON.model_copy(update={"settings": {"fake_steps": 3, "beta1": 0.5}})
    changed = variant_settings(config.parse(params("swissroll", tiny), "tiny"), comparison, "2").distill
    assert (changed.fake_steps, changed.beta1, changed.lambdas) == (2, 0.5, [0.05])


def test_a_restart_trains_and_evaluates_nothing(measured):
    workspace, seeds, _ = measured
    rows = {file: file.stat().st_mtime_ns for file in workspace.rows.iterdir()}
    runs = {file: file.stat().st_mtime_ns for file in workspace.runs.glob("*/result.json")}
    said: list[str] = []
    run_study("swissroll", seeds[0], ["references", "rdmd", "baselines"], workspace, said.append)
    assert {file: file.stat().st_mtime_ns for file in workspace.rows.iterdir()} == rows
    assert {file: file.stat().st_mtime_ns for file in workspace.runs.glob("*/result.json")} == runs
    assert not any("evaluated" in line or "trained" in line for line in said)


def test_what_a_refined_generator_took_counts_the_runs_that_it_continues(measured, tmp_path: Path):
    settings = measured[1][0]
    refine = config.Refine(
        steps=3, batch=64, generator_lr=1e-4, weighting="inverse_sigma", noise=settings.distill.noise
    )
    change = {"lambdas": [0.05, 0.5], "sweep": config.Continuation(mode="continuation", steps=5), "refine": [refine]}
    settings = settings.model_copy(update={"distill": settings.distill.model_copy(update=change)})
    workspace = Workspace(tmp_path / "results", tmp_path / "docs")
    run_study("swissroll", settings, ["rdmd"], workspace, lambda line: None)
    steps: dict[str, list[int]] = {}
    for one in collect(workspace, "swissroll").training:
        steps.setdefault(one.training.model, []).append(one.training.steps)
    # The coarse run at the larger lambda leads to both generators, and counts once.
    assert {model: sorted(counts) for model, counts in steps.items()} == {
        "generator": [3, 3], "generator, before refinement": [5, settings.distill.steps],
    }
    # Beside each refined generator stands what it was refined from, lambda's own run.
    rows = {(one.row.lam, one.row.settings.get("refinements")): one.row for one in collect(workspace, "swissroll").rows}
    assert set(rows) == {(0.05, None), (0.05, 0), (0.5, None), (0.5, 0)}
    for lam in (0.05, 0.5):
        assert rows[lam, None].train_seconds > rows[lam, 0].train_seconds
        assert rows[lam, None].cost != rows[lam, 0].cost
    assert rows[0.05, 0].train_seconds > rows[0.5, 0].train_seconds


def test_one_more_setting_is_one_more_row(measured):
    workspace, seeds, _ = measured
    longer = seeds[1].baselines.model_copy(update={"sdedit": config.SDEdit(sigmas=[0.5, 1.0, 2.0], steps=4)})
    said: list[str] = []
    run_study("swissroll", seeds[1].model_copy(update={"baselines": longer}), ["baselines"], workspace, said.append)
    assert [line for line in said if "evaluated" in line and "sigma 1.0" in line]
    assert sum("evaluated" in line for line in said) == 1
    # Back to what the other tests read.
    run_study("swissroll", seeds[1], ["baselines"], workspace, lambda line: None)


def test_a_variant_equal_to_its_study_shares_trainings_and_rows(measured):
    _, _, said = measured
    ablation = [line for line in said if line.startswith("tiny-fake_steps")]
    # lambda 0.05 at one fake step is the study's own.
    assert any("tiny-fake_steps=1: 1 of 1 rows are there" in line for line in ablation)
    assert sum("trained" in line for line in ablation) == 1


def test_rows_have_the_keys_of_metrics_json_and_a_seed(measured):
    found = read(measured[0], "swissroll")
    assert all(set(row) >= METRICS_KEYS | {"seed"} for row in found["rows"])
    methods = {row["method"] for row in found["rows"]}
    assert methods == {"identity", "data", "teacher", "ot", "rdmd", "sdedit"}
    assert {row["seed"] for row in found["rows"]} == {0, 1}
    for row in found["rows"]:
        if row["method"] == "rdmd":
            data = next(r for r in found["rows"] if r["method"] == "data" and r["seed"] == row["seed"])
            assert row["sw2_ratio"] == row["sw2"] / data["sw2"]
            assert row["nfe"] == 1
            assert row["peak_memory_mib"] > 0
    assert found["n_source"] == 300
    assert found["n_transport"] == 200
    assert found["n_w2"] == 100
    assert {one["seed"] for one in found["features"]} == {0, 1}


def test_summaries_are_the_mean_and_deviation_over_seeds(measured):
    found = read(measured[0], "swissroll")
    for one in found["summary"]:
        rows = [row for row in found["rows"]
                if (row["method"], row["lambda"], row["settings"]) == (one["method"], one["lambda"], one["settings"])]
        assert one["seeds"] == [0, 1]
        for metric, mean in one["mean"].items():
            values = [row[metric] for row in rows]
            assert mean == pytest.approx(sum(values) / 2, rel=1e-12)
            assert one["std"][metric] == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2), rel=1e-9, abs=1e-15)


def test_exact_transport_judged_as_a_translator(measured):
    """It is realistic, as data is, and costs what exact transport does, up to the samples."""
    found = read(measured[0], "swissroll")
    for seed in (0, 1):
        rows = {row["method"]: row for row in found["rows"] if row["seed"] == seed}
        # It sends the sources to the very points that `data` is.
        assert rows["ot"]["sw2"] == pytest.approx(rows["data"]["sw2"], rel=1e-5)
        # Two exact costs between 200 points of the same laws: their deviation is about 10%.
        assert rows["ot"]["cost_sum"] == pytest.approx(rows["ot"]["ot_cost"], rel=0.5)
        assert 0 < rows["ot"]["l2_uvp"] < 20


def test_the_page_keeps_what_is_written_by_hand(measured):
    workspace = measured[0]
    text = workspace.page.read_text(encoding="utf-8")
    by_hand = text.replace(end_marker("swissroll"), f"{end_marker('swissroll')}\n\nWritten by hand.\n")
    stale = by_hand.replace("| RDMD |", "| old |")
    workspace.page.write_text(stale, encoding="utf-8")
    report(workspace, workspace.docs.parent / "studies")
    assert workspace.page.read_text(encoding="utf-8") == by_hand
    for line in text.splitlines():
        if line.startswith("!["):
            assert (workspace.docs / line.split("](")[1].rstrip(")")).read_bytes().startswith(b"\x89PNG")


def test_equal_rows_give_equal_files(measured):
    workspace = measured[0]
    before = {file: file.read_bytes() for file in workspace.published.iterdir()}
    report(workspace, workspace.docs.parent / "studies")
    assert {file: file.read_bytes() for file in workspace.published.iterdir()} == before


def test_the_ablation_has_a_hypervolume_for_each_variant(measured):
    found = read(measured[0], "ablations")
    (one,) = found["comparisons"]
    assert set(one["front"]["hypervolume"]) == {"1", "2"}
    assert {row["variant"] for row in found["rows"]} == {"1", "2"}
    study = read(measured[0], "swissroll")
    same = next(row for row in study["rows"] if row["method"] == "rdmd" and row["lambda"] == 0.05 and row["seed"] == 0)
    own = next(row for row in found["rows"] if row["variant"] == "1")
    assert (own["sw2"], own["cost"], own["sw2_ratio"]) == (same["sw2"], same["cost"], same["sw2_ratio"])


def facts(seed: int, random_pairs_cost: float) -> Facts:
    return Facts(experiment="hand", seed=seed, n_source=4, n_reference=4, n_transport=None, n_w2=None, domains={},
                 features={}, random_pairs_cost=random_pairs_cost, exact=None)


def by_hand(*rows: tuple[int, Row]) -> list[SeedRow]:
    return [SeedRow(seed, f"{i}", row, 0.0, "CPU", "2024-01-01") for i, (seed, row) in enumerate(rows)]


def test_front_of_a_hand_example():
    """Reference (1, 10). RDMD at (0.2, 4) and (0.6, 2): 0.8 * 6 + 0.4 * 2 = 5.6. SDEdit at (0.5, 5): 0.5 * 5 = 2.5."""
    rows = by_hand(
        (0, Row(method="identity", cost=0.0, fid=10.0)),
        (0, Row(method="rdmd", lam=0.5, nfe=1, cost=0.2, fid=4.0)),
        (0, Row(method="rdmd", lam=0.1, nfe=1, cost=0.6, fid=2.0)),
        (0, Row(method="sdedit", settings={"sigma": 1.0}, nfe=19, cost=0.5, fid=5.0)),
        (0, Row(method="ilvr", settings={"factor": 2}, nfe=20, cost=0.1, fid=8.0)),
        (0, Row(method="ilvr", settings={"factor": 4}, nfe=20, cost=0.6, fid=2.0)),
        (0, Row(method="ilvr", settings={"factor": 8}, nfe=20, cost=0.7, fid=2.0)),
    )
    front = front_of(Collected({0: facts(0, 1.0)}, rows, [], 0))
    assert front.reference == (1.0, 10.0)
    assert front.hypervolumes["rdmd"].mean == pytest.approx(5.6)
    assert front.hypervolumes["sdedit"].mean == pytest.approx(2.5)
    # Bettered: SDEdit's point and ILVR's last (as realistic, dearer). Not: the cheaper one, and the equal one.
    assert front.bettered.mean == pytest.approx(2 / 4)
    assert [one.row.settings["factor"] for one in front.unbettered] == [2, 4]


def test_the_reference_point_is_one_for_all_seeds():
    rows = by_hand(
        *[(seed, Row(method="identity", cost=0.0, fid=fid)) for seed, fid in ((0, 8.0), (1, 12.0))],
        *[(seed, Row(method="rdmd", lam=0.1, nfe=1, cost=0.5, fid=fid)) for seed, fid in ((0, 5.0), (1, 7.0))],
    )
    front = front_of(Collected({0: facts(0, 0.9), 1: facts(1, 1.1)}, rows, [], 0))
    assert front.reference == (pytest.approx(1.0), 10.0)
    assert front.hypervolumes["rdmd"].values == {0: pytest.approx(2.5), 1: pytest.approx(1.5)}
    assert front.hypervolumes["rdmd"].std == pytest.approx(statistics.stdev([2.5, 1.5]))
    assert front.bettered is None


def test_a_cost_above_exact_transport_is_called_drift(tmp_path: Path):
    common = {"method": "rdmd", "nfe": 1, "sw2": 0.1, "ot_cost": 0.25, "cost_se": 0.001}
    rows = [
        SeedRow(seed, "k", Row(lam=lam, cost=cost, cost_sum=2 * cost, **common), 0.0, "CPU", "2024-01-01",
                over_exact=2 * cost / 0.25 - 1, drift=2 * cost > 0.25)
        for seed, lam, cost in ((0, 0.1, 0.12), (1, 0.1, 0.15),  # above in the mean, by less than the seeds differ
                                (0, 0.01, 0.14), (1, 0.01, 0.141),  # above at both
                                (0, 0.02, 0.12), (0, 0.03, 0.14))  # one seed
    ]
    table = methods_table(summarise(rows), POINTS).splitlines()
    assert table[0].endswith("| drift |")
    assert [line.split(" |")[-2].strip("| ") for line in table[2:]] == ["", "drift", "", "drift"]


def test_drift_is_read_off_the_rows(measured):
    collected = collect(measured[0], "swissroll")
    for one in collected.of("rdmd"):
        above = one.row.cost_sum - one.row.ot_cost > 2 * one.row.cost_se * one.row.cost_sum / one.row.cost
        assert one.drift == above
    assert all(one.drift is None for one in collected.rows if one.row.method != "rdmd")


def test_between_gaussians_the_exact_map_is_affine():
    """N(0, I) to N(m, S): x -> m + S^(1/2) x, at cost |m|^2 + tr(S) + d - 2 tr S^(1/2) (Bures and Wasserstein)."""
    points = {"reader": "points", "path": "x", "law": "gaussian"}
    covariance = torch.tensor([[1.2, 0.6], [0.6, 0.6]], dtype=torch.float64)
    domains = config.Domains.model_validate(
        {"source": points, "target": points | {"mean": [1.0, -0.5], "covariance": covariance.tolist()}}
    )
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.sqrt() @ vectors.T
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    plan = affine_plan(domains, x)
    expected = torch.tensor([1.0, -0.5]) + x.double() @ root.T
    assert torch.allclose(plan.barycentres, expected, atol=1e-9)  # float64 through two eigendecompositions
    assert plan.cost == pytest.approx(1.25 + 1.8 + 2 - 2 * root.trace().item(), rel=1e-9)
    swissroll = config.parse(params("swissroll", tiny), "tiny").domains
    assert affine_plan(swissroll, x) is None


def test_a_marker_that_stands_alone_is_named(tmp_path: Path):
    from rdmd.errors import UserError

    page = tmp_path / "results.md"
    page.write_text(f"{begin_marker('digits')}\n", encoding="utf-8")
    with pytest.raises(UserError, match="must each stand once"):
        update(page, {"digits": "text"}, {"digits": "Digits"})
