"""Batches straight from the shards, read ahead by threads: for a domain that does not fit into memory."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rdmd.domains.random_access import StoredSamples
from rdmd.domains.samples import Split
from rdmd.training.draws import drawn, seen_by_networks
from rdmd.training.random import StepRandom

WORKERS = 2
# Batches of one name that are read before they are asked for.
AHEAD = 4
_TORCH = {"uint8": torch.uint8, "float32": torch.float32}


@dataclass(frozen=True)
class _Wanted:
    """A batch: its size, and the random stream that draws it."""

    n: int
    random: StepRandom
    name: str

    def at(self, step: int) -> "_Wanted":
        """The same of another step."""
        return replace(self, random=replace(self.random, step=step))


class StreamedDomain:
    """A split on disk that gives the batches of the resident one, bit for bit.

    A batch is a function of (seed, rank, step, name), so a resumed run goes on without reading what came before, and
    each rank draws from the whole split by itself. A name that is asked for at two steps in a row is read `AHEAD` steps
    ahead.
    """

    def __init__(self, samples: StoredSamples, device: torch.device, workers: int = WORKERS) -> None:
        self._samples = samples
        self._device = device
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="shards")
        self._reading: dict[_Wanted, Future[Tensor]] = {}
        self._asked: dict[_Wanted, int] = {}

    @staticmethod
    def open(shards: Path, split: Split, device: torch.device, workers: int = WORKERS) -> "StreamedDomain":
        """Raises UserError for missing or damaged shards."""
        return StreamedDomain(StoredSamples.open(shards, split), device, workers)

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, n: int, random: StepRandom, name: str) -> Tensor:
        """As `ResidentDomain.batch`. Raises UserError if a shard was changed meanwhile."""
        wanted = _Wanted(n, random, name)
        reading = self._reading.pop(wanted, None)
        self._read_ahead(wanted)
        stored = self._read(wanted, self._buffer(n)) if reading is None else reading.result()
        return seen_by_networks(_channels_first(stored.to(self._device, non_blocking=True)))

    def _read_ahead(self, wanted: _Wanted) -> None:
        step, any_step = wanted.random.step, wanted.at(0)
        follows = self._asked.get(any_step) == step - 1
        self._asked[any_step] = step
        if not follows:
            return
        for later in map(wanted.at, range(step + 1, step + 1 + AHEAD)):
            if later not in self._reading:
                self._reading[later] = self._workers.submit(self._read, later, self._buffer(wanted.n))

    def _buffer(self, n: int) -> Tensor:
        # A GPU copies from pinned memory while the host goes on. It is made in the thread that has chosen the GPU.
        pinned = self._device.type == "cuda"
        return torch.empty(n, *self._samples.shape, dtype=_TORCH[self._samples.dtype.name], pin_memory=pinned)

    def _read(self, wanted: _Wanted, out: Tensor) -> Tensor:
        index = drawn(len(self), wanted.n, wanted.random, wanted.name)
        self._samples.read(index.numpy(), out.numpy())
        return out


def _channels_first(stored: Tensor) -> Tensor:
    """(n, H, W, 3) as stored to (n, 3, H, W); points stay as they are."""
    return stored.permute(0, 3, 1, 2).contiguous() if stored.ndim == 4 else stored
