"""Every evaluated row as two files, named by all that it depends on: the row, and some of its translations."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import ValidationError
from torch import Tensor

from rdmd.evaluation.row import Row
from rdmd.files import canonical_json, replacing, write_json

# The first few translations as `samples`; beside the source as it is, `target` and (for points) `exact`.
Samples = dict[str, Tensor]


@dataclass(frozen=True)
class Measured:
    """A row, with where and when it was measured and how long that took."""

    row: Row
    seconds: float
    device: str
    date: str


@dataclass(frozen=True)
class RowCache:
    """The folder of rows."""

    folder: Path

    @staticmethod
    def key(identity: dict[str, Any]) -> str:
        """24 hex digits that name a row by what it depends on."""
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:24]

    def get(self, key: str) -> Measured | None:
        """The row, or None if it has not been measured (or its file is damaged: then it is measured anew)."""
        try:
            values = json.loads(self._row(key).read_text(encoding="utf-8"))
            row = Row.model_validate(values["row"])
            return Measured(row, values["seconds"], values["device"], values["date"])
        except (FileNotFoundError, KeyError, TypeError, ValueError, ValidationError):
            return None

    def samples(self, key: str) -> Samples:
        """What was kept for figures; empty if there is nothing."""
        file = self._samples(key)
        return safetensors.torch.load_file(file) if file.exists() else {}

    def put(self, key: str, identity: dict[str, Any], row: Row, samples: Samples, seconds: float, device: str) -> None:
        """Keep a row and its samples. The row's file comes last: its presence says that all is there."""
        with replacing(self._samples(key)) as temporary:
            safetensors.torch.save_file({name: one.contiguous() for name, one in samples.items()}, temporary)
        date = datetime.now(UTC).date().isoformat()
        write_json(
            self._row(key),
            {"row": row.model_dump(mode="json", by_alias=True), "seconds": round(seconds, 3), "device": device,
             "date": date, "identity": identity},
        )

    def _row(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _samples(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"
