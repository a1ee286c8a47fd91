"""The registry's decisions in a real MLflow store: by rule, refused, by a person, and back again."""

import contextlib
import getpass
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient
from sqlalchemy import event
from sqlalchemy.pool import Pool

from flows.server import free_port
from flows.stages.register import refusal, register, register_front
from flows.tracking.runs import FINGERPRINT, create_run, open_record
from rdmd import config
from rdmd.cli import main
from rdmd.data.manifest import read_manifest
from rdmd.data.preprocess import preprocess
from rdmd.errors import UserError
from rdmd.evaluation.row import FeaturesRecord, Metrics, Row
from rdmd.evaluation.selection import mark_front
from rdmd.evaluation.table import read_metrics, write_metrics
from rdmd.files import sha256_of, write_json
from rdmd.networks.build import build_denoiser, save_weights
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import ModelCard, write_model
from rdmd.pipeline.store import relocate, unregistered, weights_of
from rdmd.training.run_config import lambda_name
from tests.conftest import ROOT, fresh_store, mlflow_server, params, tiny_points

NAME = "rdmd-swissroll"
# (cost, SW2) by lambda: three points of a front. SW2 0.9 is far from the best, and 0.3 is near it.
SWEEP = {0.5: (0.10, 0.90), 0.2: (0.20, 0.30), 0.05: (0.80, 0.25)}
Said = Callable[..., str]


@dataclass
class Project:
    """A project in the current folder with shards, whose sweep is made up: random weights and chosen numbers."""

    layout: Layout = field(default_factory=Layout)

    @property
    def settings(self) -> config.Settings:
        return config.load()

    def train(self, sweep: dict[float, tuple[float, float]], generation: int = 0, n_source: int = 300) -> None:
        """Put generators and their metrics there. Another `generation` has other weights."""
        rows = []
        for lam, (cost, sw2) in sweep.items():
            run = f"{generation}-{lam:g}"
            self._save(lam, run, seed=hash((generation, lam)) % 2**31)
            rows.append(
                Row(
                    method="rdmd",
                    lam=lam,
                    run=run,
                    nfe=1,
                    cost=cost,
                    cost_se=0.001,
                    sw2=sw2,
                    sw2_ci=(sw2 - 0.01, sw2 + 0.01),
                    seconds_per_image=0.001,
                )
            )
        self.layout.reports.mkdir(exist_ok=True)
        self.layout.samples.write_bytes(b"made up")
        write_metrics(
            Metrics(
                experiment="swissroll",
                seed=self.settings.seed,
                features=FeaturesRecord(name="none", sha256=None, dim=2),
                n_source=n_source,
                n_reference=300,
                rows=mark_front(rows),
            ),
            self.layout.metrics,
        )

    def _save(self, lam: float, run: str, seed: int) -> None:
        torch.manual_seed(seed)
        denoiser = build_denoiser(self.settings.network, (2,))
        with torch.no_grad():
            for weight in denoiser.parameters():
                weight.add_(torch.randn_like(weight), alpha=0.05)
        weights = Path("weights.safetensors")
        save_weights(denoiser, weights)
        card = ModelCard(
            kind="generator",
            experiment="swissroll",
            network=self.settings.network,
            sample_shape=(2,),
            fit="crop",
            sigma_init=1.0,
            lam=lam,
            run=run,
            train_seconds=1.0,
            trained_on="CPU",
            sha256=sha256_of(weights),
            source_digest=self._digest("source"),
            target_digest=self._digest("target"),
        )
        write_model(self.layout.generators / lambda_name(lam), card, weights)

    def _digest(self, name: str) -> str:
        return read_manifest(self.layout.shards / name).digest

    def read_data(self) -> None:
        for name in ("source", "target"):
            preprocess(self.settings, name, self.layout.shards / name)

    def set(self, **sections: object) -> None:
        """Change params.yaml."""
        file = Path("params.yaml")
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | sections, sort_keys=False))

    def register(self) -> dict:
        """What the stage does, without Prefect."""
        registered = register_front.fn(self.settings, self.layout)
        write_json(self.layout.registry, registered)
        return registered


