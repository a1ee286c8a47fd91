"""Benchmarks: each module measures one thing, `python -m benchmarks.NAME`. `make bench` runs all of them."""
