r"""The records of a run as arrays, with the resampling of their images."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.findings.rows import Row
from geomem.findings.slopes import followed, slopes
from geomem.information import cluster_weights, integrate_log
from geomem.measure.subject import NETWORKS
from geomem.stats import numpy_rng

Array = NDArray[np.float64]
PERMUTATIONS = 9999
MIN_UNITS = 8  # image groups a side for a test, and images for a mean of Jacobians
OWN = "trajectory"  # points that a network's own sampler visits
OWN_NAMES = {"trajectory_trace", "trajectory_distance"}
CONTROLS = ("population", "reference", "base", "mirror", "linear")
# In an audit the model's own error on new images says how good a generalizer these would be.
SCALED = ("linear", "reference", "base")
SIDES = ("training", "held_out")


class Measured:
    r"""The records as arrays.

    Arguments:
        dataset: What :func:`geomem.load` returns.
        rows: Its rows of numbers.
        replicates: How many bootstrap resamplings.
        seed: Their seed.
        permutations: How many permutations of labels a test draws.
    """

    def __init__(
        self,
        dataset: xr.Dataset,
        rows: list[Row],
        replicates: int,
        seed: int,
        permutations: int = PERMUTATIONS,
    ) -> None:
        self.dataset, self.rows, self.replicates, self.seed = dataset, rows, replicates, seed
        self.permutations = permutations
        self.sigmas = dataset.sigma.values
        self.kinds = [str(at) for at in dataset["at"].values] if "at" in dataset.dims else []
        both = set(SIDES) <= set(self.kinds) and "error" in dataset
        # Of controls of one kind the last: rows are in the order of widths and of steps.
        first = {row.kind: row.members[0] for row in rows} if both else {}
        there = self._counts() if both else {}
        # A control that was not asked at all images of both sides cannot stand beside them.
        self.controls = {
            name: first[name]
            for name in CONTROLS
            if name in first and all(n[first[name]] == n.max() for n in there.values())
        }
        self.audit = dataset.attrs.get("kind") == "audit"
        self._squares: dict[tuple[int, str], Array] = {}
        self._weights: dict[tuple[str, int, int], Array] = {}
        self._means: dict[tuple[int, str, int, int], Array] = {}
        self._slopes: dict[tuple[int, str], Array] = {}

    def _counts(self) -> dict[str, Array]:
        # Images that each subject was measured at, by side.
        error = self.dataset.error
        others = [d for d in error.dims if d not in ("subject", "at", "point")]
        found = error.notnull().any(others).sum("point")
        return {at: np.asarray(found.sel(at=at).values, dtype=float) for at in SIDES}

    @property
    def places(self) -> list[str]:
        r"""All kinds of points at which something is known, those of trajectories last."""
        own = OWN_NAMES & set(map(str, self.dataset.data_vars))
        return [*self.kinds, OWN] if own and OWN not in self.kinds else self.kinds

    def own_means(self, member: int, name: str) -> Array:
        r"""Means over a subject's trajectories for each resampling, with shape (R, T)."""
        blank = np.full((self.replicates + 1, len(self.sigmas)), np.nan)
        if name not in self.dataset:
            return blank
        picked = self.dataset[name].isel(subject=member).transpose("trajectory", "sigma")
        values = picked.values.astype(float)
        values = values[~np.isnan(values).any(1)]
        if not len(values):
            return blank
        rng = numpy_rng(self.seed, "bootstrap/trajectories")
        weights = cluster_weights(np.arange(len(values), dtype=float), self.replicates, rng)
        return np.asarray(weights @ values)

    def denoised_means(self, member: int, row: Row, at: str) -> Array:
        r"""Mean distances of denoised images of a kind for each resampling, with shape (R, T)."""
        picked = self.dataset.denoised_distance.isel(subject=member).sel(at=at)
        values = picked.transpose("point", "sigma").values.astype(float)
        there = ~np.isnan(values).any(1)
        if not there.any():
            return np.full((self.replicates + 1, len(self.sigmas)), np.nan)
        return np.asarray(self.weights(at, row, int(there.sum())) @ values[there])

    def errors(self, member: int, at: str) -> Array:
        r"""Signed errors of the images that were measured, with shape (T, n, draws, u)."""
        dims = ("sigma", "point", "draw", "direction")
        values = self.dataset.error.isel(subject=member).sel(at=at).transpose(*dims).values
        return np.asarray(values[:, ~np.isnan(values).all((0, 2, 3))], dtype=float)

    @cached_property
    def main(self) -> str:
        r"""The control that decides: the study's, or in an audit the sharpest one.

        The sharpest is the one whose errors follow the subject's best at held-out images, see
        :meth:`control_error`. Training images are not asked. The mirror may decide only where
        held-out images show two things: that the model tells left from right, else it may have
        been trained with mirrored images, and the mirror sees nothing; and that the model is no
        worse than linear on new images, since the mirror counts such damage as memory.
        """
        named = str(self.dataset.attrs["control"])
        model = next((row.members[0] for row in self.rows if row.kind == "model"), None)
        if named != "auto" or model is None:
            return named
        errors = {name: self.control_error(model, name) for name in self.controls}
        errors = {name: error for name, error in errors.items() if np.isfinite(error)}
        if "mirror" in errors:
            gaps = self.held_out_gaps(model, "mirror")
            blind = not gaps.mean() > 2 * gaps.std(ddof=1) / np.sqrt(len(gaps))
            if blind or self.held_out_gaps(model, "linear", scaled=False).mean() < 0:
                del errors["mirror"]
        return min(errors, key=errors.__getitem__) if errors else "linear"

    @property
    def beside_new(self) -> str:
        r"""The control that excess on new images is measured beside: never the model itself."""
        if self.main != "mirror":
            return self.main
        return next(name for name in ("reference", "base", "linear") if name in self.controls)

    def held_out_gaps(self, member: int, control: str, *, scaled: bool = True) -> Array:
        r"""Control minus subject in nats, one for each group of held-out images, shape (g)."""
        ours, them, scale = self._held_out(member, control)
        if scaled:
            new, slope = them.mean(1, keepdims=True), self.slope(member, control)[0][:, None]
            them = followed(them, new, scale, slope)
        nats = integrate_log((them - ours).sum(-1), self.sigmas)
        return self.by_group("held_out", nats[:, None])[:, 0]

    def control_error(self, member: int, control: str) -> float:
        r"""How finely a control can decide, in nats, as held-out images tell.

        The standard error of control minus subject over as many images; where held-out images
        must say how much is to be taken off (the mirror, and a factor below 1), they add their
        own error once more.
        """
        gaps = self.held_out_gaps(member, control)
        if len(gaps) < 2:
            return float("nan")
        _, them, scale = self._held_out(member, control)
        taken = integrate_log((them * scale).mean(1).sum(-1), self.sigmas)
        asked = integrate_log((them * scale * (scale < 1)).mean(1).sum(-1), self.sigmas)
        share = 1.0 if control == "mirror" else float(asked / taken) if taken > 0 else 0.0
        return float(gaps.std(ddof=1) * np.sqrt((1 + share) / len(gaps)))

    def _held_out(self, member: int, control: str) -> tuple[Array, Array, Array]:
        # The control's errors as they are taken, and by what factor, with shape (T, 1, u).
        ours = self.squares(member, "held_out")
        them = self.squares(self.controls[control], "held_out")[:, : ours.shape[1]]
        a, b = them.mean(1, keepdims=True), ours.mean(1, keepdims=True)
        scaled = control in SCALED and (self.audit or control == "linear")
        scale = np.minimum(1.0, b / np.where(a > 0, a, np.inf)) if scaled else np.ones_like(a)
        return ours, them, scale

    def slope(self, member: int, control: str) -> Array:
        r"""The slope of a subject's errors on a control's at held-out images, in an audit.

        See :mod:`geomem.findings.slopes`. It is 1 in other runs, beside the mirror or the
        population, with fewer than 8 images, and along directions in which the subject is worse
        than the control.

        Returns:
            The slopes for each resampling, with shape (R, T, u).
        """
        if (member, control) not in self._slopes:
            ours, them, scale = self._held_out(member, control)
            found = np.ones((self.replicates + 1, len(self.sigmas), ours.shape[2]))
            if self.audit and control in SCALED and ours.shape[1] >= MIN_UNITS:
                free = scale < 1
                weights = self.weights("held_out", self.rows[0], ours.shape[1])
                asked = slopes((free * scale * them).sum(-1), (free * ours).sum(-1), weights)
                found = np.where(free[:, 0], asked[..., None], 1.0)
            self._slopes[member, control] = found
        return self._slopes[member, control]

    def taken(self, member: int, row: Row, control: str, at: str) -> Array:
        r"""What a control's errors are taken for, image and draw by draw, the sample's own.

        Arguments:
            member: The subject beside it.
            row: Its row.
            control: The name of the control.
            at: The kind of points.

        Returns:
            Squares with the factor and the slope of held-out images, with shape (T, n, draws, u).
        """
        count = self.squares(member, at).shape[1]
        squares = np.square(self.errors(self.controls[control], at)[:, :count])
        scale = self.weighted(member, row, control)[:, None, None]
        if not (self.audit and control in SCALED and self.squares(member, "held_out").shape[1]):
            return np.asarray(scale * squares)
        new = self._held_out(member, control)[1].mean(1)[:, None, None]
        return followed(squares, new, scale, self.slope(member, control)[0][:, None, None])

    def by_group(self, at: str, values: Array) -> Array:
        r"""Rows of images as rows of groups, their means: the unit of every test."""
        return group_means(values, self.dataset.point_group.sel(at=at).values[: len(values)])

    def squares(self, member: int, at: str) -> Array:
        r"""Squared errors, draws averaged, with shape (T, n, u)."""
        if (member, at) not in self._squares:
            self._squares[member, at] = np.square(self.errors(member, at)).mean(2)
        return self._squares[member, at]

    def weights(self, at: str, row: Row, count: int) -> Array:
        r"""Bootstrap weights of the first images of a kind, with shape (R, n)."""
        unit = row.unit if at == "training" else 0
        if (at, unit, count) not in self._weights:
            groups = self.dataset.point_group.sel(at=at).values[:count]
            rng = numpy_rng(self.seed, f"bootstrap/{at}", unit)
            self._weights[at, unit, count] = cluster_weights(groups, self.replicates, rng)
        return self._weights[at, unit, count]

    def mean_squares(self, member: int, row: Row, at: str, count: int) -> Array:
        r"""Mean squared errors of the first images for each resampling, with shape (R, T, u)."""
        unit = row.unit if at == "training" else 0
        key = (member, at, unit, count)
        if key not in self._means:
            weights, values = self.weights(at, row, count), self.squares(member, at)[:, :count]
            found = np.einsum("rn,tnu->rtu", weights, values, optimize=True)
            self._means[key] = np.asarray(found)
        return self._means[key]

    def both_means(
        self, member: int, row: Row, at: str, control: str
    ) -> tuple[Array, Array] | None:
        r"""Mean squared errors of a control and a subject at the same images; None if not known."""
        if control not in self.controls or self.controls[control] == member:
            return None
        if control == "mirror" and row.kind != "model":
            return None  # it is the model's own error, at the mirrored image
        count = self.squares(member, at).shape[1]
        if not count:
            return None
        them = self.mean_squares(self.controls[control], row, at, count)
        return them, self.mean_squares(member, row, at, count)

    def densities(
        self, member: int, row: Row, control: str, *, ratio: bool = True
    ) -> tuple[Array, Array] | None:
        r"""What a control keeps wrong at training images, and what a subject does.

        Arguments:
            member: The subject.
            row: Its row.
            control: The name of the control.
            ratio: Whether the linear control is taken for as good a generalizer as the best
                network of the run; in an audit so are a reference and a base, which then also
                follow the subject's errors from image to image (:meth:`slope`).

        Returns:
            Two arrays with shape (R, T, u), whose difference is the memorized density; None
            where one side was not measured.
        """
        pair = self.both_means(member, row, "training", control)
        if pair is None:
            return None
        them, own = pair
        if control == "mirror":
            # Images that are no mirror images of each other are harder the wrong way round.
            new = self.both_means(member, row, "held_out", control)
            return None if new is None else (them - (new[0] - new[1]), own)
        if ratio and (control == "linear" or (self.audit and control in SCALED)):
            scale = self.ratio if control == "linear" else self.ratio_to(control, member, row)
            if scale is None:
                return None
            new = self.both_means(member, row, "held_out", control) if self.audit else None
            if new is None:
                return scale * them, own
            return followed(them, new[0], scale, self.slope(member, control)), own
        return them, own

    def ratio_to(self, control: str, member: int, row: Row) -> Array | None:
        r"""Held-out error of a subject over a control's, at most 1, with shape (R, T, u)."""
        pair = self.both_means(member, row, "held_out", control)
        if pair is None:
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(pair[0] > 0, np.minimum(1.0, pair[1] / pair[0]), 1.0)

    def weighted(self, member: int, row: Row, control: str) -> Array:
        r"""What a control's errors are multiplied by, the sample's own, with shape (T, u)."""
        blank = np.ones((len(self.sigmas), self.dataset.sizes["direction"]))
        if control == "linear":
            return blank if self.ratio is None else self.ratio[0]
        if self.audit and control in SCALED:
            found = self.ratio_to(control, member, row)
            return blank if found is None else found[0]
        return blank

    def excess(self, member: int, row: Row, control: str) -> Array:
        r"""By how much new images are denoised worse than by a control, with shape (R, T, u)."""
        pair = self.both_means(member, row, "held_out", control)
        if pair is None:
            shape = (self.replicates + 1, len(self.sigmas), self.dataset.sizes["direction"])
            return np.full(shape, np.nan)
        return pair[1] - pair[0]

    @cached_property
    def ratio(self) -> Array | None:
        r"""How good a generalizer the linear control is taken for, with shape (R, T, u).

        The smallest ratio of held-out errors over the networks of the run, by direction: one
        for every training-set size. The reference network is not among them.
        """
        found = []
        for row in self.rows:
            for member in row.members if row.kind in NETWORKS and row.kind != "reference" else ():
                pair = self.both_means(member, row, "held_out", "linear")
                if pair is not None and self.squares(member, "training").shape[1]:
                    with np.errstate(divide="ignore", invalid="ignore"):
                        ratio = np.minimum(1.0, pair[1] / pair[0])
                    found.append(np.where(pair[0] > 0, ratio, 1.0))
        return np.minimum.reduce(found) if found else None

    def diagonal(self, member: int, at: str) -> tuple[Array, NDArray[np.bool_]]:
        r"""Diagonals (T, n, u) of the images that have one, and which (point) these are."""
        name = "diagonal" if self.has_jacobian(member) else "forward_diagonal"
        array = self.dataset[name].isel(subject=member).sel(at=at)
        values = np.asarray(array.transpose("sigma", "point", "direction").values, dtype=float)
        there = ~np.isnan(values).any((0, 2))
        return values[:, there], there

    def has_jacobian(self, member: int) -> bool:
        r"""Whether dimension comes from the Jacobian, or from ``z·(D - x_0)/sigma``."""
        if "diagonal" not in self.dataset:
            return False
        one = self.dataset.diagonal.isel(subject=member, sigma=0, direction=0)
        measured = self.dataset.error.isel(subject=member, sigma=0, draw=0, direction=0)
        kinds = measured.notnull().any("point").values
        counts = one.notnull().sum("point").values
        return bool((counts[kinds] >= MIN_UNITS).all())

    def mean_diagonal(self, member: int, row: Row, at: str) -> Array:
        r"""Mean diagonals for each resampling, with shape (R, T, u)."""
        values, there = self.diagonal(member, at)
        if not values.shape[1]:
            return np.full((self.replicates + 1, len(self.sigmas), values.shape[2]), np.nan)
        measured = self.squares(member, at).shape[1]
        weights = self.weights(at, row, measured)[:, there[:measured]]
        weights = weights / np.maximum(weights.sum(1, keepdims=True), 1e-300)
        return np.asarray(np.einsum("rn,tnu->rtu", weights, values, optimize=True))


def group_means(values: Array, groups: NDArray[np.int64]) -> Array:
    r"""Means over the rows of each group, in the order in which groups first appear.

    Arguments:
        values: One row an image, with shape :math:`(n, *)`.
        groups: The group of each image, with shape :math:`(n)`.

    Returns:
        One row a group, with shape :math:`(g, *)`.
    """
    return np.array([values[groups == g].mean(0) for g in dict.fromkeys(groups)])
