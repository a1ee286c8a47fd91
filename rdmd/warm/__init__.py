"""A process that has the slow imports behind it, and forks a copy of itself for each stage of a pipeline.

`client` asks for a copy, `process` answers, `child` is what a copy does first, `protocol` is what they say. Which
modules are imported is for whoever starts the process (`flows.warm`). Only Linux has what this needs, and only a
machine without a GPU may use it: a copy of a process that has begun to use one cannot.
"""
