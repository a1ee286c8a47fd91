"""The quality of translations: realism, faithfulness, exact transport, the Pareto front, and the table of results.

`evaluator` evaluates tensors (`evaluate`) or a translator on a `task` (the test samples), and returns the scores of
`row`. `selection` finds the front and the champion among rows; `table` prints rows and writes their files.
The metrics are pure functions on tensors: `realism`, `faithfulness`, `transport`. `features`, `classifier` and
`corruption` hold the feature networks of realism and their check.

Images are float tensors (B, C, H, W) in [-1, 1] and are quantised to the bits of the source before any metric; points
are float tensors (B, d).
"""
