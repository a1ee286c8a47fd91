"""One evaluated method, as a row of `reports/metrics.json`, and the whole of that file."""

import math

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, ValidationInfo, field_validator

Interval = tuple[float, float]

# The names of methods that the evaluation itself knows.
IDENTITY = "identity"
TARGET = "target"
COUNTERPART = "counterpart"
GENERATOR = "rdmd"


class _Model(BaseModel):
    # `lam` is "lambda" in the file; in Python both names are accepted.
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class _Method(_Model):
    """Which method, at which settings."""

    method: str
    lam: StrictFloat | None = Field(default=None, validation_alias="lambda", serialization_alias="lambda")
    settings: dict[str, float | int | str] = {}
    run: str | None = None
    nfe: int = 0


def _finite(value: object, info: ValidationInfo) -> object:
    numbers = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
        raise FloatingPointError(f"the metric `{info.field_name}` is {value}, which is not finite")
    return value


class PairedScores(_Model):
    """How close translations are to the true counterparts of their sources (`rdmd.evaluation.paired`).

    `psnr` in dB and `feature_distance` (Euclidean, between features) are means over pairs, with their standard errors
    `*_se`. `retrieval` is the share of translations that are nearer to their own counterpart than to any other, in
    features. `colour_error`, by region, is the mean difference in colour from the counterpart within the region, 0 to
    1. `agreement`, by attribute, is the share of translations in which a classifier reads the counterpart's value.
    """

    psnr: StrictFloat
    psnr_se: StrictFloat | None
    feature_distance: StrictFloat
    feature_distance_se: StrictFloat | None
    retrieval: StrictFloat
    colour_error: dict[str, StrictFloat]
    colour_error_se: dict[str, StrictFloat]
    agreement: dict[str, StrictFloat]

    _check = field_validator("*")(_finite)


class Scores(_Model):
    """Every metric. None where a metric does not apply; never NaN or infinite (`FloatingPointError`).

    Realism of images: `fid` with its 95% bootstrap interval `fid_ci` (None of few images, where it is biased), `kid`
    with the deviation `kid_std` between its subsets, `precision`, `recall`, `class_share` (translations that a
    classifier puts in the target class, 0 to 1).
    Faithfulness: `cost` (squared difference, mean over dimensions), `cost_sum` (the sum), `l2_norm01` (Euclidean norm
    with pixels in [0, 1]), `psnr` in dB (peak 255, or 65535 of 16 bits), `ssim`, `colour_error` (None of grey); `*_se`
    are standard errors of those means. Points: `sw2` (sliced 2-Wasserstein distance) with `sw2_ci`, `w2` (exact,
    between samples), `l2_uvp` in percent, `ot_cost` (W2^2 from source to target, sum over dimensions: the least cost
    that any exact map has). `paired`: against true counterparts, where the test split holds them.
    """

    fid: StrictFloat | None = None
    fid_ci: Interval | None = None
    kid: StrictFloat | None = None
    kid_std: StrictFloat | None = None
    precision: StrictFloat | None = None
    recall: StrictFloat | None = None
    class_share: StrictFloat | None = None
    cost: StrictFloat | None = None
    cost_se: StrictFloat | None = None
    cost_sum: StrictFloat | None = None
    l2_norm01: StrictFloat | None = None
    l2_norm01_se: StrictFloat | None = None
    psnr: StrictFloat | None = None
    psnr_se: StrictFloat | None = None
    ssim: StrictFloat | None = None
    ssim_se: StrictFloat | None = None
    colour_error: StrictFloat | None = None
    colour_error_se: StrictFloat | None = None
    sw2: StrictFloat | None = None
    sw2_ci: Interval | None = None
    w2: StrictFloat | None = None
    l2_uvp: StrictFloat | None = None
    ot_cost: StrictFloat | None = None
    paired: PairedScores | None = None

    _check = field_validator("*")(_finite)

    @property
    def realism(self) -> float | None:
        """The distance to the target, smaller is better: FID, or KID of few images, or SW2 for points."""
        return next((value for value in (self.fid, self.sw2, self.kid) if value is not None), None)

    @property
    def realism_ci(self) -> Interval | None:
        """The 95% interval of `realism`; KID has none."""
        return self.fid_ci if self.fid is not None else self.sw2_ci


# The order of the bases is the order of the keys in the file, reversed: method, scores, then what stands below.
class Row(Scores, _Method):
    """A method with its scores.

    `method` is a translator's, or `identity` (the source as it is), `counterpart` (the sources' true counterparts,
    whose realism no translator can be expected to beat; None if the reference holds some of them), or
    `target` (the target's training samples, judged as if they were translations: the floor of realism, and by chance
    the floor of `paired`). `lam` is null for methods that have
    none. `run` is the fingerprint of the training run. `seconds_per_image` is the median over batches after
    a warm-up. `on_front`: among the generators (method `rdmd`) no other has both less cost and better
    realism.
    """

    seconds_per_image: StrictFloat | None = None
    train_seconds: StrictFloat | None = None
    on_front: bool = False


class FeaturesRecord(_Model):
    """Which features realism was measured on; name "none" and no hash for points.

    `refused` is why realism on them ranks nothing, a clause of `rdmd.evaluation.corruption`; None where it may rank.
    """

    name: str
    sha256: str | None
    dim: int
    refused: str | None = None


class Metrics(_Model):
    """`reports/metrics.json`. `n_source` and `n_reference` are how many test samples were really used."""

    experiment: str
    seed: int
    features: FeaturesRecord
    n_source: int
    n_reference: int
    rows: list[Row]
