"""`python -m rdmd.results STUDY [--seeds 0 1 2] [--only rdmd]`, and `python -m rdmd.results report`.

A study trains and evaluates what is not there yet; stopped, it goes on where it was. `all` runs every study.
"""

import argparse
import sys
import time
from pathlib import Path

from rdmd import config
from rdmd.errors import UserError, reporting
from rdmd.results.studies import COMPARISONS, FOLDER, SEEDS, STUDIES, comparisons, study_settings
from rdmd.results.workspace import PARTS, Workspace


def main(arguments: list[str] | None = None) -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m rdmd.results", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*STUDIES, *COMPARISONS, "all", "report"])
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 2; for comparisons what their file says")
    parser.add_argument("--only", nargs="+", metavar="PART",
                        help=f"for a study: of {', '.join(PARTS)}; for comparisons: their names")
    parser.add_argument("--work", type=Path, default=Path("results"), help="the work folder (default: results)")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where reports go (default: docs)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    given = parser.parse_args(arguments)
    workspace = Workspace(given.work, given.docs)
    with reporting(given.debug):
        if given.what == "report":
            _report(workspace)
        elif given.what == "all":
            _all(workspace, given.seeds)
        else:
            _run(given.what, workspace, given.seeds, given.only)


def _run(what: str, workspace: Workspace, seeds: list[int] | None, only: list[str] | None) -> None:
    if what in STUDIES:
        _study(what, workspace, seeds or list(SEEDS), only or list(PARTS))
    else:
        _comparisons(what, workspace, seeds, only)


def _all(workspace: Workspace, seeds: list[int] | None) -> None:
    """Every study in order; one whose data nobody has brought is named and left out."""
    for what in (*STUDIES, *COMPARISONS):
        missing = _missing_data(what) if what in STUDIES else None
        if missing is not None:
            _say(f"{what} is left out: {missing} does not exist (data/raw/README.md says what to bring)")
            continue
        _run(what, workspace, seeds, None)
    _report(workspace)


def _study(study: str, workspace: Workspace, seeds: list[int], only: list[str]) -> None:
    # torch takes seconds to import, and a wrong name should not.
    from rdmd.results.experiment import run_study

    unknown = [part for part in only if part not in PARTS]
    if unknown:
        raise UserError(f"--only {unknown[0]}: a study has the parts {', '.join(PARTS)}; name some of them.")
    parts = [part for part in PARTS if part in only]
    for seed in seeds:
        run_study(study, study_settings(study, seed), parts, workspace, _say)


def _comparisons(what: str, workspace: Workspace, seeds: list[int] | None, only: list[str] | None) -> None:
    from rdmd.results.experiment import run_comparison

    known = comparisons(what)
    names = [one.name for one in known]
    unknown = [name for name in only or [] if name not in names]
    if unknown:
        raise UserError(f"--only {unknown[0]}: {FOLDER / what}.yaml has {', '.join(names)}; name some of them.")
    for one in known:
        if only is None or one.name in only:
            for seed in seeds or one.seeds:
                run_comparison(one, study_settings(one.study, seed), workspace, _say)


def _missing_data(study: str) -> Path | None:
    settings = study_settings(study, 0)
    domains = (getattr(settings.domains, name) for name in config.Domains.model_fields)
    return next((domain.path for domain in domains if domain is not None and not domain.path.exists()), None)


def _report(workspace: Workspace) -> None:
    from rdmd.results.report import report

    written = report(workspace)
    if not written:
        raise UserError(f"{workspace.root} holds no measured rows yet; run a study first, such as "
                        "`python -m rdmd.results swissroll`.")
    for line in written:
        print(line)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
