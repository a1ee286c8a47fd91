"""What measures docs/results: `python -m studies STUDY`, then `python -m studies report`.

`grids` reads what is measured (experiments/studies/*.yaml), `measure` trains and evaluates one seed of a study with the
pipeline's own functions, `points` holds the exact transport that points are compared with, `published` keeps the rows
in docs/results/*.json, `statistics` has means over seeds, hypervolumes and bettered shares, `tables`, `figures` and
`report` make the pages. It is run from the checkout and is no part of the wheel.
"""
