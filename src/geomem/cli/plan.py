r"""``geomem plan``: how many images would it take, predicted before any training."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import FlagCreatePairsOff

from geomem import __version__
from geomem.cli.output import plain, print_table
from geomem.compute.files import atomic_write_text
from geomem.compute.progress import Forecast, Progress, format_seconds, say
from geomem.errors import InputError
from geomem.runs.design import LINEAR_NAMES, Source, default_window, load_source
from geomem.show.page.plan import cell, findings, plan_page, size_text
from geomem.theory.collapse import collapse_sigma
from geomem.theory.data_prior import ENOUGH
from geomem.theory.duplicates import near_duplicates, without_copies
from geomem.theory.moments import Array
from geomem.theory.planning import (
    BLOCKS,
    KEPT,
    LARGEST,
    collapse_levels,
    gaussian_guide,
    needed_sizes,
    retention_of_subsets,
)

SCHEMA_VERSION = 1
GRID = 16  # sizes between which N is interpolated
WIDEST = 4096  # dimensions up to which the guide is integrated; above, only its information
SIFTED = 16  # directions that near-duplicates are sifted by
LISTED = 1000  # pairs of near-duplicates in the JSON


@dataclass(frozen=True)
class PlanCommand:
    r"""How many images? Predicted from the images alone, before any training.

    For each principal direction and noise level: the number of images N at which a model that
    memorizes exactly, the worst case, would still keep 50 % and 90 % of it. Also the noise level
    at which a set of N images collapses, and near-duplicates. Writes plan.html and plan.json.

    Examples:

      geomem plan --data digits

      geomem plan --data photos/ --sizes 500 5000 50000 --out runs/photos-plan
    """

    data: str = "digits"
    """A name (digits, mnist, fashion-mnist, cifar10, olivetti), or PATH[:key]."""
    sizes: tuple[float, ...] = ()
    """Sizes N of which a table is made; by default 32, 100, 300 ... up to all images."""
    directions: int = 8
    """How many principal directions, from the highest variance on."""
    levels: int = 10
    """How many noise levels."""
    sigmas: tuple[float, ...] = ()
    """Noise levels instead, in units of the data's rms deviation."""
    sources: int = 128
    """To how many images noise is added; more make errors smaller."""
    seed: int = 0
    """Seed of the split, of these images and of the noise."""
    out: Path = Path("runs/plan")
    """The folder of plan.html and plan.json."""
    json: FlagCreatePairsOff[bool] = False
    """Print the JSON document instead of tables."""
    show_images: FlagCreatePairsOff[bool] = False
    """Show near-duplicates on the page: pixels of the data."""

    def run(self) -> int:
        r"""Plans, writes both files, prints what was found; returns the exit status."""
        started = time.monotonic()
        self._check()
        source = load_source(self.data, seed=self.seed)
        document = make_plan(source, self)
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        atomic_write_text(self.out / "plan.json", text)
        pictures = _pictures(source, document) if self.show_images else {}
        atomic_write_text(self.out / "plan.html", plan_page(document, pictures))
        if self.json:
            print(text, end="")
        else:
            _print(document)
        took = format_seconds(time.monotonic() - started)
        say(f"{self.out / 'plan.html'} and plan.json (after {took})")
        return 0

    def _check(self) -> None:
        if self.data in LINEAR_NAMES:
            raise InputError("the law of linear manifolds is known: use `geomem theory critical`")
        sizes, sigmas = np.array(self.sizes), np.array(self.sigmas)
        if not (np.isfinite(sizes).all() and (sizes >= 2).all() and (sizes <= LARGEST).all()):
            raise InputError(f"--sizes {_list(sizes)}: pass sizes N from 2 to 1e12")
        if (sizes != np.round(sizes)).any():
            raise InputError(f"--sizes {_list(sizes)}: pass whole numbers of images")
        if not (np.isfinite(sigmas).all() and (sigmas > 0).all()):
            raise InputError(f"--sigmas {_list(sigmas)}: pass noise levels above 0, in rms")
        for name, least in {"directions": 1, "levels": 2, "sources": BLOCKS, "seed": 0}.items():
            if getattr(self, name) < least:
                raise InputError(f"--{name} is {getattr(self, name)}; pass {least} or more")


def _list(values: Array) -> str:
    return " ".join(f"{v:g}" for v in values)


# ---------------------------------------------------------------------------------- the plan


