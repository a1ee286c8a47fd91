"""The flow that drives DVC stage by stage, from Prefect's UI or a schedule: a task for every stage of `dvc.yaml`."""

import os
import re
import sys
from datetime import timedelta
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.automations import Automation
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.context import TaskRunContext
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.flows import Flow
from prefect.runtime import flow_run as this_run
from prefect.states import AwaitingRetry, Completed
from prefect.tasks import Task

from flows.artifacts import show_parameters, show_results
from flows.dvc_project import (
    PULL,
    PUSH,
    RESTORE,
    default_remote,
    is_up_to_date,
    run_dvc,
    save_experiment,
    stages_in_order,
    transfer,
)
from flows.environment import ROOT
from flows.form import Changed, Changes, apply
from flows.project_lock import alone_in_the_project, remove_damaged_lock, restore_damaged_dvc_lock
from flows.stages.stage import PARENT_TASK
from rdmd.errors import UserError
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.store import unregistered

# How often a run is started whose process dies, the first time included.
ATTEMPTS = int(os.environ.get("RDMD_ATTEMPTS", "3"))
# How DVC reports the exit status of a stage.
EXITED = re.compile(r"exited with (-?\d+)$")
NO_CHANGES = Changes()
# A flow run that has sent no heartbeat for so long is dead: ten beats, see `flows.environment`.
SILENCE = timedelta(minutes=5)
WATCHDOG = "rdmd: crash flow runs without a heartbeat"


class StageKilled(Exception):  # noqa: N818 (the stage has no error)
    """A signal from outside killed a stage, as when the system runs out of memory."""


def _was_killed(task: "Task[..., object]", run: TaskRun, state: State) -> bool:
    return isinstance(state.result(raise_on_failure=False), StageKilled)


@task(
    cache_policy=NO_CACHE, persist_result=False, task_run_name="{name}",
    retries=2, retry_delay_seconds=10, retry_condition_fn=_was_killed,
)  # fmt: skip
def stage(name: str, lock: int, flags: tuple[str, ...] = ()) -> State:
    """Bring one stage up to date by `dvc repro`, its output as this task's log; a retry resumes its trainings.

    lock: the descriptor of the lock on this project, held for as long as a process of the stage lives. flags: of
    `dvc repro`.
    """
    logger = get_run_logger()
    if is_up_to_date(name):
        # The output of `register` is in git, the registry is not.
        reason = unregistered(Layout(ROOT).registry) if name == "register" else None
        if reason is None:
            logger.info("up to date, skipped")
            return Completed(name="Skipped", message="Up to date.")
        logger.info(f"registering again, since {reason}")
        flags = (*flags, "--force")
    status, output = run_dvc(("repro", "--single-item", *flags, name), logger.info, lock, _environment())
    if status:
        raise _failure(name, status, output)
    if any("is cached - skipping run" in line for line in output):
        return Completed(name="Restored", message="From DVC's cache.")
    return Completed(message="Ran.")


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="parameters")
def parameters(changes: Changes) -> Changed:
    """Write the form's values into params.yaml, and show what changed."""
    changed = apply(changes)
    show_parameters(changed)
    return changed


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="dvc {arguments[0]}")
def share(arguments: tuple[str, ...], lock: int) -> None:
    """Pull from the team's DVC remote, or push to it."""
    transfer(arguments, get_run_logger().info, lock)


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="results")
def results(changed: Changed) -> None:
    """Show the table, the images and a link to MLflow."""
    show_results(changed.settings)


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="dvc exp save")
def keep(name: str) -> None:
    """Save a run with changed parameters as a DVC experiment."""
    commit = save_experiment(name)
    get_run_logger().info(
        f"saved as the DVC experiment {name} ({commit[:8]}): `dvc exp apply {name}` brings it back"
        if commit
        else "this is no git repository, so no DVC experiment was saved"
    )


def start_again(flow: "Flow[..., object]", flow_run: FlowRun, state: State) -> None:
    """Schedule a run again whose process died, `ATTEMPTS` times in all. The worker calls it."""
    with get_client(sync_client=True) as client:
        if client.read_flow_run(flow_run.id).run_count < ATTEMPTS:
            client.set_flow_run_state(flow_run.id, AwaitingRetry(message="Its process died; it resumes."))


def watch_heartbeats(silence: timedelta = SILENCE) -> None:
    """Let Prefect's server set a flow run to Crashed when its heartbeat stops. One automation serves a server.

    Without it a run whose process and worker both died stays Running.
    """
    with get_client(sync_client=True) as client:
        if client.read_automations_by_name(WATCHDOG):
            return
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    Automation(
        name=WATCHDOG,
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *ends},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=silence,
        ),
        actions=[ChangeFlowRunState(
            name=None,
            state=StateType.CRASHED,
            force=False,
            message=f"No heartbeat for {silence}: its process and its worker are gone. Start it again; it resumes.",
        )],
    ).create()  # fmt: skip


@flow(name="reproduce", on_crashed=[start_again])
def reproduce(changes: Changes = NO_CHANGES) -> None:
    """Bring the project up to date with the parameters of the form, as `dvc repro` does, with a task for each stage.

    Unfinished trainings resume, finished ones are reused. Changed values go into `params.yaml`, and the run is saved as
    a DVC experiment. A project with a default DVC remote is pulled before the first stage and pushed after the last.
    """
    watch_heartbeats()
    with alone_in_the_project(get_run_logger().info) as lock:
        remove_damaged_lock(ROOT)
        restore_damaged_dvc_lock(ROOT, get_run_logger().info)
        changed = parameters(changes)
        remote = default_remote()
        if remote is not None:
            share(PULL, lock)
        for name in stages_in_order():
            stage(name, lock, () if remote is None else RESTORE)
        if remote is not None:
            share(PUSH, lock)
        results(changed)
        if changes != NO_CHANGES:
            # A run's name may have spaces and signs that the name of a DVC experiment, a git reference, must not have.
            keep(re.sub(r"[^A-Za-z0-9_-]+", "-", f"{changed.settings.experiment}-{this_run.name}").strip("-"))


def _environment() -> dict[str, str]:
    """The environment of a stage: `rdmd` and `python` of this process, and the task above the stage's flow."""
    context = TaskRunContext.get()
    assert context is not None, "stages run as tasks"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return os.environ | {"PATH": path, PARENT_TASK: str(context.task_run.id), "PYTHONUNBUFFERED": "1"}


def _failure(name: str, status: int, output: list[str]) -> Exception:
    ended = [int(found[1]) for line in output if (found := EXITED.search(line))]
    # A shell reports a signal n as 128 + n, Python as -n; DVC reports any failure as 255.
    if 128 < status < 255 or any(number < 0 or number > 128 for number in ended if number != 130):
        return StageKilled(f"the stage {name} was killed from outside, as when the system runs out of memory")
    errors = [line.removeprefix("rdmd: ") for line in output if line.startswith("rdmd: ")]
    return UserError(f"the stage {name} failed: {(errors or output or ['no output'])[-1]}")
