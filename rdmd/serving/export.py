"""A generator as an ONNX file, for runtimes without torch: `rdmd export MODEL out.onnx`."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rdmd.data.transforms import quantise, to_unit
from rdmd.distillation.generator import Generator, own_noise
from rdmd.errors import UserError
from rdmd.files import replacing
from rdmd.serving.model import Model, translate_images, translate_points

# Of 255 levels: both sides round the same number, which may lie a float's error to either side of a half.
PIXEL_TOLERANCE = 1
# Times 1 + |x|: float32 sums in another order.
POINT_TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 2, 7)
SOURCE, NOISE = "source", "noise"


def export_onnx(model: Model, path: Path) -> float:
    """Write `path`, with any batch size N; return the largest difference from torch on random samples.

    Images: `source` uint8 (N, R, R, 3), already cropped or padded and resized (the file's metadata say which), to
    `translation` of the same form; the difference is in levels of 255. Points: float32 (N, d) both ways; the
    difference is divided by 1 + |x|. A generator that reads its source with noise has a second input, `noise`: float32
    standard normal, (N, 3, R, R) or (N, d). Raises UserError if the file's answers differ by
    more than PIXEL_TOLERANCE or POINT_TOLERANCE; nothing is written then.
    """
    import onnxruntime
    import onnxscript  # noqa: F401 (torch's exporter needs it)

    if not isinstance(model.generator, Generator):
        raise TypeError(f"{type(model.generator).__name__} is not a one-step generator")
    written = _to_onnx(model, model.generator)
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    difference = 0.0
    for n in CHECKED_BATCHES:
        inputs = _inputs(model, model.generator, n)
        (translation,) = session.run(None, inputs)
        difference = max(difference, _difference(model, inputs[SOURCE], translation))
    tolerance = POINT_TOLERANCE if model.of_points else PIXEL_TOLERANCE
    if not difference <= tolerance:
        raise UserError(
            f"the ONNX form of this model differs from torch by {difference:g}, more than {tolerance:g}; "
            "use another version of onnxscript or onnxruntime, or serve the model with MLflow."
        )
    with replacing(path) as temporary:
        temporary.write_bytes(written)
    return difference


class _FromPixels(nn.Module):
    """uint8 (N, R, R, 3) to the same, through a denoiser read at `sigma`."""

    def __init__(self, G: Generator) -> None:
        super().__init__()
        self.move = _AtSigma(G)

    def forward(self, source: Tensor, noise: Tensor | None = None) -> Tensor:
        return quantise(self.move(to_unit(source.permute(0, 3, 1, 2)), noise)).permute(0, 2, 3, 1)


class _AtSigma(nn.Module):
    """G with its noise level as a tensor: `Generator` makes one of the batch's length, which an export would freeze."""

    sigma: Tensor

    def __init__(self, G: Generator) -> None:
        super().__init__()
        self.denoiser = G.denoiser
        assert not isinstance(G.input_noise, tuple), "a noise that depends on lambda is not exported"
        self.input_noise = G.input_noise
        self.register_buffer("sigma", torch.tensor([G.sigma_init]))

    def forward(self, source: Tensor, noise: Tensor | None = None) -> Tensor:
        x = source if noise is None else source + self.input_noise * noise
        return self.denoiser(x, self.sigma)


def _to_onnx(model: Model, G: Generator) -> bytes:
    module = (_AtSigma(G) if model.of_points else _FromPixels(G)).eval()
    # Two samples: one would be taken for a constant.
    inputs = _inputs(model, G, 2)
    program = torch.onnx.export(
        module,
        tuple(map(torch.from_numpy, inputs.values())),
        dynamo=True,
        verbose=False,
        input_names=list(inputs),
        output_names=["translation"],
        # One axis has the name; the other follows it.
        dynamic_shapes=({0: torch.export.Dim("N")}, {0: torch.export.Dim.DYNAMIC})[: len(inputs)],
    )
    assert program is not None
    for node in program.model.graph:
        # Stack traces, with the paths of this machine.
        node.metadata_props.clear()
    if not model.of_points:
        program.model.metadata_props["fit"] = model.fit
    return bytes(program.model_proto.SerializeToString())


def _inputs(model: Model, G: Generator, n: int) -> dict[str, np.ndarray]:
    """Random samples and, where G reads them with noise, that which it gives them by itself."""
    source = _random(model, n)
    if not G.input_noise:
        return {SOURCE: source}
    seen = torch.from_numpy(source)
    return {SOURCE: source, NOISE: own_noise(seen if model.of_points else to_unit(seen.permute(0, 3, 1, 2))).numpy()}


def _random(model: Model, n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    if model.of_points:
        return rng.normal(size=(n, *model.sample_shape)).astype(np.float32)
    channels, height, width = model.sample_shape
    return rng.integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def _difference(model: Model, source: np.ndarray, translation: np.ndarray) -> float:
    if model.of_points:
        expected = translate_points(model, source)
        return float((np.abs(translation - expected) / (1 + np.abs(expected))).max())
    expected = translate_images(model, source)
    return float(np.abs(translation.astype(int) - expected.astype(int)).max())
