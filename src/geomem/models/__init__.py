r"""Whom we measure: networks of our own, how they are trained, and what they generate."""
