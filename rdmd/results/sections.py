"""The generated sections of docs/results.md: what was measured and how, tables, and figures by name."""

from collections.abc import Iterable

from rdmd.evaluation.labels import dial, method_name, number
from rdmd.evaluation.row import GENERATOR
from rdmd.results.collect import Collected
from rdmd.results.compare import CompareResult
from rdmd.results.front import Front
from rdmd.results.studies import BASELINE_REFERENCES
from rdmd.results.summary import summarise
from rdmd.results.tables import (
    IMAGES,
    POINTS,
    Column,
    by_seed,
    front_table,
    markdown,
    methods_table,
    training_table,
    volumes_table,
)

# What no variant of a comparison changes.
_SAME_IN_ALL = ("ot_cost", "seconds_per_image")
# Losses listed one by one; the rest is counted.
_LISTED = 12
_DRIFT = ("*drift*: the cost is above that of exact transport by more than two standard errors (over the seeds; with "
          "one, of the cost alone, though the exact cost is that of samples too). An exact minimiser's never is, "
          "whatever its λ: this is an optimisation failure, not a property of λ. *over exact* compares with the row of "
          "exact transport, or with the exact cost where that is known in closed form.")


def study_section(study: str, collected: Collected, front: Front | None, figures: dict[str, str]) -> str:
    """Facts, figures (file name by caption), the table of methods, the comparison of fronts, and training."""
    points = is_points(collected)
    summaries = summarise(collected.rows)
    parts = [f"`python -m rdmd.results {study}`", stated(collected)]
    parts += [f"![{caption}](results/{file})" for caption, file in figures.items()]
    parts += [methods_table(summaries, POINTS if points else IMAGES), _reading(points)]
    if any(one.drifted for one in summaries):
        parts.append(_DRIFT)
    if front is not None and GENERATOR in front.hypervolumes:
        parts += ["### Fronts", _front_text(front, points), front_table(front), _losses(front)]
    parts += ["### Training", training_table(collected.training), compute([collected])]
    return "\n\n".join(part for part in parts if part)


def comparison_section(what: str, result: CompareResult, figures: dict[str, str]) -> str:
    """One comparison: its command, figures, rows and hypervolumes."""
    first = next(iter(result.variants.values()))
    points = is_points(first)
    parts = [f"`python -m rdmd.results {what} --only {result.comparison.name}`", stated(first)]
    parts += [f"![{caption}](results/{file})" for caption, file in figures.items()]
    columns = [column for column in (POINTS if points else IMAGES) if column.metric not in _SAME_IN_ALL]
    columns.append(Column("training, s", "train_seconds"))
    lines = []
    drift = False
    for variant, collected in result.variants.items():
        for one in summarise(collected.rows):
            drift = drift or one.drifted
            mark = " (drift)" if one.drifted else ""
            cells = [one.shown(column.metric, column.scale) for column in columns]
            lines.append([variant, f"{one.lam:g}{mark}", *cells])
    parts.append(markdown(["variant", "λ", *(column.heading for column in columns)], lines))
    parts += [_DRIFT] if drift else []
    parts += [volumes_table(result.volumes, result.box, "variant"), compute(result.variants.values())]
    return "\n\n".join(parts)


def is_points(collected: Collected) -> bool:
    """Whether a study is on the plane."""
    return collected.facts[collected.seeds[0]].n_transport is not None


