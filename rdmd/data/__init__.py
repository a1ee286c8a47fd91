"""Domains: from what a user brings to shards that training reads.

In the order that data flows: `readers` (folders, archives, MNIST, digits, laws on the plane) give `samples`;
`splits` sends each to train or test by its content; `transforms` crops, resizes and colours; `shards` writes
and reads WebDataset shards under a `manifest`; `preprocess` ties these together. `table` and `validation`
look at the finished shards with Great Expectations.
`pixels` converts between uint8 and [-1, 1].
"""
