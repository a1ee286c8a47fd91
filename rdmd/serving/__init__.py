"""Using a trained generator: all that `rdmd translate`, the served model, the exports and the demo share.

`model` (a generator, what it knows of its samples, and the answer to a request), `export` (ONNX), `demo` (a page to try
the generators). A registered model carries `model` and whatever that imports, so nothing below it may need more than
torch, numpy, Pillow, pydantic, PyYAML and safetensors.
"""
