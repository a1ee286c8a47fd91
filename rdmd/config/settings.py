"""params.yaml as one object, and the rules that several sections must meet together."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from rdmd.config.baselines import Baselines
from rdmd.config.domains import Digits, Domains, Noise, Points, Preprocess, Validation
from rdmd.config.evaluation import Evaluate, Register
from rdmd.config.launch import Launch
from rdmd.config.networks import DiffusersNetwork, ImageNetwork, Network
from rdmd.config.section import Integer, Section
from rdmd.config.training import FEATURES, LPIPS, Distill, FeatureCost, LowPass, Teacher

# Lambdas of a range that are evaluated where params.yaml names none.
EVALUATED = 8


class Settings(Section):
    """The whole of params.yaml."""

    experiment: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    seed: Annotated[Integer, Field(ge=0, lt=2**31)]
    domains: Domains
    preprocess: Preprocess
    validation: Validation
    network: Network
    teacher: Teacher
    distill: Distill
    baselines: Baselines = Baselines()
    evaluate: Evaluate
    register_: Register = Field(alias="register")
    launch: Launch

    @model_validator(mode="after")
    def _sections_agree(self) -> "Settings":
        problems = [
            *self._kinds(),
            *self._codec(),
            *self._channels(),
            *self._noise_source(),
            *self._variation(),
            *self._cost(),
            *self._launch(),
            *self._bounds(),
            *self._evaluation(),
        ]
        if problems:
            raise ValueError(". ".join(problems))
        return self

    def _kinds(self) -> Iterator[str]:
        kind, side = self.preprocess.kind, self.preprocess.resolution
        points = kind == "points"
        for name, domain in self.domains.named.items():
            if not isinstance(domain, Noise) and isinstance(domain, Points) != points:
                yield (f"domains.{name}.reader is {domain.reader!r} but preprocess.kind is {kind!r}; make them agree")
        if (self.network.kind == "mlp") != points:
            yield (
                f"network.kind is {self.network.kind!r} but preprocess.kind is {kind!r}; points need `mlp`, images "
                "need `ddpmpp` or `unet2d`"
            )
        if isinstance(self.network, DiffusersNetwork):
            yield from self._unet2d(self.network)
        if (self.evaluate.features.network == "none") != points:
            yield (
                f"evaluate.features.network is {self.evaluate.features.network!r} but preprocess.kind is {kind!r}; "
                "points take `none`, images `classifier`, `efficientnet_lite0` or `inception`"
            )
        if (misfit := self.teacher.misfit(self.network)) is not None:
            yield misfit
        for baseline in ("ilvr", "cut"):
            if points and getattr(self.baselines, baseline) is not None:
                yield f"baselines.{baseline} works on images alone, and preprocess.kind is 'points'; set it to null"
        # The side of latents is known when the codec is opened.
        if not points and self.preprocess.codec is None:
            yield from self.misfits(side, "preprocess.resolution")

    def misfits(self, side: int, name: str) -> Iterator[str]:
        """What does not fit samples of `side`, which messages call `name`: a sentence for each."""
        if isinstance(self.network, ImageNetwork):
            halvings = len(self.network.channel_mult) - 1
            if side % 2**halvings:
                yield (
                    f"{name} {side} cannot be halved {halvings} times; use a multiple of {2**halvings} or fewer "
                    "entries in network.channel_mult"
                )
        ilvr, egsde = self.baselines.ilvr, self.baselines.egsde
        factors = {f"baselines.ilvr.factors.{i}": factor for i, factor in enumerate(ilvr.factors if ilvr else [])}
        factors |= {"baselines.egsde.factor": egsde.factor} if egsde else {}
        for key, factor in factors.items():
            if side % factor:
                yield f"{key} is {factor}, which does not divide {name} {side}; use a factor that does"
        least = self.launch.activation_checkpointing
        if least is not None and least > side:
            yield (
                f"launch.activation_checkpointing is {least}, but no level of the network is larger than {name} {side}"
                "; use at most that"
            )

    def _codec(self) -> Iterator[str]:
        cost, in_pixels = self.distill.cost, self.distill.cost_on == "pixels"
        if self.preprocess.codec is None:
            if in_pixels:
                yield (
                    "distill.cost_on is 'pixels', but preprocess.codec is null, so that samples are pixels; remove it"
                )
            return
        if self.preprocess.kind == "points" or isinstance(self.domains.source, Noise):
            yield "preprocess.codec encodes images, and the samples are points or noise; set it to null"
        if self.preprocess.channels != 3:
            yield (
                "preprocess.codec encodes images of 3 channels, but preprocess.channels is "
                f"{self.preprocess.channels!r}; set it to 3"
            )
        if isinstance(self.network, ImageNetwork) and "sigma_data" not in self.network.model_fields_set:
            yield (
                "preprocess.codec gives latents of about unit variance, but network.sigma_data is "
                f"{self.network.sigma_data:g}, which is for pixels; set it to 1.0"
            )
        if isinstance(cost, LPIPS | FeatureCost) and not in_pixels:
            yield (
                f"distill.cost is {cost.name!r}, which compares images, but samples are latents; set distill.cost_on "
                "to pixels"
            )

    def _unet2d(self, network: DiffusersNetwork) -> Iterator[str]:
        if self.teacher.init is None:
            yield (
                "network.kind is 'unet2d', the network of a diffusers checkpoint, but teacher.init is null; name the "
                "checkpoint there, a folder or hf:ORG/NAME"
            )
        if network.unet or network.scheduler:
            yield "network.kind is 'unet2d', which is read from the checkpoint at teacher.init; remove its other keys"
        for name in ("egsde", "neural_ot", "cut"):
            if getattr(self.baselines, name) is not None:
                yield (
                    f"baselines.{name} builds a network of its own from `network`, which must be of kind 'ddpmpp' for "
                    f"that, but it is 'unet2d'; set baselines.{name} to null"
                )

    def _channels(self) -> Iterator[str]:
        channels = self.preprocess.channels
        if channels == "auto" and isinstance(self.domains.source, Noise):
            yield "preprocess.channels is 'auto', but domains.source is noise, which shows no colour; set it to 1 or 3"
        for name, domain in self.domains.named.items():
            if channels == 1 and isinstance(domain, Digits) and domain.colour == "hue":
                yield f"domains.{name}.colour is 'hue', but preprocess.channels is 1; set the former to grey"

    def _noise_source(self) -> Iterator[str]:
        source, distill = self.domains.source, self.distill
        for name in ("target", "features"):
            if isinstance(getattr(self.domains, name), Noise):
                yield f"domains.{name}.reader is 'noise', which only a source can be; give it images or points"
        if not isinstance(source, Noise):
            return
        if distill.lambdas != [0]:
            yield (
                "domains.source is noise, which has no transport cost, but distill.lambdas is "
                f"{distill.lambdas}; set it to [0]"
            )
        if distill.sigma_init != source.std:
            yield (
                f"distill.sigma_init is {distill.sigma_init:g} but domains.source.std is {source.std:g}; the generator "
                "reads its noise at its own level: make them equal"
            )
        if distill.input_noise != 0:
            yield f"distill.input_noise is {distill.input_noise} but domains.source is noise already; set it to 0"
        if self.baselines != Baselines():
            yield (
                "domains.source is noise, which the baselines do not translate; remove `baselines` (the evaluation "
                "includes the teacher's own samples)"
            )
        if self.evaluate.features.network == "classifier" and self.domains.features is None:
            yield (
                "domains.source is noise, on which no classifier can be trained; add domains.features with a labelled "
                "reader, or use evaluate.features.network `efficientnet_lite0`"
            )

    def _variation(self) -> Iterator[str]:
        side, points = self.preprocess.resolution, self.preprocess.kind == "points"
        for name, section, of_images in (
            ("teacher", self.teacher, not points),
            ("distill", self.distill, not points and not isinstance(self.domains.source, Noise)),
        ):
            if (section.flip or section.shift) and not of_images:
                yield f"{name}.flip and {name}.shift vary images, and the samples are points or noise; remove them"
            elif section.shift >= side:
                yield f"{name}.shift is {section.shift}, but images have {side} pixels a side; set it to a few pixels"

    def _cost(self) -> Iterator[str]:
        cost = self.distill.cost
        if isinstance(cost, LowPass | FeatureCost | LPIPS) and self.preprocess.kind == "points":
            yield (
                f"distill.cost is {cost.name!r}, which compares images, but preprocess.kind is 'points'; use "
                "squared_l2, l1 or huber"
            )
        if isinstance(cost, LPIPS) and self.preprocess.resolution < 32:
            yield (
                "distill.cost is 'lpips', which needs images of 32x32 or more, but preprocess.resolution is "
                f"{self.preprocess.resolution}; use another cost"
            )
        if isinstance(cost, FeatureCost) and cost.weights == FEATURES:
            yield (
                f"distill.cost.weights is {FEATURES}, by which the evaluation measures realism; train another network "
                "with `rdmd features` in a copy of this project, and name its folder"
            )

    def _launch(self) -> Iterator[str]:
        launch = self.launch
        parts = launch.processes * launch.accumulate
        batches = {"teacher.batch": self.teacher.batch, "distill.batch": self.distill.batch}
        for key, batch in batches.items():
            if batch % parts:
                yield (
                    f"{key} is {batch}, but launch.processes {launch.processes} times launch.accumulate "
                    f"{launch.accumulate} cut it into {parts} equal parts; use a multiple of {parts}"
                )
        least = launch.activation_checkpointing
        if least is not None and self.preprocess.kind == "points":
            yield (
                f"launch.activation_checkpointing is {least}, which names levels of a U-Net, but preprocess.kind is "
                "'points'; set it to null"
            )

    def _bounds(self) -> Iterator[str]:
        kind = self.preprocess.kind
        absent, measured = (("fid", "kid"), "sw2") if kind == "points" else (("sw2",), "fid")
        for metric in absent:
            if getattr(self.register_.constraints, metric) is not None:
                yield (
                    f"register.constraints.{metric} bounds what is not measured where preprocess.kind is {kind!r}; "
                    f"bound `{measured}`"
                )

    def _evaluation(self) -> Iterator[str]:
        evaluate, target, labelled = self.evaluate, self.domains.target, self.domains.features
        lambdas = self.distill.lambdas
        if evaluate.lambdas is not None and isinstance(lambdas, list):
            yield (
                "evaluate.lambdas is given, but distill.lambdas is a list, whose generators are evaluated each at its "
                "own lambda; set it to null, or make distill.lambdas a range {from, to}"
            )
        elif outside := [f"{lam:g}" for lam in evaluate.lambdas or [] if lam not in lambdas]:
            yield f"evaluate.lambdas holds {', '.join(outside)}, but distill.lambdas is {lambdas}; stay within it"
        if isinstance(target, Points) and 1 < evaluate.references > target.test // evaluate.n_reference:
            yield (
                f"evaluate.references is {evaluate.references} times {evaluate.n_reference} points, but "
                f"domains.target.test is {target.test}; lower it, or raise domains.target.test"
            )
        if labelled is None or evaluate.features.network != "classifier":
            return
        if not isinstance(labelled, Digits):
            yield (
                f"domains.features.reader is {labelled.reader!r}, which has no labels to train a classifier on; use "
                "`digits` or `mnist`, or remove the section to tell source from target"
            )
        elif evaluate.target_class is not None and evaluate.target_class not in labelled.classes:
            yield (
                f"evaluate.target_class is {evaluate.target_class}, but domains.features.classes is "
                f"{labelled.classes}; take one of these, or null"
            )

    @property
    def evaluated_lambdas(self) -> list[float]:
        """The lambdas at which generators are evaluated."""
        lambdas = self.distill.lambdas
        if isinstance(lambdas, list):
            return lambdas
        return self.evaluate.lambdas or lambdas.spaced(EVALUATED)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(C, H, W) for images, (2,) for points. Where the shards decide on the channels, it has three: see
        `settled`."""
        side, channels = self.preprocess.resolution, self.preprocess.channels
        return (2,) if self.preprocess.kind == "points" else (3 if channels == "auto" else channels, side, side)

    def settled(self, channels: int | None) -> "Settings":
        """These settings, with `preprocess.channels` as the shards have them where it is `auto`."""
        if self.preprocess.channels != "auto" or channels is None:
            return self
        return self.model_copy(update={"preprocess": self.preprocess.model_copy(update={"channels": channels})})

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """A sample as the shards hold it: (H, W, C) for images, (2,) for points."""
        channels, *sides = self.sample_shape
        return (*sides, channels)
