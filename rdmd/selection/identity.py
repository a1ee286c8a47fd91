"""On what a generator was measured: two numbers are compared only where this is the same."""

from dataclasses import dataclass, fields

from rdmd.errors import UserError
from rdmd.evaluation.row import FeaturesRecord, Metrics

# Enough of a digest to tell two apart in a sentence.
SHOWN = 8


@dataclass(frozen=True)
class Evaluation:
    """The data (digests of the two domains' shards), the features, the sizes and the seed of an evaluation."""

    features: str
    source_digest: str
    target_digest: str
    n_source: int
    n_reference: int
    seed: int

    @property
    def short(self) -> str:
        """In a line, for people."""
        return (f"features {self.features[: _cut(self.features)]}, {self.n_source} sources against "
                f"{self.n_reference} references, seed {self.seed}, data {self.source_digest[:SHOWN]} to "
                f"{self.target_digest[:SHOWN]}")


def evaluation_of(metrics: Metrics, source_digest: str, target_digest: str) -> Evaluation:
    """What the rows of `metrics` were measured on, for generators of these data."""
    return Evaluation(
        features=features_name(metrics.features),
        source_digest=source_digest,
        target_digest=target_digest,
        n_source=metrics.n_source,
        n_reference=metrics.n_reference,
        seed=metrics.seed,
    )


def require_fit_features(metrics: Metrics) -> None:
    """Raise `UserError` if the realism in `metrics` was measured on features that may not rank."""
    if metrics.features.refused is not None:
        raise UserError(
            f"the features `{metrics.features.name}` rank no generators, so that there is no champion: "
            f"{metrics.features.refused}; set another evaluate.features, such as {{network: efficientnet_lite0}}, and "
            "repeat `dvc repro`."
        )


def features_name(features: FeaturesRecord) -> str:
    """`classifier:<sha256>`; `none` for points."""
    return f"{features.name}:{features.sha256}" if features.sha256 else features.name


def differences(before: Evaluation, now: Evaluation) -> list[str]:
    """What differs, such as "n_source (256, now 512)"; empty where the numbers of both may be compared."""
    found = []
    for field in fields(Evaluation):
        old, new = getattr(before, field.name), getattr(now, field.name)
        if old != new:
            found.append(f"{field.name} ({_shown(old)}, now {_shown(new)})")
    return found


def _shown(value: str | int) -> str:
    return value[: _cut(value)] if isinstance(value, str) else str(value)


def _cut(text: str) -> int:
    """The length at which a name with a digest, or a digest, is cut."""
    return text.find(":") + 1 + SHOWN
