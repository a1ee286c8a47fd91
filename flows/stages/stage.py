"""How `python -m flows.stages.NAME` begins and ends: settings in, one sentence and an exit status out."""

import argparse
import logging
import os
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow, tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.flow_engine import run_flow
from prefect.states import Pending

from flows.environment import DEBUG, ROOT
from flows.server import INVOCATION, wait_for_api
from flows.tracking.runs import open_record
from rdmd import config
from rdmd.errors import reporting
from rdmd.pipeline.layout import Layout

# Names the task of `reproduce` above the flow of this stage.
PARENT_TASK = "RDMD_PARENT_TASK_RUN"
# A server records tasks a little later than they begin.
PARENT_SECONDS = 10.0

StageFlow = Flow[[config.Settings, Layout], Any]


def run_stage(description: str, *flows: StageFlow) -> None:
    """Read params.yaml in the current folder and run a flow with it, as a stage of `dvc.yaml` does: of several the one
    that the command line names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(DEBUG, action="store_true", help="show tracebacks and every log line")
    if len(flows) > 1:
        parser.add_argument("stage", choices=[flow.name for flow in flows])
    parsed = parser.parse_args()
    (flow,) = [candidate for candidate in flows if candidate.name == getattr(parsed, "stage", candidate.name)]
    # On a busy machine Prefect's console handler failed in a stage that ended at once, and printed a traceback.
    logging.raiseExceptions = parsed.debug
    with reporting(parsed.debug):
        settings = config.load()
        wait_for_api()
        # A store that cannot be used is reported before hours of work, not after them.
        open_record(settings.experiment)
        layout = Layout(kept=None if Path.cwd().resolve() == ROOT else ROOT)
        parent = os.environ.get(PARENT_TASK)
        labels = {settings.experiment, *filter(None, [os.environ.get(INVOCATION)])}
        run = _run_below(UUID(parent), flow, labels) if parent else None
        if run is None:
            with tags(*labels):
                flow(settings, layout)
        else:
            run_flow(flow, flow_run=run, parameters={"settings": settings, "layout": layout})


def _run_below(task: UUID, flow: StageFlow, labels: set[str]) -> FlowRun | None:
    """A flow run that the UI shows below a task of another flow; None where the server does not know that task."""
    deadline = time.monotonic() + PARENT_SECONDS
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            try:
                return client.create_flow_run(flow, tags=labels, parent_task_run_id=task, state=Pending())
            except PrefectHTTPStatusError:
                time.sleep(0.5)
    return None
