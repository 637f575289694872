r"""How it looks: pictures and one page, each a function of what was recorded."""
