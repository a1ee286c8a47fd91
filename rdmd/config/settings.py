"""The whole of params.yaml as one object."""

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from rdmd.config.baselines import Baselines
from rdmd.config.domains import Digits, Domains, Noise, Points, Preprocess, Validation
from rdmd.config.evaluation import CheapestUnder, Evaluate, Register
from rdmd.config.networks import ImageNetwork, Network
from rdmd.config.section import Section, not_a_bool
from rdmd.config.training import FEATURES, LPIPS, Distill, FeatureCost, Launch, LowPass, Teacher


class Settings(Section):
    """The whole of params.yaml."""

    experiment: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    seed: Annotated[int, BeforeValidator(not_a_bool), Field(ge=0, lt=2**31)]
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
    def _kinds_agree(self) -> "Settings":
        points = self.preprocess.kind == "points"
        named = {"source": self.domains.source, "target": self.domains.target, "features": self.domains.features}
        for name, domain in named.items():
            if domain is not None and not isinstance(domain, Noise) and isinstance(domain, Points) != points:
                raise ValueError(
                    f"domains.{name}.reader is {domain.reader!r} but preprocess.kind is "
                    f"{self.preprocess.kind!r}; make them agree"
                )
        if (self.network.kind == "mlp") != points:
            raise ValueError(
                f"network.kind is {self.network.kind!r} but preprocess.kind is {self.preprocess.kind!r}; "
                "points need `mlp`, images need `ddpmpp`"
            )
        if (self.evaluate.features.network == "none") != points:
            raise ValueError(
                f"evaluate.features.network is {self.evaluate.features.network!r} but preprocess.kind is "
                f"{self.preprocess.kind!r}; points take `none`, images `classifier`, "
                "`efficientnet_lite0` or `inception`"
            )
        if points and self.baselines.ilvr is not None:
            raise ValueError("baselines.ilvr works on pictures alone, and preprocess.kind is 'points'; set it to null")
        if not points:
            self._factors_divide()
        if isinstance(self.network, ImageNetwork):
            halvings = 2 ** (len(self.network.channel_mult) - 1)
            if self.preprocess.resolution % halvings:
                raise ValueError(
                    f"preprocess.resolution {self.preprocess.resolution} cannot be halved "
                    f"{len(self.network.channel_mult) - 1} times; use a multiple of {halvings} or fewer "
                    "entries in network.channel_mult"
                )
        return self

    @model_validator(mode="after")
    def _noise_is_a_source_of_dmd(self) -> "Settings":
        domains = self.domains
        for name in ("target", "features"):
            if isinstance(getattr(domains, name), Noise):
                raise ValueError(
                    f"domains.{name}.reader is 'noise', which only a source can be; give it pictures or points"
                )
        if not isinstance(domains.source, Noise):
            return self
        if self.distill.lambdas != [0]:
            raise ValueError(
                f"domains.source is noise, which a sample cannot be close to, but distill.lambdas is "
                f"{self.distill.lambdas}; set it to [0]"
            )
        if self.distill.sigma_init != domains.source.std:
            raise ValueError(
                f"distill.sigma_init is {self.distill.sigma_init:g} but domains.source.std is "
                f"{domains.source.std:g}; the generator reads its noise at its own level: make them equal"
            )
        if self.distill.input_noise not in (0, [0]):
            raise ValueError(
                f"distill.input_noise is {self.distill.input_noise} but domains.source is noise already; set it to 0"
            )
        if self.baselines != Baselines():
            raise ValueError(
                "domains.source is noise, which the baselines do not translate; remove `baselines` (the "
                "teacher's own samples stand beside the generator's)"
            )
        if self.evaluate.features.network == "classifier" and domains.features is None:
            raise ValueError(
                "domains.source is noise, from which no feature network learns; add domains.features "
                "with a labelled reader, or use evaluate.features.network `efficientnet_lite0`"
            )
        return self

    @model_validator(mode="after")
    def _cost_fits(self) -> "Settings":
        cost = self.distill.cost
        if isinstance(cost, LowPass | FeatureCost | LPIPS) and self.preprocess.kind == "points":
            raise ValueError(
                f"distill.cost is {cost.name!r}, which compares pictures, but preprocess.kind is "
                "'points'; use squared_l2, l1 or huber"
            )
        if isinstance(cost, LPIPS) and self.preprocess.resolution < 32:
            raise ValueError(
                f"distill.cost is 'lpips', which needs pictures of 32x32 or more, but "
                f"preprocess.resolution is {self.preprocess.resolution}; use another cost"
            )
        trained = self.evaluate.features.network
        if isinstance(cost, FeatureCost) and cost.weights == FEATURES and trained != "classifier":
            raise ValueError(
                f"distill.cost is 'features' of {FEATURES}, where no classifier is trained since "
                f"evaluate.features.network is {trained!r}; name one's folder as distill.cost.weights"
            )
        return self

    @model_validator(mode="after")
    def _batches_can_be_shared_out(self) -> "Settings":
        parts = self.launch.processes * self.launch.accumulate
        given = {"teacher.batch": self.teacher.batch, "distill.batch": self.distill.batch}
        given |= {f"distill.refine.{i}.batch": refine.batch for i, refine in enumerate(self.distill.refine)}
        for key, batch in given.items():
            if batch % parts:
                raise ValueError(
                    f"{key} is {batch}, but launch.processes {self.launch.processes} times "
                    f"launch.accumulate {self.launch.accumulate} cut it into {parts} equal parts; use a "
                    f"multiple of {parts}"
                )
        return self

    @model_validator(mode="after")
    def _levels_are_there(self) -> "Settings":
        least = self.launch.activation_checkpointing
        if least is None:
            return self
        if self.preprocess.kind == "points":
            raise ValueError(
                f"launch.activation_checkpointing is {least}, which names levels of a U-Net, but "
                "preprocess.kind is 'points'; set it to null"
            )
        if least > self.preprocess.resolution:
            raise ValueError(
                f"launch.activation_checkpointing is {least}, but no level of the network is larger than "
                f"preprocess.resolution {self.preprocess.resolution}; use at most that"
            )
        return self

    @model_validator(mode="after")
    def _bounds_are_measured(self) -> "Settings":
        """What the registry bounds is among the metrics of this kind of data."""
        absent, measured = ("fid", "sw2") if self.preprocess.kind == "points" else ("sw2", "fid")
        champion = self.register_.champion
        given = {"constraints": self.register_.constraints}
        given |= {"champion": champion} if isinstance(champion, CheapestUnder) else {}
        for key, section in given.items():
            if getattr(section, absent) is not None:
                raise ValueError(
                    f"register.{key}.{absent} bounds what is not measured where preprocess.kind is "
                    f"{self.preprocess.kind!r}; bound `{measured}`"
                )
        return self

    @model_validator(mode="after")
    def _evaluation_can_be_made(self) -> "Settings":
        """What evaluation asks of the domains is known before anything is trained for it."""
        evaluate, target, labelled = self.evaluate, self.domains.target, self.domains.features
        if isinstance(target, Points) and 1 < evaluate.references > target.test // evaluate.n_reference:
            raise ValueError(
                f"evaluate.references is {evaluate.references} times {evaluate.n_reference} points, but "
                f"domains.target.test is {target.test}; lower it, or raise domains.target.test"
            )
        if labelled is None or evaluate.features.network != "classifier":
            return self
        if not isinstance(labelled, Digits):
            raise ValueError(
                f"domains.features.reader is {labelled.reader!r}, which has no labels to learn features "
                "from; use `digits` or `mnist`, or remove the section to tell source from target"
            )
        if evaluate.target_class is not None and evaluate.target_class not in labelled.classes:
            raise ValueError(
                f"evaluate.target_class is {evaluate.target_class}, but domains.features.classes is "
                f"{labelled.classes}; take one of these, or null"
            )
        return self

    def _factors_divide(self) -> None:
        """Check that the low-pass factors of the baselines divide the resolution."""
        ilvr, egsde = self.baselines.ilvr, self.baselines.egsde
        given = [(f"baselines.ilvr.factors.{i}", factor) for i, factor in enumerate(ilvr.factors if ilvr else [])]
        given += [("baselines.egsde.factor", egsde.factor)] if egsde else []
        for key, factor in given:
            if self.preprocess.resolution % factor:
                raise ValueError(
                    f"{key} is {factor}, which does not divide preprocess.resolution "
                    f"{self.preprocess.resolution}; use a factor that does"
                )

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(3, H, W) for images, (2,) for points."""
        side = self.preprocess.resolution
        return (2,) if self.preprocess.kind == "points" else (3, side, side)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """A sample as the shards hold it: (H, W, 3) for images, (2,) for points."""
        channels, *sides = self.sample_shape
        return (*sides, channels)
