"""The data of a run in MLflow: the name, the digest, the folder, the shape, the type and the counts."""

import json
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.data.schema import TensorDatasetSchema
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.exceptions import MlflowException
from mlflow.types.schema import Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from rdmd.data.manifest import Manifest, read_manifest
from rdmd.data.samples import Split
from rdmd.training.run_config import TeacherRun, TrainingRun

# MLflow takes 36 characters; tags and manifests have the whole digest.
DIGEST_LENGTH = 16


def pair_digest(source: str, target: str) -> str:
    """The digest of two domains together, such as `1f0c...-77ab...`: 33 characters."""
    return f"{source[:DIGEST_LENGTH]}-{target[:DIGEST_LENGTH]}"


def training_inputs(run: TrainingRun) -> list[DatasetInput]:
    """The train splits that a run learns from."""
    domains = [run.target] if isinstance(run, TeacherRun) else [run.source, run.target]
    return [_input(_of_domain(domain.path, "train"), "training") for domain in domains]


def evaluation_data(source_digest: str, target_digest: str, shards: Path | None = None) -> DatasetInput:
    """The test splits of both domains as one dataset, since a method is measured on the two together.

    Its shape and counts come from the folder `shards`, where there is one.
    """
    manifests = [read_manifest(shards / name) for name in ("source", "target")] if shards else []
    counts = {f"num_{one.domain}": one.counts["test"] for one in manifests}
    data = Dataset(
        name="test",
        digest=pair_digest(source_digest, target_digest),
        source_type="local",
        source=json.dumps({"uri": "data/shards", "source_digest": source_digest, "target_digest": target_digest}),
        schema=_schema(manifests[0]) if manifests else None,
        profile=json.dumps(counts) if manifests else None,
    )
    return _input(data, "evaluation")


def log_data(client: MlflowClient, run_id: str, data: list[DatasetInput]) -> None:
    """Record that a run used `data`. Repeating it changes nothing."""
    try:
        client.log_inputs(run_id, data)
    except MlflowException:
        # Of two runs that begin together with new data, one finds that the other has just made the entry.
        client.log_inputs(run_id, data)


def _of_domain(folder: Path, split: Split) -> Dataset:
    manifest = read_manifest(folder)
    return Dataset(
        name=f"{manifest.domain}-{split}",
        digest=manifest.digest[:DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": str(folder), "digest": manifest.digest, "reader": manifest.reader}),
        schema=_schema(manifest),
        profile=json.dumps({"num_rows": manifest.counts[split], "labels": manifest.label_counts[split]}),
    )


def _schema(manifest: Manifest) -> str:
    sample = TensorSpec(np.dtype(manifest.dtype), (-1, *manifest.sample_shape), "sample")
    return json.dumps(TensorDatasetSchema(features=Schema([sample])).to_dict())


def _input(data: Dataset, context: str) -> DatasetInput:
    return DatasetInput(dataset=data, tags=[InputTag(MLFLOW_DATASET_CONTEXT, context)])
