"""`rdmd dry-run EXPERIMENT`: every stage of an experiment on a handful of generated pictures, and what the whole would
take.

`shrink` (settings cut to a few steps), `materials` (generated pictures, random weights), `stages` (the run itself),
`work` (arithmetic and memory of a network, counted without computing), `estimate` (from both to hours and GiB). Nothing
outside one folder is written.
"""
