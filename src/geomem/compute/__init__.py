r"""Who works, and how: files, progress, processes, clusters; knows nothing of diffusion."""
