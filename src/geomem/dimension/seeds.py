r"""Methods that draw, and the seeds of what they draw: one for each unit of work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from geomem.arguments import checked
from geomem.stats import seed_sequence


def has_seed(method: Any) -> bool:
    r"""Whether a method, or a method inside, is a dataclass with a field ``seed``.

    Example:
        >>> from geomem.dimension import FLIPD, Threshold
        >>> has_seed(Threshold()), has_seed(FLIPD())
        (False, True)
    """
    if not dataclasses.is_dataclass(method) or isinstance(method, type):
        return False
    fields = [f for f in dataclasses.fields(method) if f.init]
    return any(f.name == "seed" or has_seed(getattr(method, f.name)) for f in fields)


@checked
def reseeded(method: Any, seed: int) -> Any:
    r"""The method with another seed, also where it belongs to the method inside.

    Example:
        >>> from geomem.dimension import SoftCount
        >>> from geomem.spectra import LanczosQuadrature
        >>> reseeded(SoftCount(LanczosQuadrature(depth=4, probes=2)), 7).spectrum.seed
        7
    """
    return _with_seeds(method, lambda own: seed) if has_seed(method) else method


def seeded_for(method: Any, seed: int, purpose: str, unit: int) -> Any:
    r"""The method as it draws for one unit of work, independently of every other.

    Methods that draw the same probes at all points make the same error at all of them, which
    no spread over points shows. A method without a seed stays what it is.
    """

    def of_unit(own: int | None) -> int:
        sequence = seed_sequence(own or 0, f"{purpose}, seed {seed}", unit)
        return int(sequence.generate_state(1)[0])

    return _with_seeds(method, of_unit) if has_seed(method) else method


def _with_seeds(method: Any, new: Callable[[Any], int]) -> Any:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(method):
        inner = getattr(method, field.name, None)
        if field.init and field.name == "seed":
            changes["seed"] = new(inner)
        elif field.init and has_seed(inner):
            changes[field.name] = _with_seeds(inner, new)
    return dataclasses.replace(method, **changes)