def stated(collected: Collected) -> str:
    """What every number of a section depends on."""
    facts = collected.facts[collected.seeds[0]]
    seeds = ", ".join(map(str, collected.seeds))
    text = [f"Seed {seeds}, one alone: no spread over seeds is known."]
    if len(collected.seeds) > 1:
        text = [f"Seeds {seeds}: each has its own split, networks and order of samples. ± is one standard deviation "
                "over the seeds (N − 1)."]
    drawn = " (the test split's, then fresh draws of the source's law)" if facts.references > 1 else ""
    text.append(f"{facts.n_source} translated test samples{drawn} against {facts.n_reference} of the target's test "
                "split.")
    if facts.references > 1:
        text.append(f"SW2 is the mean over {facts.references} pairs, which share no point, of {facts.n_reference} "
                    "translations and as many samples of the target; data against data likewise, with fresh samples in "
                    "the place of translations.")
        if facts.references > BASELINE_REFERENCES:
            text.append(f"Baselines are measured on the first {BASELINE_REFERENCES} pairs.")
    if facts.n_transport is not None:
        kind = ("the affine Monge map in closed form" if facts.exact == "affine"
                else f"exact discrete transport between {facts.n_transport} points")
        text.append(f"L2-UVP and the exact cost are against {kind} (L2-UVP over the first {facts.n_transport} "
                    f"sources); W2 is exact between {facts.n_w2} points of both sides.")
    else:
        hashes = ", ".join(str(one.features["sha256"])[:8] for one in collected.facts.values())
        text.append(f"FID, precision and recall are on the {facts.features['dim']} features of the network "
                    f"`{facts.features['name']}` (sha256 {hashes}, by seed); they compare with no FID from elsewhere.")
    sizes = "; ".join(f"{name} {one.train} train and {one.test} test" for name, one in facts.domains.items())
    text.append(f"Splits at seed {collected.seeds[0]}: {sizes}.")
    devices = ", ".join(sorted({one.device for one in collected.rows}))
    date = max((one.date for one in collected.rows), default="–")
    text.append(f"Evaluated on {devices}; last row of {date}.")
    if collected.pending:
        text.append(f"**{collected.pending} rows are still to be measured.**")
    return " ".join(text)


def _reading(points: bool) -> str:
    if points:
        return ("*data against data* is a fresh sample of the target, *exact transport* is exact discrete transport of "
                "the sources to that fresh sample, judged as any translator: its L2-UVP is the error of the "
                "measurement.")
    return ("*cost* is the squared difference in [-1, 1], mean over dimensions; *in class* is how often the classifier "
            "says the target's class; *target itself* is the target's train split against its test split.")


def _front_text(front: Front, points: bool) -> str:
    metric = "SW2" if points else "FID"
    share = ""
    if front.bettered is not None:
        counts = len(front.bettered.values)
        share = (f" For **{by_seed(front.bettered, 100)}%** of all baseline points ({counts} "
                 f"seed{'s' if counts > 1 else ''}) there is a generator of one network evaluation that is better in "
                 "one coordinate and no worse in the other.")
    return (f"Hypervolume: the area of (cost, {metric}) that a method's points dominate, up to the reference point: "
            f"cost {number(front.reference[0])} (random pairs of source and target), {metric} "
            f"{number(front.reference[1])} (the untranslated source).{share}")


def _losses(front: Front) -> str:
    """The baseline points that no generator betters, said plainly."""
    lost = front.unbettered
    if not lost:
        return "No baseline point is left that no generator betters." if front.bettered is not None else ""
    best = max(front.hypervolumes, key=lambda method: front.hypervolumes[method].mean)
    rows = [one.row for one in lost]
    named = "; ".join(f"{method_name(one.row.method)} {dial(one.row, rows)} (seed {one.seed})".replace("  ", " ")
                      for one in lost[:_LISTED])
    more = f" and {len(lost) - _LISTED} more" if len(lost) > _LISTED else ""
    text = f"Baseline points that no generator betters: {named}{more}."
    return text if best == GENERATOR else f"**{method_name(best)} has the largest hypervolume.** {text}"


def compute(every: Iterable[Collected]) -> str:
    """How long it took: trainings and evaluations, each counted once."""
    found = list(every)
    runs = {one.training.run: one.training.train_seconds for part in found for one in part.training}
    rows = {one.key: one.seconds for part in found for one in part.rows}
    return (f"Compute: {len(runs)} trainings, {_hours(sum(runs.values()))}; {len(rows)} evaluations, "
            f"{_hours(sum(rows.values()))}.")


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
