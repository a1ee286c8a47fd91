"""The studies behind docs/results.md: `python -m rdmd.results STUDY`, then `python -m rdmd.results report`.

`studies` says what is measured (complete params files, seeds, comparisons); `workspace` where it lies; `experiment`
trains and evaluates one seed of one study; `cache` keeps every evaluated row, so that a restart or a longer grid
evaluates what is new; `collect`, `summary` and `front` turn rows into statistics; `json_file`, `tables`, `figures`,
`sections` and `document` write them down. Nothing here is needed by the pipeline itself.
"""
