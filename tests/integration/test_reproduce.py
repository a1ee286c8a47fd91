"""`reproduce` in a temporary clone, on a real Prefect API.

The quick tests run the flow in a process of its own, over the stages of tiny swissroll that train nothing. The slow
ones serve the deployment, and start, cancel and kill runs, workers and servers.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import psutil
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from flows.project_lock import alone_in_the_project
from flows.reproduce import WATCHDOG, watch_heartbeats
from flows.server import API, STARTING, answers, prefect_server
from tests.conftest import ROOT, params, tiny_points

STATES = dict[str, str]


@dataclass(frozen=True)
class Served:
    """A clone whose deployment is served, and a client of the server."""

    path: Path
    client: SyncPrefectClient

    def start(self, **changes: object) -> UUID:
        deployment = self.client.read_deployment_by_name("reproduce/project")
        parameters = {"changes": changes} if changes else {}
        return self.client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id

    def end_of(self, run: UUID, seconds: float = 120) -> tuple[FlowRun, STATES]:
        """The run at its end, and the names of its tasks' states."""
        until(lambda: self.client.read_flow_run(run).state.is_final(), seconds, "the run does not end")
        only = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
        tasks = {task.name: task.state_name for task in self.client.read_task_runs(flow_run_filter=only)}
        return self.client.read_flow_run(run), tasks

    def end_of_all_attempts(self, run: UUID) -> tuple[FlowRun, STATES]:
        """As `end_of`, where a crash is not the end."""
        self_ended = {"Completed", "Failed", "Cancelled"}
        until(lambda: self.client.read_flow_run(run).state_name in self_ended, 300, "the run does not end")
        return self.end_of(run)

    def trainings(self) -> list[psutil.Process]:
        def of_the_clone(process: psutil.Process) -> bool:
            try:
                return "rdmd.training.run" in process.cmdline() and process.cwd() == str(self.path)
            except psutil.Error:
                return False

        return [process for process in psutil.process_iter() if of_the_clone(process)]

    def begun(self) -> list[Path]:
        """Distillations with a checkpoint that are not finished."""
        return [
            file.parent
            for file in self.path.glob("runs/*/checkpoint.pt")
            if not (file.parent / "result.json").exists()
            and '"distill"' in (file.parent / "run.json").read_text(encoding="utf-8")
        ]


def until(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)


def clone(to: Path, stages: tuple[str, ...] | None) -> None:
    """A git checkout of the project with tiny swissroll settings; with some of its stages only, or (None) with all."""
    for name in ("rdmd", "flows", "mlflow", "experiments", "dvc.yaml", ".dvc/config", ".dvcignore", ".gitignore"):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        kept_out = {"ignore": shutil.ignore_patterns("__pycache__", "store")} if copy is shutil.copytree else {}
        copy(ROOT / name, to / name, **kept_out)
    (to / "params.yaml").write_text(params("swissroll", tiny_points), encoding="utf-8")
    if stages is not None:
        pipeline = yaml.safe_load((to / "dvc.yaml").read_text(encoding="utf-8"))
        kept = {"stages": {name: pipeline["stages"][name] for name in stages}}
        (to / "dvc.yaml").write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "A clone"]):
        subprocess.run([*git, *command], cwd=to, check=True)


def serve(path: Path) -> Iterator[Served]:
    """The deployment of a clone, served on a server of its own."""
    with prefect_server() as server:
        dropped = {"MLFLOW_TRACKING_URI", "PREFECT_HOME", "DVC_ROOT", "DVC_STAGE"}
        inherited = {key: value for key, value in server.environment.items() if key not in dropped}
        served = subprocess.Popen(
            [sys.executable, "-m", "flows.ui", "deployment"], cwd=path, stdout=subprocess.DEVNULL,
            start_new_session=True, env=inherited | {"PYTHONPATH": str(path), STARTING: "1"},
        )  # fmt: skip
        try:
            with temporary_settings({PREFECT_API_URL: inherited[API]}), get_client(sync_client=True) as client:
                until(lambda: deployed(client), 120, "the deployment does not appear")
                yield Served(path, client)
        finally:
            os.killpg(served.pid, signal.SIGTERM)
            served.wait(40)


def deployed(client: SyncPrefectClient) -> bool:
    try:
        return bool(client.read_deployment_by_name("reproduce/project"))
    except Exception:  # not there yet, or the server is still starting
        return False


# Runs the flow for every form given and tells what came of it: the run's name and state, and its tasks' states.
DRIVER = """
import json, sys
from flows.form import Changes
from flows.reproduce import reproduce
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
for form in json.loads(sys.argv[1]):
    named = reproduce.with_options(flow_run_name="A (new) run: seed " + str(form.get("seed")))
    state = named(Changes(**form), return_state=True)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(state.state_details.flow_run_id)
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
        shown = [one.data for one in client.read_artifacts() if one.flow_run_id == run.id]
    with open("params.yaml") as params:
        print("RUN " + json.dumps({"name": run.name, "state": state.name, "message": state.message, "shown": shown,
              "tasks": {task.name: task.state_name for task in tasks}, "params": params.read()}))
"""


