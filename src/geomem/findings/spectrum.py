r"""What a run of spectra says: means with errors, where they fall most, theory beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, get_args

import numpy as np
import xarray as xr

from geomem import __version__
from geomem.findings.rows import row_coordinates, rows_of
from geomem.measure.spectrum import ESTIMATORS
from geomem.stats import Estimate
from geomem.theory.condensation import PAPER_WINDOW, Form, smoothed_spectrum, t_star
from geomem.theory.moments import Array

SCHEMA_VERSION = 1
PAPER_DIM = 30
FORMS: tuple[Form, ...] = get_args(Form)


def window_of(study: Mapping[str, Any]) -> tuple[int, int]:
    r"""The ranks among which a drop is looked for: the paper's at its d, else all."""
    d = int(study["data"]["ambient_dim"])
    return PAPER_WINDOW if d == PAPER_DIM else (1, d - 1)


def drop_of(values: Array, window: tuple[int, int]) -> tuple[int, float]:
    r"""The rank behind which falling values fall most, counted from 1, and by how much.

    Example:
        >>> drop_of(np.array([1.0, 1.0, 0.4, 0.3]), (1, 3))
        (2, 0.6)
    """
    first, last = window
    falls = (values[:-1] - values[1:])[first - 1 : last]
    k = int(falls.argmax())
    return first + k, float(falls[k])


@dataclass(frozen=True, eq=False)
class Spectra:
    r"""The numbers of a run of spectra.

    Attributes:
        measured: Over ``subject`` (a row for each recipe), ``at``, ``sigma``, ``estimator`` and
            ``rank``: ``value`` and its ``value_stderr``, over data sets or trainings where there
            are several, else over points; by estimator ``drop_rank``, its ``drop_share`` among all
            that were asked, and the ``fall`` there; ``kept`` and ``trace``, each with its
            ``_stderr``.
        theory: Over ``form``, ``num_samples``, ``sigma`` and ``rank``: ``value``; ``drop_rank``, 0
            where nothing falls; and ``population`` (sigma, rank), :math:`t / (t + v_k)`.
        study: The content of the study.
    """

    measured: xr.Dataset
    theory: xr.Dataset
    study: Mapping[str, Any]

    @classmethod
    def of(cls, dataset: xr.Dataset, study: Mapping[str, Any]) -> Spectra:
        r"""The numbers of a run.

        Arguments:
            dataset: What :func:`geomem.load` returns, with dims subject, at, sigma, point, rank.
            study: The content of its study.
        """
        measured = _measured(dataset, window_of(study))
        known = measured.num_samples.values
        sizes = sorted({int(n) for n in known[~np.isnan(known)] if n >= 2})
        return cls(measured, theory_of(study, sizes), study)

    @property
    def guides(self) -> list[int]:
        r"""Ranks where d less some groups of equal variance lies: where drops are expected."""
        about, d = self.study["theory"], int(self.study["data"]["ambient_dim"])
        v = sorted(about["variances"], reverse=True)
        sizes = [len(list(group)) for _, group in groupby(v)][:2]
        if len(sizes) < 2 or sum(sizes) >= d or len(v) > PAPER_DIM:
            return []
        return sorted({d - sum(sizes), d - sizes[1], d - sizes[0]})


def theory_of(study: Mapping[str, Any], sizes: list[int]) -> xr.Dataset:
    r"""The paper's smoothed spectrum in both forms, times t, and the population's."""
    about, d = study["theory"], int(study["data"]["ambient_dim"])
    sigmas, window = np.array(study["sigmas"]), window_of(study)
    v = np.sort(np.append(about["variances"], np.zeros(d - len(about["variances"]))))
    values = np.full((len(FORMS), len(sizes), len(sigmas), d), np.nan)
    drops = np.zeros(values.shape[:3], int)
    for f, n, k in np.ndindex(*drops.shape):
        t, gaussian = float(sigmas[k]) ** 2, bool(about["gaussian"])
        found = smoothed_spectrum(
            about["variances"], d, t, sizes[n], form=FORMS[f], gaussian=gaussian
        )
        values[f, n, k] = np.sort(t * found.singular_values)[::-1]
        drops[f, n, k] = found.drop(window) or 0
    stars = np.array([t_star(about["variances"], n, gaussian=about["gaussian"]) for n in sizes])
    variance_of_noise = sigmas[:, None] ** 2
    return xr.Dataset(
        {
            "value": (("form", "num_samples", "sigma", "rank"), values),
            "drop_rank": (("form", "num_samples", "sigma"), drops),
            "t_star": (("num_samples", "direction"), stars.reshape(len(sizes), -1)),
            "population": (
                ("sigma", "rank"),
                variance_of_noise / (variance_of_noise + v),
            ),
        },
        {"form": list(FORMS), "num_samples": sizes, "sigma": sigmas, "rank": np.arange(1, d + 1)},
    )


