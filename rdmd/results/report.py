"""docs/results.md, its JSON files and figures, from whatever has been measured."""

from pathlib import Path

from rdmd.files import replacing
from rdmd.results.cache import RowCache
from rdmd.results.collect import Collected, collect
from rdmd.results.compare import CompareResult, compare
from rdmd.results.document import update
from rdmd.results.figures import Plane, fronts_png, methods_as_series, variants_as_series
from rdmd.results.front import REFERENCES, front_of
from rdmd.results.galleries import maps_png, pictures_png, variants_png
from rdmd.results.json_file import write_comparisons, write_study
from rdmd.results.sections import comparison_section, is_points, stated, study_section
from rdmd.results.studies import COMPARISONS, FOLDER, STUDIES, Comparison, comparisons
from rdmd.results.summary import summarise
from rdmd.results.workspace import Workspace

HEADINGS = {
    "swissroll": "A Gaussian to a Swiss roll",
    "eight_gaussians": "A Gaussian to eight Gaussians",
    "gaussian": "A Gaussian to another Gaussian",
    "digits": "Coloured digits, 8x8",
    "colored_mnist": "Coloured MNIST, 16x16",
}


def report(workspace: Workspace, studies: Path = FOLDER) -> list[str]:
    """Write everything that has rows, and say in a sentence each what was written."""
    sections: dict[str, str] = {}
    headings = dict(HEADINGS)
    for study in STUDIES:
        collected = collect(workspace, study)
        if collected.rows:
            sections[study] = _study(workspace, study, collected)
    for what in COMPARISONS:
        known = comparisons(what, studies) if (studies / f"{what}.yaml").exists() else []
        found = [result for one in known if (result := compare(workspace, one)) is not None]
        if found:
            names = [one.name for one in known]
            write_comparisons(workspace.published / f"{what}.json", what, found, names)
        for result in found:
            name = result.comparison.name
            sections[name] = _comparison(workspace, what, result)
            headings[name] = _heading(what, result.comparison)
    if sections:
        update(workspace.page, sections, headings)
    return [f"{name}: {workspace.page} and {workspace.published}" for name in sections]


def _heading(what: str, comparison: Comparison) -> str:
    return f"{'Ablation' if what == 'ablations' else 'Transport costs'}: {comparison.title}"


def _study(workspace: Workspace, study: str, collected: Collected) -> str:
    cache = RowCache(workspace.rows)
    front = front_of(collected)
    points = is_points(collected)
    realism = "sw2" if points else "fid"
    write_study(workspace.published / f"{study}.json", study, collected, front, realism)
    summaries = summarise(collected.rows)
    series = methods_as_series(summaries)
    drawn: dict[str, tuple[str, bytes | None]] = {}
    if series:
        planes = [Plane("cost_sum", "sw2"), Plane("l2_uvp", "sw2")] if points else [Plane("cost", "fid")]
        references = [one for one in summaries if one.method in REFERENCES]
        drawn["Fronts of all methods"] = (
            f"{study}_fronts.png", fronts_png(series, references, planes, f"{study}. {_caption(collected)}")
        )
    seed = f"seed {collected.seeds[0]}"
    if points:
        drawn[f"Where each generator sends the source, {seed}"] = (f"{study}_maps.png", maps_png(collected, cache))
    else:
        drawn[f"Sources and their translations, {seed}"] = (f"{study}_samples.png", pictures_png(collected, cache))
    return study_section(study, collected, front, _written(workspace, drawn))


def _comparison(workspace: Workspace, what: str, result: CompareResult) -> str:
    comparison = result.comparison
    study = collect(workspace, comparison.study)
    first = next(iter(result.variants.values()))
    points = is_points(first)
    series = variants_as_series({variant: summarise(one.rows) for variant, one in result.variants.items()})
    planes = [Plane("cost_sum", "sw2"), Plane("l2_uvp", "sw2")] if points else [Plane("cost", "fid")]
    references = [one for one in summarise(study.rows) if one.method in REFERENCES]
    caption = f"{comparison.title} ({comparison.study}). {_caption(first)}"
    file = f"{what}_{comparison.name}"
    drawn = {f"{comparison.title}: fronts": (f"{file}.png", fronts_png(series, references, planes, caption))}
    if what == "costs":
        shown = variants_png(result, study, RowCache(workspace.rows))
        drawn[f"{comparison.title}: translations"] = (f"{file}_samples.png", shown)
    return comparison_section(what, result, _written(workspace, drawn))


def _caption(collected: Collected) -> str:
    """N, seeds and what the marks mean; the page says the rest."""
    sentences = stated(collected).replace("**", "").replace("`", "").split(". ")
    measured = next(sentence for sentence in sentences if "translated test samples" in sentence)
    seeds = ", ".join(map(str, collected.seeds))
    spread = f"seeds {seeds}. Marks: means over seeds; bars: one standard deviation"
    if len(collected.seeds) == 1:
        spread = f"seed {seeds}"
    return (f"{measured}; {spread}. Filled and joined: the method's own front; hollow: dominated by another setting of "
            "the same method.")


def _written(workspace: Workspace, drawn: dict[str, tuple[str, bytes | None]]) -> dict[str, str]:
    """Write the figures that could be drawn; gives their file names by caption."""
    figures = {}
    for caption, (file, content) in drawn.items():
        if content is not None:
            with replacing(workspace.published / file) as temporary:
                temporary.write_bytes(content)
            figures[caption] = file
    return figures
