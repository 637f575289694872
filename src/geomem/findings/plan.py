r"""What a plan says, as one document: a pure function of its study and its records."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from geomem import __version__
from geomem.measure.plan import usual_sizes, variances_of
from geomem.theory.data_prior import ENOUGH
from geomem.theory.planning import KEPT, collapse_levels, needed_sizes, retention_over_sources

SCHEMA_VERSION = 2


def plan_document(study: Mapping[str, Any], records: Sequence[xr.Dataset]) -> dict[str, Any]:
    r"""The plan as plain JSON values, to 6 digits; what is not finite is None.

    Arguments:
        study: The content of its study.
        records: All its records in the order of the subjects: near-duplicates, the guide level
            by level, the sources.
    """
    copies = records[0]
    guides = [record for record in records if "guide" in record]
    rows = [record for record in records if "kept_variance" in record]
    raw = xr.concat([row.drop_vars("subset_size") for row in rows], dim="source")
    raw = raw.rename(size="num_samples", kept_variance="kept")
    raw = raw.assign_coords(num_samples=rows[0].subset_size.values, sigma=study["sigmas"])
    map_ = retention_over_sources(raw)
    M, sigmas, rms = copies.sizes["pool"], np.array(study["sigmas"]), study["rms"]
    sizes = np.array(study["sizes"] or usual_sizes(M), float)
    within = map_.sel(num_samples=sizes[sizes <= M])
    # Each level's guide was found by the part of its own, or all by one.
    own = [guides[i if len(guides) > 1 else 0].isel(sigma=i) for i in range(len(sigmas))]
    needed = []
    for a, kept in enumerate(KEPT):
        for i, row in enumerate(needed_sizes(map_, kept)):
            place = {"kept": kept, "sigma": sigmas[i], "sigma_relative": sigmas[i] / rms}
            for k, found in enumerate(row):
                N = float(own[i]["guide"][a, k])
                above = {"guide": N, "guide_above_1e12": math.inf == N}
                needed.append({**place, "direction": k + 1, **vars(found), **above})
    beyond = [k for k, n in enumerate(study["sizes"]) if n > M]
    retained = [one["guide_retention"].values[beyond] for one in own] if beyond else []
    data = {key: study["data"][key] for key in ("name", "digest", "item_shape", "images")}
    variances = variances_of(study)
    document: dict[str, Any] = rounded(
        {
            "schema_version": SCHEMA_VERSION,
            "geomem": __version__,
            "predicts": "the exact denoiser of N images: a model that memorizes exactly",
            "relative_to": "the population, as the M different images of the pool extrapolate it",
            "data": {**data, "pool": M, "reserved": study["data"]["reserved"]},
            "seed": study["seed"],
            "rms": rms,
            "window": study["window"],
            "sources": raw.sizes["source"],
            "enough_reference_points": ENOUGH,
            "sigmas": sigmas,
            "sigmas_relative": sigmas / rms,
            "direction_variances": study["direction_variances"],
            "reference_points": map_.reference_points.values,
            "control": map_.control.values,
            "information_gaussian": [float(one["information"]) for one in own],
            "sizes": within.num_samples.values,
            "retention": within.retention.values,
            "retention_stderr": within.retention_stderr.values,
            "participation": within.participation.values,
            "sizes_beyond": sizes[sizes > M],
            "guide_retention": retained,
            "needed": needed,
            "collapse": [vars(c) for c in collapse_levels(map_, sizes.tolist(), variances)],
            "duplicates": _duplicates(copies),
        }
    )
    return document


def plan_text(document: Mapping[str, Any]) -> str:
    r"""The document as ``plan.json`` holds it: the same study and seed, the same bytes."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _duplicates(record: xr.Dataset) -> dict[str, Any]:
    groups: dict[int, list[int]] = {}
    files: dict[str, str] = {}
    if "exact_image" in record:
        for image, group in zip(record.exact_image.values, record.exact_group.values, strict=True):
            groups.setdefault(int(group), []).append(int(image))
    for kind in ("exact", "near"):
        if f"{kind}_name" in record:
            numbers, names = (record[f"{kind}_{k}"].values.ravel() for k in ("image", "name"))
            files |= {str(i): str(name) for i, name in zip(numbers, names, strict=True)}
    pairs = []
    if "near_image" in record:
        rows = zip(record.near_image.values, record.near_ratio.values, strict=True)
        pairs = [[int(i), int(j), float(ratio)] for (i, j), ratio in rows]
    return {
        "exact_groups": [groups[k] for k in sorted(groups)],
        "near_pairs": pairs,
        "near_count": int(record.near_count),
        "near_images": int(record.near_images),
        "threshold": float(record.near_threshold),
        "typical_distance": float(record.typical_distance),
        "neighbour_dimension": float(record.neighbour_dimension),
        "files": {i: files[i] for i in sorted(files, key=int)},
    }


def rounded(value: Any) -> Any:
    r"""JSON values to 6 digits; what is not finite is None."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [rounded(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
