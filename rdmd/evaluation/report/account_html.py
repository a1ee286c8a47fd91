"""What was run, what it took, and how to run it again."""

from html import escape

from rdmd.evaluation.labels import number, row_labels
from rdmd.evaluation.report.contents import Account
from rdmd.evaluation.report.html import line, table
from rdmd.evaluation.row import Metrics


def run_html(account: Account) -> str:
    """The facts in lines, and all settings behind a fold."""
    lines = [line(name, [text]) for name, text in account.facts]
    rows = "\n".join(lines)
    return (
        f'<table class="facts"><tbody>\n{rows}\n</tbody></table>\n'
        "<details><summary>All settings</summary>\n"
        f"<pre>{escape(account.settings)}</pre></details>"
    )


def timings_html(account: Account, metrics: Metrics) -> str:
    """What each training took, and what each method takes for a sample."""
    trained = [
        line(one.name, [_whole(one.steps), number(one.seconds), _per_step(one.seconds, one.steps),
                        _whole(None if one.memory_mib is None else round(one.memory_mib)), one.device])
        for one in account.trained
    ]
    headings = ["model", "steps", "training s", "ms/step", "peak MiB", "on"]
    timed = [
        (label, row) for label, row in zip(row_labels(metrics.rows), metrics.rows, strict=True) if row.seconds_per_image
    ]
    translated = [
        line(label, [str(row.nfe), number(1000 * (row.seconds_per_image or 0.0)),
                     number((row.seconds_per_image or 0.0) * metrics.n_source)])
        for label, row in timed
    ]
    parts = []
    if trained:
        total = number(sum(one.seconds for one in account.trained))
        parts.append(f"<h3>Training</h3>\n<p>{total} s of optimiser steps in all, if one runs after another.</p>\n"
                     + table("Timings of training", headings, trained))
    if translated:
        several = ["method", "NFE", "ms/sample", f"s for all {metrics.n_source}"]
        parts.append("<h3>Translating the test sources</h3>\n<p>Wall-clock, median over batches after a warm-up.</p>\n"
                     + table("Timings of translating", several, translated))
    return "\n".join(parts)


def reproduce_html(account: Account, metrics: Metrics) -> str:
    """The commands that make the page again, from the commit that made it."""
    commands = ["git clone REPOSITORY rdmd", "cd rdmd"]
    text = ""
    if account.commit is None:
        text = "<p>This page was made outside git, so it names no commit.</p>\n"
    else:
        commands.append(f"git checkout {account.commit}")
    if account.edited:
        text = ("<p>Files differed from that commit when this page was made. If it was params.yaml, put the settings "
                "above into it.</p>\n")
    elif account.commit is None:
        text += "<p>Put the settings above into params.yaml.</p>\n"
    commands += ["make repro        # builds .venv, runs every stage, shows the table"]
    later = "dvc repro         # afterwards, in the activated .venv: only what is out of date"
    shown = escape("\n".join([*commands, later]))
    return (
        f"<pre>{shown}</pre>\n{text}"
        f"<p>The seed is {metrics.seed} (<code>seed</code> in params.yaml). <code>dvc.lock</code> holds the hash of "
        "every stage's inputs and outputs; <code>dvc status</code> says what differs from it. The numbers of this page "
        "stand in <code>metrics.json</code> and <code>pareto.csv</code> beside it. Equal numbers bit for bit need the "
        "same machine and library versions, and times are never equal.</p>"
    )


def _whole(value: int | None) -> str:
    return "–" if value is None else str(value)


def _per_step(seconds: float, steps: int | None) -> str:
    return number(1000 * seconds / steps if steps else None)
