"""What is fast, measured: each module is one benchmark, `python -m benchmarks.NAME`; `make bench` runs them all."""
