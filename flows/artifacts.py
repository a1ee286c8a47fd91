"""What a run of `reproduce` shows in Prefect's UI, as artifacts: parameters, the table, small pictures, a link."""

import base64
import io
import os
from pathlib import Path

from PIL import Image
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.form import Changed
from flows.tracking.runs import open_record, sweep_run
from flows.tracking.training import digests
from rdmd import config
from rdmd.evaluation.selection import registered
from rdmd.evaluation.table import format_table, read_metrics, row_labels
from rdmd.pipeline.layout import Layout

# Where MLflow's pages are when the store is a file: `make ui` sets it.
MLFLOW_UI = "RDMD_MLFLOW_UI"
WIDTH = 720


def parameters(changed: Changed) -> None:
    """The difference that a form made to params.yaml, and the whole of it."""
    difference = f"```diff\n{changed.difference}\n```" if changed.difference else "`params.yaml` as it stood."
    kept = f"\n\nThe replaced file is kept as `{changed.kept.name}` in `.prefect/replaced`." if changed.kept else ""
    whole = config.PARAMS.read_text(encoding="utf-8")
    create_markdown_artifact(
        f"{difference}{kept}\n\n## params.yaml\n\n```yaml\n{whole}\n```", key="parameters",
        description=f"the parameters of {changed.settings.experiment}",
    )  # fmt: skip


def results(settings: config.Settings) -> None:
    """The metrics, the pictures of reports/, and where MLflow has the sweep, if dvc.yaml measures at all."""
    layout = Layout()
    if not layout.metrics.exists():
        return
    metrics = read_metrics(layout.metrics)
    described = f"{settings.experiment}: {metrics.n_source} sources, {metrics.n_reference} references"
    flags = registered(metrics.rows, settings.register_.front)
    create_table_artifact(
        [{"method": label, "FID": row.fid, "SW2": row.sw2, "cost": row.cost, "NFE": row.nfe, "registered": flag}
         for label, row, flag in zip(row_labels(metrics.rows), metrics.rows, flags, strict=True)],
        key="result-table", description=described,
    )  # fmt: skip
    pictures = "\n\n".join(_picture(layout.reports / name) for name in ("pareto.png", "samples.png"))
    table = format_table(metrics, settings.register_.front)
    create_markdown_artifact(f"```\n{table}\n```\n\n{pictures}", key="result", description=described)
    _link(settings, layout)


def _picture(file: Path) -> str:
    """A picture as markdown that holds it: Prefect's server serves no files."""
    with Image.open(file) as picture:
        small = picture.convert("RGB")
        small.thumbnail((WIDTH, 2 * WIDTH))
        buffer = io.BytesIO()
        small.quantize(128).save(buffer, "PNG", optimize=True)
    return f"![{file.stem}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})"


def _link(settings: config.Settings, layout: Layout) -> None:
    record = open_record(settings.experiment)
    run = sweep_run(record, settings, digests(layout)).info
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    base = os.environ.get(MLFLOW_UI) or (uri if uri.startswith("http") else None)
    if base is None:
        create_markdown_artifact(
            f"The run `{run.run_name}` (`{run.run_id}`) of the experiment `rdmd/{settings.experiment}` in `{uri}`; "
            "`make ui` shows it.", key="mlflow", description="the sweep in MLflow",
        )  # fmt: skip
        return
    create_link_artifact(
        f"{base.rstrip('/')}/#/experiments/{record.experiment_id}/runs/{run.run_id}",
        link_text=f"MLflow: {run.run_name}", key="mlflow", description="the sweep in MLflow",
    )  # fmt: skip
