r"""The numbers of a run: one pure function from records to a dataset of estimates.

Every figure, table and finding reads from here, so that what is drawn is what was recorded.
Errors are bootstrap intervals over image groups (over trainings where there are several
seeds), with the same images and noise for every network.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.errors import InputError
from geomem.findings.local_dimension import local_dimension_numbers
from geomem.information import (
    Averages,
    SquaredErrors,
    average,
    cluster_weights,
    common_ratio,
    damage,
    integrate_log,
    lost_share,
    memorized_density,
    worst_subspace_share,
)
from geomem.measure.copies import copy_numbers
from geomem.stats import PermutationTest, numpy_rng, permutation_test

Array = NDArray[np.float64]
REPLICATES = 1000
PERMUTATIONS = 9999


def numbers(dataset: xr.Dataset, *, replicates: int = REPLICATES, seed: int = 0) -> xr.Dataset:
    r"""Estimates with errors of all that the records of a run say.

    Arguments:
        dataset: What :func:`geomem.load` returns; unfinished units are left out.
        replicates: How many bootstrap resamplings.
        seed: Their seed.

    Returns:
        By ``num_samples``, where it applies by ``sigma``, ``direction``, ``point``:
        memorized ``density`` and its margins ``by_level`` and ``by_direction``; memorized
        ``information`` in nats; ``lost_share``; ``damage``; ``dimension`` and its ``gap``;
        ``point_information`` of each image; ``p_value``; ``copies``; ``local_dimension``, if
        the run asked for it. Each ``x`` comes with
        ``x_stderr`` or ``x_low`` and ``x_high`` (95 %).

    Raises:
        InputError: If the control, or every network, is still missing.
    """
    networks = _finished(dataset)
    analysis = _Analysis(dataset, networks, replicates, seed)
    parts = [
        analysis.information(),
        analysis.dimensions(),
        analysis.tests(),
        analysis.exact(),
        copy_numbers(dataset, analysis.sizes),
        local_dimension_numbers(dataset, networks),
    ]
    merged = xr.merge(parts, combine_attrs="drop", join="outer", compat="no_conflicts")
    sizes = [n for n in dataset.num_samples.values if n in merged.num_samples.values]
    return merged.sel(num_samples=sizes).assign_attrs(
        dataset.attrs, error_over="trainings" if len(analysis.seeds) > 1 else "images"
    )


def _finished(dataset: xr.Dataset) -> dict[int, list[int]]:
    if "error" not in dataset or "learned" not in dataset.denoiser.values:
        raise InputError("the run has no finished network yet; run the same command again")
    learned = dataset.error.sel(denoiser="learned").isel(step=-1, point=0, draw=0, direction=0)
    done = ~np.isnan(learned).any(["at", "sigma"]).transpose("num_samples", "seed").values
    control = dataset.error.sel(denoiser=dataset.attrs["control"]).isel(point=0, draw=0)
    if np.isnan(control).any() or not done.any():
        raise InputError("the run has no finished network and control yet; run it again")
    seeds = dataset.seed.values
    return {
        int(n): [int(s) for s in seeds[row]]
        for n, row in zip(dataset.num_samples.values, done, strict=True)
        if row.any()
    }


class _Analysis:
    def __init__(
        self, dataset: xr.Dataset, networks: dict[int, list[int]], replicates: int, seed: int
    ) -> None:
        self.dataset, self.networks, self.seed = dataset.isel(step=-1), networks, seed
        self.seeds = sorted({s for seeds in networks.values() for s in seeds})
        self.sigmas = dataset.sigma.values
        self.sizes = list(networks)
        self.population = dataset.attrs["control"] == "population"
        self.training = {n: self._weights("training", n, replicates) for n in self.sizes}
        self.held_out = self._weights("held_out", None, replicates)
        keys = [(n, s) for n, seeds in networks.items() for s in seeds]
        self.averages = {key: self._averages(*key) for key in keys}
        ratio = common_ratio(list(self.averages.values()))
        self.ratio = np.ones_like(ratio) if self.population else ratio

    # --------------------------------------------------------------------------- averages

    def _weights(self, at: str, size: int | None, replicates: int) -> Array:
        groups = self.dataset.point_group.sel(at=at).values
        groups = groups[groups >= 0][:size]
        rng = numpy_rng(self.seed, f"bootstrap/{at}", size or 0)
        return cluster_weights(groups, replicates, rng)

    def _errors(self, at: str, size: int, seed: int, denoiser: str) -> Array:
        # Signed errors with shape (T, n, draws, u).
        here = {"denoiser": denoiser, "at": at, "num_samples": size, "seed": seed}
        weights = self.training[size] if at == "training" else self.held_out
        dims = ("sigma", "point", "draw", "direction")
        values = self.dataset.error.sel(here).transpose(*dims).values[:, : weights.shape[1]]
        return np.asarray(values, dtype=float)

    def _averages(self, size: int, seed: int) -> Averages:
        control = self.dataset.attrs["control"]
        squares = [
            np.square(self._errors(at, size, seed, denoiser)).mean(2)
            for denoiser in ("learned", control)
            for at in ("training", "held_out")
        ]
        return average(SquaredErrors(*squares), self.training[size], self.held_out)

    def _combine(self, values: dict[tuple[int, int], Array], size: int) -> tuple[Array, Array]:
        # Replicates (R, *) of each seed -> value (*) and replicates about it (R', *).
        rows = [values[size, s] for s in self.networks[size]]
        value = np.mean([r[0] for r in rows], axis=0)
        if len(rows) > 1:  # their spread is then the standard error of the mean of trainings
            spread = np.array([r[0] for r in rows]) - value
            return value, value + spread / np.sqrt(len(rows) - 1)
        return value, rows[0][1:]

    def _dataset(
        self, name: str, dims: tuple[str, ...], values: dict[tuple[int, int], Array], units: str
    ) -> xr.Dataset:
        pairs = [self._combine(values, n) for n in self.sizes]
        value = np.array([v for v, _ in pairs])
        stderr = np.array([r.std(0) for _, r in pairs])
        low, high = (self._quantile(pairs, q) for q in (0.025, 0.975))
        shape = ("num_samples", *dims)
        arrays = {name: value, f"{name}_stderr": stderr, f"{name}_low": low, f"{name}_high": high}
        return xr.Dataset(
            {k: (shape, v, {"units": units}) for k, v in arrays.items()},
            coords={"num_samples": self.sizes},
        )

    @property
    def _over_images(self) -> bool:
        return len(self.seeds) == 1

    def _quantile(self, pairs: list[tuple[Array, Array]], q: float) -> Array:
        if self._over_images:
            return np.array([np.quantile(r, q, axis=0) for _, r in pairs])
        sign = 1.96 if q > 0.5 else -1.96
        return np.array([v + sign * r.std(0) for v, r in pairs])

    # ------------------------------------------------------------------------ information

    def information(self) -> xr.Dataset:
        density = {k: memorized_density(a, self.ratio) for k, a in self.averages.items()}
        control = {k: self.ratio * a.control_training for k, a in self.averages.items()}
        nats, per_fold = "nats", "nats per e-fold of noise"
        level = {k: v.sum(-1) for k, v in density.items()}
        parts = [
            self._dataset("density", ("sigma", "direction"), density, per_fold),
            self._dataset("by_level", ("sigma",), level, per_fold),
            self._dataset("by_direction", ("direction",), self._integrals(density), nats),
            self._dataset("information", (), self._integrals(level), nats),
            self._dataset(
                "control_information",
                (),
                self._integrals({k: v.sum(-1) for k, v in control.items()}),
                nats,
            ),
            self._dataset(
                "lost_share",
                ("sigma",),
                {k: lost_share(a, self.ratio) for k, a in self.averages.items()},
                "1",
            ),
            self._dataset(
                "damage", (), {k: damage(a, self.sigmas) for k, a in self.averages.items()}, nats
            ),
            self._points(),
            self._worst(),
        ]
        merged = xr.merge(parts, combine_attrs="drop")
        return merged.assign(ratio=(("sigma", "direction"), self.ratio[0])).assign_coords(
            {
                name: self.dataset[name]
                for name in (
                    "sigma",
                    "sigma_relative",
                    "direction",
                    "direction_count",
                    "direction_variance",
                    "point",
                )
            }
        )

    def _integrals(self, values: dict[tuple[int, int], Array]) -> dict[tuple[int, int], Array]:
        return {k: integrate_log(v, self.sigmas, axis=1) for k, v in values.items()}

    def _points(self) -> xr.Dataset:
        width = self.dataset.sizes["point"]
        value, stderr = np.full((2, len(self.sizes), width), np.nan)
        for row, n in enumerate(self.sizes):
            per_draw = np.mean([self._per_draw(n, s) for s in self.networks[n]], axis=0)
            count, draws = per_draw.shape
            value[row, :count] = per_draw.mean(1)
            if draws > 1:
                stderr[row, :count] = per_draw.std(1, ddof=1) / np.sqrt(draws)
        dims = ("num_samples", "point")
        return xr.Dataset(
            {
                "point_information": (dims, value, {"units": "nats"}),
                "point_information_stderr": (dims, stderr, {"units": "nats"}),
            },
            coords={"num_samples": self.sizes},
        )

    def _per_draw(self, size: int, seed: int) -> Array:
        # Pointwise I-MMSE: control minus network at one image is a mean log-likelihood ratio.
        control = self._errors("training", size, seed, self.dataset.attrs["control"])
        network = self._errors("training", size, seed, "learned")
        ratio = self.ratio[0][:, None, None, :]
        return integrate_log((ratio * control**2 - network**2).sum(-1), self.sigmas)

    def _worst(self) -> xr.Dataset:
        singles = int((self.dataset.direction_count.values == 1).sum())
        rng = numpy_rng(self.seed, "halves")
        shares = [
            [self._worst_at(n, k, singles, rng) for k in range(len(self.sigmas))]
            for n in self.sizes
        ]
        return xr.Dataset(
            {"worst_share": (("num_samples", "sigma"), np.array(shares), {"units": "1"})},
            coords={"num_samples": self.sizes},
        )

    def _worst_at(self, size: int, level: int, singles: int, rng: np.random.Generator) -> float:
        if size < 16:
            return float("nan")
        seed = self.networks[size][0]
        network, control = (
            self._errors("training", size, seed, d)[level, ..., :singles]
            for d in ("learned", self.dataset.attrs["control"])
        )
        ratio = self.ratio[0, level, :singles]
        return float(worst_subspace_share(network, control, ratio, rng=rng).mean())

    # -------------------------------------------------------------------------- dimension

    def dimensions(self) -> xr.Dataset:
        kinds = [str(d) for d in self.dataset.denoiser.values]
        parts = [self._dimension(kind, at) for kind in kinds for at in ("training", "held_out")]
        dimension = xr.merge(parts, combine_attrs="drop", join="outer", compat="no_conflicts")
        gaps = self._gaps()
        gap = self._dataset("gap", ("sigma", "direction"), gaps, "1")
        trace = {k: v.sum(-1) for k, v in gaps.items()}
        total = self._dataset("total_gap", ("sigma",), trace, "1")
        return xr.merge([dimension, gap, total], combine_attrs="drop")

    def _diagonal(self, kind: str, at: str, size: int, seed: int) -> tuple[Array, Array]:
        # Diagonals (T, n, u) and bootstrap weights (R, n) of the images that have one.
        here = {"denoiser": kind, "at": at, "num_samples": size, "seed": seed}
        weights = self.training[size] if at == "training" else self.held_out
        name = "diagonal" if self._has_jacobian(kind) else "forward_diagonal"
        array = self.dataset[name].sel(here).transpose("sigma", "point", "direction")
        values = np.asarray(array.values, dtype=float)[:, : weights.shape[1]]
        there = ~np.isnan(values).any((0, 2))
        weights = weights[:, there]
        return values[:, there], weights / np.maximum(weights.sum(1, keepdims=True), 1e-300)

    def _has_jacobian(self, kind: str) -> bool:
        if "diagonal" not in self.dataset:
            return False
        values = self.dataset.diagonal.sel(denoiser=kind).isel(sigma=0, direction=0)
        return int((~np.isnan(values)).any(["num_samples", "seed"]).sum("point").min()) >= 8

    def _means(self, kind: str, at: str, size: int, seed: int) -> Array:
        values, weights = self._diagonal(kind, at, size, seed)
        if values.shape[1] == 0:
            return np.full((len(weights), len(self.sigmas), values.shape[2]), np.nan)
        return np.asarray(np.einsum("rn,tnu->rtu", weights, values, optimize=True))

    def _dimension(self, kind: str, at: str) -> xr.Dataset:
        keys = list(self.averages)
        traces = {k: self._means(kind, at, *k).sum(-1) for k in keys}
        one = self._dataset("dimension", ("sigma",), traces, "directions")
        return one.expand_dims(kind=[kind], at=[at]).rename(kind="denoiser")

    def _gaps(self) -> dict[tuple[int, int], Array]:
        return {
            k: self._means("learned", "held_out", *k) - self._means("learned", "training", *k)
            for k in self.averages
        }

    # ------------------------------------------------------------------------------ tests

    def tests(self) -> xr.Dataset:
        rows = [self._test(n) for n in self.sizes]
        p_value = np.array([r.p_value if r else np.nan for r in rows])
        blank = np.full(len(self.sigmas), np.nan)
        adjusted = np.array([r.adjusted[: len(self.sigmas)] if r else blank for r in rows])
        identity = np.array([self._identity(n) for n in self.sizes])
        return xr.Dataset(
            {
                "p_value": ("num_samples", p_value),
                "p_level": (("num_samples", "sigma"), adjusted),
                "identity_z": (("num_samples", "at", "sigma"), identity),
            },
            coords={"num_samples": self.sizes, "at": ["training", "held_out"]},
        )

    def _test(self, size: int) -> PermutationTest | None:
        looks = [self._looks(at, size) for at in ("held_out", "training")]
        if min(len(rows) for rows in looks) < 8:
            return None  # too few units to say anything
        rng = numpy_rng(self.seed, "permutation", size)
        return permutation_test(*looks, rng=rng, permutations=PERMUTATIONS)

    def _looks(self, at: str, size: int) -> Array:
        # One row a group: errors at each level, and the dimension where it is measured.
        seed = self.networks[size][0]
        errors = np.square(self._errors(at, size, seed, "learned")).mean(2).sum(-1).T
        groups = self.dataset.point_group.sel(at=at).values
        looks = [errors]
        if self._has_jacobian("learned"):
            diagonal, _ = self._diagonal("learned", at, size, seed)
            if diagonal.shape[1] == len(errors):
                looks.append(diagonal.sum(-1).T)
        rows = np.hstack(looks)
        kept = groups[groups >= 0][: len(rows)]
        return np.array([rows[kept == g].mean(0) for g in dict.fromkeys(kept)])

    def _identity(self, size: int) -> Array:
        # Error gap = residual gap + 2 sigma² dimension gap, an identity for every denoiser:
        # z·(D - x_0)/sigma minus the trace has mean 0, or schedule, code or model is wrong.
        return np.array([self._identity_at(size, at) for at in ("training", "held_out")])

    def _identity_at(self, size: int, at: str) -> Array:
        here = {"denoiser": "learned", "at": at, "num_samples": size}
        picked = self.dataset.sel(here).isel(seed=0)
        if "diagonal" not in picked:
            return np.full(len(self.sigmas), np.nan)
        difference = (picked.forward_diagonal - picked.diagonal).sum("direction", skipna=False)
        values = difference.transpose("sigma", "point").values.astype(float)
        values = values[:, ~np.isnan(values).any(0)]
        if values.shape[1] < 2:
            return np.full(len(self.sigmas), np.nan)
        error = values.std(1, ddof=1) / np.sqrt(values.shape[1])
        return np.asarray(values.mean(1) / np.where(error > 0, error, np.inf))

    # ------------------------------------------------------------------------------ exact

    def exact(self) -> xr.Dataset:
        r"""What the exact denoiser spends of its budget ln N in the window, in nats."""
        values, errors = [], []
        for n in self.sizes:
            entropy = self.dataset.entropy.sel(num_samples=n) if "entropy" in self.dataset else None
            spent = None if entropy is None else entropy.isel(sigma=-1) - entropy.isel(sigma=0)
            points = np.array([]) if spent is None else spent.mean("draw").values
            points = points[~np.isnan(points)]
            values.append(points.mean() if len(points) else np.nan)
            enough = len(points) > 1
            errors.append(points.std(ddof=1) / np.sqrt(len(points)) if enough else np.nan)
        return xr.Dataset(
            {
                "exact_information": ("num_samples", np.array(values), {"units": "nats"}),
                "exact_information_stderr": ("num_samples", np.array(errors), {"units": "nats"}),
            },
            coords={"num_samples": self.sizes},
        )
