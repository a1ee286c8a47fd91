"""Using a trained generator: all that `rdmd translate`, the served model, the exports and the demo share.

`model` (a generator with what it knows of its samples), `request` (what a client may send, and the answer), `export`
(ONNX), `demo` (a page to try the generators). A registered model carries `request` and whatever that imports, so that
nothing below it may need more than torch, numpy, Pillow, pydantic, PyYAML and safetensors.
"""
