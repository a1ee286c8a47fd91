"""The network of a diffusers checkpoint, `UNet2DModel`, as the network F inside a denoiser.

diffusers is imported where such a network is built, so that nothing else needs it.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rdmd.errors import UserError
from rdmd.networks.diffusers_import import pretrained
from rdmd.networks.lambda_embedding import LambdaEmbedding


class UNet2D(nn.Module):
    """F(x, c_noise), or F(x, c_noise, lambda) with `lambdas`, the ends of a range."""

    # A UNet2DModel.
    unet: Any

    def __init__(
        self, settings: dict[str, Any], lambdas: tuple[float, float] | None = None, *, dropout: bool = False
    ) -> None:
        """settings: the `config.json` of a UNet2DModel. Its dropout is 0 unless `dropout`.

        Raises UserError if diffusers builds no network from them.
        """
        from diffusers import UNet2DModel

        super().__init__()
        changed = settings if dropout else settings | {"dropout": 0.0}
        try:
            self.unet = UNet2DModel.from_config(changed)
        # Settings of another version, or written by hand, can raise any error.
        except Exception as error:
            raise UserError(
                f"diffusers builds no UNet2DModel from the checkpoint's config.json ({error}); name another checkpoint "
                "as teacher.init."
            ) from None
        # UNet2DModel adds the embedding of a class, if it has one, to that of the noise.
        if lambdas is not None:
            self.unet.class_embedding = LambdaEmbedding(self.unet.time_embedding.linear_2.out_features, *lambdas)
        # Sides of images must be multiples of this.
        self.multiple = 2 ** (len(self.unet.down_blocks) - 1)

    def forward(self, x: Tensor, c_noise: Tensor, lam: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) and (B,), and lambda (B,) where it is an input, give (B, 3, H, W)."""
        return self.unet(x, c_noise, class_labels=lam, return_dict=False)[0]

    def recompute_activations(self, resolution: int | None) -> None:
        """As `DDPMPP.recompute_activations`, but for the blocks of all resolutions: diffusers tells none apart."""
        if resolution is not None:
            self.unet.enable_gradient_checkpointing()


def load_checkpoint(denoiser: nn.Module, weights: Path) -> None:
    """Fill a denoiser of a `UNet2D`, in place, with the weights of a UNet2DModel. Raises UserError as `pretrained`."""
    from diffusers import UNet2DModel

    loaded = pretrained(UNet2DModel, weights, "teacher.init")
    denoiser.get_submodule("model.unet").load_state_dict(loaded.state_dict())
