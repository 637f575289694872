r"""Options that commands share, and what becomes of the names of parameters in errors."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields
from functools import partial
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import tyro

from geomem.arguments import Whole, checked
from geomem.compute.devices import pace
from geomem.compute.executor import Executor
from geomem.compute.local import LocalExecutor
from geomem.compute.progress import say
from geomem.compute.ranks import Ranks, leads
from geomem.compute.ray import RayExecutor
from geomem.data.images import ImageData
from geomem.errors import InputError


@checked
@dataclass(frozen=True)
class ComputeOptions:
    r"""Who works, and where."""

    processes: Annotated[int, Whole(least=1)] | None = None
    """How many work at a time; one a core if not given."""
    executor: Literal["local", "ray"] = "local"
    """Processes of this machine, or workers of Ray (`pip install geomem[ray]`)."""
    address: str | None = None
    """The Ray cluster to join (host:6379, auto, ray://host:10001); a session here if not given."""
    device: str = "cpu"
    """Where networks are trained and measured, for example cuda."""

    def build(self) -> Executor:
        r"""The executor."""
        if self.address is not None and self.executor != "ray":
            raise InputError("`address` is where a Ray cluster is; pass `executor` ray, too")
        if (ranks := leads()) is not None:
            return self._one_of(ranks)
        if self.executor == "local":
            return LocalExecutor(self.processes)
        return RayExecutor(self.processes, self.address, float(self.device.startswith("cuda")))

    def _one_of(self, ranks: Ranks) -> Executor:
        # One training at a time, on all ranks.
        started = f"a launcher started {ranks.count} ranks, which train each network together"
        if self.executor == "ray":
            raise InputError(f"{started}: leave `executor` ray out, or start one process")
        if self.processes not in (None, 1):
            raise InputError(f"{started}: leave `processes` out, or start one process")
        return LocalExecutor(1)

    @property
    def pace(self) -> int:
        r"""How many units advance at a time as if each of them were alone."""
        return pace(self.build(), self.device)


def values_of(*groups: Any) -> dict[str, Any]:
    r"""The options of several groups by name: what a config is made of."""
    return {f.name: getattr(group, f.name) for group in groups for f in fields(group)}


def as_options(message: str, command: Any) -> str:
    r"""A library's error as a command says it: parameters in backticks become options.

    Arguments:
        message: What the library says, such as "`steps` is 0; pass ...".
        command: The class of the command, or its subcommands by name.
    """
    names = {f.name for cls in _classes(command) for f in fields(cls)}

    def option(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"--{name.replace('_', '-')}" if name in names else match.group(0)

    return re.sub(r"`([a-z][a-z_]*)`", option, message)


def _classes(command: Any) -> Iterator[Any]:
    # The class of a command, or those of its subcommands, and of the groups of their options.
    waiting = list(command.values()) if isinstance(command, dict) else [command]
    while waiting:
        cls = waiting.pop()
        if dataclasses.is_dataclass(cls):
            yield cls
            for hint in get_type_hints(cls, include_extras=False).values():
                waiting += [hint, *get_args(hint)]


def say_account(data: ImageData) -> None:
    r"""Says, on standard error, what of a folder was read and what was left out."""
    if data.account:
        say(f"{data.name}: {data.account}")


def findings_of(run: Path) -> list[str]:
    r"""The findings that a run's summary holds."""
    import json

    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return [str(line) for line in summary["findings"]]


def parse(command: Any, prog: str, arguments: list[str], about: str = "") -> Any:
    r"""The command that the arguments describe.

    Arguments:
        command: A class, or subcommands by name.
        prog: What to call the program.
        arguments: The arguments.
        about: What it does, where Python was told to drop docstrings (``python -OO``).

    Raises:
        InputError: If an option has a value that it cannot have.
        SystemExit: After help, or what the parser says of arguments that it does not know;
            both are wrapped to the terminal.
    """
    if os.environ.get("NO_COLOR"):
        os.environ["TERM"] = "dumb"
    for cls in _classes(command):
        if (cls.__doc__ or "").startswith(f"{cls.__name__}("):  # what dataclasses put there instead
            cls.__doc__ = ""
    said, shown = io.StringIO(), io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(shown):
            if isinstance(command, dict):
                return tyro.extras.subcommand_cli_from_dict(command, prog=prog, args=arguments)
            description = cleandoc(command.__doc__ or about or prog)
            return tyro.cli(command, args=arguments, prog=prog, description=description)
    except SystemExit as stop:
        error: BaseException | None = stop
        while error is not None and not isinstance(error, InputError):
            error = error.__cause__ or error.__context__
        if isinstance(error, InputError):
            raise error from None
        columns = shutil.get_terminal_size().columns
        for text, stream in ((shown, sys.stdout), (said, sys.stderr)):
            stream.write(wrapped(re.sub(r"\n{3,}", "\n\n", text.getvalue()), columns))
        raise


def wrapped(text: str, columns: int) -> str:
    r"""A text whose lines are no longer than the terminal is wide, wrapped at spaces.

    Example:
        >>> print(wrapped("how many\n  images would it take", 16), end="")
        how many
          images would
          it take
    """
    lines = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()))
        wrap = partial(textwrap.wrap, subsequent_indent=indent, break_on_hyphens=False)
        short = len(line) <= columns
        lines += [line] if short else wrap(line, columns, break_long_words=False)
    return "".join(f"{line}\n" for line in lines)
