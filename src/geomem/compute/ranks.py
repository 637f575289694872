r"""Ranks: processes that a launcher started to do one thing together.

``accelerate launch`` and ``torchrun`` start a command several times and tell each process by its
environment which one it is. Rank 0 does what the command says. The others have no will of their
own: they wait for orders, do their share, and end as rank 0 ends.

Orders, and how it all ends, go through a key-value store that torch's launchers keep, or rank 0
does; so a rank may wait for hours without a collective call that would run out of time. Nobody
waits for a process that is gone: a collective call whose peer has died fails, launchers end the
rest, and where neither happens a thread looks at the store and ends its process.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from typing import Any

from geomem.compute.devices import check_device
from geomem.compute.progress import say
from geomem.errors import GeomemError, InputError

WAIT = 0.02  # seconds between two looks for an order
MEETING = 300.0  # seconds that ranks have to come
GOODBYE = 2.0  # seconds in which a process that ends says why
PATIENCE = 10.0  # seconds to end by itself, for a process that has no other to work with
FOREVER = timedelta(days=365)  # rank 0 may measure for days between two steps
AGAIN = "the same command goes on where it stopped"
PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def num_ranks() -> int:
    r"""How many ranks a launcher has started, by the environment; 1 where none has."""
    values = [os.environ.get(name, "") for name in PLACE]
    known = all(values) and all(values[k].isdigit() for k in (0, 1, 2, 4))
    return max(1, int(values[1])) if known else 1


class Ended(Exception):  # noqa: N818  (the usual end of a rank)
    r"""Rank 0 has ended, with an exit status; it is None if it is gone without one."""

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class Ranks:
    r"""This process among all ranks.

    Attributes:
        rank: Its number.
        count: How many there are.
        local: Its number on this machine, which is that of its accelerator.
    """

    rank: int
    count: int
    local: int
    _store: Any = field(repr=False)
    _orders: int = 0
    _joined: bool = False
    _over: threading.Event = field(default_factory=threading.Event, repr=False)

    @classmethod
    def meet(cls) -> Ranks:
        r"""Finds the other ranks.

        Raises:
            GeomemError: If they do not come.
        """
        # Every rank computes on one thread, as workers do.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        rank, count, local = (int(os.environ[name]) for name in PLACE[:3])
        try:
            ranks = cls(rank, count, local, _connect(rank))
            ranks._store.add("met", 1)
            watched = threading.Thread(target=ranks._watch, args=(_connect(-1),), daemon=True)
            watched.start()
        except RuntimeError as error:
            raise GeomemError(
                f"this is rank {rank} of {count} by the environment, and the others do not answer; "
                "start all with accelerate launch or torchrun, or unset RANK and WORLD_SIZE"
            ) from error
        return ranks

    # -------------------------------------------------------------------------- of rank 0

    def order(self, device: str, content: Any) -> None:
        r"""Tells the other ranks what to do, and waits until all have it.

        Arguments:
            device: Where everyone computes: cpu, or an accelerator without a number.
            content: What is to be done; it can be pickled.

        Raises:
            InputError: If a rank has no such device.
            GeomemError: If a rank is lost.
        """
        self._store.set(f"order-{self._orders}", device)
        self._orders += 1
        if not self._joined:
            began = time.monotonic()
            while self._store.add("ready", 0) < self.count - 1:
                if why := self.failure():
                    raise InputError(why)
                if time.monotonic() - began > MEETING:
                    raise GeomemError(
                        f"{self._store.add('met', 0)} of {self.count} ranks have come; start all "
                        "with accelerate launch or torchrun, or unset RANK and WORLD_SIZE"
                    )
                time.sleep(WAIT)
            self._join(device)
        self._shared(content)

    def failure(self, patience: float = 0.0) -> str:
        r"""What a rank that has failed said; empty if none has."""
        end = time.monotonic() + patience
        with suppress(RuntimeError):
            while not (there := self._store.check(["failed"])) and time.monotonic() < end:
                time.sleep(WAIT)
            if there:
                return str(self._store.get("failed").decode())
        return ""

    def end(self, status: int) -> None:
        r"""Tells the other ranks how rank 0 ends."""
        self._over.set()
        with suppress(RuntimeError):
            self._store.set("end", str(status))
            self._part(clean=status == 0)
            # Where this process keeps the store the others must have read it before it goes.
            end = time.monotonic() + (0.0 if _is_launched() else GOODBYE)
            while time.monotonic() < end:
                if self._store.add("left", 0) >= self._store.add("met", 0) - 1:
                    break
                time.sleep(WAIT)

    # ---------------------------------------------------------------------- of the others

    def orders(self) -> Iterator[tuple[str, Any]]:
        r"""What rank 0 wants done: the device of this rank, and the content of the order.

        Raises:
            Ended: Once rank 0 has ended.
            InputError: If this rank has no such device.
        """
        while True:
            device = self._own(self._next())
            if not self._joined:
                check_device(device)
                self._store.add("ready", 1)
                self._join(device)
            yield device, self._shared(None)

    def fail(self, why: str) -> None:
        r"""Tells rank 0 that this rank cannot go on."""
        with suppress(RuntimeError):
            self._store.set("failed", f"rank {self.rank} failed: {why}")

    def leave(self) -> None:
        r"""Says good-bye to rank 0, which has ended."""
        self._over.set()
        with suppress(RuntimeError):
            self._part(clean=True)
            self._store.add("left", 1)

    def ended(self, patience: float) -> int | None:
        r"""The exit status of rank 0, if it has ended or does so soon."""
        end = time.monotonic() + patience
        with suppress(RuntimeError):
            while not (there := self._store.check(["end"])) and time.monotonic() < end:
                time.sleep(WAIT)
            if there:
                return int(self._store.get("end"))
        return None

    def _next(self) -> str:
        key = f"order-{self._orders}"
        try:
            while not self._store.check([key]):
                if self._store.check(["end"]):
                    raise Ended(int(self._store.get("end")))
                time.sleep(WAIT)
            self._orders += 1
            return str(self._store.get(key).decode())
        except RuntimeError as error:  # the store went with rank 0, or with the launcher
            raise Ended(None) from error

    def _own(self, device: str) -> str:
        return device if device == "cpu" else f"{device}:{self.local}"

    # ------------------------------------------------------------------------- of all

    def add(self, tensors: Sequence[Any]) -> None:
        r"""Sums tensors of one dtype over all ranks, in place: the same sums, bit for bit, on each.

        Raises:
            GeomemError: If a rank is lost.
        """
        import torch

        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with self._together():
            torch.distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def _shared(self, content: Any) -> Any:
        # What rank 0 has, on all.
        import torch

        box = [content]
        with self._together():
            torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    @contextmanager
    def _together(self) -> Iterator[None]:
        # Collective calls fail without a reason where a rank is lost.
        try:
            yield
        except RuntimeError as error:
            if self.rank:
                raise Ended(self.ended(GOODBYE)) from error
            why = self.failure(GOODBYE) or "a rank was lost (killed, or out of memory)"
            raise GeomemError(f"{why}; {AGAIN}") from error

    def _join(self, device: str) -> None:
        from accelerate import PartialState

        distributed: Any = import_module("torch.distributed")
        if not distributed.is_initialized():  # what this process was when it was alone
            PartialState._reset_state()
        with self._together():
            PartialState(
                cpu=device == "cpu",
                store=distributed.PrefixStore("group", self._store),
                rank=self.rank,
                world_size=self.count,
                timeout=FOREVER,
            )
        self._joined = True

    def _part(self, *, clean: bool) -> None:
        # A group of an accelerator may wait for calls that nobody answers.
        import torch

        if self._joined and (clean or torch.distributed.get_backend() == "gloo"):
            torch.distributed.destroy_process_group()
            import_module("accelerate").PartialState._reset_state()
        self._joined = False

    def _watch(self, store: Any) -> None:
        # For a process that waits in a call which cannot be interrupted.
        status = 1
        with suppress(RuntimeError):
            while not store.check(["end" if self.rank else "failed"]):
                if self._over.wait(1.0):
                    return
            status = int(store.get("end")) if self.rank else 1
        if self._over.wait(PATIENCE):
            return
        if self.rank == 0:
            say(self.failure() or f"the launcher is gone; {AGAIN}")
        os._exit(status)


_leads: Ranks | None = None


def leads() -> Ranks | None:
    r"""The ranks that this process leads; None where it works alone."""
    return _leads


@contextmanager
def leading(ranks: Ranks) -> Iterator[None]:
    r"""Within, what is trained is trained on all ranks; Ctrl-C and SIGTERM interrupt once.

    A terminal interrupts ranks and launcher, and the launcher then ends its ranks: the second
    signal must not disturb what the first one began.
    """
    global _leads
    interrupted = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, interrupt) for number in numbers]
    _leads = ranks
    try:
        yield
    finally:
        _leads = None
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, signal.SIG_IGN if interrupted else handler)


@contextmanager
def following() -> Iterator[None]:
    r"""Within, rank 0 alone decides about Ctrl-C; a rank that is told to end, ends."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


def _is_launched() -> bool:
    # By a launcher that keeps the store; else rank 0 does.
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _connect(rank: int) -> Any:
    distributed: Any = import_module("torch.distributed")
    return distributed.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        int(os.environ["WORLD_SIZE"]),
        is_master=rank == 0 and not _is_launched(),
        timeout=timedelta(seconds=MEETING),
        wait_for_workers=False,
        multi_tenant=True,
    )
