"""One evaluated method, as a line of `reports/metrics.json`, and the whole of that file."""

import math
from dataclasses import dataclass, field, fields

Interval = tuple[float, float]

# The names of methods that the evaluation itself knows.
IDENTITY = "identity"
TARGET = "target"
GENERATOR = "rdmd"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Every metric. None where a metric does not apply; never NaN or infinite (`FloatingPointError`).

    Realism of images: `fid` with its 95% bootstrap interval `fid_ci`, `kid` with the deviation `kid_std`
    between its subsets, `precision`, `recall`, `class_share` (translations that a classifier puts in the
    target class, 0 to 1). Faithfulness: `cost` (squared difference, mean over dimensions), `cost_sum` (the
    sum), `l2_norm01` (Euclidean norm with pixels in [0, 1]), `psnr` in dB, `ssim`, `colour_error`; `*_se`
    are standard errors of those means. Points: `sw2` (sliced 2-Wasserstein distance) with `sw2_ci`, `w2`
    (exact, between samples), `l2_uvp` in percent, `ot_cost` (W2^2 from source to target, sum over
    dimensions: the least cost that any exact map has).
    """

    fid: float | None = None
    fid_ci: Interval | None = None
    kid: float | None = None
    kid_std: float | None = None
    precision: float | None = None
    recall: float | None = None
    class_share: float | None = None
    cost: float | None = None
    cost_se: float | None = None
    cost_sum: float | None = None
    l2_norm01: float | None = None
    l2_norm01_se: float | None = None
    psnr: float | None = None
    psnr_se: float | None = None
    ssim: float | None = None
    ssim_se: float | None = None
    colour_error: float | None = None
    colour_error_se: float | None = None
    sw2: float | None = None
    sw2_ci: Interval | None = None
    w2: float | None = None
    l2_uvp: float | None = None
    ot_cost: float | None = None

    def __post_init__(self) -> None:
        for metric in fields(self):
            value = getattr(self, metric.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
                raise FloatingPointError(f"the metric `{metric.name}` is {value}, which is not finite")

    @property
    def realism(self) -> float | None:
        """The distance to the target, smaller is better: FID, or SW2 for points."""
        return self.fid if self.fid is not None else self.sw2

    @property
    def realism_ci(self) -> Interval | None:
        """The 95% interval of `realism`."""
        return self.fid_ci if self.fid is not None else self.sw2_ci


@dataclass(frozen=True, kw_only=True)
class Row(Scores):
    """A method with its scores.

    `method` is a translator's, or `identity` (the source as it is) or `target` (the target's training
    samples, judged as if they were translations: the floor of realism). `lam` is null for methods that have
    none. `run` is the fingerprint of the training run. `seconds_per_image` is the median over batches after
    a warm-up. `on_front`: among the generators (method `rdmd`) no other has both less cost and better
    realism.
    """

    method: str
    lam: float | None = None
    settings: dict[str, float | int | str] = field(default_factory=dict)
    run: str | None = None
    nfe: int = 0
    seconds_per_image: float | None = None
    train_seconds: float | None = None
    on_front: bool = False


@dataclass(frozen=True)
class FeaturesRecord:
    """Which features realism was measured on; name "none" and no hash for points.

    `refused` is why realism on them ranks nothing, a clause of `rdmd.evaluation.corruption`; None where it may rank.
    """

    name: str
    sha256: str | None
    dim: int
    refused: str | None = None


@dataclass(frozen=True)
class Metrics:
    """`reports/metrics.json`. `n_source` and `n_reference` are how many test samples were really used."""

    experiment: str
    seed: int
    features: FeaturesRecord
    n_source: int
    n_reference: int
    rows: list[Row]
