"""The table of bad input, by what is wrong: `settings`, `data`, `models`, `machine`; `project` is what it is done to.

A row spoils a small sound project, gives a command line, and says what the one sentence must name and advise.
"""
