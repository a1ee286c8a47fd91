"""docs/results/*.md and figures of fronts, from docs/results/*.json; nothing is trained or evaluated."""

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from rdmd.data.samples import REGIONS
from rdmd.errors import UserError
from rdmd.evaluation.row import GENERATOR, TARGET
from rdmd.evaluation.selection import Point
from rdmd.evaluation.table import method_name, number, plus_minus
from rdmd.files import write_text
from rdmd.report.figures import Plane, front_figure
from studies.figures import front_plane, save, variants_plane
from studies.grids import COMPARISONS, STUDIES
from studies.points import BASELINE_REFERENCES
from studies.published import read
from studies.statistics import (
    DATA,
    NEAR,
    REFERENCES,
    TRUTH,
    bettered,
    hypervolumes,
    reference_point,
    setting_labels,
    summarise,
    table,
)

# Pixels per inch of the figures, which are kept in git.
DPI = 110
TITLES = {
    "avatars": "Portraits with true counterparts, 24x24",
    "emoji": "Emoji of one vendor to another's, 32x32",
    "clothing": "Photographs of T-shirts to long-sleeved shirts, 32x32",
    "swissroll": "A Gaussian to a Swiss roll",
    "eight_gaussians": "A Gaussian to eight Gaussians",
    "gaussian": "A Gaussian to another Gaussian",
    "digits": "Coloured digits, 8x8",
    "colored_mnist": "Coloured MNIST, 16x16",
    "one_generator": "One generator for every lambda, against separate generators",
    "ablations": "Ablations",
    "costs": "Transport costs",
    "few_images": "Few images",
}
# Heading, metric, and what the metric is multiplied by. Those that no result has are left out.
COLUMNS = [
    ("FID", "fid", 1),
    ("cost", "cost", 1),
    ("cost, sum", "cost_sum", 1),
    ("L2 in [0,1]", "l2_norm01", 1),
    ("in class, %", "class_share", 100),
    ("colour error", "colour_error", 1),
    ("precision", "precision", 1),
    ("recall", "recall", 1),
    ("truth, dB", "truth_psnr", 1),
    ("truth, features", "truth_feature_distance", 1),
    ("truth found, %", "truth_retrieval", 100),
    *((f"{name} error", f"colour_{name}", 1) for name in REGIONS),
    *((f"{name.removeprefix('agrees_')} agrees, %", name, 100) for name in TRUTH if name.startswith("agrees_")),
    ("SW2", "sw2", 1),
    ("SW2 / data", "sw2_ratio", 1),
    ("W2", "w2", 1),
    ("L2-UVP, %", "l2_uvp", 1),
    ("exact cost", "ot_cost", 1),
    ("over exact, %", "over_exact", 100),
    ("ms/sample", "seconds_per_image", 1000),
    ("training, s", "train_seconds", 1),
]


