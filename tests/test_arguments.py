r"""Arguments: what is declared is what is accepted, and each refusal names its parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.arguments import Number, Text, Values, Whole, check, checked
from geomem.errors import InputError


@checked
@dataclass(frozen=True)
class Settings:
    steps: Annotated[int, Whole(least=1)] = 10
    rate: Annotated[float, Number(above=0.0, most=1.0)] = 0.5
    sizes: tuple[Annotated[int, Whole(least=2)] | Literal["all"], ...] = (32, "all")
    where: Path | None = None
    name: Annotated[str, Text()] = "x"
    flag: bool = False


@checked
@dataclass(frozen=True)
class More(Settings):
    top: Annotated[float, Number(infinite=True)] = float("inf")


@checked
def level(x: Annotated[Tensor, Values(shape="(B, 2)", least=0.0)], mode: Literal["a", "b"]) -> Any:
    return x


GOOD: list[tuple[str, Any, Any]] = [
    ("steps", np.int64(3), 3),
    ("steps", torch.tensor(4), 4),
    ("rate", 1, 1.0),
    ("rate", np.float32(0.5), 0.5),
    ("sizes", [4, "all"], (4, "all")),
    ("where", "a/b", Path("a/b")),
    ("where", None, None),
    ("top", float("inf"), float("inf")),
]
BAD: list[tuple[str, Any]] = [
    *(("steps", v) for v in (0, -1, 1.0, 32.9, True, "3", None, [1])),
    *(("rate", v) for v in (0.0, 1.1, float("nan"), float("inf"), "0.5", None, True)),
    *(("sizes", v) for v in (3, "all", (1,), (32.9,), ("alle",), (None,))),
    *(("where", v) for v in (3, "")),
    *(("name", v) for v in ("", "  ", 3, None)),
    *(("flag", v) for v in (1, "yes", None)),
    ("top", float("nan")),
]


@pytest.mark.parametrize(("name", "value", "taken"), GOOD)
def test_what_can_be_taken_as_meant_is_taken(name: str, value: Any, taken: Any) -> None:
    found = getattr(More(**{name: value}), name)
    assert found == taken
    assert type(found) is type(taken)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_anything_else_is_refused_by_the_name_of_the_parameter(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^`{name}` .*; pass|^`{name}` .*; did you mean"):
        More(**{name: value})


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(InputError, match="did you mean 'all'"):
        Settings(sizes=("al",))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.ones(3, 3), "shape"),
        (torch.ones(2), "shape"),
        (torch.ones(0, 2), "shape"),
        (-torch.ones(1, 2), "from 0"),
        (torch.tensor([[float("nan"), 0.0]]), "NaN"),
        (torch.tensor([[float("inf"), 0.0]]), "infinity"),
        ("text", "pass numbers"),
        (torch.ones(1, 2, dtype=torch.complex64), "real numbers"),
    ],
)
def test_arrays_are_looked_at(x: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        level(x, "a")


def test_lists_and_integers_become_tensors() -> None:
    assert level([[1, 2]], "a").dtype == torch.get_default_dtype()  # type: ignore[arg-type]
    assert level(np.ones((3, 2)), "b").dtype == torch.float64  # type: ignore[arg-type]


def test_a_number_stays_a_number_where_it_may() -> None:
    # As a tensor it would be rounded to float32.
    assert check("sigma", 0.3, Tensor | float) == 0.3
    assert isinstance(check("sigma", 0.3, Tensor | float), float)
    assert isinstance(check("sigma", [0.3], Tensor | float), Tensor)


class Answering(Protocol):
    def answer(self, x: int) -> int: ...


class Mine:
    def answer(self, x: int) -> int:
        return x


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (Tensor, [torch.zeros(2), [1.0, 2.0], 3], ["x", [[1.0], [2.0, 3.0]], torch.ones(2) * 1j]),
        (Mine, [Mine()], [Mine, None, 3]),
        (Answering, [Mine()], [Mine, "x", torch.zeros(2)]),
        (Callable[[int], int], [abs, Mine], [3, "x"]),
        (Sequence[Mine], [[Mine()], (Mine(),), []], [Mine(), [3], "x", np.ones(3), torch.ones(())]),
        (Sequence[float], [[1, 0.5], np.ones(3), ()], [[math.nan], np.array(["a"]), 3, "12"]),
        (float, [1, np.float32(2)], [10**400, -math.inf, None]),
        (Any, [None, object(), "x"], []),
    ],
)
def test_what_an_annotation_takes(annotation: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        check("x", value, annotation)
    for value in bad:
        with pytest.raises(InputError, match="`x`"):
            check("x", value, annotation)
