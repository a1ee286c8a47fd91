"""The transport cost that a run names, with the frozen network that it needs."""

import torch

from rdmd import config
from rdmd.distillation.feature_cost import FeatureCost
from rdmd.distillation.low_pass import LowPass
from rdmd.distillation.transport import Cost, Huber, l1, squared_l2
from rdmd.evaluation.classifier_folder import load_classifier
from rdmd.networks.lpips import load_lpips
from rdmd.training.spec import Weights


def build_cost(
    settings: config.TransportCost, weights: Weights | None, sample_shape: tuple[int, ...], device: torch.device
) -> Cost:
    """c(x, y) for batches (B, *sample_shape) on `device`; `weights` are the network's, None for costs without one.

    Raises UserError if the weights are missing or do not fit.
    """
    match settings:
        case config.SquaredL2():
            return squared_l2
        case config.L1():
            return l1
        case config.Huber():
            return Huber(settings.delta)
        case config.LowPass():
            return LowPass(settings.sigma, sample_shape[-1], device)
        case config.FeatureCost():
            assert weights is not None, "the run was planned without its cost's weights"
            classifier, _ = load_classifier(weights.path.parent)
            return FeatureCost(classifier.to(device).net.embed)
        case config.LPIPS():
            assert weights is not None, "the run was planned without its cost's weights"
            return load_lpips(weights.path).to(device)
