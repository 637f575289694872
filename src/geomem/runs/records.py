r"""Records: one finished unit of work, one netCDF file, there whole or not at all.

A run folder holds

    config.json       what was asked for
    design.json       what follows from it: units, points, levels, window, unit of noise
    records/000017.nc one finished unit of work, named by its number
    networks/         the trained networks, safetensors and JSON
    summary.json      what the records say; the same design and seed, the same bytes
    provenance.json   when, how long, with which versions
    report.html       the page, drawn from the records alone

so an interrupted run is a shorter run, any number of processes can fill one folder, and a
unit done twice is the same bytes renamed over itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomem.compute.files import atomic_write, atomic_write_text
from geomem.errors import InputError

SCHEMA_VERSION = 1

# A unit of each kind is told apart by these coordinates.
LEAD = {
    "linear": (),
    "population": (),
    "empirical": ("num_samples",),
    "learned": ("num_samples", "seed", "step"),
}
# Where denoisers are measured.
AT = ["training", "held_out"]
# These exist for every denoiser, so that any two of them can be subtracted.
MEASURED = (
    "error",
    "forward_diagonal",
    "diagonal",
    "local_dimension",
    "local_dimension_stderr",
)


@dataclass(frozen=True)
class Unit:
    r"""One unit of work: a denoiser that is measured.

    Attributes:
        number: Its number in the run's list, and the name of its record.
        denoiser: Which: population, empirical, learned or linear.
        num_samples: The size of the training set, where there is one.
        seed: The seed of the training, where there was one.
        step: The step of the training.
    """

    number: int
    denoiser: str
    num_samples: int | None = None
    seed: int | None = None
    step: int | None = None

    def coordinates(self) -> dict[str, int]:
        r"""Its coordinates, apart from which denoiser it is."""
        return {name: getattr(self, name) for name in LEAD[self.denoiser]}

    def __str__(self) -> str:
        names = {"num_samples": "N", "seed": "seed", "step": "step"}
        parts = [f"{names[k]} = {v}" for k, v in self.coordinates().items() if k != "seed" or v]
        return ", ".join([self.denoiser, *parts])


@dataclass(frozen=True)
class RunFolder:
    r"""A folder that holds a run.

    Attributes:
        path: The folder.
        config: What was asked for, as plain JSON values.
        design: What follows from it.
    """

    path: Path
    config: dict[str, Any]
    design: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        r"""Opens an existing run.

        Raises:
            InputError: If there is none, or it was written by another version.
        """
        path = Path(path)
        config, design = (_read_json(path / name) for name in ("config.json", "design.json"))
        return cls(path, config, design)

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], design: Mapping[str, Any]) -> RunFolder:
        r"""Starts a run, or goes on with one of the same config.

        Raises:
            InputError: If the folder holds a run of another config, or something else.
        """
        path = Path(path)
        check_folder(path, config)
        versioned = {"schema_version": SCHEMA_VERSION}
        folder = cls(path, {**versioned, **config}, {**versioned, **design})
        for name, content in (("design.json", folder.design), ("config.json", folder.config)):
            write_json(path / name, content)
        return folder

    @property
    def units(self) -> list[Unit]:
        return [Unit(number, **unit) for number, unit in enumerate(self.design["units"])]

    def record_path(self, number: int) -> Path:
        return self.path / "records" / f"{number:06d}.nc"

    def missing(self) -> list[Unit]:
        r"""The units whose record is not there yet."""
        return [u for u in self.units if not self.record_path(u.number).exists()]

    def write_record(self, number: int, record: xr.Dataset) -> None:
        r"""Writes the record of a unit, whole or not at all."""
        record = record.assign_attrs(schema_version=SCHEMA_VERSION, unit=number)
        encoding = {name: {"zlib": True, "complevel": 4} for name in record.data_vars}
        atomic_write(
            self.record_path(number),
            lambda p: record.to_netcdf(p, engine="h5netcdf", encoding=encoding),
        )

    def read_record(self, number: int) -> xr.Dataset:
        r"""Reads the record of a unit.

        Raises:
            InputError: If the file is damaged; deleting it makes the run do it again.
        """
        path = self.record_path(number)
        try:
            with xr.open_dataset(path, engine="h5netcdf") as record:
                return record.load()
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(
                f"{path} is damaged; delete it and run the same command again"
            ) from error

    def records(self) -> Iterator[tuple[Unit, xr.Dataset]]:
        r"""The units that are done, with their records, in the order of their numbers."""
        for unit in self.units:
            if self.record_path(unit.number).exists():
                yield unit, self.read_record(unit.number)


def check_folder(path: Path, config: Mapping[str, Any]) -> None:
    r"""Refuses a folder that holds something else than a run of this config."""
    path = Path(path)
    if path.is_file():
        raise InputError(f"{path} is a file; choose a folder as --out")
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not (path / "config.json").exists():
        if all(p.name.startswith((".tmp-", "design.json")) for p in path.iterdir()):
            return  # it ended before it began
        raise InputError(f"{path} is not empty and holds no run; choose another --out")
    if not same_config(path, config):
        raise InputError(
            f"{path} holds a run of another config ({_difference(path, config)}); "
            "choose another --out, or move that run aside"
        )


def same_config(path: Path, config: Mapping[str, Any]) -> bool:
    r"""Whether a folder holds a run of this config."""
    there = _read_json(Path(path) / "config.json")
    return bool(there == json.loads(json.dumps({"schema_version": SCHEMA_VERSION, **config})))


def _difference(path: Path, config: Mapping[str, Any]) -> str:
    there, wanted = _read_json(path / "config.json"), json.loads(json.dumps(dict(config)))
    names = [k for k in wanted if there.get(k) != wanted[k]]
    return ", ".join(f"{k}: {there.get(k)} there, {wanted[k]} asked" for k in names[:3])


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    r"""JSON with sorted keys, so that the same content is the same bytes."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    atomic_write_text(path, text + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path.parent} holds no run ({path.name} is missing); pass the folder of a run"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); move the run aside") from error
    if content.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {content.get('schema_version')}, this geomem reads "
            f"{SCHEMA_VERSION}; use the geomem that wrote it"
        )
    return content


