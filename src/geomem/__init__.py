r"""geomem: which directions a diffusion model has lost to memorization."""
