r"""Workers of Ray: on this machine, or on the machines of a cluster."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from geomem.compute.executor import Agenda, Function, Hear, attempt, check_counts, ignore
from geomem.compute.threads import num_cores, one_thread
from geomem.errors import GeomemError, InputError


@dataclass(frozen=True)
class RayExecutor:
    r"""Workers of Ray: on this machine, or on the machines of a cluster that is joined.

    A session of Ray that is there already is used. Else one is started on this machine, and
    lives until this process ends, so that a second run starts at once. Such a session
    **listens on all network interfaces**, whatever it is asked; from Ray 2.52 on it talks
    only to who knows a random token (``RAY_AUTH_TOKEN`` in this process's environment). Its
    dashboard and its usage reports are off.

    On a cluster every machine needs geomem in this version, and the files that units read
    and write under the paths that they have here.

    Arguments:
        processes: How many units at a time; as many as Ray has processors if not given.
        address: The cluster to join (``host:6379``, ``auto``, ``ray://host:10001``); a session
            on this machine if not given.
        gpus: The GPUs that a unit needs; Ray hides them from units that need none.
        tries: How often a unit is begun whose worker is lost.

    Raises:
        InputError: If there are no processes or no tries, and, once it runs, if Ray is not
            installed or no cluster answers.
    """

    processes: int | None = None
    address: str | None = None
    gpus: float = 0.0
    tries: int = 3

    def __post_init__(self) -> None:
        check_counts(self.processes, self.tries)

    @property
    def here(self) -> bool:
        return self.address is None

    def workers(self) -> int:
        r"""How many units are done at a time; joins or starts Ray to know it."""
        processors = max(1, int(self._joined().cluster_resources().get("CPU", 1)))
        return min(self.processes or processors, processors)

    def run(
        self, function: Function, units: Sequence[Any], *, on_message: Hear = ignore
    ) -> Iterator[tuple[Any, Any]]:
        r"""Runs the units: see :meth:`Executor.run`."""
        if not units:
            return
        ray, agenda = self._joined(), Agenda(units, self.tries)
        # Here lost units are handed out again, not there: so that they are counted.
        task = ray.remote(num_cpus=1, num_gpus=self.gpus, max_retries=0)(_on_ray)
        mailbox = ray.remote(num_cpus=0, max_restarts=-1)(Mailbox).remote()
        running: dict[Any, int] = {}
        try:
            while agenda.open:
                while agenda.waiting and len(running) < (self.processes or len(units)):
                    index = agenda.begin()
                    place = (os.getcwd(), _settings())
                    running[task.remote(function, units[index], index, mailbox, place)] = index
                done, _ = ray.wait(list(running), timeout=0.2)
                _pass_on(ray, mailbox, units, on_message)
                for reference in done:
                    index = running.pop(reference)
                    outcome = _fetch(ray, reference)
                    if isinstance(outcome, str):
                        agenda.lost(index, outcome)
                    else:
                        yield units[index], agenda.end(*outcome)
        finally:
            _stop(ray, list(running), mailbox)

    def _joined(self) -> Any:
        if self.address is None:
            _keep_private()
        ray = _import_ray()
        if not ray.is_initialized():
            self._join(ray)
        if self.gpus > ray.cluster_resources().get("GPU", 0):
            raise InputError("Ray sees no GPU for a unit; use --device cpu, or --executor local")
        return ray

    def _join(self, ray: Any) -> None:
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address is None:
            processors = self.processes or num_cores()
            ray.init("local", num_cpus=processors, include_dashboard=False, **quiet)
            return
        _check_answers(self.address)
        try:
            ray.init(self.address, **quiet)
        except (Exception, SystemExit) as error:
            raise InputError(
                f"the Ray cluster at {self.address} cannot be joined ({error}); if it asks for a "
                "token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on its machines"
            ) from error


def _import_ray() -> Any:
    try:
        return import_module("ray")
    except ImportError as error:
        raise InputError(
            "Ray is not installed; `pip install geomem[ray]`, or use --executor local"
        ) from error


def _keep_private() -> None:
    # A session of our own is for nobody else. Ray reads its mode when it is imported and not
    # again: a program that has imported it before has decided for itself, and afterwards the
    # token stays, since whoever starts another session here needs one.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ["RAY_AUTH_MODE"] = "token"


def _check_answers(address: str) -> None:
    # Ray itself asks for minutes and then ends the process.
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return  # "auto", or what Ray alone understands
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({error}); start one with `ray start --head` "
            "there, or leave --address out"
        ) from error


def _settings() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k.startswith("GEOMEM_")}


def _fetch(ray: Any, reference: Any) -> tuple[bool, Any] | str:
    # What a unit came to, or why its worker was lost.
    errors = ray.exceptions
    try:
        outcome: tuple[bool, Any] = ray.get(reference)
    except errors.RayTaskError as error:  # not the unit's: those are caught beside it
        raise GeomemError(
            "a Ray worker cannot do this work; is the same geomem installed on every machine? "
            f"It says: {str(error.cause).strip()}"
        ) from error
    except errors.RayError as error:
        return type(error).__name__
    return outcome


def _pass_on(ray: Any, mailbox: Any, units: Sequence[Any], on_message: Hear) -> None:
    try:
        messages = ray.get(mailbox.take.remote(), timeout=5)
    except ray.exceptions.RayError:  # progress may be lost with its machine, work may not
        return
    for index, message in messages:
        on_message(units[index], message)


def _stop(ray: Any, running: list[Any], mailbox: Any) -> None:
    with suppress(Exception):  # the session itself may be what was lost
        for reference in running:
            ray.cancel(reference, force=True)
        ray.kill(mailbox)


class Mailbox:
    r"""Where Ray's workers leave what they report."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, Any]] = []

    def put(self, index: int, message: Any) -> None:
        r"""Leaves a message about a unit."""
        self.messages.append((index, message))

    def take(self) -> list[tuple[int, Any]]:
        r"""All messages since the last time."""
        messages, self.messages = self.messages, []
        return messages


def _on_ray(
    function: Function, unit: Any, index: int, mailbox: Any, place: tuple[str, dict[str, str]]
) -> tuple[bool, Any]:
    ray: Any = import_module("ray")
    sent: list[Any] = []

    def report(message: Any) -> None:
        sent[:] = [mailbox.put.remote(index, message)]

    with one_thread():
        outcome = attempt(partial(_in_place, function, place), unit, report)
    with suppress(ray.exceptions.RayError):
        ray.get(sent, timeout=5)  # what was reported arrives before the result does
    return outcome


def _in_place(
    function: Function,
    place: tuple[str, dict[str, str]],
    unit: Any,
    report: Callable[[Any], None],
) -> Any:
    folder, settings = place
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(
            f"{folder} is not there on {socket.gethostname()}; Ray's machines need a file system "
            "that they share, with the run folder and the data under the same paths"
        ) from error
    os.environ.update(settings)
    return function(unit, report)