# ---------------------------------------------------------------------------- loading


def load(run: str | Path) -> xr.Dataset:
    r"""All records of a run as one dataset; units that are not there yet are NaN.

    Dims: ``denoiser`` (population, empirical, learned, linear), ``at`` (training, held_out),
    ``num_samples``, ``seed``, ``step``, ``sigma``, ``point``, ``draw``, ``direction``, and
    ``dimension_method`` where local dimensions were asked for. Levels
    and images are those of the design, never recomputed. ``error`` is signed, in noise
    units, along single directions, and a norm along bands: its square adds up.

    Arguments:
        run: The folder of the run.

    Raises:
        InputError: If the folder holds no run, or a file is damaged.
    """
    folder = RunFolder.open(Path(run))
    coords = _coordinates(folder)
    arrays: dict[str, xr.DataArray] = {}
    for unit, record in folder.records():
        for name, value in record.data_vars.items():
            if "at" in value.dims:  # by name: JSON sorts its keys, a record does not
                value = value.sel(at=AT)
            _insert(arrays, str(name), value, unit, coords)
    dataset = xr.Dataset(arrays, coords=_design_coordinates(folder, coords))
    done = len(folder.units) - len(folder.missing())
    if "dimension_points" in folder.config:
        dataset.attrs["dimension_points"] = folder.config["dimension_points"]
    return dataset.assign_attrs(
        run=Path(run).name,
        data=folder.design["data"]["name"],
        data_digest=folder.design["data"]["digest"],
        control=folder.design["control"],
        rms=folder.design["rms"],
        window=folder.design["window"],
        units_done=done,
        units_planned=len(folder.units),
        schema_version=SCHEMA_VERSION,
    )


def _coordinates(folder: RunFolder) -> dict[str, list[Any]]:
    coords: dict[str, list[Any]] = {"denoiser": [], "num_samples": [], "seed": [], "step": []}
    for unit in folder.units:
        for name, values in coords.items():
            value = getattr(unit, name)
            if value is not None and value not in values:
                values.append(value)
    return {name: values for name, values in coords.items() if values}


def _design_coordinates(folder: RunFolder, coords: dict[str, list[Any]]) -> dict[str, Any]:
    design = folder.design
    sigmas = np.array(design["sigmas"])
    points = design["points"]
    width = max(len(p) for p in points.values())
    rows = ((design[name][at] for at in AT) for name in ("points", "point_groups"))
    index, groups = (np.array([p + [-1] * (width - len(p)) for p in row]) for row in rows)
    methods = folder.config.get("dimension")
    return {
        **coords,
        **({"dimension_method": methods} if methods else {}),
        "at": AT,
        "sigma": ("sigma", sigmas, {"units": "data units"}),
        "sigma_relative": ("sigma", sigmas / design["rms"], {"units": "rms"}),
        "point": np.arange(width),
        "point_index": (("at", "point"), index),
        "point_group": (("at", "point"), groups),
        "direction": np.arange(1, len(design["direction_counts"]) + 1),
        "direction_count": ("direction", design["direction_counts"]),
        "direction_variance": ("direction", design["direction_variances"]),
    }


def _insert(
    arrays: dict[str, xr.DataArray],
    name: str,
    value: xr.DataArray,
    unit: Unit,
    coords: dict[str, list[Any]],
) -> None:
    lead = tuple(coords) if name in MEASURED else LEAD[unit.denoiser]
    if name not in arrays:
        shape = [len(coords[c]) for c in lead] + list(value.shape)
        blank = np.full(shape, np.nan, dtype=np.result_type(value.dtype, np.float32))
        arrays[name] = xr.DataArray(blank, dims=(*lead, *map(str, value.dims)), attrs=value.attrs)
    here = {"denoiser": unit.denoiser, **unit.coordinates()}
    # A control has no num_samples: it is the same beside each of them.
    position = tuple(coords[c].index(here[c]) if c in here else slice(None) for c in lead)
    arrays[name].values[position] = value.values
