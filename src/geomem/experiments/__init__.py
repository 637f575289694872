r"""The paper's experiments: what is run, what is expected, and the page that judges it."""
