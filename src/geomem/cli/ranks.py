r"""A command that a launcher started several times: rank 0 does it, the others help it train."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from geomem.compute.progress import say
from geomem.compute.ranks import Ranks, leading
from geomem.errors import GeomemError
from geomem.models.parallel import follow


def run_on_ranks(command: Callable[[], int]) -> int:
    r"""Runs a command on rank 0, which trains on all; returns its exit status, on each rank.

    Arguments:
        command: What rank 0 does, and returns its exit status.
    """
    try:
        ranks = Ranks.meet()
    except GeomemError as error:
        print(f"geomem: {error}", file=sys.stderr)
        return error.exit_status
    if ranks.rank:
        return follow(ranks)
    status = 1
    try:
        with leading(ranks):
            status = command()
    except SystemExit as stop:  # after help, or what the parser says
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        if status == 128 + signal.SIGINT and (why := ranks.failure()):
            say(why)  # what the launcher ended this one for
        ranks.end(status)
    return status
