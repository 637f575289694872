r"""The command line: a table of names, so that torch loads only when a command needs it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from geomem import __version__
from geomem.compute.signals import signals_interrupt
from geomem.errors import GeomemError

COMMANDS = {
    "demo": ("cli.demo:DemoCommand", "the main job on real data, in about 3 minutes"),
    "sweep": ("cli.sweep:SweepCommand", "train on nested subsets, measure what each size lost"),
    "theory": ("cli.theory:COMMANDS", "what should happen: spectra, critical levels, retention"),
    "audit": ("cli.audit:AuditCommand", "a trained model and its images: a verdict, with reasons"),
    "plan": ("cli.plan:PlanCommand", "how many images? predicted before any training"),
    "dimension": (
        "cli.dimension:DimensionCommand",
        "local dimension of a denoiser, with its error",
    ),
    "spectrum": (
        "cli.spectrum:SpectrumCommand",
        "singular values as the paper draws them, and the theory",
    ),
    "reproduce": ("cli.reproduce:ReproduceCommand", "the paper's experiments, run and judged"),
    "compare": ("cli.compare:CompareCommand", "put runs side by side: what did a change change?"),
    "inspect": ("cli.inspect:InspectCommand", "what a trained model is, and whether it holds"),
    "export": ("cli.export:ExportCommand", "a network of a run as a folder of diffusers"),
    "report": ("cli.report:ReportCommand", "redraw the page of a run from its records"),
    "split": ("cli.split:SplitCommand", "split a data set before training"),
    "cite": ("cli.cite:CiteCommand", "how to cite the paper and the software"),
}

TRAIN = ("demo", "sweep", "plan", "reproduce")  # on all ranks, where a launcher started several

EXIT_FAULT, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> None:
    r"""Entry point of ``geomem``; leaves with the exit status."""
    with signals_interrupt():
        given = list(sys.argv[1:] if arguments is None else arguments)
        status = _run_on_ranks(given) if given[:1] and given[0] in TRAIN else run(given)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _quiet_stdout()
    sys.exit(status)


def _run_on_ranks(arguments: list[str]) -> int:
    from geomem.compute.ranks import num_ranks

    if num_ranks() == 1:
        return run(arguments)
    # Lost ranks are told of in sentences: torch adds a stack trace for each connection.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        from geomem.cli.ranks import run_on_ranks

        return run_on_ranks(lambda: run(arguments))
    except KeyboardInterrupt:  # before or after the command itself
        return EXIT_INTERRUPTED


def run(arguments: list[str]) -> int:
    r"""Runs one command and returns its exit status.

    0 done; 1 a check failed; 2 bad input; 3 inconclusive; 4 the verdict reached the gate of an
    audit; 130 interrupted, resumable.
    """
    _prepare_streams()
    name = arguments[0] if arguments else "help"
    try:
        if name in ("-h", "--help", "help"):
            print(usage())
            return 0
        if name in ("-V", "--version"):
            print(f"geomem {__version__}")
            return 0
        if name not in COMMANDS:
            return _refuse(_unknown(name))
        return _dispatch(name, arguments[1:])
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where it stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough, as in `geomem theory ... | head`
        _quiet_stdout()
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EBADF):
            return _fault(name, error)
        _quiet_stdout()
        return _refuse(f"geomem {name}: standard output cannot be written ({error.strerror})")
    except MemoryError:
        return _refuse(f"geomem {name}: memory ran out; pass fewer or smaller images, or points")
    except Exception as error:
        return _fault(name, error)


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
    from geomem.cli.options import as_options, parse

    try:
        if hasattr(command, "form_of"):
            command = command.form_of(rest)
        chosen = parse(command, f"geomem {name}", rest, COMMANDS[name][1])
        command = type(chosen)  # whose options errors speak of
        result = chosen.run()
    except GeomemError as error:
        print(f"geomem {name}: {as_options(str(error), command)}", file=sys.stderr)
        return error.exit_status
    return result if isinstance(result, int) else 0


def load_command(where: str) -> Any:
    r"""The class of a command, or its subcommands by name, from ``module:name``."""
    module, _, name = where.partition(":")
    return getattr(import_module(f"geomem.{module}"), name)


# -------------------------------------------------------------------------------- refusals


def _unknown(name: str) -> str:
    close = get_close_matches(name, COMMANDS, n=1)
    meant = f"did you mean {close[0]!r}? There" if close else "there"
    return f"geomem: no command {name!r}; {meant} are {', '.join(COMMANDS)}"


def _refuse(sentence: str) -> int:
    with suppress(OSError, ValueError):
        print(sentence, file=sys.stderr)
    return EXIT_INPUT


def _fault(name: str, error: Exception) -> int:
    # Not an answer to bad input but a fault of ours: said so, whole where it is asked for.
    if os.environ.get("GEOMEM_DEBUG"):
        raise error
    text = str(error).partition("\n")[0][:300]
    print(
        f"geomem {name}: a fault of geomem, {type(error).__name__}: {text}; set GEOMEM_DEBUG=1 to "
        "see where, and please report it",
        file=sys.stderr,
    )
    return EXIT_FAULT


def _prepare_streams() -> None:
    # What a terminal, a pipe or a log cannot show is shown as an escape, never an error.
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            with suppress(ValueError, OSError):
                reconfigure(errors="backslashreplace")
    if sys.stdout is None:  # closed by who started us
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _quiet_stdout() -> None:
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
