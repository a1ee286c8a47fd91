"""CUT, contrastive unpaired translation (Park et al. 2020): a GAN whose outputs keep, patch by patch, what the source
shows there.

    min_G max_D  L_GAN(G, D)  +  lambda_NCE (L_NCE(G, x) + L_NCE(G, y)) / 2                       (eq. 5)

L_GAN is the least-squares GAN. L_NCE(G, y) holds G to the identity on the target. A large lambda_NCE is faithful, a
small one realistic.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, silu

from rdmd.baselines.neural_ot import TransportMap, build_transport_map
from rdmd.config import Network
from rdmd.networks.encoder import build_encoder, encoded_shape
from rdmd.networks.unet import DDPMPP, sinusoidal

# The temperature of the softmax, as in the paper.
TEMPERATURE = 0.07


class Discriminator(nn.Module):
    """An encoder and a 1x1 convolution: a score for each patch of the image. It replaces the paper's 70x70 PatchGAN,
    whose patches are larger than small images."""

    def __init__(self, network: Network, sample_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = build_encoder(network, sample_shape)
        self.head = nn.Conv2d(encoded_shape(network, sample_shape)[0], 1, 1)

    def forward(self, y: Tensor) -> Tensor:
        """(B, C, R, R) -> (B, P), unbounded; near 1 for the target's images."""
        return self.head(self.encoder(y, y.new_zeros(len(y)))).flatten(1)


class ContrastiveGenerator(nn.Module):
    """A generator with the patch embeddings of its training, and its part of the loss.

    The generator is the denoiser's U-Net without preconditioning, G(x) = x + F(x, 0), as in neural OT. CUT starts from
    no teacher, so the preconditioning for a noise level has no meaning here. `patches` bounds the patches for each
    layer, and `embedding` is the width of a patch's embedding.
    """

    def __init__(self, network: Network, sample_shape: tuple[int, ...], patches: int, embedding: int) -> None:
        super().__init__()
        self.generator: TransportMap = build_transport_map(network, sample_shape)
        self.patches = patches
        with torch.no_grad():
            layers = encoder_layers(self.generator.model, torch.zeros(1, *sample_shape))
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(layer.shape[1], embedding), nn.ReLU(), nn.Linear(embedding, embedding))
            for layer in layers
        )

    def forward(self, x: Tensor, y: Tensor, D: Callable[[Tensor], Tensor], order: Tensor) -> Tensor:
        """Sources and targets (B, C, R, R) -> (B, 2): the generator's GAN loss, and the mean of both L_NCE.

        `order` is a permutation of the R^2 pixels; each layer compares its first `patches` positions in this order.
        """
        inputs = torch.cat([x, y])
        outputs = self.generator(inputs)
        gan = (D(outputs[: len(x)]) - 1).square().mean(1)
        nce = self.nce(inputs, outputs, order)
        return torch.stack([gan, (nce[: len(x)] + nce[len(x) :]) / 2], dim=1)

    def nce(self, inputs: Tensor, outputs: Tensor, order: Tensor) -> Tensor:
        """The mean over layers of the `patch_nce` of `outputs` against `inputs`: (B,)."""
        with torch.no_grad():
            keys = self._embedded(inputs, order)
        pairs = zip(self._embedded(outputs, order), keys, strict=True)
        return torch.stack([patch_nce(query, key) for query, key in pairs]).mean(0)

    def _embedded(self, image: Tensor, order: Tensor) -> list[Tensor]:
        """Unit vectors (B, S, embedding) of each layer's patches."""
        embedded = []
        for layer, head in zip(encoder_layers(self.generator.model, image), self.heads, strict=True):
            values = layer.flatten(2).transpose(1, 2)
            chosen = order[order < values.shape[1]][: self.patches]
            embedded.append(normalize(head(values[:, chosen]), dim=2))
        return embedded


def encoder_layers(unet: nn.Module, x: Tensor) -> list[Tensor]:
    """The image itself and the last output of each level of the U-Net's encoder, (B, C', R', R') each."""
    assert isinstance(unet, DDPMPP)
    emb = sinusoidal(x.new_zeros(len(x)), unet.model_channels).to(x.dtype)
    emb = silu(unet.map_layer1(silu(unet.map_layer0(emb))))
    conv_in, *blocks = unet.enc.values()
    h = conv_in(x)
    levels = {h.shape[-1]: h}
    for block in blocks:
        h = block(h, emb)
        levels[h.shape[-1]] = h
    return [x, *levels.values()]


def patch_nce(query: Tensor, key: Tensor) -> Tensor:
    """The mean over patches of -log softmax_j(q_i . k_j / 0.07) at j = i, the other patches of the same image being the
    negatives (eq. 3 and 4): (B,).

    query, key: unit vectors (B, S, E) of outputs and inputs at S >= 1 places. Keys get no gradient.
    """
    logits = query @ key.detach().transpose(1, 2) / TEMPERATURE
    same_place = torch.arange(query.shape[1], device=query.device).expand(len(query), -1)
    return cross_entropy(logits.transpose(1, 2), same_place, reduction="none").mean(1)


def discriminator_loss(D: Callable[[Tensor], Tensor], outputs: Tensor, y: Tensor) -> Tensor:
    """(D(made)^2 + (D(y) - 1)^2) / 2, a mean over patches, for outputs and targets (B, C, R, R): (B,)."""
    return (D(outputs.detach()).square().mean(1) + (D(y) - 1).square().mean(1)) / 2