@dataclass(frozen=True)
class Ran:
    """What came of one run: `tasks` by their states' names, `params` as the run left it."""

    name: str
    state: str
    message: str | None
    shown: list[str]
    tasks: STATES
    params: str


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone whose pipeline ends after preprocessing."""
    path = tmp_path_factory.mktemp("light").resolve()
    clone(path, ("preprocess",))
    return path


@pytest.fixture(scope="module")
def runs(light: Path) -> list[Ran]:
    """Four runs: as it stands, the same again, with changed values, and with values that contradict each other."""
    forms = [{}, {}, {"seed": 1, "lambdas": [0.1, 0.4]}, {"experiment": "digits_dmd", "lambdas": [0.5]}]
    # A database of its own, since the test below sets the watch over heartbeats, of which a server has one.
    dropped = {"MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME", "DVC_ROOT", "DVC_STAGE"}
    environment = {key: value for key, value in os.environ.items() if key not in dropped} | {"PYTHONPATH": str(light)}
    said = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(forms)],
        cwd=light,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    told = [json.loads(line.removeprefix("RUN ")) for line in said.stdout.splitlines() if line.startswith("RUN ")]
    assert len(told) == len(forms), said.stdout[-3000:]
    return [Ran(**one) for one in told]


def test_a_run_executes_every_stage_and_the_next_skips_them(light: Path, runs: list[Ran]):
    names = ["preprocess@source", "preprocess@target"]
    first, second = runs[:2]
    assert first.state == second.state == "Completed", first.message
    assert {name: first.tasks[name] for name in names} == dict.fromkeys(names, "Completed")
    assert {name: second.tasks[name] for name in names} == dict.fromkeys(names, "Skipped")
    assert (light / "data" / "shards" / "target").is_dir()


def test_a_changed_value_is_in_params_yaml_in_the_artifact_and_in_a_dvc_experiment(light: Path, runs: list[Ran]):
    _, before, changed, _ = runs
    assert changed.state == "Completed", changed.message
    assert changed.tasks["preprocess@source"] == "Completed"  # its points depend on the seed
    as_it_was = yaml.safe_load(before.params)
    expected = as_it_was | {"seed": 1, "distill": as_it_was["distill"] | {"lambdas": [0.1, 0.4]}}
    assert yaml.safe_load(changed.params) == expected
    assert any("-seed: 0\n+seed: 1\n" in one for one in changed.shown)
    # The name of the run, "A (new) run: seed 1", is none that git takes.
    assert yaml.safe_load(git(light, "show", f"{experiment(light)}:params.yaml")) == expected
    assert git(light, "log", "--format=%s") == "A clone\n"


def test_nonsense_in_the_form_changes_nothing_and_is_told(runs: list[Ran]):
    _, _, before, nonsense = runs
    assert nonsense.state == "Failed"
    assert "distill.lambdas is [0.5]; set it to [0]" in nonsense.message
    assert set(nonsense.tasks) == {"parameters"}
    assert nonsense.params == before.params


# A flow that nobody watches: no worker, no runner.
LONELY = """
import time
from prefect import flow, runtime
@flow
def lonely():
    print(runtime.flow_run.id, flush=True)
    time.sleep(600)
