"""A page in the browser that translates an image at every lambda of the front: `rdmd demo`."""

import contextlib
import hashlib
import json
import math
import os
import tempfile
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

from rdmd.data.readers.images import SUFFIXES, Form, UnreadableError, decode
from rdmd.data.shards import read_split
from rdmd.data.transforms import as_rgb, fit, with_channels
from rdmd.errors import UserError
from rdmd.evaluation import faithfulness
from rdmd.evaluation.row import GENERATOR
from rdmd.evaluation.table import interval, number, read_metrics, realism_name
from rdmd.files import replacing
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import generator_folder, read_card
from rdmd.serving.images import translate_images
from rdmd.serving.model import open_folder

SAMPLES = 8
# Of the slider, where lambda is an input.
POSITIONS = 60
MAX_FILE_SIZE = "64mb"
LOOPBACK = ("127.0.0.1", "localhost")
# Pixels of the page for a side of an image, and of the longer side of an image that is translated.
SHOWN_SIDE, MOST_SIDE = 256, 1024
# Galleries as high as their images, and a slider without the number of its position.
CSS = """#all .grid-wrap, #samples .grid-wrap { height: auto; min-height: 0; max-height: none; overflow: hidden; }
#all .grid-container { grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); }
#samples .grid-container { grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr)); }
#all .thumbnail-lg { aspect-ratio: auto; align-self: start; }
#all .thumbnail-lg img { height: auto; }
#all .caption-label { position: static; display: block; white-space: normal; max-width: 100%; }
#lambda .tab-like-container, #lambda .min_value, #lambda .max_value { display: none; }"""
ABOUT = """# {title}
A generator translates an image in one network evaluation. A small λ looks more like the target; a large λ keeps closer
to the input. FID (KID where test images are few) and cost are of the test split, FID with its 95% interval; smaller is
better."""


UNLIKE = "**This image is unlike those that the model was trained on**, so nobody knows how well it translates it."


