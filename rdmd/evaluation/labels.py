"""What rows are called where people read them, and how numbers are shown."""

from collections.abc import Sequence

from rdmd.evaluation.row import GENERATOR, IDENTITY, TARGET, Row

_METHODS = {
    GENERATOR: "RDMD",
    IDENTITY: "source as it is",
    TARGET: "target itself",
    "sdedit": "SDEdit",
    "sdedit-sde": "SDEdit (SDE)",
    "ilvr": "ILVR",
    "egsde": "EGSDE",
    "ddib": "DDIB",
    "neural-ot": "neural OT",
    "teacher": "teacher, from noise",
    "data": "data against data",
    "ot": "exact transport",
}
_SYMBOLS = {"sigma_0": "σ₀", "sigma": "σ", "lambda": "λ", "sigma_stop": "stop", "cost_weight": "weight"}
# Says where a row came from, which is no dial.
_RUN = "run"


def method_name(method: str) -> str:
    """A method's name in print; unknown ones as they are."""
    return _METHODS.get(method, method)


def dial(row: Row, rows: Sequence[Row]) -> str:
    """The settings that tell this row from the others of its method: "λ = 0.1", "σ₀ = 0.6"; empty if there
    are none.

    A method with one row shows its first setting.
    """
    if row.lam is not None:
        parts = [f"λ = {row.lam:g}"]
    elif row.settings:
        parts = []
    else:
        return ""
    varying = varying_dials(row, rows)
    if not varying and not parts:
        varying = [key for key in row.settings if key != _RUN][:1]
    parts += [f"{_SYMBOLS.get(key, key)} = {_plain(row.settings[key])}" for key in varying]
    return ", ".join(parts)


def varying_dials(row: Row, rows: Sequence[Row]) -> list[str]:
    """The settings in which the rows of this row's method (and lambda) differ."""
    alike = [other for other in rows if other.method == row.method and other.lam == row.lam]
    dials = [key for key in row.settings if key != _RUN]
    return [key for key in dials if len({str(other.settings.get(key)) for other in alike}) > 1]


def row_label(row: Row, rows: Sequence[Row]) -> str:
    """A label such as "RDMD, λ = 0.1", which tells the row from the others of `rows`."""
    return ", ".join(filter(None, [method_name(row.method), dial(row, rows)]))


def row_labels(rows: Sequence[Row]) -> list[str]:
    """`row_label` of every row."""
    return [row_label(row, rows) for row in rows]


def realism_name(row: Row) -> str:
    """The metric that `Row.realism` is; "realism" where it could not be measured."""
    return "FID" if row.fid is not None else "realism" if row.sw2 is None else "SW2"


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits and no exponent where it can be helped; "–" for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    text = f"{value:#.{digits}g}".rstrip(".")
    return f"{float(text):.0f}" if "e" in text else text


def interval(value: float | None, bounds: tuple[float, float] | None) -> str:
    """ "40.6 [38.1, 43.5]"; without bounds the number alone."""
    if value is None or bounds is None:
        return number(value)
    return f"{number(value)} [{number(bounds[0])}, {number(bounds[1])}]"


def plus_minus(value: float | None, spread: float | None) -> str:
    """ "0.133 ± 0.002"; without a spread the number alone."""
    if value is None or spread is None:
        return number(value)
    return f"{number(value)} ± {number(spread, 2)}"


def _plain(value: float | int | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
