"""The data checks of `reports/validation.json` as a table."""

from html import escape
from typing import Any


def validation_html(validation: dict[str, Any]) -> str:
    """A sentence, the sizes of each domain, and one line for each expectation.

    `validation` is what `rdmd.domains.validation` writes: "success", "domains" (train, test, digest by
    name) and "outcomes" (domain, title, success, failing). Raises `KeyError` if it is something else.
    """
    outcomes = validation["outcomes"]
    failed = sum(not outcome["success"] for outcome in outcomes)
    verdict = "all hold" if failed == 0 else f"{failed} {'does' if failed == 1 else 'do'} not hold"
    counts = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{counts["train"]}</td><td>{counts["test"]}</td>'
        f"<td><code>{escape(counts['digest'][:12])}</code></td></tr>"
        for name, counts in validation["domains"].items()
    )
    lines = "".join(
        f'<tr><th scope="row">{escape(outcome["domain"])}</th><td>{escape(outcome["title"])}</td>'
        f"<td>{_holds(outcome)}</td></tr>"
        for outcome in outcomes
    )
    return (
        f"<p>{len(outcomes)} expectations of the data, of which {verdict}.</p>\n"
        '<div class="scroll"><table><thead><tr><th scope="col">domain</th><th scope="col">train</th>'
        '<th scope="col">test</th><th scope="col">digest</th></tr></thead>'
        f"<tbody>{counts}</tbody></table></div>\n"
        "<details><summary>All expectations</summary>\n"
        '<div class="scroll"><table class="plain"><thead><tr><th scope="col">domain</th>'
        '<th scope="col">the domain</th><th scope="col">holds</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div></details>"
    )


def _holds(outcome: dict[str, Any]) -> str:
    return "yes" if outcome["success"] else f"no ({outcome['failing']} samples)"
