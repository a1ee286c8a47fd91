"""What is wrong with params.yaml, in one sentence that names the key and the remedy."""

import difflib
import reprlib
from typing import Any

from pydantic import ValidationError

# pydantic puts the kind of a section into the path of a key; people did not write it there.
_UNION_TAGS = {"images", "archive", "digits", "mnist", "points", "noise", "ddpmpp", "mlp", "lognormal", "karras",
               "classifier", "inception", "none", "squared_l2", "l1", "huber", "low_pass", "features", "lpips",
               "knee", "most-faithful", "most-realistic", "cheapest-under", "most-realistic-under", "local", "ray",
               "one", "each"}
_UNION_PARENTS = {"source", "target", "features", "network", "noise", "cost", "champion", "runner", "input_noise"}


def sentence(error: ValidationError, known: set[str]) -> str:
    """The problem to mend first, as one sentence with the key's dotted path. `known` is every key of any section."""
    problems = error.errors()
    # A misspelt section is missing under its right name as well, and telling that first would mislead.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    place = [part for i, part in enumerate(first["loc"])
             if not (i > 0 and part in _UNION_TAGS and first["loc"][i - 1] in _UNION_PARENTS)]
    key = ".".join(str(part) for part in place)
    given = first.get("input")
    more = f" ({len(problems) - 1} more after this one.)" if len(problems) > 1 else ""
    match first["type"]:
        case "extra_forbidden":
            name = str(place[-1])
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else "remove it."
            if name in known:
                hint = f"`{name}` belongs to another section: move it there, or remove it."
            return f"unknown key `{key}`; {hint}{more}"
        case "missing" | "union_tag_not_found":
            missing = key if first["type"] == "missing" else f"{key}.{_tag_name(place)}"
            return f"the key `{missing}` is missing; add it (`rdmd experiments` lists complete files).{more}"
        case "value_error":
            where = f"`{key}`: " if key else ""
            return f"{where}{first['ctx']['error']!s}.{more}"
        case "union_tag_invalid":
            return (f"`{key}.{_tag_name(place)}` is {first['ctx']['tag']!r}; use one of "
                    f"{first['ctx']['expected_tags']}.{more}")
        case "model_type" | "model_attributes_type":
            return f"`{key}` is a section: put its keys below it (`rdmd experiments` lists complete files).{more}"
    shown = reprlib.repr(given)
    return f"`{key}` is {shown}: {first['msg'][0].lower()}{first['msg'][1:]}; change it.{more}"


def _tag_name(place: list[Any]) -> str:
    """The key that tells apart the kinds of the section at `place`."""
    if "domains" in place:
        return "reader"
    names = {"network": "kind", "noise": "law", "features": "network", "cost": "name", "champion": "rule",
             "runner": "name"}
    return names.get(str(place[-1]), "kind")
