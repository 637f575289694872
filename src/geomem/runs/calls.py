r"""How often a measurement calls a denoiser, and how long a call takes: what forecasts rest on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from geomem.compute.devices import wait_for
from geomem.compute.threads import one_thread
from geomem.measure.bases import BLOCKS, DIRECTIONS
from geomem.measure.study import Study
from geomem.measure.trajectories import SIGNS

SAMPLE_CALLS = 36  # of Heun's method for one sample
PRODUCT_CALLS = 2.5  # that one product with a Jacobian costs


def measured_calls(study: Study, jacobians: int, samples: int, trajectories: int) -> float:
    r"""Calls at one noised point that a subject takes of which all this is asked.

    Arguments:
        study: Points, levels and directions.
        jacobians: Images of each kind at which the Jacobian is measured, one product a
            direction or band of directions.
        samples: Generated samples.
        trajectories: Trajectories that are followed.
    """
    points, levels = sum(map(len, study.images.values())), len(study.sigmas)
    products = min(2 * jacobians, points) * levels * len(study.directions.counts)
    errors = points * study.draws * levels
    followed = own_way(trajectories, levels, traced=jacobians > 0)
    return errors + PRODUCT_CALLS * products + samples * SAMPLE_CALLS + followed


def own_way(count: int, levels: int, *, traced: bool) -> float:
    r"""Calls along trajectories: two a step of the sampler, which also stops at each level.

    There traces are taken, if asked for, and denoised points; those at noised images of both
    kinds, too.
    """
    traces = 2 * PRODUCT_CALLS * SIGNS * traced
    return float(count) * (SAMPLE_CALLS + levels * (2 + traces + 3))


def model_calls(plan: Mapping[str, Any], products: int, bases: int) -> float:
    r"""Calls at one noised point that an audit's plan asks of its model.

    Arguments:
        plan: Points of either kind, draws, levels, samples, trajectories, Jacobian points.
        products: How many products one Jacobian's diagonal takes.
        bases: At how many images of either kind tangent bases are found.
    """
    levels, jacobians = plan["levels"], plan["jacobian_points"]
    errors = 2.0 * plan["points"] * plan["draws"] * levels
    diagonals = 2.0 * jacobians * levels * 2 * PRODUCT_CALLS * products
    samples = plan["samples"] * SAMPLE_CALLS
    followed = own_way(plan["trajectories"], levels, traced=jacobians > 0)
    return float(errors + diagonals + samples + followed) + basis_calls(bases)


def basis_calls(images: int) -> float:
    r"""Calls for tangent bases at so many images of either kind, at three levels.

    A block is one product and one with the transpose for each of its vectors.
    """
    vectors = BLOCKS * (DIRECTIONS + 8)
    return 2.0 * images * 3 * vectors * 3 * PRODUCT_CALLS


def timed(action: Callable[[], Any], device: str = "cpu") -> float:
    r"""Seconds that an action takes on one thread of this machine.

    The mean of 50 times, or of as many as fit between a tenth and half a second; of two at least.

    Arguments:
        action: What is timed; once before, since first calls load and allocate.
        device: Where it computes, and is waited for.
    """
    with one_thread():
        action()
        wait_for(device)
        start, count, spent = time.perf_counter(), 0, 0.0
        while count < 2 or spent < (0.5 if count < 50 else 0.1):
            action()
            wait_for(device)
            count += 1
            spent = time.perf_counter() - start
    return spent / count
