"""One page to try a sweep's generators: `rdmd demo`.

`models` (which generators, by their numbers), `samples` (pictures to try), `app` (what answers over HTTP), `page` (with
its `css` and its `script`), `server` (on the loopback until Ctrl-C). A picture is translated by the code that the
registered model carries, `rdmd.serving.model`.
"""
