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
from typing import Annotated, Any

from geomem.arguments import Number, Text, Whole, checked
from geomem.compute.executor import Function, OnMessage, UnitQueue, attempt, ignore
from geomem.compute.threads import num_cores, one_thread
from geomem.errors import GeomemError, InputError


@checked
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

    processes: Annotated[int | None, Whole(least=1)] = None
    address: Annotated[str | None, Text()] = None
    gpus: Annotated[float, Number(least=0)] = 0.0
    tries: Annotated[int, Whole(least=1)] = 3

    @property
    def here(self) -> bool:
        return self.address is None

    def workers(self) -> int:
        r"""How many units are done at a time; joins or starts Ray to know it."""
        processors = max(1, int(self._session().cluster_resources().get("CPU", 1)))
        return min(self.processes or processors, processors)

    def run(
        self, function: Function, units: Sequence[Any], *, on_message: OnMessage = ignore
    ) -> Iterator[tuple[Any, Any]]:
        r"""Runs the units: see :meth:`Executor.run`."""
        if not units:
            return
        ray, queue = self._session(), UnitQueue(units, self.tries)
        # Here lost units are handed out again, not there: so that they are counted.
        task = ray.remote(num_cpus=1, num_gpus=self.gpus, max_retries=0)(_on_ray)
        mailbox = ray.remote(num_cpus=0, max_restarts=-1)(Mailbox).remote()
        settings = {k: v for k, v in os.environ.items() if k.startswith("GEOMEM_")}
        place = (os.getcwd(), settings)
        running: dict[Any, int] = {}
        try:
            while queue.open:
                while queue.waiting and len(running) < (self.processes or len(units)):
                    index = queue.take()
                    running[task.remote(function, units[index], index, mailbox, place)] = index
                done, _ = ray.wait(list(running), timeout=0.2)
                with suppress(ray.exceptions.RayError):  # messages may be lost, work may not
                    for index, message in ray.get(mailbox.take.remote(), timeout=5):
                        on_message(units[index], message)
                for reference in done:
                    index = running.pop(reference)
                    outcome = _fetch(ray, reference)
                    if isinstance(outcome, str):
                        queue.retry(index, outcome)
                    else:
                        yield units[index], queue.finish(*outcome)
        finally:
            with suppress(Exception):  # the session itself may be what was lost
                for reference in running:
                    ray.cancel(reference, force=True)
                ray.kill(mailbox)

    def _session(self) -> Any:
        # Ray, once it is joined or started.
        if self.address is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            # A session of our own is for nobody else. Ray reads its mode when it is imported
            # and not again: a program that has imported it before has decided for itself, and
            # afterwards the token stays, since whoever starts another session needs one.
            if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
                os.environ["RAY_AUTH_MODE"] = "token"
        try:
            ray: Any = import_module("ray")
        except ImportError as error:
            raise InputError(
                "Ray is not installed; `pip install geomem[ray]`, or use LocalExecutor"
            ) from error
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        if ray.is_initialized():
            pass
        elif self.address is None:
            processors = self.processes or num_cores()
            ray.init("local", num_cpus=processors, include_dashboard=False, **quiet)
        else:
            _check_answers(self.address)
            try:
                ray.init(self.address, **quiet)
            except (Exception, SystemExit) as error:
                raise InputError(
                    f"the Ray cluster at {self.address} cannot be joined ({error}); if it asks "
                    "for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on its machines"
                ) from error
        if self.gpus > ray.cluster_resources().get("GPU", 0):
            raise InputError("Ray sees no GPU for a unit; pass `gpus` = 0, or use LocalExecutor")
        return ray


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
            "there, or leave `address` out"
        ) from error


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
