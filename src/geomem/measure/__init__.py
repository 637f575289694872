r"""What is measured of a denoiser, and how: study, subjects, probes."""
