"""A model as files: `model.json`, which says what it is, and `model.safetensors`.

The teacher, every generator and what baselines train lie like this under `models/`, in MLflow's registry, and wherever
somebody copies them. Here is the reading of every kind.
"""

from pathlib import Path

import torch

from rdmd.baselines.domain_classifier import DomainClassifier, build_domain_classifier
from rdmd.baselines.neural_ot import TransportMap, build_transport_map
from rdmd.pipeline.generator_folder import load_denoiser, load_generator, load_module
from rdmd.pipeline.model_card import ModelCard

__all__ = ["load_denoiser", "load_domain_classifier", "load_generator", "load_transport_map"]


def load_domain_classifier(folder: Path, device: torch.device) -> tuple[ModelCard, DomainClassifier]:
    """EGSDE's domain classifier, as `load_denoiser`."""
    return load_module(folder, build_domain_classifier, device)


def load_transport_map(folder: Path, device: torch.device) -> tuple[ModelCard, TransportMap]:
    """A map of the neural OT baseline, as `load_denoiser`."""
    return load_module(folder, build_transport_map, device)