def write_report(docs: Path) -> list[Path]:
    """Write the page and the fronts of every file of results. Raises UserError if there is none."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined
    )
    page, written = environment.get_template("page.md.j2"), []
    for document in (*STUDIES, *COMPARISONS):
        found = read(docs / f"{document}.json")
        if any(row["method"] not in REFERENCES for row in found.get("rows", [])):
            context = _study(docs, document, found) if document in STUDIES else _comparisons(docs, document, found)
            common = {"document": document, "title": TITLES[document], "baseline_references": BASELINE_REFERENCES}
            write_text(docs / f"{document}.md", page.render(**common, **context).rstrip() + "\n")
            written.append(docs / f"{document}.md")
    if not written:
        raise UserError(f"{docs} holds no results yet; run a study first, such as `python -m studies gaussian`.")
    return written


def _study(docs: Path, study: str, found: dict[str, Any]) -> dict[str, Any]:
    frame = table(found["rows"])
    summary = summarise(frame)
    points = found["n_transport"] is not None
    planes = [("cost_sum", "sw2"), ("l2_uvp", "sw2")] if points else [("cost", "fid")]
    if summary["truth_feature_distance"].notna().any():
        planes.append(("truth_feature_distance", "fid"))
    save(front_figure([front_plane(summary, x, y) for x, y in planes], dpi=DPI), docs / f"{study}_fronts.png")
    names = [method_name(method) for method in summary["method"]]
    leads = {
        "method": [f"**{name}**" if name == method_name(GENERATOR) else name for name in names],
        "setting": setting_labels(summary),
        "NFE": summary["nfe"].astype(str),
    }
    if summary["seeds"].nunique() > 1:
        leads["seeds"] = summary["seeds"].astype(str)
    theirs = bettered(frame)
    left = theirs[~theirs["bettered"]].groupby("method", sort=False).size()
    every = theirs.groupby("method", sort=False).size()
    shares = theirs.groupby(["method", "seed"])["bettered"].mean().groupby("method").agg(["mean", "std"]) * 100
    volumes = _volumes(frame, reference_point(found), "method")
    volumes["points bettered by RDMD, %"] = [
        _within(*shares.loc[key]) if key in shares.index else "" for key in volumes.index
    ]
    near = NEAR * frame[frame["method"].isin([TARGET, DATA])]["realism"].mean()
    volumes["near the target, %"] = _volumes(frame, (reference_point(found)[0], near), "method")["of the box, %"]
    volumes["method"] = [method_name(method) for method in volumes.index]
    of_seeds = theirs.groupby("seed")["bettered"].mean() * 100
    return {
        "command": found["command"],
        "head": found,
        "sections": [],
        "samples": (docs / f"{study}_samples.png").exists(),
        "truth": bool(summary["truth_psnr"].notna().any()),
        "table": _metrics(summary, leads),
        "metric": "SW2" if points else "FID",
        "reference": [number(value) for value in reference_point(found)],
        "baselines": len(theirs),
        "bettered": _within(of_seeds.mean(), of_seeds.std()),
        "apart": int(theirs["apart"].sum()) if theirs["realism_high"].notna().any() else None,
        "near": number(near),
        "lost": ", ".join(
            f"{count} of {every[str(method)]} of {method_name(str(method))}" for method, count in left.items()
        ),
        "volumes": _markdown(volumes),
        "training": _training(found["training"]),
    }


def _comparisons(docs: Path, document: str, found: dict[str, Any]) -> dict[str, Any]:
    frame, training = table(found["rows"]), pd.DataFrame(found["training"])
    sections: dict[str, list[dict[str, Any]]] = {}
    planes: dict[str, list[Plane]] = {}
    for head in found["comparisons"]:
        own = frame[frame["comparison"] == head["name"]]
        summary = summarise(own, ("variant",)).assign(ot_cost=float("nan"), seconds_per_image=float("nan"))
        placed = summary[summary["cost"].notna()]
        variants = {str(name): rows for name, rows in placed.groupby("variant", sort=False)}
        # A front over lambda is a curve in cost; L2-UVP turns back where generators drift.
        x, y = (
            ("cost_sum" if document == "one_generator" else "l2_uvp", "sw2") if head["n_transport"] else ("cost", "fid")
        )
        planes.setdefault(head["study"], []).append(variants_plane(head["name"], variants, x, y))
        runs = training[training["comparison"] == head["name"]].drop_duplicates("run")
        lambdas = ["teacher" if pd.isna(lam) else f"{lam:g}" for lam in summary["lambda"]]
        leads = {"variant": summary["variant"], "λ": lambdas}
        sections.setdefault(head["study"], []).append(
            {
                "head": head,
                "samples": (docs / f"{document}_{head['name']}_samples.png").exists(),
                "table": _metrics(summary, leads),
                "volumes": _markdown(_volumes(own, reference_point(head), "variant")),
                "runs": len(runs),
                "minutes": f"{runs['train_seconds'].sum() / 60:.1f}",
            }
        )
    for study, drawn in planes.items():
        save(front_figure(drawn, columns=3, shared_legend=False, dpi=DPI), docs / f"{document}_{study}.png")
    return {
        "command": f"python -m studies {document}",
        "sections": [
            {
                "title": TITLES[study],
                "study": study,
                "points": compared[0]["head"]["n_transport"],
                "comparisons": compared,
            }
            for study, compared in sections.items()
        ],
    }


def _volumes(frame: pd.DataFrame, reference: Point, by: str) -> pd.DataFrame:
    areas = hypervolumes(frame, reference, by)
    mean, std = areas.mean(axis=1), areas.std(axis=1)
    texts = [_within(*values) for values in zip(mean, std, strict=True)]
    box = reference[0] * reference[1]
    shares = [_within(100 * share / box, 100 * spread / box) for share, spread in zip(mean, std, strict=True)]
    volumes = pd.DataFrame({by: areas.index, "hypervolume": texts, "of the box, %": shares}, index=areas.index)
    return volumes.loc[mean.sort_values(ascending=False).index] if by == "method" else volumes


def _metrics(summary: pd.DataFrame, leads: dict[str, Any]) -> str:
    skipped = "cost" if summary["sw2"].notna().any() else "cost_sum"
    cells = {
        head: [
            _within(scale * mean, scale * std) for mean, std in zip(summary[name], summary[f"{name}_std"], strict=True)
        ]
        for head, name, scale in COLUMNS
        if name != skipped and summary[name].notna().any()
    }
    drift = {"drift": summary["drifted"].map({True: "drift", False: ""})} if summary["drifted"].any() else {}
    return _markdown(pd.DataFrame({**leads, **cells, **drift}))


def _training(training: list[dict[str, Any]]) -> str:
    """What training each kind of model took: mean and deviation over its runs, and the largest peak memory."""
    groups = pd.DataFrame(training).drop_duplicates("run").groupby("model", sort=False)
    steps, seconds = groups["steps"].agg(["min", "max"]), groups["train_seconds"].agg(["mean", "std"])
    return _markdown(
        pd.DataFrame(
            {
                "model": list(groups.groups),
                "runs": groups.size(),
                "steps": [f"{low}" if low == high else f"{low} to {high}" for low, high in steps.to_numpy()],
                "seconds a run": [_within(*values) for values in seconds.to_numpy()],
                "peak memory, MiB": groups["peak_memory_mib"].max().map(number),
                "parameters": groups["parameters"].first().map("{:,}".format),
                "device": groups["device"].first(),
            }
        )
    )


def _within(mean: float, std: float) -> str:
    return plus_minus(None if pd.isna(mean) else float(mean), None if pd.isna(std) else float(std))


def _markdown(frame: pd.DataFrame) -> str:
    rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
