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
from studies.measure import MEASURE, measure_generators, measure_references, open_bench
from studies.published import publish_comparison, publish_part
from studies.report import write_report


def main(arguments: list[str] | None = None) -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m studies", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=[*STUDIES, *COMPARISONS, "all", "report"])
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 2; for comparisons what their file says")
    parser.add_argument("--only", nargs="+", help=f"for a study of {', '.join(PARTS)}; for comparisons their names")
    parser.add_argument("--work", type=Path, default=Path("results"), help="the work folder (default: results)")
    parser.add_argument("--docs", type=Path, default=Path("docs") / "results", help="default: docs/results")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    given = parser.parse_args(arguments)
    with reporting(given.debug):
        for what in (*STUDIES, *COMPARISONS) if given.what == "all" else (given.what,):
            missing = _missing_data(what) if given.what == "all" and what in STUDIES else None
            if missing is not None:
                _say(f"{what} is left out: {missing} does not exist (data/raw/README.md says what to bring)")
            elif what in STUDIES:
                _study(what, given)
            elif what in COMPARISONS:
                _comparisons(what, given)
        for file in write_report(given.docs):
            print(file)


def _study(study: str, given: argparse.Namespace) -> None:
    _check(given.only or [], PARTS, "a study has the parts")
    for seed in given.seeds or SEEDS:
        bench = open_bench(study, study_settings(study, seed), given.work, _say)
        measured = {}
        for part in PARTS:
            # The other parts are read against the references.
            if part == "references" or part in (given.only or PARTS):
                measured[part] = MEASURE[part](bench)
                publish_part(given.docs / f"{study}.json", study, part, measured[part], measured["references"])
        if seed == SEEDS[0] and len(measured) == len(PARTS):
            columns = chosen_samples(list(measured.values()))
            draw_samples(bench.task, columns, given.docs / f"{study}_samples.png")


def _comparisons(what: str, given: argparse.Namespace) -> None:
    known = comparisons(what)
    names = [one.name for one in known]
    _check(given.only or [], names, f"{FOLDER / what}.yaml has")
    for one in (one for one in known if one.name in (given.only or names)):
        for seed in given.seeds or one.seeds:
            settings = study_settings(one.study, seed)
            bench = open_bench(one.study, settings, given.work, _say)
            references, variants, columns = measure_references(bench), {}, []
            for name in one.variants:
                varied = replace(bench, settings=variant_settings(settings, one, name))
                variants[name] = measure_generators(varied, f"{one.name}={name}")
                rows = zip(variants[name].rows, variants[name].samples, strict=True)
                columns += [(f"{name}\nλ = {row['lambda']:g}", samples) for row, samples in rows]
            publish_comparison(given.docs / f"{what}.json", what, one, variants, references)
            if what == "costs" and seed == SEEDS[0]:
                draw_samples(bench.task, columns, given.docs / f"{what}_{one.name}_samples.png")


def _check(names: Sequence[str], known: Sequence[str], there_is: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"--only {unknown[0]}: {there_is} {', '.join(known)}; name some of them.")


def _missing_data(study: str) -> Path | None:
    settings = study_settings(study, 0)
    return next((domain.path for domain in settings.domains.named.values() if not domain.path.exists()), None)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
