r"""The two ways in which geomem says no: bad input, and not enough evidence.

Both carry one sentence that says what is wrong and what to do next. The command line
prints that sentence and nothing else, and leaves with the exit status of the class.
"""

from __future__ import annotations


class GeomemError(Exception):
    r"""Base of the errors that a user can do something about."""

    exit_status = 1


class InputError(GeomemError, ValueError):
    r"""What was passed in cannot be used; the message says why and what would work."""

    exit_status = 2


class Inconclusive(GeomemError):  # noqa: N818  (a finding, not a fault)
    r"""The data do not decide the question; the message says what would."""

    exit_status = 3
