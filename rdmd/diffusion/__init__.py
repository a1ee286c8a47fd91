"""Diffusion as the method uses it: preconditioning, noise distributions, the denoising loss and the samplers.

Noise is variance-exploding: `x_t = x_0 + sigma_t eps`, and sigma itself is the time (Karras et al. 2022).
"""
