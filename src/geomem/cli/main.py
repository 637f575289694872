r"""The command line: a table of names, so that torch loads only when a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from inspect import cleandoc
from typing import Any

from geomem import __version__
from geomem.errors import GeomemError

COMMANDS = {
    "demo": ("cli.demo:DemoCommand", "the main job on real data, in about 3 minutes"),
    "sweep": ("cli.sweep:SweepCommand", "train on nested subsets, measure what each size lost"),
    "theory": ("cli.theory:COMMANDS", "what should happen: spectra, critical levels, retention"),
    "plan": ("cli.plan:PlanCommand", "how many images? predicted before any training"),
    "dimension": (
        "cli.dimension:DimensionCommand",
        "local dimension of a denoiser, with its error",
    ),
    "report": ("cli.report:ReportCommand", "redraw the page of a run from its records"),
    "split": ("cli.split:SplitCommand", "split a data set before training"),
    "cite": ("cli.cite:CiteCommand", "how to cite the paper and the software"),
}

EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    r"""Entry point of ``geomem``; leaves with the exit status."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    r"""Runs one command and returns its exit status.

    0 done; 1 a check failed; 2 bad input; 3 inconclusive; 130 interrupted, resumable.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"geomem {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        names = ", ".join(COMMANDS)
        print(f"geomem: no command {arguments[0]!r}; there are {names}", file=sys.stderr)
        return 2
    try:
        return _dispatch(arguments[0], arguments[1:])
    except GeomemError as error:
        print(f"geomem {arguments[0]}: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # the reader has seen enough, as in `geomem theory ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where it stopped", file=sys.stderr)
        return EXIT_INTERRUPTED


def usage() -> str:
    r"""What ``geomem --help`` prints."""
    lines = [f"  {name:9} {help_line}" for name, (_, help_line) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: geomem COMMAND [OPTIONS]",
            "",
            "Which directions of variation has a diffusion model lost to memorization,",
            "at which noise level, from how much data?",
            "",
            *lines,
            "",
            "geomem COMMAND --help lists the options of a command.",
        ]
    )


def _dispatch(name: str, rest: list[str]) -> int:
    command = load_command(COMMANDS[name][0])
    import tyro

    command = getattr(command, "form_of", lambda rest: command)(rest)

    if isinstance(command, dict):
        chosen = tyro.extras.subcommand_cli_from_dict(command, prog=f"geomem {name}", args=rest)
    else:
        chosen = tyro.cli(
            command, args=rest, prog=f"geomem {name}", description=cleandoc(command.__doc__ or "")
        )
    result = chosen.run()
    return result if isinstance(result, int) else 0


def load_command(where: str) -> Any:
    r"""The class of a command, or its subcommands by name, from ``module:name``."""
    module, _, name = where.partition(":")
    return getattr(import_module(f"geomem.{module}"), name)


if __name__ == "__main__":
    main()
