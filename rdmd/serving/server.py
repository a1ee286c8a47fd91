"""MLflow's scoring server of a model, with Prometheus' metrics at /metrics, a header for inputs unlike the source, and
a log of requests for `rdmd monitor`.

`rdmd serve` runs this file by its path, and a registered model holds a copy of it. It imports nothing of `rdmd`, since
the model brings its own.
"""

import argparse
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import prometheus_client as prometheus
import uvicorn
from fastapi import FastAPI, Request, Response

REQUESTS = prometheus.Counter("rdmd_requests", "Requests for translations, by HTTP status", ["status"])
SECONDS = prometheus.Histogram("rdmd_request_seconds", "Time of a request for translations")
INPUTS = prometheus.Counter("rdmd_inputs", "Images that were translated")
UNLIKE = prometheus.Counter("rdmd_inputs_unlike_source", "Images that are unlike the training source")
DISTANCES = prometheus.Histogram(
    "rdmd_input_distance",
    "Distance of an image from the training source; above 1 it is unlike the source",
    buckets=(0.25, 0.5, 0.75, 1, 1.5, 2, 4, 8),
)
COSTS = prometheus.Histogram(
    "rdmd_cost",
    "Squared difference between an image and its translation, mean over dimensions, pixels in [-1, 1]",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1),
)
# Of the present request: what the model noted of its batches.
SEEN: ContextVar[list[dict[str, Any]] | None] = ContextVar("seen", default=None)
# What a line of the log holds for each image, in lists; no image can be made from it.
LOGGED = ("distances", "costs", "numbers")


class Notes(logging.Handler):
    """Takes what the model logs of its inputs (`rdmd.serving.watch`)."""

    def emit(self, record: logging.LogRecord) -> None:
        """Count the images of a batch."""
        if not hasattr(record, "distances"):
            return
        batch = vars(record)
        INPUTS.inc(len(batch["distances"]))
        UNLIKE.inc(batch["unlike"])
        for distance, cost in zip(batch["distances"], batch["costs"], strict=True):
            DISTANCES.observe(distance)
            COSTS.observe(cost)
        seen = SEEN.get()
        if seen is not None:
            seen.append(batch)


def build(model_uri: str, requests: Path | None = None) -> FastAPI:
    """MLflow's server of the model `model_uri`, measured; each request becomes a line of the file `requests`."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.pyfunc import load_model, scoring_server

    log = logging.getLogger("rdmd.serving")
    log.setLevel(logging.INFO)
    log.addHandler(Notes())
    app: FastAPI = scoring_server.init(load_model(model_uri))

    @app.middleware("http")
    async def measure(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.url.path != "/invocations":
            return await answer(request)
        # The model runs in another thread, in a copy of this context that holds the same list.
        seen: list[dict[str, Any]] = []
        SEEN.set(seen)
        start = time.perf_counter()
        response = await answer(request)
        seconds = time.perf_counter() - start
        SECONDS.observe(seconds)
        REQUESTS.labels(response.status_code).inc()
        unlike = sum(batch["unlike"] for batch in seen)
        if unlike:
            response.headers["RDMD-Unlike-Source"] = f"{unlike} of {sum(len(batch['distances']) for batch in seen)}"
        if requests is not None:
            _log(requests, response.status_code, seconds, seen)
        return response

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(prometheus.generate_latest(), media_type=prometheus.CONTENT_TYPE_LATEST)

    return app


def _log(file: Path, status: int, seconds: float, seen: list[dict[str, Any]]) -> None:
    """Append a line of JSON for a request. The file may be moved away at any time, as logrotate does."""
    # A model that was registered by an earlier version notes less.
    images = {name: [value for batch in seen for value in batch.get(name, [])] for name in LOGGED}
    rounded = json.loads(json.dumps(images), parse_float=lambda text: round(float(text), 5))
    line: dict[str, Any] = {
        "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "status": status,
        "seconds": round(seconds, 4),
    }
    line["lam"] = seen[0].get("lam") if seen else None
    try:
        with file.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line | rounded) + "\n")
    except OSError as error:
        logging.getLogger(__name__).error("the request was not logged: %s", error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve a model of MLflow.")
    parser.add_argument("--model-uri", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument("--log", type=Path, help="append a line of JSON for every request to this file")
    parsed = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    uvicorn.run(build(parsed.model_uri, parsed.log), host=parsed.host, port=parsed.port)
