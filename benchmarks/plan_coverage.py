r"""How often the intervals of a plan hold the size that the population needs.

Run:  python benchmarks/plan_coverage.py [--data-sets R] [--out PATH]

Eight populations, light tails and heavy: of each, R data sets are drawn and planned with, at one
noise level, along all directions, for 50 and 90 % kept. The truth: what N points keep, averaged
over all sources of all R data sets (subsets of independent points are independent points), over
the population's posterior variance by quadrature. Sizes "found" must lie in their interval; of
"more than M" the lower end must be below the truth. About 10 minutes on one core for R = 16.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from side_by_side import versions

from geomem.compute.files import atomic_write_text
from geomem.compute.progress import Progress
from geomem.stats import Proportion
from geomem.theory.planning import FOUND, KEPT, MORE, needed_sizes, retention_of_subsets

Array = NDArray[np.float64]
THREE, FIVE = np.array([1.0, 0.4, 0.1]), np.array([1.0, 0.8, 0.5, 0.3, 0.1])
SQUARES = 4000  # quantiles of a scale or of a coordinate
NOISY = 4000  # points over which the population's variance is averaged


@dataclass(frozen=True)
class Population:
    r"""Independent coordinates, or Gaussian ones with a common random scale of the variance."""

    variances: Array
    sigma: float
    num_samples: int
    tails: str
    scale: Callable[[Array], Array] | None = None  # quantiles of the scale
    coordinate: Callable[[Array], Array] | None = None  # of a coordinate of variance 1

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        u, v = rng.uniform(size=(count, len(self.variances))), self.variances
        if self.coordinate is not None:
            return self.coordinate(u) * np.sqrt(v)
        scale = self.scale(rng.uniform(size=count)) if self.scale else np.ones(count)
        return np.asarray(stats.norm.ppf(u) * np.sqrt(scale[:, None] * v))

    def posterior_variance(self, rng: np.random.Generator) -> Array:
        r"""Its mean over noisy points along each coordinate, in units of the noise."""
        x = self.draw(NOISY, rng) + self.sigma * rng.standard_normal((NOISY, len(self.variances)))
        q, t = (np.arange(SQUARES) + 0.5) / SQUARES, self.sigma**2
        total = np.zeros(len(self.variances))
        for point in x:
            if self.coordinate is not None:
                y = self.coordinate(q)[:, None] * np.sqrt(self.variances)
                w = np.exp(-((y - point) ** 2) / (2 * t))
                w /= w.sum(0)
                total += (w * y**2).sum(0) - (w * y).sum(0) ** 2
                continue
            spread = (self.scale(q) if self.scale else np.ones(1))[:, None] * self.variances
            log_w = -(np.log(spread + t) + point**2 / (spread + t)).sum(1) / 2
            w, mean = np.exp(log_w - log_w.max()), spread / (spread + t) * point
            w /= w.sum()
            total += w @ (spread * t / (spread + t) + mean**2) - (w @ mean) ** 2
        return total / NOISY / t


def _lognormal(deviation: float) -> Callable[[Array], Array]:
    return lambda q: np.exp(deviation * stats.norm.ppf(q))


POPULATIONS = {
    "Gaussian, 3 dimensions": Population(THREE, 0.35, 400, "light"),
    "Gaussian, 5 dimensions": Population(FIVE, 0.6, 400, "light"),
    "uniform": Population(
        THREE, 0.3, 400, "light", coordinate=stats.uniform(-(3**0.5), 2 * 3**0.5).ppf
    ),
    "Laplace": Population(THREE, 0.35, 400, "light", coordinate=stats.laplace(scale=0.5**0.5).ppf),
    "scale mixture, exp(.6 z)": Population(THREE, 0.35, 400, "heavy", scale=_lognormal(0.6)),
    "scale mixture, exp(1.2 z)": Population(THREE, 0.35, 400, "heavy", scale=_lognormal(1.2)),
    "Student, 3 degrees": Population(
        THREE, 0.4, 400, "heavy", scale=lambda q: 1 / stats.gamma(1.5, scale=1 / 1.5).ppf(q)
    ),
    "scale mixture, 5 dimensions, M = 1,200": Population(
        FIVE, 0.5, 1200, "heavy", scale=_lognormal(0.6)
    ),
}


def judge(
    population: Population, data_sets: int, progress: Callable[[int], None]
) -> dict[str, Any]:
    r"""Plans with each data set, and counts intervals that hold the truth."""
    M, maps = population.num_samples, []
    for k in range(data_sets):
        data = population.draw(M, np.random.default_rng([2, k]))
        maps.append(
            retention_of_subsets(
                data, [population.sigma], np.geomspace(2, M, 16).round(),
                np.eye(len(population.variances)), seed=k,
            )
        )  # fmt: skip
        progress(k + 1)
    everything = population.posterior_variance(np.random.default_rng(3))
    kept = np.mean([(m.retention * m.control).values[0] for m in maps], axis=0) / everything
    sizes, out = maps[0].num_samples.values, {}
    for level in KEPT:
        holds, found, truths = [], [], []
        for direction, curve in enumerate(kept.T):
            # Beyond M the truth is only known to be there.
            truth = np.exp(np.interp(level, curve, np.log(sizes), right=np.inf))
            truths.append(truth if np.isfinite(truth) else None)
            for m in maps:
                cell = needed_sizes(m, level)[0][direction]
                assert cell.status in (FOUND, MORE)
                assert cell.low is not None
                holds.append(cell.low <= truth <= (cell.high or np.inf))
                found.append(cell.num_samples or np.inf)
        medians = np.median(np.reshape(found, (-1, data_sets)), axis=1)
        out[f"{level:g}"] = {
            "truth": truths,
            "median": [m if np.isfinite(m) else None for m in medians],
            "held": int(sum(holds)),
            "intervals": len(holds),
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-sets", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    progress, done, rows = Progress(len(POPULATIONS) * options.data_sets, "data sets"), 0, {}
    for name, population in POPULATIONS.items():
        rows[name] = judge(population, options.data_sets, lambda k, d=done: progress.update(d + k))
        done += options.data_sets
    progress.finish()
    held = {
        tails: [
            sum(e[key] for n, row in rows.items() for e in row.values() if
                POPULATIONS[n].tails == tails)
            for key in ("held", "intervals")
        ]
        for tails in ("light", "heavy")
    }  # fmt: skip
    document = {
        "command": f"python benchmarks/plan_coverage.py --data-sets {options.data_sets}",
        "versions": versions(),
        "data_sets": options.data_sets,
        "populations": rows,
        "held": held,
    }
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    atomic_write_text(options.out / "plan_coverage.json", text)
    for tails, (k, n) in held.items():
        print(f"{tails} tails: {Proportion(k, n)}")


if __name__ == "__main__":
    main()