def make_plan(source: Source, command: PlanCommand) -> dict[str, Any]:
    r"""The plan as one JSON document: a function of the images, the options and the seed.

    Raises:
        InputError: If there are too few images, or they do not fit into memory.
    """
    _check_source(source, command.directions)
    say("near-duplicates: every pair of images is compared")
    twins, different = _twins(source, command.seed)
    points = source.data.tensor(different).flatten(1).double().numpy()
    if len(points) < BLOCKS:
        raise InputError(
            f"of {len(source.split.pool)} images {len(points)} are different, too few to plan "
            f"with; {BLOCKS} are needed"
        )
    axes = source.directions.vectors[:, : command.directions].double().numpy().T
    variances = _variances(source)
    sigmas = _sigmas(source, command, variances)
    sizes = np.unique(command.sizes or _usual_sizes(len(points))).astype(float)
    map_ = _retention(points, sigmas, sizes, axes, command)
    guide = _guide(variances, sigmas, command.directions)
    within = map_.sel(num_samples=sizes[sizes <= len(points)])
    document: dict[str, Any] = _rounded(
        {
            "schema_version": SCHEMA_VERSION,
            "geomem": __version__,
            "predicts": "the exact denoiser of N images: a model that memorizes exactly",
            "relative_to": "the population, as the M different images of the pool extrapolate it",
            "data": _describe(source) | {"pool": len(points)},
            "seed": command.seed,
            "rms": source.rms,
            "window": list(default_window(source)),
            "sources": min(command.sources, len(points)),
            "enough_reference_points": ENOUGH,
            "sigmas": sigmas,
            "sigmas_relative": sigmas / source.rms,
            "direction_variances": variances[: command.directions],
            "reference_points": map_.reference_points.values,
            "control": map_.control.values,
            "information_gaussian": guide["information"],
            "sizes": within.num_samples.values,
            "retention": within.retention.values,
            "retention_stderr": within.retention_stderr.values,
            "participation": within.participation.values,
            "needed": _needed(map_, guide, source.rms),
            "collapse": [vars(c) for c in collapse_levels(map_, sizes.tolist(), variances)],
            "duplicates": twins,
        }
    )
    return document


def _check_source(source: Source, directions: int) -> None:
    pool, reserved = len(source.split.pool), len(source.split.reserved)
    if pool < BLOCKS or reserved < 8:
        raise InputError(
            f"{len(source.data)} images are too few to plan with: {pool} to draw sets from and "
            f"{reserved} for the principal directions, where {BLOCKS} and 8 are needed"
        )
    rank = source.directions.vectors.shape[1]
    if directions > rank:
        raise InputError(f"--directions is {directions}, and the images span {rank}; pass fewer")
    size = math.prod(source.data.item_shape) * 8.0
    forecast = Forecast(0, (2 * pool + len(source.data)) * size)
    forecast.check_memory("plan with fewer or smaller images")


def _variances(source: Source) -> Array:
    # Ledoit-Wolf variances of the reserved images, the linear control of a sweep.
    control = source.linear_control
    rest = np.full(control.complement, control.rest)
    return np.concatenate([control.variances.double().numpy(), rest])


def _sigmas(source: Source, command: PlanCommand, variances: Array) -> Array:
    if command.sigmas:
        return np.unique(command.sigmas) * source.rms
    # From where even M² images collapse, were they Gaussian, to where the control keeps less
    # than a third of the first direction.
    top = 1.5 * math.sqrt(variances[0])
    low = min(collapse_sigma(variances, float(len(source.split.pool)) ** 2), top / 4)
    return np.geomspace(max(low, default_window(source)[0]), top, command.levels)


def _usual_sizes(pool: int) -> list[int]:
    usual = [32, *(first * 10**k for k in range(2, 7) for first in (1, 3))]
    return [n for n in usual if n < pool] + [pool]


def _retention(
    points: Array, sigmas: Array, sizes: Array, axes: Array, command: PlanCommand
) -> Any:
    M = len(points)
    grid = np.geomspace(2, M, GRID).round()
    asked = np.unique(np.concatenate([grid, sizes[sizes <= M]]))
    progress = _Timed(min(command.sources, M), "retention", points.nbytes)
    return retention_of_subsets(
        points,
        sigmas,
        asked,
        axes,
        sources=command.sources,
        seed=command.seed,
        progress=progress,
    )


class _Timed:
    # Says what is to come once the first unit is done, then how far it is.
    def __init__(self, total: int, label: str, num_bytes: float) -> None:
        self.progress, self.total, self.num_bytes = Progress(total, label), total, num_bytes
        self.started, self.said = time.monotonic(), False

    def __call__(self, done: int) -> None:
        if not self.said:
            seconds = (time.monotonic() - self.started) / done * self.total
            label = self.progress.label
            say(f"{label}: this takes {Forecast(seconds, 2.2 * self.num_bytes + 2**28)}")
            self.said = True
        self.progress.update(done)
        if done == self.total:
            self.progress.finish()


