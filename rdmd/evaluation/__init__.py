"""How good a translation is: realism, faithfulness, exact transport, the Pareto front, and the report.

`translator` says what can be evaluated; `evaluator` turns a translator and a task (`image_task`,
`point_task`) into one `row`; `pareto` picks among rows; `metrics_file` and `table` write them down;
`report` draws them. The metrics themselves are pure functions on tensors: `realism`, `faithfulness`,
`colour`, `transport`. Feature networks for FID and its relatives are in `features`, `classifier` and
`inception`.

Images are float tensors (B, 3, H, W) in [-1, 1] and are quantised to uint8 before any metric;
points are float tensors (B, 2).
"""
