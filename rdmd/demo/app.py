"""What the demo answers over HTTP: its page, and the translations of a picture by every generator of the front."""

import io
import threading
from collections.abc import Sequence

import numpy as np
import torch
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from rdmd.demo.models import Opened
from rdmd.demo.page import POLICY, page_html
from rdmd.demo.samples import png
from rdmd.domains.readers.pictures import UnreadableError, decode
from rdmd.domains.transforms import fit
from rdmd.evaluation import faithfulness
from rdmd.serving.model import translate_pictures
from rdmd.serving.request import MAX_PIXELS

MAX_BYTES = 32 * 2**20


class Refused(Exception):  # noqa: N818 (not an error of ours: the picture cannot be used)
    """A request that the demo does not take; the text is one sentence for the person at the page."""


def build_app(
    title: str, opened: Sequence[Opened], samples: Sequence[np.ndarray], samples_are: str, hosts: Sequence[str]
) -> FastAPI:
    """The demo of these generators. `samples` are uint8 (H, W, 3); `hosts` are the names it may be reached by.

    GET / is the page. POST /translate takes the bytes of one picture file and gives `source` (the picture as the
    generators see it) and, for each of them, `translations` with `picture` (PNG in base64, as `source`) and `cost`.
    What cannot be used gets HTTP 400 with one sentence in `message`.
    """
    page = page_html(title, opened, [png(sample) for sample in samples], samples_are, MAX_BYTES)
    # One picture at a time: a large one takes hundreds of MB while it is decoded.
    turn = threading.Lock()
    # Their pages of documentation would load scripts from the network.
    app = FastAPI(title=title, openapi_url=None)
    # A page elsewhere on the web cannot reach the loopback under a name of its own.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.get("/")
    def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"})

    @app.post("/translate")
    async def translate(request: Request) -> JSONResponse:
        try:
            return JSONResponse(await run_in_threadpool(_translated, opened, await _body(request), turn))
        except Refused as refused:
            return JSONResponse({"message": str(refused)}, 400)

    return app


async def _body(request: Request) -> bytes:
    """The bytes of the request. What is beyond the limit is read and dropped, so that the answer is heard."""
    kept = bytearray()
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BYTES:
            kept += chunk
    if size > MAX_BYTES:
        raise Refused(f"this file has {size} bytes; send one of at most {MAX_BYTES}.")
    if not kept:
        raise Refused("nothing was sent; send the bytes of one picture file.")
    return bytes(kept)


def _translated(opened: Sequence[Opened], body: bytes, turn: threading.Lock) -> dict[str, object]:
    with turn:
        try:
            picture = decode(io.BytesIO(body), MAX_PIXELS)
        except UnreadableError as error:
            reason = " ".join(str(error).split())
            raise Refused(f"this picture cannot be used ({reason}); choose another one.") from None
        first = opened[0].model
        source = fit(picture, first.sample_shape[-1], first.fit)
        outputs = [translate_pictures(one.model, [source])[0] for one in opened]
    return {
        "source": png(source),
        "translations": [{"picture": png(output), "cost": _cost(source, output)} for output in outputs],
    }


def _cost(source: np.ndarray, output: np.ndarray) -> float:
    """The squared difference in [-1, 1], mean over dimensions."""
    pair = (torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] for picture in (source, output))
    return faithfulness.cost(*pair).item()
