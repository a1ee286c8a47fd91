"""The studies of docs/results: `python -m studies STUDY`, then `python -m studies report`.

`grids` reads the settings (experiments/studies/*.yaml), `measure` trains and evaluates one seed of a study with the
functions of the pipeline, `points` computes the exact transport with which points are compared, `published` keeps the
rows in docs/results/*.json, `statistics` has means over seeds, hypervolumes and shares of bettered points, `figures`
and `report` make the pages. The package runs from the checkout and is not in the wheel.
"""
