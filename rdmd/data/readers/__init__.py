"""Readers: each opens one kind of data and yields decoded samples with their names.

`images` reads folders of image files, `archives` zip and tar files, `mnist` IDX files, `digits` scikit-learn's bundled
scans. `points` draws from distributions on the plane, `noise` from N(0, std^2 I) in any shape.
`avatars` renders portraits.
"""
