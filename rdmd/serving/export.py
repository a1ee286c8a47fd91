"""A generator as an ONNX file, for runtimes without torch: `rdmd export MODEL out.onnx`."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rdmd.data.transforms import quantise, to_unit
from rdmd.diffusion.loss import like
from rdmd.distillation.generator import Generator, own_noise
from rdmd.errors import UserError
from rdmd.files import replacing
from rdmd.serving.images import translate_images
from rdmd.serving.model import Model, translate_points

# Of 255 levels: both sides round the same number, which may lie a float's error to either side of a half.
PIXEL_TOLERANCE = 1
# Times 1 + |x|: float32 sums in another order.
POINT_TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 2, 7)
SOURCE, LAMBDA, NOISE = "source", "lambda", "noise"


def export_onnx(model: Model, path: Path) -> float:
    """Write `path`, with any batch size N; return the largest difference from torch on random samples.

    Images: `source` uint8 (N, R, R, 3), already cropped or padded and resized (the file's metadata say which), to
    `translation` of the same form; the difference is in levels of 255. Points: float32 (N, d) both ways; the
    difference is divided by 1 + |x|. A generator that reads its source with noise has a second input, `noise`: float32
    standard normal, (N, 3, R, R) or (N, d), or (N, C, h, w) where a codec, which is then in the file, gives latents.
    Where lambda is an input of the generator, it is one of the file: `lambda`, float32 (N,). Raises UserError if the
    file's answers differ by more than PIXEL_TOLERANCE or POINT_TOLERANCE; nothing is written then.
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
        at = model.at(float(inputs[LAMBDA][0])) if LAMBDA in inputs else model
        difference = max(difference, _difference(at, inputs[SOURCE], translation))
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
    """uint8 (N, R, R, 3) to the same, by the generator G."""

    def __init__(self, G: Generator) -> None:
        super().__init__()
        self.move, self.codec = _AtSigma(G), G.codec

    def forward(self, source: Tensor, *more: Tensor) -> Tensor:
        x = to_unit(source.permute(0, 3, 1, 2))
        y = self.move(x, *more) if self.codec is None else self.codec(self.move(self.codec.encode(x), *more))
        return quantise(y).permute(0, 2, 3, 1)


class _AtSigma(nn.Module):
    """G with its noise level as a tensor: `Generator` makes one of the batch's length, which an export would freeze."""

    sigma: Tensor

    def __init__(self, G: Generator) -> None:
        super().__init__()
        self.G = G
        self.register_buffer("sigma", torch.tensor([G.sigma_init]))

    def forward(self, source: Tensor, *more: Tensor) -> Tensor:
        """`more`: lambda, where it is an input, then the noise, where it is one."""
        x, lam = source, more[0] if self.G.lambdas is not None else None
        if self.G.input_noise:
            x = x + like(self.G.input_noise_at(lam, x.device), x) * more[-1]
        return self.G.denoiser(x, self.sigma) if lam is None else self.G.denoiser(x, self.sigma, lam)


def _to_onnx(model: Model, G: Generator) -> bytes:
    module = (_AtSigma(G) if model.of_points else _FromPixels(G)).eval()
    # Two samples: one would be taken for a constant.
    inputs = _inputs(model, G, 2)
    # One axis has the name; the others follow it. The bound is for tracing alone, and the file takes any N: from 64 on
    # diffusers' blocks copy their input first, which changes no number.
    shapes: tuple = ({0: torch.export.Dim("N", max=63)},)
    if len(inputs) > 1:
        shapes += (({0: torch.export.Dim.DYNAMIC},) * (len(inputs) - 1),)
    program = torch.onnx.export(
        module,
        tuple(map(torch.from_numpy, inputs.values())),
        dynamo=True,
        verbose=False,
        input_names=list(inputs),
        output_names=["translation"],
        dynamic_shapes=shapes,
    )
    assert program is not None
    for node in program.model.graph:
        # Stack traces, with the paths of this machine.
        node.metadata_props.clear()
    if not model.of_points:
        program.model.metadata_props["fit"] = model.fit
    return bytes(program.model_proto.SerializeToString())


def _inputs(model: Model, G: Generator, n: int) -> dict[str, np.ndarray]:
    """Random samples, a lambda and, where G reads them with noise, that which it gives them by itself."""
    source = _random(model, n)
    inputs = {SOURCE: source}
    if G.lambdas is not None:
        inputs[LAMBDA] = np.full(n, G.lambdas.middle, dtype=np.float32)
    if G.input_noise:
        seen = torch.from_numpy(source)
        seen = seen if model.of_points else to_unit(seen.permute(0, 3, 1, 2))
        inputs[NOISE] = own_noise(seen, G.codec).numpy()
    return inputs


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
    expected = np.stack(list(translate_images(model, source)))
    return float(np.abs(translation.astype(int) - expected.astype(int)).max())