@contextlib.contextmanager
def inside(folder: Path, store: str = "store") -> Iterator[Project]:
    """A project in `folder`, which is the current one meanwhile, with the store below it."""
    uri, before = f"sqlite:///{folder / store / 'mlflow.db'}", mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        try:
            yield Project()
        finally:
            mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def registered_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose sweep is registered. Its copies share its models, which MLflow names by absolute paths."""
    folder = tmp_path_factory.mktemp("registry")
    (folder / "params.yaml").write_text(params("swissroll", tiny_points), encoding="utf-8")
    for name in ("rdmd", "mlflow"):
        (folder / name).symlink_to(ROOT / name)
    fresh_store(folder / "store" / "mlflow.db")
    with inside(folder) as made:
        made.read_data()
        made.train(SWEEP)
        made.register()
    return folder


@pytest.fixture
def project(registered_once: Path, tmp_path: Path) -> Iterator[Project]:
    folder = tmp_path / "project"
    shutil.copytree(registered_once, folder, symlinks=True)
    with inside(folder) as made:
        yield made


@pytest.fixture
def rdmd(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a command; gives what it said, on stdout if it succeeds and on stderr if it does not."""

    def run(command: str, status: int = 0) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(command.split())
        said = capsys.readouterr()
        assert stopped.value.code == status, said.err
        return said.err if status else said.out

    return run


def everything() -> object:
    """All that the registry holds."""
    client = MlflowClient()
    model = client.get_registered_model(NAME)
    versions = client.search_model_versions(f"name = '{NAME}'")
    return (
        model.aliases,
        model.tags,
        model.last_updated_timestamp,
        [(one.version, one.tags, one.description, one.last_updated_timestamp) for one in versions],
    )


def champion() -> str:
    """The lambda of the champion."""
    return MlflowClient().get_model_version_by_alias(NAME, "champion").tags["lambda"]


def test_the_rule_decides_and_twice_is_once(project: Project, rdmd: Said):
    registered = project.register()
    assert registered["aliases"]["champion"]["lambda"] == 0.2
    assert registered["refused"] is None
    assert registered["rule"] == "cheapest-near-best (factor 2)"
    assert registered["caution"] is None and "challenger" not in registered["aliases"]
    assert json.loads(project.layout.champion.read_text()) == {"champion": {"lambda": 0.2, "sw2": 0.3, "cost": 0.2}}
    described = [one.description for one in MlflowClient().search_model_versions(f"name = '{NAME}'")]
    assert len(described) == 3 and all(text.startswith("One-step translator, lambda 0.") for text in described)
    before = everything()
    assert project.register() == registered
    assert everything() == before

    lines = rdmd("registry list").splitlines()
    assert lines[1].split("  ")[-1] == "measured on" and "SW2 [95%]  " in lines[1] and "cost ± 2 se" in lines[1]
    assert [line.split()[:2] for line in lines[2:5]] == [
        ["1", "most-faithful"],
        ["2", "champion"],
        ["3", "most-realistic"],
    ]
    assert "0.2     0.300 [0.290, 0.310]  0.200 ± 0.0020  0.00100   A" in lines[3]
    assert lines[5].startswith("A: features none, 300 sources against 300 references, seed 0, data ")
    assert lines[6].startswith("champion: version 2, promoted by rule at 20") and "before" not in lines[6]

    # Other rules on the same sweep move the alias, and the tags keep the champion before.
    project.set(register={"constraints": {"cost": 0.9, "sw2": 0.26}, "champion": "most-faithful"})
    assert project.register()["aliases"]["champion"]["lambda"] == 0.05
    assert rdmd("registry list").splitlines()[-1].endswith("; before it: 2")

    assert "version 2 again, and was version 3" in rdmd("registry rollback")
    assert champion() == "0.2"
    refused = project.register()["refused"]
    assert (refused["version"], refused["reason"]) == (3, f"{getpass.getuser()} made version 2 the champion")
    assert refused["command"] == "rdmd registry promote"
    assert champion() == "0.2"
    assert MlflowClient().get_model_version_by_alias(NAME, "challenger").tags["lambda"] == "0.05"
    assert "has had no champion before this one" in rdmd("registry rollback", status=2)
    assert "is version 3, lambda 0.05, the rule's choice" in rdmd("registry promote")
    assert champion() == "0.05"
    assert "challenger" not in MlflowClient().get_registered_model(NAME).aliases
    assert project.register()["refused"] is None


def test_a_version_keeps_the_commit_of_its_training(project: Project):
    record = open_record("swissroll")
    for lam in SWEEP:
        create_run(record, f"lambda-{lam:g}", {FINGERPRINT: f"1-{lam:g}", "git_commit": f"{lam:g} of long ago"})
    project.train(SWEEP, generation=1)
    project.register()
    versions = MlflowClient().search_model_versions(f"name = '{NAME}'", order_by=["version_number ASC"])
    commits = [one.tags["git_commit"] for one in versions]
    # No record is left of how the first three were trained.
    assert commits == ["unknown"] * 3 + ["0.5 of long ago", "0.2 of long ago", "0.05 of long ago"]


