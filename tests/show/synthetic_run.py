"""A run folder in a second: records with errors of a known kind, no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomem.runs.records import RunFolder, Unit, write_json

LEVELS = np.geomspace(0.1, 5.0, 6)
VARIANCES = np.array([4.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05])
COUNTS = [1, 1, 1, 1, 1, 1, 3]
DRAWS, ITEM = 2, (1, 3, 3)


def make_run(
    path: Path,
    *,
    sizes: tuple[int, ...] = (8, 16),
    item: tuple[int, ...] = ITEM,
    points: int = 16,
    jacobian: bool = True,
    samples: int = 6,
    calibrated: bool = True,
    images: bool = True,
    seeds: tuple[int, ...] = (0,),
    control: str = "linear",
    name: str = "made up",
    finished: bool = True,
    methods: tuple[str, ...] = (),
) -> Path:
    """Writes a run folder; ``finished=False`` leaves out the network of the largest size."""
    units: list[dict[str, Any]] = [{"denoiser": "linear"}]
    units += [{"denoiser": "population"}] if control == "population" else []
    units += [{"denoiser": "empirical", "num_samples": n} for n in sizes]
    units += [
        {"denoiser": "learned", "num_samples": n, "seed": s, "step": 5}
        for n in sizes
        for s in seeds
    ]
    design = _design(units, sizes, item, points, control, name)
    config = {"kind": "sweep", "show_images": images, "seeds": list(seeds), "seed": 3, "draws": 2}
    if methods:
        config |= {"dimension": list(methods), "dimension_points": 6}
    folder = RunFolder.create(path, config, design)
    for unit in folder.units:
        if not finished and unit.denoiser == "learned" and unit.num_samples == sizes[-1]:
            continue
        record = _measured(unit, points, jacobian)
        if methods:
            record = record.merge(_local(unit, methods, points))
        if unit.denoiser == "linear":
            record = record.merge(_pictures(item, points, images))
        if unit.denoiser == "empirical":
            record = record.merge(_entropy(unit, points))
        if unit.denoiser == "learned" and samples:
            record = record.merge(_samples(samples, item, calibrated, images))
        folder.write_record(unit.number, record)
    if finished:
        write_json(path / "provenance.json", _provenance())
    return path


def _design(
    units: list[dict[str, Any]],
    sizes: tuple[int, ...],
    item: tuple[int, ...],
    points: int,
    control: str,
    name: str,
) -> dict[str, Any]:
    indices = {"training": list(range(points)), "held_out": list(range(100, 100 + points))}
    data = {
        "name": name, "digest": "0" * 64, "item_shape": list(item), "quantum": 0.1,
        "pool": 50, "held_out": 50, "reserved": 50, "ambient_dim": 9,
    }  # fmt: skip
    return {
        "units": units,
        "sizes": list(sizes),
        "sigmas": LEVELS.tolist(),
        "window": [float(LEVELS[0]), float(LEVELS[-1])],
        "rms": 0.5,
        "points": indices,
        "point_groups": indices,
        "direction_counts": COUNTS,
        "direction_variances": VARIANCES.tolist(),
        "control": control,
        "data": data,
    }


def _measured(unit: Unit, points: int, jacobian: bool) -> xr.Dataset:
    # A linear denoiser's errors; a network's are smaller at training images, most at small N.
    rng = np.random.default_rng([7, unit.number])
    shape = (2, len(LEVELS), points, DRAWS, len(COUNTS))
    kept = (VARIANCES / (VARIANCES + LEVELS[:, None] ** 2))[:, None, None, :]
    lost = 1.0 - 3.0 / unit.num_samples if unit.denoiser == "learned" and unit.num_samples else 1
    factor = np.array([1.0, lost])[:, None, None, None, None]  # held out, training
    shared = np.random.default_rng(1).normal(size=shape)  # the same noise for every denoiser
    error = np.sqrt(kept * np.array(COUNTS)) * factor * shared
    diagonal = (kept * np.array(COUNTS) * factor)[:, :, :, 0] + 0.01 * rng.normal(
        size=(2, len(LEVELS), points, len(COUNTS))
    )
    dims = ("at", "sigma", "point", "direction")
    if unit.num_samples:
        error[1, :, unit.num_samples :] = np.nan
        diagonal[1, :, unit.num_samples :] = np.nan
    arrays = {
        "error": (("at", "sigma", "point", "draw", "direction"), error.astype(np.float32)),
        "forward_diagonal": (dims, diagonal.astype(np.float32)),
    }
    if jacobian:
        noise = 0.05 * rng.normal(size=diagonal.shape)
        arrays["diagonal"] = (dims, (diagonal + noise).astype(np.float32))
    return xr.Dataset(arrays, coords={"at": ["held_out", "training"]})


def _local(unit: Unit, methods: tuple[str, ...], points: int) -> xr.Dataset:
    """At level k image i keeps 5 - k + i % 2; none has a gap at the last, odd ones at the first."""
    i, k = np.arange(points), np.arange(len(LEVELS))[:, None]
    values = np.where(i < 6, 5.0 - k + i % 2, np.nan)
    values[0, 1::2], values[-1] = np.nan, np.nan
    shape = (len(methods), 2, *values.shape)
    dims = ("dimension_method", "at", "sigma", "point")
    made = np.broadcast_to(values, shape).astype(np.float32).copy()
    made += np.arange(len(methods), dtype=np.float32)[:, None, None, None]
    made[:, 1] -= unit.seed or 0  # at training images
    return xr.Dataset(
        {"local_dimension": (dims, made), "local_dimension_stderr": (dims, 0 * made)},
        coords={"at": ["held_out", "training"], "dimension_method": list(methods)},
    )


def _entropy(unit: Unit, points: int) -> xr.Dataset:
    n = unit.num_samples or 1
    values = np.log(n) * np.linspace(0, 0.9, len(LEVELS))[:, None, None]
    spread = 1 + 0.01 * np.arange(points)[:, None]
    entropy = np.broadcast_to(values * spread, (len(LEVELS), points, DRAWS)).copy()
    entropy[:, n:] = np.nan
    return xr.Dataset({"entropy": (("sigma", "point", "draw"), entropy)})


def _axes(item: tuple[int, ...]) -> list[str]:
    return [f"axis_{k}" for k in range(len(item))]


def _pictures(item: tuple[int, ...], points: int, images: bool) -> xr.Dataset:
    rng = np.random.default_rng(2)
    singles = COUNTS.count(1)
    made = xr.Dataset({"vector": (("single", *_axes(item)), rng.normal(size=(singles, *item)))})
    if images:
        pixels = rng.uniform(-1, 1, size=(points, *item)).astype(np.float32)
        made["training_image"] = (("training_point", *_axes(item)), pixels)
    return made


def _samples(count: int, item: tuple[int, ...], calibrated: bool, images: bool) -> xr.Dataset:
    rng = np.random.default_rng(4)
    p = np.linspace(0.004, 0.9, count) if calibrated else np.full(count, np.nan)
    unseen = np.linspace(0.005, 1, 20) if calibrated else np.full(20, np.nan)
    made = xr.Dataset(
        {
            "sample_ratio": ("sample", np.linspace(0.02, 0.99, count)),
            "sample_distance": ("sample", rng.uniform(1, 2, count)),
            "sample_nearest": ("sample", np.arange(count)),
            "sample_p_value": ("sample", p),
            "unseen_p_value": ("unseen", unseen),
            "sample_image": (("gallery", *_axes(item)), rng.uniform(-1, 1, (count, *item))),
        }
    )
    if images:
        made["nearest_image"] = made.sample_image * 0.9
    return made


def _provenance() -> dict[str, Any]:
    session = {
        "command": "geomem sweep <b>--data</b>",
        "started": "2026-01-01T00:00:00Z",
        "seconds": 65.0,
        "device": "cpu",
        "versions": {"geomem": "0.1.0"},
        "python": "3.11",
        "machine": "Linux",
    }
    return {"schema_version": 1, "data_digest": "0" * 64, "sessions": [session]}