def _guide(variances: Array, sigmas: Array, count: int) -> dict[str, Array]:
    wide = len(variances) > WIDEST
    if wide:
        say(f"no guide by direction: {len(variances)} dimensions are more than {WIDEST}")
    progress = _Timed(len(sigmas), "guide", 8.0 * len(variances) ** 2)
    skip: Callable[[int], None] = lambda done: None  # noqa: E731
    kept: Sequence[float] = () if wide else KEPT
    guide = gaussian_guide(
        variances, sigmas[::-1], count, kept=kept, progress=skip if wide else progress
    )
    shape = (len(KEPT), len(sigmas), count)
    sizes = np.full(shape, np.nan) if wide else guide.num_samples.values[:, ::-1]
    return {"information": guide.information.values[::-1], "sizes": sizes}


def _needed(map_: Any, guide: dict[str, Array], rms: float) -> list[dict[str, Any]]:
    out = []
    for a, kept in enumerate(KEPT):
        for i, row in enumerate(needed_sizes(map_, kept)):
            sigma = float(map_.sigma[i])
            for k, found in enumerate(row):
                N = float(guide["sizes"][a, i, k])
                place = {"kept": kept, "sigma": sigma, "sigma_relative": sigma / rms}
                above = {"guide": N, "guide_above_1e12": math.inf == N}
                out.append({**place, "direction": k + 1, **vars(found), **above})
    return out


def _describe(source: Source) -> dict[str, Any]:
    split = source.split
    return {
        "name": source.data.name,
        "digest": source.data.digest,
        "item_shape": list(source.data.item_shape),
        "images": len(source.data),
        "pool": len(split.pool),
        "reserved": len(split.reserved),
    }


def _twins(source: Source, seed: int) -> tuple[dict[str, Any], NDArray[np.intp]]:
    # What is said of duplicates, and the images of the pool without them.
    data = source.data
    by_digest: dict[str, list[int]] = {}
    for i, digest in enumerate(data.digests()):
        by_digest.setdefault(digest, []).append(i)
    distinct = np.array([group[0] for group in by_digest.values()])
    images = data.tensor(distinct).flatten(1).numpy()
    axes = source.directions.vectors[:, :SIFTED].double().numpy().T
    twins = near_duplicates(images, axes, seed=seed)
    pairs = [[int(distinct[i]), int(distinct[j]), r] for i, j, r in twins.pairs]
    exact = [group for group in by_digest.values() if len(group) > 1]
    shown = sorted({*(i for g in exact for i in g), *(i for p in pairs[:LISTED] for i in p[:2])})
    place = {int(i): k for k, i in enumerate(source.split.pool)}
    copies = [(g[0], i) for g in exact for i in g[1:]]
    copies += [(int(i), int(j)) for i, j, _ in pairs]
    inside = [(place[i], place[j]) for i, j in copies if i in place and j in place]
    different = np.asarray(source.split.pool)[without_copies(len(place), inside)]
    found: dict[str, Any] = {
        "exact_groups": exact,
        "near_pairs": pairs[:LISTED],
        "near_count": len(pairs),
        "near_images": len({i for p in pairs for i in p[:2]}),
        "threshold": twins.threshold,
        "typical_distance": twins.typical,
        "neighbour_dimension": twins.dimension,
        "files": {str(i): data.files[int(i)] for i in shown} if data.files is not None else {},
    }
    return found, different


def _rounded(value: Any) -> Any:
    # Plain JSON to 6 digits, so that the same plan is the same bytes; what is not finite is null.
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_rounded(v) for v in (plain(value) if isinstance(value, np.ndarray) else value)]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


# -------------------------------------------------------------------------------- what is shown


def _pictures(source: Source, document: dict[str, Any]) -> dict[int, str]:
    from geomem.show.page.pictures import Painter, is_picture

    if not is_picture(source.data.item_shape):
        return {}
    found = document["duplicates"]
    pairs = [p[:2] for p in found["near_pairs"][:12]] + [g[:2] for g in found["exact_groups"][:12]]
    shown = sorted({i for pair in pairs for i in pair})
    if not shown:
        return {}
    items: Array = source.data.tensor(shown).numpy()
    painter = Painter.of(items, source.data.quantum)
    return {i: painter.image(item) for i, item in zip(shown, items, strict=True)}


def _print(document: dict[str, Any]) -> None:
    for line in findings(document):
        print(f"- {line}")
    levels = document["sigmas_relative"]
    for kept in KEPT:
        rows = [
            [str(k + 1), *(cell(document, kept, i, k) for i in range(len(levels)))]
            for k in range(len(document["direction_variances"]))
        ]
        head = ["", *(f"{s:.2g}" for s in levels)]
        print_table(head, rows, f"N that keeps {100 * kept:.0f} %, by direction and level in rms")
    print(size_text(document))
