r"""Where numbers go. The services are imitated by what they are called with: none is installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest

from geomem.errors import InputError
from geomem.monitor.loggers import writer_of

NUMBERS = {"geomem/p_value": 0.5, "geomem/warning": 0.0}


class Calls:
    r"""Remembers how it was called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []


class Run(Calls):
    r"""As a run of wandb or trackio, or accelerate's Accelerator."""

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self.calls.append((step, values))


class Writer(Calls):
    r"""As TensorBoard's SummaryWriter."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        self.calls.append((global_step, tag, scalar_value))

    def flush(self) -> None:
        self.calls.append("flushed")


class Metrics(Calls):
    r"""As a logger of Lightning."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.calls.append((step, metrics))


@pytest.mark.parametrize("target", [Run(), Metrics()])
def test_a_logger_gets_all_numbers_at_once(target: Any) -> None:
    writer_of(target)(NUMBERS, 7)
    assert target.calls == [(7, NUMBERS)]


def test_tensorboard_gets_them_one_by_one() -> None:
    target = Writer()
    writer_of(target)(NUMBERS, 7)
    assert target.calls == [*((7, name, value) for name, value in NUMBERS.items()), "flushed"]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_services_are_imported_when_they_are_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, calls = ModuleType(name), []
    module.log = lambda values, step=None: calls.append((step, values))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    writer_of(name)(NUMBERS, 3)
    assert calls == [(3, NUMBERS)]


def test_what_is_not_installed_or_no_logger_is_said() -> None:
    for target, words in (
        ("wandb", "wandb, which is not installed"),
        ("tensorboard:logs", "tensorboard, which is not installed"),
        ("comet", "names 'comet'; pass tensorboard:FOLDER"),
        (3, "is a int; pass an object"),
    ):
        if isinstance(target, str) and find_spec(target.partition(":")[0]):
            continue
        with pytest.raises(InputError, match=words):
            writer_of(target)
