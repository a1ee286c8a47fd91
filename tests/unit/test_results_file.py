"""The comparisons' JSON where several workspaces have measured them."""

import json
from pathlib import Path

from rdmd.results.json_file import PARTS, write_comparisons


def test_comparisons_that_were_measured_elsewhere_stay(tmp_path: Path):
    file = tmp_path / "ablations.json"
    there = {part: [{"comparison": name, "variant": "1"} for name in ("kept", "gone")] for part in PARTS}
    file.write_text(json.dumps({"comparisons": [{"name": "kept"}, {"name": "gone"}], **there}), encoding="utf-8")
    write_comparisons(file, "ablations", [], ["kept", "never measured"])
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "comparisons": [{"name": "kept"}], **{part: [{"comparison": "kept", "variant": "1"}] for part in PARTS},
    }  # fmt: skip