def test_two_rollbacks_go_back_two_champions(project: Project, rdmd: Said):
    rdmd("registry promote 3")
    rdmd("registry promote 1")
    rdmd("registry promote 1")  # again, which changes nothing
    assert rdmd("registry list").splitlines()[-1].endswith("; before it: 3, 2")
    assert "is version 3 again, and was version 1" in rdmd("registry rollback")
    assert "is version 2 again, and was version 3" in rdmd("registry rollback")
    assert "has had no champion before this one" in rdmd("registry rollback", status=2)
    # The advice is about the model of the command.
    said = rdmd(f"registry rollback --model {NAME}", status=2)
    assert f"`rdmd registry promote VERSION --model {NAME}`" in said and f"`rdmd registry list --model {NAME}`" in said
    # A champion that is deleted is left out.
    rdmd("registry promote 3")
    rdmd("registry promote 1")
    MlflowClient().delete_model_version(NAME, "3")
    assert "is version 2 again, and was version 1" in rdmd("registry rollback")


def test_an_alias_that_was_set_in_mlflow_stays(project: Project, rdmd: Said):
    MlflowClient().set_registered_model_alias(NAME, "champion", "1")
    refused = project.register()["refused"]
    assert (refused["version"], refused["reason"]) == (2, "somebody in MLflow's pages made version 1 the champion")
    assert "is version 2 again, and was version 1" in rdmd("registry rollback")


def test_a_champion_of_another_evaluation_stays_until_a_person_decides(project: Project, rdmd: Said):
    # Other data, hence other weights, and far better numbers: on these data.
    project.set(seed=1)
    project.read_data()
    project.train({0.1: (0.001, 0.02)}, generation=1)
    registered = project.register()
    assert champion() == "0.2"
    assert registered["aliases"]["champion"] == {"version": 2, "lambda": 0.2}
    assert [one["lambda"] for one in registered["versions"]] == [0.1], "its version is there all the same"
    refused = registered["refused"]
    assert (refused["version"], refused["lambda"]) == (4, 0.1)
    assert refused["reason"].startswith("the champion, version 2, was measured on another source_digest (")
    assert "seed (0, now 1)" in refused["reason"]
    assert refusal(registered).startswith(
        "THE CHAMPION STAYS version 2. The challenger, version 4 (lambda 0.1), is not"
    )
    assert refusal(registered).endswith("`rdmd registry promote 4` promotes it anyway.")
    before = everything()
    assert project.register() == registered
    assert everything() == before
    said = rdmd("registry promote", status=2)
    assert "is not promoted: the champion, version 2, was measured on another" in said
    assert "`rdmd registry promote 4` promotes it anyway" in said
    assert [line.split()[-1] for line in rdmd("registry list").splitlines()[2:6]] == ["A", "A", "A", "B"]

    rdmd("registry promote 4")
    assert champion() == "0.1"
    assert project.register()["refused"] is None
    rdmd("registry promote")
    assert "version 4, promoted by rule" in rdmd("registry list")
    assert "nothing is registered as nowhere in sqlite:" in rdmd("registry list --model nowhere", status=2)


def test_the_same_evaluation_lets_a_better_generator_win_and_a_worse_one_lose(project: Project):
    # As after a longer training on the same data.
    project.train({0.2: (0.30, 0.40)}, generation=1)
    assert project.register()["aliases"]["champion"] == {"version": 2, "lambda": 0.2}
    project.train({0.2: (0.10, 0.20)}, generation=2)
    registered = project.register()
    assert registered["aliases"]["champion"] == {"version": 5, "lambda": 0.2}
    assert registered["refused"] is None


def test_the_ends_are_the_best_of_all_comparable_versions(project: Project):
    # The last sweep is worse at both ends than the one before it.
    project.train({0.3: (0.15, 0.95), 0.1: (0.50, 0.28)}, generation=1)
    aliases = project.register()["aliases"]
    assert (aliases["most-faithful"]["lambda"], aliases["most-realistic"]["lambda"]) == (0.5, 0.05)
    project.train({0.3: (0.05, 0.95), 0.1: (0.90, 0.24)}, generation=2)
    aliases = project.register()["aliases"]
    assert (aliases["most-faithful"]["lambda"], aliases["most-realistic"]["lambda"]) == (0.3, 0.1)
    # Of another evaluation, hence not comparable with the champion: nothing moves.
    project.train({0.3: (0.01, 0.05)}, generation=3, n_source=299)
    after = project.register()["aliases"]
    assert after.pop("challenger")["lambda"] == 0.3
    assert after == aliases


