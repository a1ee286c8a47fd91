"""The numbers of an evaluation as metrics of a registered version's model, each with the data it was measured on."""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.datasets import evaluation_data, log_data
from rdmd.evaluation.row import Row
from rdmd.selection.identity import Evaluation

_NOT_MEASURED = {"lam", "train_seconds"}


def measured(row: Row) -> dict[str, float]:
    """The numbers of a row by their name in metrics.json; an interval as its two ends."""
    numbers: dict[str, float] = {}
    for name, value in vars(row).items():
        if isinstance(value, tuple):
            numbers |= {f"{name}_low": value[0], f"{name}_high": value[1]}
        elif isinstance(value, float) and name not in _NOT_MEASURED:
            numbers[name] = value
    return numbers


def tie(client: MlflowClient, version: ModelVersion, row: Row, evaluation: Evaluation) -> None:
    """Give the version's model the row's numbers. The same numbers again add nothing, other data add to them.

    A version whose run was deleted is left as it is.
    """
    if client.get_run(version.run_id).info.lifecycle_stage != "active":
        return
    data = evaluation_data(evaluation.source_digest, evaluation.target_digest)
    log_data(client, version.run_id, [data])
    model_id = version.source.removeprefix("models:/")
    model = client.get_logged_model(model_id)
    known = {(one.key, one.dataset_digest, one.value) for one in model.metrics or []}
    for name, value in measured(row).items():
        if (name, data.dataset.digest, value) not in known:
            client.log_metric(
                version.run_id, name, value, step=0, model_id=model_id, dataset_name=data.dataset.name,
                dataset_digest=data.dataset.digest,
            )
