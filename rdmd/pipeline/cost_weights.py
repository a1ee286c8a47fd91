"""The weights that the transport cost of params.yaml needs, checked before anything is trained with them.

What reads networks is imported where there is one to read: flows, which plan runs and train in processes of their own,
start in half the time without torch.
"""

from rdmd import config
from rdmd.errors import UserError
from rdmd.files import sha256_of
from rdmd.pipeline.layout import Layout
from rdmd.training.spec import Weights


def cost_weights(settings: config.Settings, layout: Layout) -> Weights | None:
    """The weights of the cost's network, or None for a cost without one.

    Raises UserError if they are missing, damaged, or a classifier of pictures of another size.
    """
    cost = settings.distill.cost
    if isinstance(cost, config.FeatureCost):
        from rdmd.evaluation.classifier_folder import WEIGHTS, load_classifier

        folder = layout.root / cost.weights
        _, card = load_classifier(folder)
        side = settings.preprocess.resolution
        if card.side != side:
            raise UserError(f"{folder} holds a feature network for pictures of {card.side}x{card.side}, but "
                            f"preprocess.resolution is {side}; name another as distill.cost.weights, or make it again "
                            "with `rdmd features`.")
        return Weights(path=folder / WEIGHTS, sha256=card.sha256)
    if isinstance(cost, config.LPIPS):
        from rdmd.networks.lpips import load_lpips

        file = layout.root / cost.weights
        load_lpips(file)
        return Weights(path=file, sha256=sha256_of(file))
    return None
