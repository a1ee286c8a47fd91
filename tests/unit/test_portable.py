"""Work made ready for another machine: nothing is left behind, and it is the same run there."""

from pathlib import Path

import pytest

from flows.depot import Depot
from rdmd import config
from rdmd.domains.preprocess import preprocess
from rdmd.errors import UserError
from rdmd.files import sha256_of
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.portable import portable_run, relocated
from rdmd.training.spec import DistillRun, Shards, Start, Weights, fingerprint
from tests.conftest import params, tiny_points


@pytest.fixture
def run(points_project: Path) -> DistillRun:
    """A continued run with weights in several folders of one file name."""
    settings, layout = config.load(), Layout()
    for name in ("source", "target"):
        preprocess(settings, name, layout.shards / name)
    files = {}
    for name in ("teacher", "generator", "fake", "cost"):
        file = points_project / name / "model.safetensors"
        file.parent.mkdir()
        file.write_text(name, encoding="utf-8")
        files[name] = Weights(path=file, sha256=sha256_of(file))
    (points_project / "cost" / "features.json").write_text("{}", encoding="utf-8")
    return DistillRun(
        experiment="swissroll", seed=0, sample_shape=(2,), network=settings.network, precision="float32", processes=1,
        target=Shards(path=layout.shards / "target", digest="t"),
        source=Shards(path=layout.shards / "source", digest="s"),
        settings=settings.distill, lam=0.1, teacher=files["teacher"],
        start=Start(generator=files["generator"], fake=files["fake"]), cost_weights=files["cost"],
    )  # fmt: skip


def test_a_run_is_the_same_elsewhere_with_all_its_inputs(run: DistillRun, tmp_path: Path):
    there = portable_run(run)
    elsewhere = tmp_path / "elsewhere"
    for to, file in there.files.items():
        (elsewhere / to).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / to).write_bytes(file.read_bytes())
    moved = relocated(there.run, lambda _, read: elsewhere / read.path)
    assert fingerprint(moved) == fingerprint(run)
    for read in (moved.teacher, moved.start.generator, moved.start.fake, moved.cost_weights):
        assert elsewhere in read.path.parents
        assert sha256_of(read.path) == read.sha256
    # A feature network cannot be read without its description.
    assert (moved.cost_weights.path.parent / "features.json").exists()
    for before, after in ((run.source, moved.source), (run.target, moved.target)):
        names = {file.name: sha256_of(file) for file in before.path.iterdir()}
        assert {file.name: sha256_of(file) for file in after.path.iterdir()} == names
        assert len(names) >= 4


def test_a_lost_run_goes_on_from_what_it_posted():
    depot = Depot()
    depot.open("a", {"checkpoint.pt": b"1"})
    depot.open("b", {})
    assert depot.begin("a") == {"checkpoint.pt": b"1"}
    assert depot.post("a", {"checkpoint.pt": b"2", "samples/10.png": b"x"}) is False
    assert depot.news("a") == {"checkpoint.pt": b"2", "samples/10.png": b"x"}
    assert depot.news("a") == {}
    assert depot.begin("a") == {"checkpoint.pt": b"2", "samples/10.png": b"x"}
    assert depot.begin("b") == {}


def test_a_stop_reaches_a_run_wherever_it_is():
    depot = Depot()
    depot.open("begun", {})
    depot.open("waiting", {})
    depot.begin("begun")
    assert depot.stop("begun") is True
    assert depot.post("begun", {}) is True
    assert depot.stop("waiting") is False
    assert depot.begin("waiting") is None
    depot.open("begun", {})
    assert depot.begin("begun") == {}


@pytest.mark.parametrize(("launch", "said"), [
    ({"runner": "dask"}, "local, ray"),
    ({"runner": {"name": "ray", "cpu": 2}}, "did you mean `cpus`"),
    ({"runner": {"name": "ray", "gpus": 2}}, "runner.gpus is 2 but processes is 1"),
    ({"runner": {"name": "ray", "address": "ray://head:10001"}}, "join it"),
    ({"runner": "ray", "device": "cuda"}, "runner.gpus is 0"),
    ({"runner": {"name": "ray", "gpus": 1}, "device": "cpu"}, "runner.gpus is 1 but device is cpu"),
])  # fmt: skip
def test_a_runner_that_cannot_be_is_refused(launch: dict, said: str):
    def change(settings: dict) -> None:
        tiny_points(settings)
        settings["launch"] = launch

    with pytest.raises(UserError, match=said):
        config.parse(params("swissroll", change), "params.yaml")


def test_the_runner_is_this_machine_unless_it_is_named():
    assert config.Launch().runner == config.LocalRunner(name="local")
    assert config.Launch(runner="ray").runner == config.RayRunner(name="ray", address="auto", cpus=1, gpus=0)
