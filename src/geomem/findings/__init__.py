r"""Findings: what records say, in numbers and in words."""