def test_a_manual_champion_moves_by_hand_alone(project: Project, rdmd: Said):
    project.set(register={"champion": "manual"})
    project.train({0.2: (0.10, 0.20)}, generation=1)
    registered = project.register()
    assert (champion(), registered["aliases"]["champion"]["version"]) == ("0.2", 2)
    assert registered["aliases"]["challenger"]["version"] == 4
    assert registered["refused"]["reason"] == "register.champion is manual"
    assert registered["refused"]["command"] == "rdmd registry promote 4"
    assert "is version 4, lambda 0.2, the rule's choice" in rdmd("registry promote")
    assert f"champion: version 4, promoted by {getpass.getuser()} at 20" in rdmd("registry list")
    assert "challenger" not in project.register()["aliases"]


def test_an_evaluation_that_ranks_nothing_replaces_no_champion(project: Project, rdmd: Said):
    project.set(seed=1)
    project.train({0.2: (0.30, 0.40)}, generation=1, n_source=49)
    rdmd("registry promote --lambda 0.2")
    project.register()
    rdmd("registry promote 4")
    rdmd("registry promote")  # by the rule again, in the evaluation of 49 samples
    project.train({0.2: (0.10, 0.20)}, generation=2, n_source=49)
    registered = project.register()
    few = "one side of the test split has 49 samples, fewer than 50"
    assert registered["caution"] == few
    assert registered["refused"]["reason"] == f"the ranking means nothing, since {few}"
    assert f"the ranking of 4, 5 means nothing, since {few}" in rdmd("registry list")
    version = MlflowClient().get_model_version(NAME, "5")
    assert version.tags["caution"] == few and version.description.endswith(f"The ranking means nothing, since {few}.")


@pytest.mark.parametrize("asked", [False, True])
def test_a_dvc_experiment_registers_only_if_asked(project: Project, monkeypatch: pytest.MonkeyPatch, asked: bool):
    before = everything()
    monkeypatch.setenv("DVC_EXP_NAME", "ample-sued")
    project.set(register={"experiments": asked})
    project.train({0.2: (0.10, 0.20)}, generation=1)
    registered = register.fn(project.settings, project.layout)
    assert (everything() == before) is not asked
    assert registered["versions"][0]["lambda"] == 0.2
    assert (registered["versions"][0]["version"] is None) is not asked
    # What `make repro` sees after `dvc exp apply`.
    assert (unregistered(project.layout.registry) is None) is asked


def test_a_person_promotes_by_number_or_lambda(project: Project, rdmd: Said):
    assert f"is version 1, promoted by {getpass.getuser()}" in rdmd("registry promote --lambda 0.5")
    tags = MlflowClient().get_registered_model(NAME).tags
    assert (tags["champion_version"], tags["champion_by"], tags["champion_before"]) == ("1", getpass.getuser(), "2")
    rdmd("registry promote 3 --alias canary")
    assert MlflowClient().get_model_version_by_alias(NAME, "canary").version in (3, "3")
    assert champion() == "0.5"
    assert "has no version 9" in rdmd("registry promote 9", status=2)
    assert "has no version of lambda 7" in rdmd("registry promote --lambda 7", status=2)
    assert f"{NAME}@champion is version 1" in rdmd(f"registry promote 1 --model {NAME}")
    assert f"`rdmd registry list --model {NAME}`" in rdmd(f"registry promote 9 --model {NAME}", status=2)
    assert "--model needs a version" in rdmd(f"registry promote --model {NAME}", status=2)
    assert "nothing is registered as nowhere" in rdmd("registry promote 1 --model nowhere", status=2)
    assert "--alias canary needs a version" in rdmd("registry promote --alias canary", status=2)
    # A name that MLflow keeps for itself.
    assert "MLflow refuses --alias latest" in rdmd("registry promote 3 --alias latest", status=2)


