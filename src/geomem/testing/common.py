r"""What the checks share: a sentence for each failure, seeds, spreads, and global state."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from geomem.dimension import seeds
from geomem.dimension.seeds import has_seed as has_seed
from geomem.errors import InputError
from geomem.stats import Estimate

# An error is in the wrong by chance once in a million (normal), once in 10^3 (5 degrees).
BEYOND = 5.0


def require(condition: bool, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)


def reseeded(method: Any, seed: int) -> Any:
    # The method with another seed, also where it belongs to the spectrum method inside.
    require(has_seed(method), "randomness comes in by the signature: add a field `seed`")
    return seeds.reseeded(method, seed)


def check_spread(found: list[Estimate], what: str, rounding: float) -> None:
    # E[stderr²] is the variance whatever the number of probes, so their ratio is 1 but for
    # chance: over 30 seeds 13 % a side, and more where the distribution has tails.
    stated = np.array([e.stderr for e in found])
    if len(found) < 10 or np.isnan(stated).any():
        return
    spread, error = (
        float(np.std([e.value for e in found], ddof=1)),
        float(np.sqrt(np.mean(stated**2))),
    )
    if max(spread, error) <= rounding:
        return
    require(spread > rounding, f"{what} is the same for every seed, yet ± {error:.2g}: is it used?")
    said = f"{what} varies by {spread:.2g} over {len(found)} seeds and says ± {error:.2g}"
    require(error > 0.6 * spread, f"{said}: the error is too small")
    require(error < 3 * spread, f"{said}: the error is too large")


@contextmanager
def as_failures() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise AssertionError(str(error)) from error


@contextmanager
def nothing_changes(who: str) -> Iterator[None]:
    before = _global_state()
    yield
    changed = [name for name, value in _global_state().items() if not _equal(value, before[name])]
    require(not changed, f"{who} changes {', '.join(changed)} for everyone; keep it local")


def _global_state() -> dict[str, Any]:
    cuda: Any = torch.backends.cuda
    numpy_state: Any = np.random.get_state()
    return {
        "the number of threads": torch.get_num_threads(),
        "whether gradients are recorded": torch.is_grad_enabled(),
        "the default dtype": torch.get_default_dtype(),
        "torch's random state (draw from a generator of your own)": torch.get_rng_state(),
        "numpy's random state": numpy_state[1].copy(),
        "python's random state": random.getstate(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "the precision of float32 products": torch.get_float32_matmul_precision(),
        "the attention backends": (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled()),
    }


def _equal(a: Any, b: Any) -> bool:
    return bool(np.array_equal(np.asarray(a), np.asarray(b))) if hasattr(a, "shape") else a == b
