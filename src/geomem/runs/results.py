r"""Results: the findings of a run, computed once and stored beside the records they follow from."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

import xarray as xr

from geomem import __version__
from geomem.compute.files import atomic_write_bytes, atomic_write_text
from geomem.errors import InputError
from geomem.findings.numbers import numbers
from geomem.findings.sentences import summarize
from geomem.findings.verdict import Verdict, said, verdict
from geomem.runs.load import load
from geomem.runs.netcdf import bytes_of, dataset_of_bytes
from geomem.runs.records import RunFolder, json_text


@dataclass(frozen=True, eq=False)
class Results:
    r"""What a run says.

    Attributes:
        dataset: Its records, see :func:`geomem.load`.
        numbers: Its numbers, see :func:`geomem.numbers`; None if there are not enough records.
        reason: Why not.
    """

    dataset: xr.Dataset
    numbers: xr.Dataset | None
    reason: str = ""

    @property
    def verdict(self) -> Verdict | None:
        r"""The verdict of an audit, recomputed from its numbers; None of other kinds of run."""
        if self.numbers is None or self.dataset.attrs.get("kind") != "audit":
            return None
        rows = {str(kind) for kind in self.numbers["kind"].values}
        return verdict(self.numbers) if "model" in rows else None


def results(folder: RunFolder, dataset: xr.Dataset | None = None) -> Results:
    r"""The results of a run: as stored, if they belong to the records that are there.

    They are computed from the records alone where they are missing, older, or of another
    version of geomem, and stored where the folder can be written to.
    """
    dataset = load(folder.path) if dataset is None else dataset
    stored = _stored(folder)
    if stored is not None:
        attributes = json.loads(stored.attrs["attributes"])
        return Results(dataset, stored.drop_attrs(deep=False).assign_attrs(attributes))
    try:
        found = numbers(dataset)
    except InputError as error:
        return Results(dataset, None, str(error))
    with suppress(InputError):  # a run may be read where it cannot be written
        _store(folder, found)
    return Results(dataset, found)


def write_results(folder: RunFolder, dataset: xr.Dataset) -> Results:
    r"""Computes or reads the results of a run and writes its summary."""
    found = results(folder, dataset)
    summary = summarize(dataset, found.numbers)
    if found.verdict is not None:
        summary |= {"verdict": found.verdict.to_json()}
        summary["findings"] = [*said(found.verdict), *summary["findings"]]
    text = json_text(summary)
    atomic_write_text(folder.path / "summary.json", text, inside=folder.path, private=True)
    return found


def _store(folder: RunFolder, found: xr.Dataset) -> None:
    marks = {"records": folder.records_digest(), "geomem": __version__}
    attrs = {"attributes": json.dumps(found.attrs, sort_keys=True), **marks}
    plain = found.drop_attrs(deep=False).assign_attrs(attrs)
    for name, value in plain.variables.items():
        if value.dtype == object:
            plain[name] = plain[name].astype(str)
    path = folder.path / "findings.nc"
    atomic_write_bytes(path, bytes_of(plain), inside=folder.path, private=True)


def _stored(folder: RunFolder) -> xr.Dataset | None:
    path = folder.path / "findings.nc"
    try:
        content = path.read_bytes()
        stored = dataset_of_bytes(content)
        same = stored.attrs.get("records") == folder.records_digest()
        return stored if same and stored.attrs.get("geomem") == __version__ else None
    except (OSError, ValueError, KeyError, RuntimeError):
        return None
