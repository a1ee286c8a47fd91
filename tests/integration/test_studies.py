"""The studies behind docs/results, end to end on tiny points and tiny digits."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.row import Row
from rdmd.training.run_folder import RunFolder
from studies.__main__ import main
from studies.grids import Comparison, variant_settings
from tests.conftest import ROOT, params, tiny_digits, tiny_points
from tests.in_process import InThisProcess

COMPARISON = {
    "name": "tiny-fake_steps", "study": "swissroll", "title": "fake steps", "lambdas": [0.05],
    "variants": {"1": {"fake_steps": 1}, "2": {"fake_steps": 2}},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def in_this_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("studies.measure.TrainingProcesses", InThisProcess)
        yield


def tiny(settings: dict) -> None:
    """The tiny points, with a baseline of two settings and little of everything."""
    tiny_points(settings)
    settings["distill"] |= {"lambdas": {"from": 0.05, "to": 0.5}, "steps": 20}
    settings["evaluate"] |= {"lambdas": [0.05, 0.5]}
    settings["teacher"] |= {"steps": 40}
    settings["baselines"] = {"sdedit": {"sigmas": [0.5, 2.0], "steps": 4}}
    settings["evaluate"] |= {"n_w2": 100}


def separate(settings: dict) -> None:
    tiny(settings)
    settings["distill"]["lambdas"] = [0.05, 0.5]
    del settings["evaluate"]["lambdas"]


class Project:
    """A folder with the grids of tiny studies, in which commands run."""

    def __init__(self, root: Path) -> None:
        self.root, self.docs = root, root / "docs" / "results"

    def grid(self, name: str, text: str) -> None:
        file = self.root / "experiments" / "studies" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def run(self, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(self.root)
        main([*arguments, "--debug"])

    def read(self, name: str) -> dict:
        return json.loads((self.docs / f"{name}.json").read_text(encoding="utf-8"))

    def made(self) -> dict[Path, int]:
        """When every run and every cached row was finished."""
        files = [*self.root.glob("results/runs/*/result.json"), *self.root.glob("results/cache/**/output.pkl")]
        return {file: file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two seeds of a tiny swissroll."""
    found = Project(tmp_path_factory.mktemp("studies"))
    found.grid("swissroll", params("swissroll", tiny))
    with pytest.MonkeyPatch.context() as patch:
        found.run("swissroll", "--seeds", "0", "1", monkeypatch=patch)
    return found


def test_rows_have_the_keys_of_metrics_json_and_a_seed(project: Project) -> None:
    found = project.read("swissroll")
    keys = {"lambda" if name == "lam" else name for name in Row.model_fields}
    assert all(set(row) >= keys | {"seed"} for row in found["rows"])
    assert {row["method"] for row in found["rows"]} == {"identity", "data", "teacher", "ot", "rdmd", "sdedit"}
    assert (found["seeds"], found["n_source"], found["n_transport"], found["n_w2"]) == ([0, 1], 300, 200, 100)
    assert [one["seed"] for one in found["features"]] == [0, 1]
    for seed in (0, 1):
        rows = {row["method"]: row for row in found["rows"] if row["seed"] == seed}
        assert rows["rdmd"]["sw2_ratio"] == rows["rdmd"]["sw2"] / rows["data"]["sw2"]
        assert rows["rdmd"]["over_exact"] == rows["rdmd"]["cost_sum"] / rows["ot"]["cost_sum"] - 1
        assert rows["rdmd"]["peak_memory_mib"] > 0
        # Exact transport sends the sources to the very points that `data` is.
        assert rows["ot"]["sw2"] == pytest.approx(rows["data"]["sw2"], rel=1e-5)
        # Two exact costs between 200 points of the same laws: their deviation is about 10%.
        assert rows["ot"]["cost_sum"] == pytest.approx(rows["ot"]["ot_cost"], rel=0.5)
        assert 0 < rows["ot"]["l2_uvp"] < 20


