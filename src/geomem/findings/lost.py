r"""What was lost: the subspace that is missing most, the directions in it, and where they show.

A model that has memorized some directions keeps almost no error along them at its training
images, where the control keeps its own. The directions of strongest contrast are those of the
generalized eigenproblem ``E v = (1 - l) W v`` of the two second moments of signed errors along
the principal directions: ``l = 1`` where the model makes no error at all. They are sought where
the control keeps at least .05; at a level where it keeps nothing there is no worst subspace.

A search over directions finds something in nothing. So the subspace is found on one half of the
image groups and measured on the other, swapped and averaged, and how good a generalizer the
control must be taken for is asked of held-out images along the very subspace that was found.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.findings.measured import MIN_UNITS, SCALED, SIDES, Measured
from geomem.findings.rows import Row
from geomem.findings.slopes import followed
from geomem.information import LEAST_KEPT, integrate_log, strongest_contrast
from geomem.measure.subject import NETWORKS
from geomem.stats import clustered_mean, numpy_rng

Array = NDArray[np.float64]
WORST = 3  # directions of the subspace that a verdict rests on
MOST = 16  # directions that are named one by one
HALF = 0.5  # of the control's variance must be gone for a direction to be called lost


def lost_numbers(run: Measured) -> xr.Dataset:
    r"""The worst subspace by level, and the lost directions where it is worst.

    Returns:
        ``worst_share`` (subject, sigma) with its ``_stderr``, ``_low`` and ``_high``;
        ``lost_direction`` (subject, lost, direction), orthonormal coefficients along single
        principal directions, and ``lost_direction_share`` (subject, lost), of those that have
        lost more than half, found and measured on different images; ``lost_pixels`` (subject,
        axis_1, axis_2) in nats, where in the image memorized information lies.
    """
    main = run.main
    if main not in run.controls or not set(SIDES) <= set(run.kinds):
        return xr.Dataset()
    rows, levels = len(run.rows), len(run.sigmas)
    singles = int((run.dataset.direction_count.values == 1).sum())
    worst = np.full((2, rows, levels), np.nan)
    axes = np.full((rows, MOST, run.dataset.sizes["direction"]), np.nan)
    shares = np.full((rows, MOST), np.nan)
    for k, row in enumerate(run.rows):
        member = row.members[0]
        known = row.kind in NETWORKS and member != run.controls[main]
        if not known or (main == "mirror" and row.kind != "model"):
            continue
        search = Search(run, row, singles)
        if search.units < 2 * MIN_UNITS:
            continue
        found = np.array([search.worst(t) for t in range(levels)])
        worst[:, k] = found.T
        low = found[:, 0] - 1.96 * found[:, 1]
        if not np.isfinite(low).any():
            continue
        directions, their = search.lost(int(np.nanargmax(low)))
        axes[k, : len(their), :singles], shares[k, : len(their)] = directions.T, their
    one = {"units": "1"}
    text = "lost share of the worst subspace of three directions"
    ends = {
        "worst_share": (worst[0], ""),
        "worst_share_stderr": (worst[1], ", standard error"),
        "worst_share_low": (worst[0] - 1.96 * worst[1], ", lower end at 95 %"),
        "worst_share_high": (worst[0] + 1.96 * worst[1], ", upper end at 95 %"),
    }
    columns: dict[str, object] = {
        name: (("subject", "sigma"), values, one | {"long_name": text + said})
        for name, (values, said) in ends.items()
    }
    named = {"long_name": "a lost direction, along the principal directions"}
    gone = {"long_name": "share of the control's error that is gone along a lost direction"}
    columns["lost_direction"] = (("subject", "lost", "direction"), axes, one | named)
    columns["lost_direction_share"] = (("subject", "lost"), shares, one | gone)
    return xr.merge([xr.Dataset(columns), _pixels(run)])


class Search:
    r"""The search for what one row has lost beside the main control.

    Arguments:
        run: The records.
        row: The row.
        singles: How many principal directions are kept one by one.
    """

    def __init__(self, run: Measured, row: Row, singles: int) -> None:
        member, control = row.members[0], run.controls[run.main]
        self.scaled = run.main == "linear" or (run.audit and run.main in SCALED)
        self.mirror = run.main == "mirror"
        self.weights = np.sqrt(run.weighted(member, row, run.main)[:, :singles])
        self.own, self.them, self.groups = {}, {}, {}
        for at in SIDES:
            own = run.errors(member, at)[..., :singles]
            self.own[at] = own
            self.them[at] = run.errors(control, at)[:, : own.shape[1], :, :singles]
            groups = run.dataset.point_group.sel(at=at).values[: own.shape[1]]
            self.groups[at] = np.unique(groups, return_inverse=True)[1]
        # One scale for all networks of a run: the best generalizer of them, as everywhere.
        rivals = [member]
        if run.main == "linear":
            kinds = [r for r in run.rows if r.kind in NETWORKS and r.kind != "reference"]
            rivals = [m for r in kinds for m in r.members if run.squares(m, "training").shape[1]]
        self.rivals = [run.errors(m, "held_out")[..., :singles] for m in rivals]
        self.units = min(len(np.unique(g)) for g in self.groups.values())
        # Groups, not images, are halved: a twin in the other half would be no other half.
        rng = numpy_rng(run.seed, "halves", row.unit)
        unit = rng.permutation(int(self.groups["training"].max(initial=-1)) + 1)
        first = unit[self.groups["training"]] < len(unit) // 2
        self.halves = (first, ~first)

    def worst(self, level: int) -> tuple[float, float]:
        r"""Lost share of the worst subspace at a level, with its standard error."""
        found = [
            self._share(level, self._contrast(level, self.halves[k])[:, :WORST], self.halves[1 - k])
            for k in (0, 1)
        ]
        share = (found[0][0] + found[1][0]) / 2
        # Halves are different training images; the held-out images are the same.
        own = (found[0][1] ** 2 + found[1][1] ** 2) / 4
        shared = ((found[0][2] + found[1][2]) / 2) ** 2
        return share, float(np.sqrt(own + shared))

    def lost(self, level: int) -> tuple[Array, Array]:
        r"""Directions that have lost more than half, as orthonormal columns, and their shares."""
        every = np.ones(len(self.groups["training"]), dtype=bool)
        halves = [self._contrast(level, half) for half in self.halves]
        shares: list[float] = []
        for rank in range(min(MOST, *(half.shape[1] for half in halves))):
            pair = [
                self._share(level, halves[k][:, rank : rank + 1], self.halves[1 - k])[0]
                for k in (0, 1)
            ]
            if not np.mean(pair) > HALF:
                break
            shares.append(float(np.mean(pair)))
        vectors = self._contrast(level, every)[:, : len(shares)]
        return np.linalg.qr(vectors)[0], np.array(shares)

    def _contrast(self, level: int, half: NDArray[np.bool_]) -> Array:
        own, them = (side["training"][level][half] for side in (self.own, self.them))
        return strongest_contrast(own, them * self.weights[level])

    def _share(
        self, level: int, vectors: Array, half: NDArray[np.bool_]
    ) -> tuple[float, float, float]:
        # The share along a subspace, and the two parts of its error: training, held-out images.
        def along(side: dict[str, Array], at: str) -> Array:
            return np.asarray(np.square(side[at][level] @ vectors).sum(-1).mean(-1))

        nothing = float("nan"), float("nan"), float("nan")
        if not vectors.shape[1]:
            return nothing
        vectors = np.linalg.qr(vectors)[0]
        e, w = along(self.own, "training")[half], along(self.them, "training")[half]
        w_new = along(self.them, "held_out")
        news = [np.square(e[level] @ vectors).sum(-1).mean(-1) for e in self.rivals]
        e_new = min(news, key=lambda values: float(values.mean()))
        if self.mirror:
            them = w.mean() - (w_new.mean() - e_new.mean())
            moves, new = w, e_new - w_new
        else:
            ratio = e_new.mean() / w_new.mean() if self.scaled and w_new.mean() > 0 else 1.0
            free = ratio < 1
            them = min(1.0, ratio) * w.mean()
            moves = min(1.0, ratio) * w
            new = them * (e_new / e_new.mean() - w_new / w_new.mean()) if free else 0 * e_new
        if not them >= LEAST_KEPT * vectors.shape[1]:
            return nothing
        kept = e.mean() / them
        training = clustered_mean((kept * moves - e)[:, None], self.groups["training"][half])
        held_out = clustered_mean((kept * new)[:, None], self.groups["held_out"])
        return 1 - kept, float(training[1][0]) / them, float(held_out[1][0]) / them


def _pixels(run: Measured) -> xr.Dataset:
    # Errors by pixel are means over images already: a map of where, and no test.
    if "pixel_error" not in run.dataset:
        return xr.Dataset()
    error = run.dataset.pixel_error
    plane = [str(d) for d in error.dims if str(d).startswith("axis_")]
    maps = np.full((len(run.rows), *(error.sizes[d] for d in plane)), np.nan)
    control = run.controls[run.main]
    for k, row in enumerate(run.rows):
        member = row.members[0]
        if row.kind != "model" or member == control:
            continue
        (e, w), (e_new, w_new) = (
            [error.isel(subject=m).sel(at=at).values.astype(float) for m in (member, control)]
            for at in SIDES
        )
        if run.main == "mirror":
            them = w - (w_new - e_new)
        elif run.main in SCALED:
            # Along pixels, of which there are many, one factor a level: it is far less noisy.
            sums = [v.sum(tuple(range(1, v.ndim))) for v in (e_new, w_new)]
            ratio = np.minimum(1.0, sums[0] / np.where(sums[1] > 0, sums[1], np.inf))
            slope = np.where(ratio < 1, run.slope(member, run.main)[0].mean(-1), 1.0)
            one = (-1, *(1,) * (w.ndim - 1))
            them = followed(w, w_new, ratio.reshape(one), slope.reshape(one))
        else:
            them = w
        maps[k] = integrate_log(them - e, run.sigmas)
    named = {"units": "nats", "long_name": "memorized information by pixel, of an image, mean"}
    return xr.Dataset({"lost_pixels": (("subject", *plane), maps, named)})
