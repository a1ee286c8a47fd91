"""Diffusion and transport baselines, each a map (source, rng) -> translation with its `nfe`, like the generator."""
