"""The record in MLflow: runs, datasets, curves, evaluations."""
