"""Domains: from the user's data to the shards that training reads.

In the order that data flows: `readers` (folders, archives, MNIST, digits, distributions on the plane) yield `samples`;
`splits` assigns each sample to train or test by its content; `transforms` crops, resizes and colours; `shards` writes
and reads WebDataset shards under a `manifest`; `preprocess` joins these steps. `expectations` checks the finished
shards with Great Expectations. Training draws batches from a `view`, in the order that `sampling` decides.
"""