def test_a_restart_trains_and_evaluates_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, rows = project.made(), project.read("swissroll")["rows"]
    assert len([file for file in before if file.name == "result.json"]) == 4
    project.run("swissroll", "--seeds", "0", monkeypatch=monkeypatch)
    assert project.made() == before
    assert project.read("swissroll")["rows"] == rows
    said = capsys.readouterr().err
    assert "evaluated" not in said
    assert "trained" not in said


def test_one_more_setting_is_one_more_row(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def longer(settings: dict) -> None:
        tiny(settings)
        settings["baselines"]["sdedit"]["sigmas"] = [0.5, 1.0, 2.0]

    before = project.made()
    project.grid("swissroll", params("swissroll", longer))
    project.run("swissroll", "--seeds", "1", "--only", "baselines", monkeypatch=monkeypatch)
    assert len(set(project.made()) - set(before)) == 1
    sigmas = [(row["seed"], row["settings"]["sigma"]) for row in project.read("swissroll")["rows"]
              if row["method"] == "sdedit"]  # fmt: skip
    assert sorted(sigmas) == [(0, 0.5), (0, 2.0), (1, 0.5), (1, 1.0), (1, 2.0)]
    # Back to what the other tests read.
    project.grid("swissroll", params("swissroll", tiny))
    project.run("swissroll", "--seeds", "1", "--only", "baselines", monkeypatch=monkeypatch)


def test_seeds_of_other_settings_are_not_mixed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fewer(settings: dict) -> None:
        tiny(settings)
        settings["evaluate"]["n_source"] = 250

    before = project.read("swissroll")
    project.grid("swissroll", params("swissroll", fewer))
    with pytest.raises(UserError, match=r"seeds \[0\] have n_source 300, seed 1 has 250; measure all seeds"):
        project.run("swissroll", "--seeds", "1", "--only", "references", monkeypatch=monkeypatch)
    project.grid("swissroll", params("swissroll", tiny))
    assert project.read("swissroll") == before


def test_the_report_needs_the_json_alone(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "swissroll.json").write_bytes((project.docs / "swissroll.json").read_bytes())
    project.run("report", "--docs", str(tmp_path), monkeypatch=monkeypatch)
    text = (tmp_path / "swissroll.md").read_text(encoding="utf-8")
    assert "300 translated test samples against 300 of the target's test split" in text
    assert "| **RDMD** | λ = 0.05 |" in text
    for file in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (tmp_path / file).read_bytes().startswith(b"\x89PNG")
    assert (project.docs / "swissroll_samples.png").read_bytes().startswith(b"\x89PNG")


def test_a_variant_equal_to_its_study_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path)
    project.grid("swissroll", params("swissroll", separate))
    project.grid("ablations", yaml.safe_dump([COMPARISON]))
    project.run("swissroll", "--seeds", "0", "--only", "rdmd", monkeypatch=monkeypatch)
    before = project.made()
    project.run("ablations", monkeypatch=monkeypatch)
    # `fake_steps: 1` is the study's own.
    runs = [RunFolder(file.parent) for file in set(project.made()) - set(before) if file.name == "result.json"]
    assert [folder.read_run().settings.fake_steps for folder in runs] == [2]
    found = project.read("ablations")
    assert [one["name"] for one in found["comparisons"]] == ["tiny-fake_steps"]
    assert [(row["variant"], row["seed"]) for row in found["rows"]] == [("1", 0), ("2", 0)]
    assert all(row["sw2_ratio"] > 0 for row in found["rows"])
    assert "### tiny-fake_steps: fake steps" in (project.docs / "ablations.md").read_text(encoding="utf-8")
    again = project.made()
    project.run("ablations", "--only", "tiny-fake_steps", monkeypatch=monkeypatch)
    assert project.made() == again
    assert project.read("ablations") == found


