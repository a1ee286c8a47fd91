"""Images a second of a distillation at 64x64, divided by those of a plain loop: `images_per_second_over_plain_loop`.

The plain loop is usual DMD code: the network as published, eager, float32; a DataLoader with workers over PNG files;
one generator pass for each of the two updates; default Adam; an average of the weights, one tensor at a time; `.item()`
of the logged values in every step. Ours runs as in `rdmd distill`. Each has its own process and environment, and they
take turns. On a GPU ours is bf16, and the plain loop also runs under bf16 autocast (`_over_plain_loop_autocast`).
"""

import argparse
import copy
import math
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.machine import default_device
from benchmarks.materials import LARGE_64, SMALL_64, accelerator_for, distill_run, write_images
from benchmarks.record import record, say
from benchmarks.step import WholeStep
from benchmarks.timing import Contender, interleaved, synchronize
from rdmd.errors import reporting
from rdmd.networks.build import build_denoiser
from rdmd.networks.unet import SKIP_SCALE, AttentionBlock, DownConv, UNetBlock, UpConv
from rdmd.pipeline.launch import gpu_count, training_environment
from rdmd.training.distill import DistillObjective
from rdmd.training.run_config import Shards

SIDE = 64
IMAGES = 512
LAM = 0.1


class Images(Dataset[Tensor]):
    """A folder of PNG files as float32 (3, H, W) in [-1, 1]."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.png"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        pixels = np.array(Image.open(self.files[index]).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1


class _PlainDown(DownConv):
    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        x = nn.functional.conv2d(x, self.resample_filter.tile(channels, 1, 1, 1), groups=channels, stride=2)
        return nn.functional.conv2d(x, self.weight, self.bias, padding=self.padding)


class _PlainUp(UpConv):
    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        x = nn.functional.conv_transpose2d(
            x, 4 * self.resample_filter.tile(channels, 1, 1, 1), groups=channels, stride=2
        )
        return nn.functional.conv2d(x, self.weight, self.bias, padding=self.padding)


class _PlainBlock(UNetBlock):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(nn.functional.silu(self.norm0(x))) + self.affine(emb)[:, :, None, None]
        h = nn.functional.dropout(nn.functional.silu(self.norm1(h)), self.dropout, self.training)
        return (self.conv1(h) + (x if self.skip is None else self.skip(x))) * SKIP_SCALE


class _PlainAttention(AttentionBlock):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = _PlainBlock.forward(self, x, emb)
        q, k, v = self.qkv(self.norm2(x)).reshape(len(x), x.shape[1], 3, -1).unbind(2)
        weights = torch.einsum("ncq,nck->nqk", q, k / math.sqrt(x.shape[1])).softmax(dim=2)
        return (self.proj(torch.einsum("nqk,nck->ncq", weights, v).reshape(x.shape)) + x) * SKIP_SCALE


_PLAIN = {DownConv: _PlainDown, UpConv: _PlainUp, UNetBlock: _PlainBlock, AttentionBlock: _PlainAttention}


def computed_plainly(network: nn.Module) -> nn.Module:
    """Make the parts of `network` compute as the public EDM code does. Returns `network`.

    The weights and the results are the same (a test compares them). The box filter of resampling is a separate grouped
    convolution, also before a 1x1 convolution, and attention builds its matrix.
    """
    for part in network.modules():
        part.__class__ = _PLAIN.get(type(part), type(part))
    return network


class PlainLoop:
    """The usual loop: generator and fake denoiser in turn."""

    def __init__(self, folder: Path, large: bool, batch: int, autocast: bool) -> None:
        self.device = torch.device("cuda" if large else "cpu")
        self.autocast = autocast
        teacher = computed_plainly(build_denoiser(LARGE_64 if large else SMALL_64, (3, SIDE, SIDE))).to(self.device)
        self.teacher = teacher.eval().requires_grad_(False)
        self.G = copy.deepcopy(teacher).train().requires_grad_(True)
        self.fake = copy.deepcopy(teacher).train().requires_grad_(True)
        self.average = copy.deepcopy(teacher)
        self.g_optimizer = torch.optim.Adam(self.G.parameters(), lr=1e-4, betas=(0.0, 0.999))
        self.fake_optimizer = torch.optim.Adam(self.fake.parameters(), lr=3e-4, betas=(0.0, 0.999))
        loader = DataLoader(
            Images(folder), batch, shuffle=True, num_workers=min(8, os.cpu_count() or 1), drop_last=True,
            pin_memory=large, persistent_workers=True,
        )  # fmt: skip
        self.batches = _for_ever(loader)
        self.losses: list[tuple[float, float]] = []

    def __call__(self) -> None:
        x = next(self.batches).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            generated = self._generate(x)
            sigma, eps = self._noise(x)
            with torch.no_grad():
                x_t = generated + sigma * eps
                gradient = self.fake(x_t, sigma.flatten()) - self.teacher(x_t, sigma.flatten())
            g_loss = (gradient * generated).mean() + LAM * nn.functional.mse_loss(generated, x)
        self.g_optimizer.zero_grad()
        g_loss.backward()
        self.g_optimizer.step()

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            with torch.no_grad():
                generated = self._generate(x)
            sigma, eps = self._noise(x)
            weight = sigma**-2 + 0.5**-2
            denoised = self.fake(generated + sigma * eps, sigma.flatten())
            fake_loss = (weight * (denoised - generated) ** 2).mean()
        self.fake_optimizer.zero_grad()
        fake_loss.backward()
        self.fake_optimizer.step()

        with torch.no_grad():
            for kept, weight in zip(self.average.parameters(), self.G.parameters(), strict=True):
                kept.mul_(0.999).add_(weight, alpha=0.001)
        self.losses.append((g_loss.item(), fake_loss.item()))

    def _generate(self, x: Tensor) -> Tensor:
        return self.G(x, torch.ones(len(x), device=self.device))

    def _noise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sigma = (torch.randn(len(x), 1, 1, 1, device=self.device) * 1.4 - 0.6).exp()
        return sigma, torch.randn_like(x)


def ours(root: Path, large: bool, batch: int) -> WholeStep:
    """The steps of a training process of `rdmd distill`."""
    device = torch.device("cuda" if large else "cpu")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    network, precision = (LARGE_64, "bf16") if large else (SMALL_64, "float32")
    run = distill_run(root, network, Shards(path=root / "shards", digest=""), SIDE, batch, precision=precision)
    return WholeStep(DistillObjective(run, accelerator_for(run, device)), device, root / "curves.jsonl")


class InAProcess:
    """A contender in its own process; a call takes one step."""

    def __init__(self, environment: dict[str, str], make: Callable[..., Contender], *arguments: object) -> None:
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            spawn = multiprocessing.get_context("spawn")
            self.connection, end = spawn.Pipe()
            self.process = spawn.Process(target=_serve, args=(end, make, arguments))
            self.process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def __call__(self) -> None:
        self.connection.send("step")
        self.connection.recv()

    def end(self) -> None:
        """End the process."""
        self.connection.send(None)
        self.process.join()


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain_loop", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args().rounds
    large = gpu_count() > 0
    batch, calls = (64, 10) if large else (8, 1)
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name:
        root = Path(name)
        write_images(root / "shards", IMAGES, SIDE)
        _write_files(root / "files")
        contenders = {"plain": InAProcess({}, PlainLoop, root / "files", large, batch, False)}
        if large:
            contenders["plain autocast"] = InAProcess({}, PlainLoop, root / "files", large, batch, True)
        contenders["ours"] = InAProcess(training_environment(), ours, root, large, batch)
        say(", ".join(contenders))
        timings = interleaved(contenders, torch.device("cpu"), asked, calls, warmup=2)
        for contender in contenders.values():
            contender.end()
    figures = {"batch": batch, "rounds": asked}
    figures |= timings["plain"].over(timings["ours"]).figures("images_per_second_over_plain_loop")
    if large:
        ratio = timings["plain autocast"].over(timings["ours"])
        figures |= ratio.figures("images_per_second_over_plain_loop_autocast")
    for which, timing in timings.items():
        figures[f"{which.replace(' ', '_')}_images_per_second"] = batch / timing.spread.median
    record("plain_loop", figures, default_device())


def _serve(connection: Connection, make: Callable[..., Contender], arguments: tuple[object, ...]) -> None:
    step = make(*arguments)
    while connection.recv() is not None:
        step()
        synchronize(default_device())
        connection.send("done")


def _write_files(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder / f"{i:04d}.png")


def _for_ever(loader: DataLoader[Tensor]) -> Iterator[Tensor]:
    while True:
        yield from loader


if __name__ == "__main__":
    with reporting(debug=False):
        main()
