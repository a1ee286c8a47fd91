"""Rows as a pandas table: means over seeds, hypervolumes, and the share of baseline points that RDMD betters."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from rdmd.data.readers.avatars import Portrait
from rdmd.data.samples import REGIONS
from rdmd.evaluation.row import GENERATOR, IDENTITY, TARGET, Row
from rdmd.evaluation.selection import Point, hypervolume, nondominated
from rdmd.evaluation.table import Z95, hyperparameters
from rdmd.files import canonical_json

DATA, TEACHER, EXACT = "data", "teacher", "ot"
# A second hypervolume counts only where realism is within so many times that of the target's own samples.
NEAR = 5
# Rows that methods are read against; they are in no comparison of methods.
REFERENCES = (IDENTITY, TARGET, DATA, TEACHER, EXACT)
# What the studies add to a row: the peak memory of the training behind it; SW2 over that of data against data; the cost
# over that of exact transport, less 1.
ADDED = ["peak_memory_mib", "sw2_ratio", "over_exact"]
_NO_METRIC = {"method", "lam", "settings", "run", "nfe", "on_front", "fid_ci", "sw2_ci", "paired"}
# The scores against true counterparts; colour errors and agreements have a column for each region and attribute.
TRUTH = ["truth_psnr", "truth_feature_distance", "truth_retrieval"]
TRUTH += [f"colour_{name}" for name in REGIONS]
TRUTH += [f"agrees_{field.name}" for field in fields(Portrait) if field.name not in REGIONS]
METRICS = [name for name in Row.model_fields if name not in _NO_METRIC] + ADDED + TRUTH
_SETTING = ["method", "lambda", "setting"]


def table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of docs/results/*.json with more columns: `realism` (FID, or SW2) and its 95% interval from
    `realism_low` to `realism_high`; `setting`, a row's settings as text. Metrics that do not apply are NaN."""
    frame = pd.DataFrame([{**row, **_against_truth(row.get("paired"))} for row in rows])
    frame[METRICS] = frame.reindex(columns=METRICS).astype(float)
    frame["lambda"] = frame["lambda"].astype(float)
    frame["setting"] = frame["settings"].map(canonical_json)
    frame["realism"] = frame["fid"].fillna(frame["sw2"])
    intervals = frame["fid_ci"].where(frame["fid_ci"].notna(), frame["sw2_ci"])
    for end, name in enumerate(("realism_low", "realism_high")):
        frame[name] = [np.nan if pair is None or pair is np.nan else pair[end] for pair in intervals]
    return frame


def _against_truth(paired: Mapping[str, Any] | None) -> dict[str, float]:
    if paired is None:
        return {}
    names = ("psnr", "feature_distance", "retrieval")
    colours = {f"colour_{name}": error for name, error in paired["colour_error"].items()}
    agrees = {f"agrees_{name}": share for name, share in paired["agreement"].items()}
    return {f"truth_{name}": paired[name] for name in names} | colours | agrees


def setting_labels(frame: pd.DataFrame) -> list[str]:
    """What tells each row from the others of its method, such as "λ = 0.1"."""
    columns = zip(frame["method"], frame["lambda"], frame["settings"], strict=True)
    rows = [Row(method=name, lam=None if np.isnan(lam) else lam, settings=settings) for name, lam, settings in columns]
    return [hyperparameters(row, rows) for row in rows]


def summarise(frame: pd.DataFrame, by: tuple[str, ...] = ()) -> pd.DataFrame:
    """A line for each method and setting (and each value of `by`), in the order in which they first come: the mean of
    every metric over the seeds, its deviation (N - 1) as `<metric>_std`, the number of seeds, and whether it drifted.

    Drift: the cost is above exact transport's by more than two standard errors of the difference over the seeds; with
    one seed, by more than two of the cost alone (the row's own flag).
    """
    groups = frame.groupby([*by, *_SETTING], sort=False, dropna=False)
    summary = pd.concat(
        [
            groups[["settings", "nfe"]].first(),
            groups["seed"].nunique().rename("seeds"),
            groups[METRICS].mean(),
            groups[METRICS].std().add_suffix("_std"),
            groups["drift"].agg(lambda flags: any(flag is True or flag == 1 for flag in flags)).rename("flagged"),
        ],
        axis=1,
    ).reset_index()
    error = summary["over_exact_std"] / np.sqrt(summary["seeds"])
    over = (summary["method"] == GENERATOR) & (summary["over_exact"] > 2 * error)
    summary["drifted"] = np.where(error.isna(), summary["flagged"], over).astype(bool)
    return summary


def hypervolumes(frame: pd.DataFrame, reference: Point, by: str) -> pd.DataFrame:
    """The area of (cost, realism) that points dominate up to `reference`: a line for each value of `by`, a column for
    each seed."""
    placed = frame[~frame["method"].isin(REFERENCES) & frame["cost"].notna()]
    areas = {
        key: hypervolume(list(zip(group["cost"], group["realism"], strict=True)), reference)
        for key, group in placed.groupby([by, "seed"], sort=False)
    }
    return pd.Series(areas, dtype=float).unstack(sort=False)


def bettered(frame: pd.DataFrame) -> pd.DataFrame:
    """The baseline rows of the seeds that have generators, with `bettered`: whether a generator of one evaluation at
    the same seed is better in one of (cost, realism) and no worse in the other; and `apart`: whether one is better in
    both by more than the 95% intervals of both rows (False where realism has none)."""
    ours = frame[(frame["method"] == GENERATOR) & (frame["nfe"] == 1)]
    known = frame["seed"].isin(ours["seed"]) & frame["cost"].notna()
    theirs = frame[known & ~frame["method"].isin([*REFERENCES, GENERATOR])].copy()
    flags, apart = [], []
    for _, row in theirs.iterrows():
        rivals = ours[ours["seed"] == row["seed"]]
        points = zip([row["cost"], *rivals["cost"]], [row["realism"], *rivals["realism"]], strict=True)
        flags.append(not nondominated(list(points))[0])
        cheaper = rivals["cost"] + Z95 * rivals["cost_se"] < row["cost"] - Z95 * row["cost_se"]
        apart.append(bool((cheaper & (rivals["realism_high"] < row["realism_low"])).any()))
    return theirs.assign(bettered=np.array(flags, dtype=bool), apart=np.array(apart, dtype=bool))


def reference_point(found: Mapping[str, Any]) -> Point:
    """Up to where hypervolume is counted in a file of results: the mean cost of random pairs and the mean realism of
    the untranslated source, over the seeds."""
    front = found["front"]
    points = [[value for key, value in entry.items() if key != "seed"] for entry in front.get("reference_by_seed", [])]
    cost, realism = np.mean(points, axis=0).tolist() if points else front["reference"].values()
    return cost, realism