class Front:
    """Translates an image at any of its `lambdas`, which ascend from realistic to faithful.

    The generators are those of models/generators on the front of reports/metrics.json. Where one generator takes lambda
    as an input, `lambdas` are POSITIONS values of its range besides the `measured`.
    """

    def __init__(self, layout: Layout, device: torch.device) -> None:
        """Load every generator. Raises UserError if there is none, or if the metrics were measured on others."""
        if not layout.metrics.exists():
            raise UserError(
                f"{layout.metrics} does not exist, so the demo has no model; run `make repro` (or `dvc repro`) first."
            )
        rows = [row for row in read_metrics(layout.metrics).rows if row.method == GENERATOR and row.on_front]
        if not rows:
            raise UserError(f"{layout.metrics} holds no generator on the front; repeat `rdmd evaluate` or `dvc repro`.")
        folders = {row.run: generator_folder(layout, row.run) for row in rows}
        models = {run: open_folder(folder, device) for run, folder in folders.items()}
        card = read_card(folders[rows[0].run])
        self._source, self.form = card.source, Form(white=card.white)
        self._rows = {row.lam or 0.0: row for row in sorted(rows, key=lambda row: row.lam or 0.0)}
        self._models = {lam: models[row.run] for lam, row in self._rows.items()}
        self.measured = list(self._rows)
        self.lambdas = sorted({*self.measured, *(card.lambdas.spaced(POSITIONS) if card.lambdas else [])})
        self._champion = _champion(layout)
        first = self._champion if self._champion in self.measured else self.measured[len(self.measured) // 2]
        self.first = self.lambdas.index(first)

    def translate(self, image: np.ndarray, lam: float) -> np.ndarray:
        """Translate an image, uint8 (H, W, 3), to one of its size at one of `lambdas`."""
        model = self._models[self._nearest(lam)]
        pixels = with_channels(image, model.sample_shape[0])
        return with_channels(next(translate_images(model.at(lam), [pixels])), 3)

    def cost(self, image: np.ndarray, translation: np.ndarray) -> float:
        """The cost between two images, uint8 (H, W, 3), each fitted as in training, as the evaluation measures it."""
        pair = (torch.from_numpy(self._fitted(picture)) for picture in (image, translation))
        return faithfulness.cost(*pair).item()

    def is_unlike(self, image: np.ndarray) -> bool:
        """Whether an image, uint8 (H, W, 3), is unlike those that the generators were trained on, as far as known."""
        return self._source is not None and bool(self._source.distances(self._fitted(image) / 127.5 - 1)[0] > 1)

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        model = next(iter(self._models.values()))
        pixels = with_channels(image, model.sample_shape[0])
        return fit(pixels, model.sample_shape[-1], model.fit).transpose(2, 0, 1)[None].copy()

    def describe(self, lam: float, short: bool = False) -> str:
        """The lambda with the realism and the cost on the test split, measured there or at the nearest; `short` leaves
        out the interval."""
        if lam not in self._rows:
            return f"λ = {lam:g}; measured at {self.describe(self._nearest(lam), short)}"
        row, champion = self._rows[lam], " (champion)" if lam == self._champion else ""
        realism = number(row.realism) if short else interval(row.realism, row.realism_ci)
        return f"λ = {lam:g}{champion}, {realism_name(row)} {realism}, cost {number(row.cost)}"

    def _nearest(self, lam: float) -> float:
        """The measured lambda whose logarithm is nearest."""
        return lam if lam in self._rows else min(self.measured, key=lambda other: abs(math.log(other / lam)))


def _champion(layout: Layout) -> float | None:
    """The lambda of the champion when this sweep was registered; None where nothing is."""
    try:
        champion: float | None = json.loads(layout.registry.read_text(encoding="utf-8"))["aliases"]["champion"][
            "lambda"
        ]
        return champion
    except (OSError, ValueError, KeyError):
        return None


def sample_images(layout: Layout) -> list[np.ndarray]:
    """A few images of the source's test split, uint8 (H, W, 3); none where its shards are missing."""
    try:
        images = as_rgb(read_split(layout.shards / "source", "test").data).permute(0, 2, 3, 1).numpy()
    except UserError:
        return []
    # Evenly spaced: copies of one scan are neighbours.
    return [images[i] for i in np.linspace(0, len(images) - 1, min(SAMPLES, len(images))).astype(int)]


def reduced(image: np.ndarray) -> np.ndarray:
    """An image as large as the page needs: a photograph of a phone would take seconds at every move of the slider."""
    shown = Image.fromarray(np.ascontiguousarray(image))
    shown.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(shown)


def enlarged(image: np.ndarray) -> np.ndarray:
    """A small image with every pixel as a square: browsers would smooth it."""
    times = max(1, SHOWN_SIDE // max(image.shape[:2]))
    return image.repeat(times, axis=0).repeat(times, axis=1)


def write_shown(image: np.ndarray, folder: Path) -> str:
    """Write an image, uint8 (H, W, 3), as the page shows it to a PNG in `folder`, named by its content.

    Return its path. Gradio would name an array's file so too, but it writes the file anew in place at each use, and a
    browser that reads it meanwhile gets a part of it.
    """
    pixels = enlarged(image)
    path = folder / f"{hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()}.png"
    if not path.exists():
        with replacing(path) as temporary:
            Image.fromarray(pixels).save(temporary, format="png")
    return str(path)


def build_page(gr: ModuleType, front: Front, samples: Sequence[np.ndarray], title: str, folder: Path) -> Any:
    """The page, a `gradio.Blocks`: an image in, the image at the slider's lambda out, and all of them side by side.

    It writes the images that it shows into `folder`.
    """
    show = partial(write_shown, folder=folder)

    def at_lambda(image: np.ndarray | None, position: int) -> tuple[Any, str]:
        lam = front.lambdas[position]
        if image is None:
            return None, front.describe(lam)
        output = front.translate(image, lam)
        text = f"**{front.describe(lam)}**; of this image: cost {front.cost(image, output):.3g}"
        return show(output), f"{text}. {UNLIKE}" if front.is_unlike(image) else text

    def on_image(image: np.ndarray | None, position: int) -> tuple[Any, ...]:
        if image is None:
            return None, None, *at_lambda(None, position), []
        image = reduced(image)
        every = [(show(front.translate(image, lam)), front.describe(lam, short=True)) for lam in front.measured]
        return image, show(image), *at_lambda(image, position), every

    def on_file(file: str | None, position: int) -> tuple[Any, ...]:
        if file is None:
            return on_image(None, position)
        try:
            with Path(file).open("rb") as opened:
                return on_image(decode(opened, form=front.form), position)
        except UnreadableError as error:
            raise gr.Error(f"This image cannot be used ({error}); choose another one.", print_exception=False) from None

    def on_sample(position: int, event: gr.SelectData) -> tuple[Any, ...]:  # type: ignore[name-defined]
        return on_image(samples[event.index], position)

    last = len(front.lambdas) - 1
    shown = {"format": "png", "interactive": False, "buttons": []}
    private = {"api_visibility": "private"}
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(ABOUT.format(title=title))
        image = gr.State()
        with gr.Row():
            file = gr.File(label="Your image", file_types=sorted(SUFFIXES), height=SHOWN_SIDE, elem_id="file")
            seen = gr.Image(label="Input", height=SHOWN_SIDE, elem_id="seen", **shown)
            chosen = gr.Image(label="Output", height=SHOWN_SIDE, elem_id="chosen", **shown)
        slider = gr.Slider(
            0,
            max(last, 1),
            front.first,
            step=1,
            label="λ, from realistic to faithful",
            interactive=last > 0,
            buttons=[],
            elem_id="lambda",
        )
        numbers = gr.Markdown(elem_id="numbers")
        grid = {"columns": SAMPLES, "height": "auto", "allow_preview": False, "show_label": False, **shown}
        gr.Markdown("### Every lambda that was measured")
        every = gr.Gallery(elem_id="all", **grid)
        gr.Markdown("### Or choose an image of the test split", visible=bool(samples))
        tries = gr.Gallery([show(picture) for picture in samples], visible=bool(samples), elem_id="samples", **grid)
        outputs = [image, seen, chosen, numbers, every]
        file.change(on_file, [file, slider], outputs, **private)
        tries.select(on_sample, slider, outputs, **private)
        slider.input(
            at_lambda, [image, slider], [chosen, numbers], trigger_mode="always_last", show_progress="hidden", **private
        )
        page.load(lambda position: on_image(samples[0] if samples else None, position), slider, outputs, **private)
    return page


def serve_demo(front: Front, layout: Layout, title: str, host: str, port: int) -> None:
    """Serve the page until the process is asked to end. Nothing is asked of the network, and no image is kept.

    Raises UserError if gradio is missing.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio as gr
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
    except ImportError as error:
        raise UserError(
            f"`rdmd demo` needs the package {error.name}, which is missing here; install it with "
            "`pip install 'rdmd[demo]'`."
        ) from None
    with tempfile.TemporaryDirectory(prefix="rdmd-demo-") as folder:
        # Gradio keeps uploads and outputs there.
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build_page(gr, front, sample_images(layout), title, Path(folder))
        # A page elsewhere on the web cannot reach the loopback by a name of its own.
        hosts = list(LOOPBACK) if host in LOOPBACK else ["*"]
        system = [gr.themes.Font(name) for name in ("system-ui", "sans-serif")]
        _, address, _ = page.launch(
            server_name=host, server_port=port, share=False, ssr_mode=False, quiet=True, show_error=True,
            prevent_thread_lock=True, footer_links=[], css=CSS, max_file_size=MAX_FILE_SIZE,
            theme=gr.themes.Default(font=system, font_mono=[gr.themes.Font("monospace")]),
            app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=hosts)]},
        )  # fmt: skip
        lambdas = ", ".join(f"{lam:g}" for lam in front.measured)
        print(f"measured at lambda {lambdas}\nthe demo is {address}; Ctrl-C stops it", flush=True)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
        finally:
            page.close(verbose=False)