def test_a_store_without_room_is_told_in_a_sentence(project: Project):
    def fill(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes the present size if that is larger

    project.train(SWEEP, generation=1)
    event.listen(Pool, "checkout", fill)
    try:
        with pytest.raises(UserError, match=r"has no room; free some space and repeat the command\.$"):
            register_front.fn(project.settings, project.layout)
    finally:
        event.remove(Pool, "checkout", fill)


def test_a_locked_store_is_called_locked(tmp_path: Path):
    # Only the checkout's own store is ever relocated.
    with inside(tmp_path, "mlflow/store"):
        uri = mlflow.get_tracking_uri()
        file = Path(uri.removeprefix("sqlite:///"))
        file.parent.mkdir(parents=True)
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            with pytest.raises(UserError, match="is locked by another process; end that process or wait for it"):
                relocate(uri)


KILLED_IN_THE_SCHEMA = """
import os, signal
from sqlalchemy import event, Engine
migrations = 0
@event.listens_for(Engine, "before_cursor_execute")
def kill(connection, cursor, statement, *rest):
    global migrations
    migrations += statement.startswith("UPDATE alembic_version")
    # The tables of this one are changed, and its version is not; MLflow cannot repeat it.
    if migrations == 12:
        os.kill(os.getpid(), signal.SIGKILL)
from flows.tracking.runs import open_record
open_record("x")
"""


def test_a_process_killed_while_it_makes_the_store_loses_nothing(tmp_path: Path):
    with inside(tmp_path):
        killed = subprocess.run([sys.executable, "-c", KILLED_IN_THE_SCHEMA], check=False)
        assert killed.returncode == -signal.SIGKILL
        for left in (tmp_path / "store").glob(".*"):
            # Younger files may belong to a living process that has not locked them yet.
            os.utime(left, (0, 0))
        assert open_record("x").experiment_id
        assert not [one for one in (tmp_path / "store").iterdir() if one.name.startswith(".")]


def test_features_that_do_not_see_corruption_promote_nobody(project: Project):
    before = everything()
    project.train({0.3: (0.05, 0.05)}, generation=1)
    metrics = read_metrics(project.layout.metrics)
    unfit = metrics.features.model_copy(update={"refused": "noise at rising strength gives the distances 1, 1, 1"})
    write_metrics(metrics.model_copy(update={"features": unfit}), project.layout.metrics)
    with pytest.raises(UserError, match="there is no champion: noise at rising strength"):
        project.register()
    assert everything() == before


def test_bounds_that_nobody_keeps_leave_the_champion(project: Project, rdmd: Said):
    project.set(register={"constraints": {"sw2": 0.1}})
    said = rdmd("registry promote", status=2)
    assert "keeps to register.constraints.sw2 <= 0.1: the nearest, lambda 0.05, has sw2 0.25; raise the bound" in said
    assert champion() == "0.2"


OWN_STORE = "mlflow/store"


def weights(version: str) -> Path | None:
    """Where the registry says that the weights of a version lie."""
    return weights_of(MlflowClient().get_model_version_download_uri(NAME, version))


def new_project(folder: Path) -> None:
    """A folder for `inside` whose store is the default one."""
    (folder / "mlflow").mkdir(parents=True)
    (folder / "params.yaml").write_text(params("swissroll", tiny_points), encoding="utf-8")
    (folder / "rdmd").symlink_to(ROOT / "rdmd")


def test_the_weights_of_a_model_are_not_those_of_its_codec(tmp_path: Path):
    for name in ("model/codec/diffusion_pytorch_model.safetensors", "model/model.safetensors"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"some")
    assert weights_of(tmp_path.as_uri()) == weights_of(str(tmp_path)) == file


def test_a_moved_checkout_and_lost_weights(tmp_path: Path, rdmd: Said):
    original, copy = tmp_path / "original", tmp_path / "a copy"
    new_project(original)
    with inside(original, OWN_STORE) as made:
        made.read_data()
        made.train(SWEEP)
        made.register()
    shutil.copytree(original, copy, symlinks=True)

    with inside(copy, OWN_STORE) as made:
        before = {one.version for one in MlflowClient().search_model_versions(f"name = '{NAME}'")}
        assert unregistered(made.layout.registry) is None
        made.register()
        assert {one.version for one in MlflowClient().search_model_versions(f"name = '{NAME}'")} == before
        assert all(weights(version).is_relative_to(copy) for version in before)
        experiment = MlflowClient().get_experiment_by_name("rdmd/swissroll")
        assert experiment.artifact_location == (copy / OWN_STORE / "artifacts").as_uri()
        assert "champion     models:/rdmd-swissroll@champion loads" in rdmd("doctor")

        rdmd("registry promote --lambda 0.05")
        shutil.rmtree(copy / OWN_STORE / "artifacts")
        reason = unregistered(made.layout.registry)
        assert reason.startswith("the weights of rdmd-swissroll with lambda 0.05, 0.2, 0.5 are gone from sqlite:")
        assert f"models:/rdmd-swissroll@champion cannot be used: {reason}" in rdmd("doctor")
        # Version 3 anew.
        assert made.register()["refused"]["reason"] == f"{getpass.getuser()} made version 6 the champion"
        assert champion() == "0.05"
        assert unregistered(made.layout.registry) is None
        assert "champion     models:/rdmd-swissroll@champion loads" in rdmd("doctor")

        # Damaged rather than lost: the size stays.
        file = weights("6")
        file.write_bytes(bytes(file.stat().st_size))
        made.register()
        assert int(MlflowClient().get_model_version_by_alias(NAME, "champion").version) == 7

        # Lost beside a card that is still there.
        np.save("points.npy", np.zeros((2, 2), np.float32))
        weights("7").unlink()
        said = rdmd(f"translate models:/{NAME}@champion points.npy out.npy", 2)
        assert f"the weights of models:/{NAME}@champion are gone" in said

    with inside(original, OWN_STORE):
        assert all(weights(version).is_relative_to(original) for version in before), "the original is as it was"


def test_weights_lost_on_a_server_are_told_and_registered_again(tmp_path: Path):
    new_project(tmp_path)
    artifacts = tmp_path / "artifacts"
    store = fresh_store(tmp_path / "server" / "mlflow.db")
    with (
        inside(tmp_path) as made,
        mlflow_server(store, free_port(), artifacts) as uri,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        made.read_data()
        made.train({0.2: SWEEP[0.2]})
        made.register()
        assert unregistered(made.layout.registry) is None
        (weights,) = artifacts.rglob("model.safetensors")
        weights.unlink()
        assert unregistered(made.layout.registry) == f"the weights of {NAME} with lambda 0.2 are gone from {uri}"
        made.register()
        assert unregistered(made.layout.registry) is None
        assert int(MlflowClient().get_model_version_by_alias(NAME, "champion").version) == 2


def test_an_empty_store_is_told_and_filled(tmp_path: Path, rdmd: Said):
    """As in a clone after `dvc pull`, or after `make clean`: git brings what `register` wrote, and not the registry."""
    new_project(tmp_path)
    for name in ("flows", "mlflow/translator.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["register"]
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"register": stage}}), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    # Prefect's database is that of the other tests, since making its schema takes seconds.
    dropped = {"PREFECT_API_URL", "MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE"}
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    environment |= {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def make_repro() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "flows.server", "dvc", "repro"],
            cwd=tmp_path,
            text=True,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    with inside(tmp_path, OWN_STORE) as made:
        made.read_data()
        made.train(SWEEP)
        assert "registered 3 generators" in make_repro()
        assert "translate  rdmd translate models:/rdmd-swissroll@champion" in rdmd("summary")
        nothing_to_do = make_repro()
        assert "up to date" in nothing_to_do and "Running stage" not in nothing_to_do

        shutil.rmtree(tmp_path / OWN_STORE)
        said = rdmd("summary")
        assert "champion   none here: sqlite:///" in said and "register   make repro" in said
        assert "rdmd translate" not in said
        assert "registering again, since sqlite:///" in make_repro()
        assert champion() == "0.2"
        assert "rdmd translate models:/rdmd-swissroll@champion" in rdmd("summary")


def test_make_clean_asks_before_it_removes_promotions(tmp_path: Path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("mlflow/store", "runs", "data/shards/source"):
        (tmp_path / folder).mkdir(parents=True)

    def clean(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["make", "clean", *arguments],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
        )

    refused = clean()
    assert refused.returncode == 2
    assert "use make clean FORCE=1" in refused.stderr
    assert (tmp_path / "mlflow" / "store").is_dir() and (tmp_path / "runs").is_dir()
    assert clean("FORCE=1").returncode == 0
    assert not (tmp_path / "mlflow" / "store").exists() and not (tmp_path / "runs").exists()
    # Without promotions there is nothing to ask.
    (tmp_path / "runs").mkdir()
    assert clean().returncode == 0
    assert not (tmp_path / "runs").exists()


def test_the_library_sends_no_telemetry(tmp_path: Path):
    code = (
        "import rdmd.pipeline.layout as l; l.use_local_tracking(); "
        "from mlflow.telemetry.utils import is_telemetry_disabled as off; print(off())"
    )
    # CI and pytest disable it themselves.
    plain = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=plain, capture_output=True, text=True)
    assert said.stdout.strip() == "True", said.stderr
