"""Readers: each opens one kind of data and gives decoded samples one at a time, with their names.

`images` (folders) and `archives` (zip, tar) share `listing` (which files count) and `pictures` (how one is
decoded); `mnist` reads IDX files, `digits` scikit-learn's bundled scans, `points` draws from laws on the
plane, `noise` from N(0, std^2 I) in any shape.
"""
