"""`python -m studies STUDY [--seeds 0 1 2] [--only rdmd]`, and `python -m studies report`.

A study trains and evaluates what is not there yet; stopped, it goes on where it was. `all` runs every study.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rdmd.errors import UserError, reporting
from studies.figures import chosen_samples, draw_samples
from studies.grids import COMPARISONS, FOLDER, PARTS, SEEDS, STUDIES, comparisons, study_settings, variant_settings
from studies.measure import MEASURE, measure_generators, measure_references, measure_teacher, open_bench
from studies.published import publish_comparison, publish_part
from studies.report import write_report


def main(arguments: list[str] | None = None) -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m studies", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=[*STUDIES, *COMPARISONS, "all", "report"])
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 2; for comparisons what their file says")
    parser.add_argument("--only", nargs="+", help=f"for a study of {', '.join(PARTS)}; for comparisons their names")
    parser.add_argument("--work", type=Path, default=Path("results"), help="the work folder (default: results)")
    parser.add_argument("--docs", type=Path, default=Path("docs") / "results", help="default: docs/results")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parsed = parser.parse_args(arguments)
    with reporting(parsed.debug):
        for study in (*STUDIES, *COMPARISONS) if parsed.study == "all" else (parsed.study,):
            missing = _missing_data(study) if parsed.study == "all" and study in STUDIES else None
            if missing is not None:
                _say(f"{study} is left out: {missing} does not exist (data/raw/README.md says what to bring)")
            elif study in STUDIES:
                _study(study, parsed)
            elif study in COMPARISONS:
                _comparisons(study, parsed)
        for file in write_report(parsed.docs):
            print(file)


def _study(study: str, arguments: argparse.Namespace) -> None:
    _check(arguments.only or [], PARTS, "a study has the parts")
    for seed in arguments.seeds or SEEDS:
        bench = open_bench(study, study_settings(study, seed), arguments.work, _say)
        measured = {}
        for part in PARTS:
            # The other parts are read against the references.
            if part == "references" or part in (arguments.only or PARTS):
                measured[part] = MEASURE[part](bench)
                publish_part(arguments.docs / f"{study}.json", study, part, measured[part], measured["references"])
        if seed == SEEDS[0] and len(measured) == len(PARTS):
            columns = chosen_samples(list(measured.values()))
            draw_samples(bench.task, columns, arguments.docs / f"{study}_samples.png")


def _comparisons(group: str, arguments: argparse.Namespace) -> None:
    known = comparisons(group)
    names = [comparison.name for comparison in known]
    _check(arguments.only or [], names, f"{FOLDER / group}.yaml has")
    for comparison in (comparison for comparison in known if comparison.name in (arguments.only or names)):
        for seed in arguments.seeds or comparison.seeds:
            study = study_settings(comparison.study, seed)
            settings = variant_settings(study, comparison, None)
            bench = open_bench(comparison.study, settings, arguments.work, _say)
            references, variants, columns = measure_references(bench), {}, []
            for name in comparison.variants:
                changed, own = variant_settings(study, comparison, name), bench
                if comparison.own_teachers:
                    own = open_bench(comparison.study, changed, arguments.work, _say, bench.task)
                varied = replace(own, settings=changed)
                measured = measure_generators(varied, f"{comparison.name}={name}")
                rows = zip(measured.rows, measured.samples, strict=True)
                columns += [(f"{name}\nλ = {row['lambda']:g}", samples) for row, samples in rows]
                variants[name] = measure_teacher(varied).joined(measured) if comparison.own_teachers else measured
            publish_comparison(arguments.docs / f"{group}.json", group, comparison, variants, references)
            if group == "costs" and seed == SEEDS[0]:
                draw_samples(bench.task, columns, arguments.docs / f"{group}_{comparison.name}_samples.png")


def _check(names: Sequence[str], known: Sequence[str], there_is: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"--only {unknown[0]}: {there_is} {', '.join(known)}; name some of them.")


def _missing_data(study: str) -> Path | None:
    domains = study_settings(study, 0).domains.named.values()
    return next((domain.path for domain in domains if not domain.path.exists()), None)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
