"""`automations.yaml`, installed as docs/scheduling.md says, on a real Prefect server that calls a webhook."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server import API, answers, prefect_server
from tests.conftest import ROOT, fresh_store

MODEL = "rdmd-swissroll"
# It fails before any stage, since lambda must be 0 in this experiment.
FAILING = """
from flows.form import Changes
from flows.reproduce import reproduce
reproduce.with_options(flow_run_name="nonsense")(Changes(experiment="digits_dmd", lambdas=[0.5]), return_state=True)
"""
Told = queue.Queue[dict[str, str]]


def webhook_block(address: str) -> str:
    """A block that posts subject and body to an address; its id."""
    told = {"subject": "{{subject}}", "body": "{{body}}"}
    block = CustomWebhookNotificationBlock(name="test", url=address, json_data=told)
    return str(block.save("rdmd", overwrite=True))


@pytest.fixture
def webhook() -> Iterator[tuple[str, Told]]:
    """An address, and what was posted to it."""
    told: Told = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", told
        server.shutdown()


def test_a_failed_run_and_a_changed_champion_are_told(
    points_project: Path, monkeypatch: pytest.MonkeyPatch, webhook: tuple[str, Told]
):
    address, told = webhook
    monkeypatch.setenv("MLFLOW_TRACKING_URI", fresh_store(points_project / "mlflow.db"))
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    client.create_registered_model(MODEL)
    for _ in range(2):
        client.create_model_version(MODEL, str(points_project))
    with prefect_server() as server:
        environment = server.environment | {"PYTHONPATH": str(points_project)}

        def run(*command: str) -> str:
            said = subprocess.run(
                [sys.executable, *command], cwd=points_project, env=environment, capture_output=True, text=True
            )
            assert said.returncode == 0, said.stdout + said.stderr
            return said.stdout.strip()

        while not answers(f"{server.environment[API]}/health"):
            server.check()
            time.sleep(0.2)
        template = (ROOT / "automations.yaml").read_text(encoding="utf-8")
        with temporary_settings({PREFECT_API_URL: server.environment[API]}):
            block = webhook_block(address)
        Path("automations.yaml").write_text(template.replace("BLOCK", block), encoding="utf-8")
        run("-m", "prefect", "automation", "create", "--from-file", "automations.yaml")

        run("-c", FAILING)
        failed = told.get(timeout=60)
        assert failed["subject"] == "nonsense is Failed"
        assert "distill.lambdas is [0.5]" in failed["body"]

        run("-m", "rdmd.cli", "registry", "promote", "2", "--model", MODEL)
        # Prefect may tell of a failed run more than once.
        messages = iter(lambda: told.get(timeout=60), None)
        changed = next(message for message in messages if message["subject"] != failed["subject"])
        assert changed["subject"] == f"The champion of {MODEL} changed"
        assert "is version 2, promoted by" in changed["body"]