def test_a_study_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path)
    project.grid("digits", params("digits", tiny_digits))
    project.run("digits", "--seeds", "0", monkeypatch=monkeypatch)
    found = project.read("digits")
    assert {row["method"] for row in found["rows"]} == {"identity", "target", "teacher", "rdmd", "sdedit"}
    assert found["features"][0]["name"] == "classifier"
    assert {one["domain"] for one in found["splits"]} == {"source", "target", "features"}
    assert all(row["fid"] is not None for row in found["rows"])
    text = (project.docs / "digits.md").read_text(encoding="utf-8")
    assert "network `classifier`" in text
    assert (project.docs / "digits_samples.png").read_bytes().startswith(b"\x89PNG")


def test_a_variants_own_settings_go_before_what_all_variants_change() -> None:
    comparison = Comparison.model_validate(COMPARISON | {"settings": {"fake_steps": 3, "beta1": 0.5}})
    changed = variant_settings(config.parse(params("swissroll", separate), "tiny"), comparison, "2").distill
    assert (changed.fake_steps, changed.beta1, changed.lambdas) == (2, 0.5, [0.05])


def test_a_variant_with_other_data_has_its_own_teacher_and_the_same_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    project.grid("digits", params("digits", tiny_digits))
    entry = {
        "name": "tiny-few", "study": "digits", "title": "few images", "lambdas": [0.05],
        "settings": {"teacher.steps": 6, "steps": 4, "evaluate.bootstrap": 0},
        "variants": {
            "few": {"domains.source.train_copies": 1, "domains.target.train_copies": 1},
            "augmented": {"network.augment_dim": 9, "teacher.augment": 0.2, "flip": True},
            "all": {},
        },
    }  # fmt: skip
    project.grid("few_images", yaml.safe_dump([entry], sort_keys=False))
    project.run("few_images", monkeypatch=monkeypatch)
    found = project.read("few_images")
    assert [(row["variant"], row["method"]) for row in found["rows"]] == [
        (name, method) for name in ("few", "augmented", "all") for method in ("teacher", "rdmd")
    ]
    # Three teachers and three generators, each with its own settings.
    assert len({one["run"] for one in found["training"]}) == 6
    runs = [RunFolder(file.parent).read_run() for file in tmp_path.glob("results/runs/*/run.json")]
    teachers = [run for run in runs if run.kind == "teacher"]
    assert sorted((run.settings.steps, run.settings.augment) for run in teachers) == [(6, 0.0), (6, 0.0), (6, 0.2)]
    assert len({run.target.digest for run in teachers}) == 2
    # Each generator comes of its variant's teacher.
    of_teacher = {run.teacher.sha256: run.settings.flip for run in runs if run.kind == "distill"}
    kept = {RunFolder(file.parent).result().sha256: RunFolder(file.parent).read_run() for file in
            tmp_path.glob("results/runs/*/result.json")}  # fmt: skip
    assert {kept[sha].settings.augment: flip for sha, flip in of_teacher.items()} == {0.0: False, 0.2: True}
    assert len(of_teacher) == 3
    text = (project.docs / "few_images.md").read_text(encoding="utf-8")
    assert "| few | teacher |" in text and "nan" not in text
    wrong = Comparison.model_validate(entry | {"settings": {"teacher.none.steps": 6}})
    with pytest.raises(UserError, match=r"tiny-few: there is no key teacher\.none\.steps"):
        variant_settings(config.parse(params("digits", tiny_digits), "tiny"), wrong, None)


def test_the_published_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables of docs/results are those of the JSON files beside them."""
    published = ROOT / "docs" / "results"
    (tmp_path / "gaussian.json").write_bytes((published / "gaussian.json").read_bytes())
    main(["report", "--docs", str(tmp_path), "--debug"])
    made = (tmp_path / "gaussian.md").read_text(encoding="utf-8")
    assert [line for line in made.splitlines() if line.startswith("|")] == [
        line for line in (published / "gaussian.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")
    ]  # fmt: skip
