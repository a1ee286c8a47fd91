"""Networks, and the distributions of noise levels."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from rdmd.config.section import Count, Fraction, Number, Positive, Section

# The labels of EDM's augmentation, by which a network knows how an image was changed.
AUGMENTATION_LABELS = 9


class ImageNetwork(Section):
    """The EDM DDPM++ U-Net (Karras et al. 2022, appendix F), under EDM preconditioning."""

    kind: Literal["ddpmpp"]
    model_channels: Annotated[int, Field(ge=8, le=1024)] = 128
    channel_mult: Annotated[list[Count], Field(min_length=1)] = [1, 2, 2, 2]
    num_blocks: Count = 4
    attn_resolutions: list[Count] = [16]
    dropout: Fraction = 0.0
    # The number of augmentation labels that the network takes: 9 of published networks, or 0. `teacher.augment` needs
    # them; elsewhere they are no input.
    augment_dim: Annotated[int, Field(ge=0)] = 0
    sigma_data: Positive = 0.5


class PointNetwork(Section):
    """A multilayer perceptron on (x, c_noise), under EDM preconditioning."""

    kind: Literal["mlp"]
    width: Count = 128
    depth: Count = 3
    sigma_data: Positive = 0.5


class DiffusersNetwork(Section):
    """The UNet2DModel of a diffusers checkpoint, which `teacher.init` names, under its scheduler's preconditioning.

    Both fields are diffusers' own files, config.json and scheduler_config.json. They are empty in params.yaml, and a
    run reads them from the checkpoint.
    """

    kind: Literal["unet2d"]
    unet: dict[str, JsonValue] = {}
    scheduler: dict[str, JsonValue] = {}

    @property
    def sigma_data(self) -> float:
        """The standard deviation of the data; 0.5, EDM's value for images in [-1, 1], where the scheduler has none."""
        sigma_data = self.scheduler.get("sigma_data")
        return float(sigma_data) if isinstance(sigma_data, int | float) else 0.5


Network = Annotated[ImageNetwork | PointNetwork | DiffusersNetwork, Field(discriminator="kind")]


class LogNormal(Section):
    """ln sigma ~ N(mean, std^2) (Karras et al. 2022, table 1)."""

    distribution: Literal["lognormal"]
    mean: Number = -1.2
    std: Positive = 1.2


class KarrasLevels(Section):
    """sigma uniform over the levels of the Karras schedule between two of its percentiles (public DMD code)."""

    distribution: Literal["karras"]
    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    rho: Positive = 7.0
    levels: Annotated[int, Field(ge=2)] = 1000
    low: Annotated[float, Field(ge=0, le=1)] = 0.02
    high: Annotated[float, Field(ge=0, le=1)] = 0.98

    @model_validator(mode="after")
    def _ordered(self) -> "KarrasLevels":
        if self.sigma_min >= self.sigma_max or self.low >= self.high:
            raise ValueError("needs sigma_min < sigma_max and low < high")
        return self


NoiseDistribution = Annotated[LogNormal | KarrasLevels, Field(discriminator="distribution")]
