r"""How often a measurement calls a denoiser: what forecasts of time rest on."""

from __future__ import annotations

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
