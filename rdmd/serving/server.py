"""MLflow's scoring server of a model, with Prometheus' metrics at /metrics and a header for inputs unlike the source.

`rdmd serve` runs this file by its path, and a registered model holds a copy of it. It imports nothing of `rdmd`, since
the model brings its own.
"""

import argparse
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import prometheus_client as prometheus
import uvicorn
from fastapi import FastAPI, Request, Response

REQUESTS = prometheus.Counter("rdmd_requests", "Requests for translations, by HTTP status", ["status"])
SECONDS = prometheus.Histogram("rdmd_request_seconds", "Time of a request for translations")
INPUTS = prometheus.Counter("rdmd_inputs", "Images that the generator has read")
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
# Of the present request: the numbers of images, and of those unlike the source.
SEEN: ContextVar[list[tuple[int, int]] | None] = ContextVar("seen", default=None)


class Notes(logging.Handler):
    """Takes what the model logs of its inputs (`rdmd.serving.watch`)."""

    def emit(self, record: logging.LogRecord) -> None:
        """Count the images of a batch."""
        distances, costs, unlike = (getattr(record, name, None) for name in ("distances", "costs", "unlike"))
        if distances is None or costs is None or unlike is None:
            return
        INPUTS.inc(len(distances))
        UNLIKE.inc(unlike)
        for distance, cost in zip(distances, costs, strict=True):
            DISTANCES.observe(distance)
            COSTS.observe(cost)
        seen = SEEN.get()
        if seen is not None:
            seen.append((len(distances), unlike))


def build(model_uri: str) -> FastAPI:
    """MLflow's server of the model `model_uri`, measured."""
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
        seen: list[tuple[int, int]] = []
        SEEN.set(seen)
        start = time.perf_counter()
        response = await answer(request)
        SECONDS.observe(time.perf_counter() - start)
        REQUESTS.labels(response.status_code).inc()
        unlike = sum(one[1] for one in seen)
        if unlike:
            response.headers["RDMD-Unlike-Source"] = f"{unlike} of {sum(one[0] for one in seen)}"
        return response

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(prometheus.generate_latest(), media_type=prometheus.CONTENT_TYPE_LATEST)

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve a model of MLflow.")
    parser.add_argument("--model-uri", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5001)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    uvicorn.run(build(given.model_uri), host=given.host, port=given.port)