lonely()
"""


def has_heartbeat(client: SyncPrefectClient, run: UUID) -> bool:
    """Whether the server has a heartbeat of a flow run."""
    heartbeats = EventFilter(
        event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run}"]),
    )
    return bool(client.read_events(heartbeats, limit=1).events)


@pytest.mark.slow
def test_a_flow_run_whose_process_and_worker_are_gone_crashes():
    with prefect_server() as server, temporary_settings({PREFECT_API_URL: server.environment[API]}):
        until(lambda: answers(f"{server.environment[API]}/health"), 90, "the server does not start")
        # The shortest time that Prefect takes.
        watch_heartbeats(timedelta(seconds=10))
        watch_heartbeats(timedelta(seconds=10))
        with get_client(sync_client=True) as client:
            assert len(client.read_automations_by_name(WATCHDOG)) == 1
            process = subprocess.Popen(
                [sys.executable, "-c", LONELY], env=server.environment, text=True, stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            run = UUID(process.stdout.readline().strip())
            until(lambda: has_heartbeat(client, run), 60, "no heartbeat arrives")
            process.kill()
            process.wait()
            assert client.read_flow_run(run).state_name == "Running"
            until(lambda: client.read_flow_run(run).state_name == "Crashed", 150, "it is running for ever")


@contextmanager
def ui(path: Path) -> Iterator[tuple[psutil.Popen, SyncPrefectClient]]:
    """`make ui` in a clone, with its deployment, and a client of its Prefect server."""
    dropped = {"MLFLOW_TRACKING_URI", "PREFECT_HOME", "PREFECT_API_URL", "DVC_ROOT", "DVC_STAGE"}
    environment = {key: value for key, value in os.environ.items() if key not in dropped} | {"PYTHONPATH": str(path)}
    process = psutil.Popen(
        [sys.executable, "-m", "flows.ui"], cwd=path, env=environment, stdout=subprocess.PIPE, text=True
    )
    address = next(line.split()[-1] for line in process.stdout if line.startswith("Prefect "))
    try:
        with temporary_settings({PREFECT_API_URL: f"{address}/api"}), get_client(sync_client=True) as client:
            until(lambda: deployed(client), 180, "the deployment does not appear")
            yield process, client
    finally:
        if process.is_running():
            process.terminate()
        process.wait(40)


@pytest.mark.slow
def test_after_a_power_cut_the_next_run_starts_at_once(tmp_path: Path):
    """No run that was killed together with its worker and the server keeps a slot of a concurrency limit."""
    path = tmp_path.resolve()
    clone(path, ("preprocess",))
    with alone_in_the_project(print, path), ui(path) as (process, client):
        deployment = client.read_deployment_by_name("reproduce/project").id
        run = client.create_flow_run_from_deployment(deployment).id
        until(lambda: client.read_flow_run(run).state_name == "Running", 90, "the run does not start")
        for one in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
    with ui(path) as (_, client):
        run = client.create_flow_run_from_deployment(deployment).id
        until(lambda: client.read_flow_run(run).state_name == "Completed", 90, "the next run does not start")


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Served]:
    path = tmp_path.resolve()
    clone(path, None)
    yield from serve(path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_cancelled_or_killed_trainings_end_within_15_seconds_and_the_run_resumes(whole: Served):
    """By the API, as the button of the UI does, and by `kill -9` of the process that runs the flow."""
    run = whole.start(distill_steps=4000)
    until(whole.begun, 400, "no generator got as far as a checkpoint")
    whole.client.set_flow_run_state(run, Cancelling())
    until(lambda: not whole.trainings(), 15, "trainings outlive a cancelled run")
    begun = {folder: steps(folder) for folder in whole.begun()}
    assert begun
    assert whole.end_of(run)[0].state_name == "Cancelled"

    run = whole.start(distill_steps=4000)
    until(whole.trainings, 120, "the next run does not train")
    until(lambda: all(steps(folder) > before for folder, before in begun.items()), 120, "it does not resume")
    flow_process(whole.path).kill()
    until(lambda: not whole.trainings(), 15, "trainings outlive the process of their run")
    ended, tasks = whole.end_of_all_attempts(run)
    assert ended.state_name == "Completed", ended.state.message
    assert ended.run_count == 2
    assert tasks["teacher"] == "Skipped"
    assert all((folder / "result.json").exists() for folder in begun)


def steps(folder: Path) -> int:
    """The last step of a run's curves."""
    lines = (folder / "curves.jsonl").read_text(encoding="utf-8").splitlines()
    return int(json.loads(lines[-1])["step"]) if lines else 0


def flow_process(path: Path) -> psutil.Process:
    (group,) = [
        one
        for one in psutil.process_iter(["cmdline", "cwd"])
        if "rdmd.pipeline.process_group" in (one.info["cmdline"] or []) and one.info["cwd"] == str(path)
    ]
    return group.parent()


def git(path: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=path, capture_output=True, text=True, check=True).stdout


def experiment(path: Path) -> str:
    """The commit of the DVC experiment that was saved of the third run."""
    refs = git(path, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
    (commit,) = [line.split()[0] for line in refs if line.endswith("/swissroll-A-new-run-seed-1")]
    return commit


def test_what_git_holds_of_a_stage_is_kept_when_the_stage_fails(tmp_path: Path):
    """DVC removes what a stage makes before it runs. Every stage with files in git is run here as one that fails."""
    clone(tmp_path, stages=None)
    pipeline = yaml.safe_load((tmp_path / "dvc.yaml").read_text(encoding="utf-8"))
    listed = subprocess.run(["git", "ls-files", "reports"], cwd=ROOT, capture_output=True, text=True, check=True)
    left, failing = set(listed.stdout.split()), {}
    for name, stage in pipeline["stages"].items():
        outs = {kind: stage[kind] for kind in ("outs", "metrics") if kind in stage}
        made = [next(iter(out)) for kind in outs.values() for out in kind if isinstance(out, dict)]
        if left.intersection(made):
            failing[name] = {"cmd": "exit 3", "deps": ["params.yaml"], **outs}
            left.difference_update(made)
    assert set(failing) == {"validate", "evaluate", "register"} and not left
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": failing}), encoding="utf-8")
    (tmp_path / "reports").mkdir()
    files = [tmp_path / name for name in listed.stdout.split()]
    for file in files:
        file.write_text("old", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--force"], cwd=tmp_path, check=True)
    repro = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--keep-going"], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert repro.returncode != 0 and repro.stdout.count("> exit 3") == 3, repro.stdout
    assert [file.read_text(encoding="utf-8") for file in files] == ["old"] * len(files)
