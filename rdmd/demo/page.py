"""The demo's page, self-contained: style, script, samples and the models' numbers are in it."""

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape

from rdmd.demo.css import CSS
from rdmd.demo.models import Found, Opened
from rdmd.demo.script import SCRIPT
from rdmd.evaluation.labels import interval, number, realism_name

# Up to this side a picture is enlarged as squares, not smoothed.
_SQUARES_TO = 64
_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode("ascii")
# Nothing but this page, its script and its server.
POLICY = (
    f"default-src 'none'; script-src 'sha256-{_HASH}'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# So that no address is asked for before there is a picture.
_BLANK = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


def page_html(title: str, opened: Sequence[Opened], samples: Sequence[str], samples_are: str, largest: int) -> str:
    """The page. `samples` are PNG files in base64, `samples_are` says what they show, `largest` is how many bytes a
    file may have. Every text that comes from data is escaped."""
    side = opened[0].model.sample_shape[-1]
    small = "small" if side <= _SQUARES_TO else ""
    champion = next((i for i, one in enumerate(opened) if "champion" in one.found.aliases), len(opened) // 2)
    data = {
        "models": [_told(one.found) for one in opened],
        "samples": list(samples),
        "largest": largest,
        "first": champion,
    }
    # A text that ends the element would end it.
    embedded = json.dumps(data).replace("<", "\\u003c")
    strip = "\n".join(_model(one.found, small) for one in opened)
    tries = "".join(_sample(i, sample, small) for i, sample in enumerate(samples))
    source = f'<img data-source class="{small}" alt="The input as the generators see it" src="{_BLANK}">'
    still = " disabled" if len(opened) == 1 else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{CSS}</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p>Every generator of the front translates your picture in one network evaluation. A small λ is realistic, a large one
keeps close to the input. A picture is made square and {side}x{side} pixels first; nothing is kept.</p>
</header>
<div class="give">
<label class="drop" id="drop"><b>Choose a picture</b> or drop one here
<input type="file" id="file" accept="image/*"></label>
<div class="samples"><b>Or try one</b> <span class="soft">{escape(samples_are)}</span><div>{tries}</div></div>
</div>
<p id="said" role="status"></p>
<div id="shown">
<div class="pair">
<figure>{source}<figcaption>input</figcaption></figure>
<figure><img id="chosen" class="{small}" alt="Translation" src="{_BLANK}">
<figcaption id="chosen-text">output</figcaption></figure>
</div>
<div class="slider">
<label for="lambda" id="label"></label>
<input type="range" id="lambda" min="0" max="{len(opened) - 1}" step="1"{still}>
<div class="ends soft"><span>realistic</span><span>arrow keys step</span><span>faithful</span></div>
<output for="lambda" id="numbers"></output>
</div>
<h2>Side by side</h2>
<div class="all">
<figure>{source}<figcaption><b>input</b></figcaption></figure>
{strip}
</div>
</div>
<p class="soft">FID and cost are means over the test split (95% interval in brackets); cost is the squared difference to
the input in [-1, 1], mean over dimensions. Smaller is better for both.</p>
</main>
<script type="application/json" id="data">{embedded}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _told(found: Found) -> dict[str, str]:
    row = found.row
    numbers = f"{realism_name(row)} {interval(row.realism, row.realism_ci)}, cost {number(row.cost)}"
    spoken = f"lambda {row.lam:g}, {realism_name(row)} {number(row.realism)}, cost {number(row.cost)}"
    return {"label": _label(found), "numbers": numbers, "spoken": spoken}


def _label(found: Found) -> str:
    return f"λ = {found.row.lam:g}" + (" (champion)" if "champion" in found.aliases else "")


def _model(found: Found, small: str) -> str:
    row = found.row
    label = escape(_label(found))
    return (
        f'<button type="button" data-model aria-pressed="false"><figure><img class="{small}" alt="Output, {label}" '
        f'src="{_BLANK}"><figcaption><b>{label}</b><br>{realism_name(row)} {number(row.realism)}<br>cost '
        f"{number(row.cost)}<br><i></i></figcaption></figure></button>"
    )


def _sample(index: int, sample: str, small: str) -> str:
    return (
        f'<button type="button" data-sample aria-pressed="false"><img class="{small}" alt="Sample {index + 1}" '
        f'src="data:image/png;base64,{sample}"></button>'
    )