def _measured(dataset: xr.Dataset, window: tuple[int, int]) -> xr.Dataset:
    rows = rows_of(dataset)
    dims = ("subject", "at", "sigma", "point", "rank")
    values = np.stack([dataset[f"{e}_value"].transpose(*dims).values for e in ESTIMATORS], 3)
    asked = [
        dataset[name].transpose(*dims[:-1]).values for name in ("jacobian_kept", "jacobian_trace")
    ]
    shape = (len(rows), *values.shape[1:4])  # row, at, sigma, estimator
    found = np.full((2, *shape, values.shape[-1]), np.nan)
    drops = np.full((3, *shape), np.nan)
    means = np.full((2, 2, *shape[:3]), np.nan)
    for r, a, k in np.ndindex(*shape[:3]):
        one = values[list(rows[r].members), a, k]  # (member, estimator, point, rank)
        there = ~np.isnan(one[:, 0, :, 0])
        if not there.any():
            continue
        for e in range(len(ESTIMATORS)):
            found[:, r, a, k, e] = _mean(one[:, e])
            each = [drop_of(v, window) for v in one[:, e][there]]
            ranks, counts = np.unique([rank for rank, _ in each], return_counts=True)
            rank = ranks[counts.argmax()]
            fall = np.mean([f for found_rank, f in each if found_rank == rank])
            drops[:, r, a, k, e] = rank, counts.max() / len(each), fall
        for m, count in zip(means, asked, strict=True):
            m[:, r, a, k] = _mean(count[list(rows[r].members), a, k][..., None])[:, 0]
    place = ("subject", "at", "sigma")
    wide = (*place, "estimator", "rank")
    arrays: dict[str, Any] = {"value": (wide, found[0]), "value_stderr": (wide, found[1])}
    for name, array in zip(("drop_rank", "drop_share", "fall"), drops, strict=True):
        arrays[name] = (wide[:-1], array)
    for name, pair in zip(("kept", "trace"), means, strict=True):
        arrays |= {name: (place, pair[0]), f"{name}_stderr": (place, pair[1])}
    coords = {
        "at": dataset["at"].values,
        "sigma": dataset.sigma.values,
        "sigma_relative": ("sigma", dataset.sigma_relative.values),
        "estimator": list(ESTIMATORS),
        "rank": np.arange(1, values.shape[-1] + 1),
        **row_coordinates(rows),
    }
    return xr.Dataset(arrays, coords)


def _mean(values: Array) -> Array:
    # Of (member, point, ...): the mean and its error, over members where there are several.
    there = np.asarray(~np.isnan(values).any(-1))
    members = [value[known] for value, known in zip(values, there, strict=True) if known.any()]
    each = np.stack([m.mean(0) for m in members]) if len(members) > 1 else members[0]
    error = each.std(0, ddof=1) / len(each) ** 0.5 if len(each) > 1 else np.nan * each[0]
    return np.stack([each.mean(0), error])


def summarize_spectra(found: Spectra) -> dict[str, Any]:
    r"""The numbers in short, as plain JSON values; what is not known is null."""
    measured, theory = found.measured, found.theory
    rows = []
    for s, a, k in np.ndindex(*(measured.sizes[d] for d in ("subject", "at", "sigma"))):
        one = measured.isel(subject=s, at=a, sigma=k)
        if np.isnan(one.kept):
            continue
        rows.append(
            {
                "denoiser": str(one.label.item()),
                "members": int(one.trainings),
                "at": str(one["at"].item()),
                "sigma": float(one.sigma),
                "sigma_relative": float(one.sigma_relative),
                **{name: _plain(one[name]) for name in ("kept", "kept_stderr")},
                **{name: _plain(one[name]) for name in ("trace", "trace_stderr")},
                **{
                    str(e): {
                        name: _plain(one[name].sel(estimator=e))
                        for name in ("drop_rank", "drop_share", "fall")
                    }
                    for e in one.estimator.values
                },
            }
        )
    predicted = [
        {
            "form": str(f),
            "num_samples": int(n),
            "sigma": float(sigma),
            "drop_rank": int(theory.drop_rank.sel(form=f, num_samples=n, sigma=sigma)) or None,
        }
        for f in theory.form.values
        for n in theory.num_samples.values
        for sigma in theory.sigma.values
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "geomem": __version__,
        "data": found.study["data"]["name"],
        "window": list(window_of(found.study)),
        "guides": found.guides,
        "rows": rows,
        "theory": predicted,
        "findings": findings(found),
    }


def findings(found: Spectra) -> list[str]:
    r"""What the spectra say, in sentences."""
    window = " to ".join(map(str, window_of(found.study)))
    said = []
    for s in range(found.measured.sizes["subject"]):
        one = found.measured.isel(subject=s, at=0)
        parts = []
        for k in range(one.sizes["sigma"]):
            level = one.isel(sigma=k)
            if np.isnan(level.kept):
                continue
            kept = Estimate(float(level.kept), float(level.kept_stderr))
            drops = ", ".join(
                f"{int(level.drop_rank.sel(estimator=e))} by {name}"
                for e, name in (("paper", "the paper's estimator"), ("jacobian", "the Jacobian"))
            )
            parts.append(
                f"at {float(level.sigma):.3g} it keeps {kept} directions, and values fall most "
                f"behind rank {drops}"
            )
        if parts:
            where = str(one["at"].item()).replace("fixed", "given").replace("_", "-")
            said.append(f"{one.label.item()}, {where} points, ranks {window}: {'; '.join(parts)}.")
    return said


def _plain(value: xr.DataArray) -> float | None:
    number = float(value)
    return None if np.isnan(number) else number
