"""What a run shows in Prefect's UI, as artifacts: its parameters, the table of metrics, small images, a link."""

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.form import Changed
from flows.tracking.runs import open_record, sweep_run
from flows.tracking.training import digests
from rdmd import config
from rdmd.evaluation.row import Metrics
from rdmd.evaluation.table import format_table, measured_realism, read_metrics, row_labels
from rdmd.pipeline.layout import Layout

# The address of MLflow's pages when the store is a file: `make ui` sets it.
MLFLOW_UI = "RDMD_MLFLOW_UI"
_WIDTH = 720


def show_parameters(changed: Changed) -> None:
    """Show the difference that a form made to params.yaml, and the whole file."""
    difference = f"```diff\n{changed.difference}\n```" if changed.difference else "`params.yaml` is unchanged."
    kept = f"\n\nThe replaced file is `.prefect/replaced/{changed.kept.name}`." if changed.kept else ""
    whole = config.PARAMS.read_text(encoding="utf-8")
    create_markdown_artifact(
        f"{difference}{kept}\n\n## params.yaml\n\n```yaml\n{whole}\n```",
        key="parameters",
        description=f"the parameters of {changed.settings.experiment}",
    )


def show_metrics(settings: config.Settings, metrics: Metrics, key: str, images: Sequence[Path] = ()) -> None:
    """Show the metrics as a table, and as text with images below it."""
    description = f"{settings.experiment}: {metrics.n_source} sources, {metrics.n_reference} references"
    realism = measured_realism(metrics.rows)
    rows = [
        {"method": label, realism: row.realism, "cost": row.cost, "NFE": row.nfe, "front": row.on_front}
        for label, row in zip(row_labels(metrics.rows), metrics.rows, strict=True)
    ]
    create_table_artifact(rows, key=f"{key}-table", description=description)
    text = [f"```\n{format_table(metrics)}\n```", *map(_as_markdown, images)]
    create_markdown_artifact("\n\n".join(text), key=key, description=description)


def show_results(settings: config.Settings) -> None:
    """Show the metrics, the images of reports/ and a link to the sweep in MLflow, if dvc.yaml has an evaluation."""
    layout = Layout()
    if not layout.metrics.exists():
        return
    images = [layout.reports / name for name in ("pareto.png", "samples.png")]
    show_metrics(settings, read_metrics(layout.metrics), "result", images)
    record = open_record(settings.experiment)
    run = sweep_run(record, settings, digests(layout)).info
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    base = os.environ.get(MLFLOW_UI) or (uri if uri.startswith("http") else None)
    if base is None:
        create_markdown_artifact(
            f"The run `{run.run_name}` (`{run.run_id}`) of the experiment `rdmd/{settings.experiment}` in `{uri}`; "
            "`make ui` shows it.",
            key="mlflow",
            description="the sweep in MLflow",
        )
    else:
        create_link_artifact(
            f"{base.rstrip('/')}/#/experiments/{record.experiment_id}/runs/{run.run_id}",
            link_text=f"MLflow: {run.run_name}",
            key="mlflow",
            description="the sweep in MLflow",
        )


def _as_markdown(file: Path) -> str:
    """An image inside the markdown: Prefect's server serves no files."""
    with Image.open(file) as image:
        small = image.convert("RGB")
        small.thumbnail((_WIDTH, 2 * _WIDTH))
        buffer = io.BytesIO()
        small.quantize(128).save(buffer, "PNG", optimize=True)
    return f"![{file.stem}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})"
