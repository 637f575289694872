r"""Datasets as netCDF files in memory, and back.

netCDF 4 is HDF5 with a convention: a dimension is a dataset that is declared a scale, that of
its coordinate if it has one, and each axis of a variable has the scale of its dimension
attached. A run's findings are some 200 small variables. Written here, through h5py alone, they
take a tenth of the time of a general writer, which looks up every dimension anew for every
variable; what is small is left uncompressed, since a compressed block has a directory of its
own. xarray says how texts, truth values and coordinates are encoded; any reader of netCDF
reads the result.

References:
    | The NetCDF Users' Guide, appendix C: the netCDF-4 format
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import xarray as xr

SMALL = 4096  # bytes from which a variable is compressed
NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."
HIDDEN = (
    *("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_NCProperties"),
    *("_Netcdf4Dimid", "_Netcdf4Coordinates", "_nc3_strict"),
)


def bytes_of(dataset: xr.Dataset) -> bytes:
    r"""A dataset as a netCDF file in memory: a full disk is then met by a plain write."""
    if any(value.dtype.kind not in "fiubUO" for value in dataset.variables.values()):
        return bytes(dataset.to_netcdf(engine="h5netcdf"))  # times, say, of somebody's probe
    encoded = xr.conventions.encode_dataset_coordinates(dataset.drop_encoding())
    variables, attrs = xr.conventions.cf_encoder(*encoded)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=True) as file:
        _set_attributes(file, attrs)
        names = [str(name) for name in dataset.sizes]
        scales = {name: _scale(file, name, dataset.sizes[name], variables) for name in names}
        for number, (name, scale) in enumerate(scales.items()):
            scale.attrs["_Netcdf4Dimid"] = np.int32(number)
            kept = name if name in variables else f"{NO_VARIABLE}{dataset.sizes[name]:10}"
            scale.make_scale(kept)
        for name, value in variables.items():
            if name not in scales:
                made = _create(file, str(name), value)
                for axis, dim in enumerate(value.dims):
                    made.dims[axis].attach_scale(scales[str(dim)])
    return buffer.getvalue()


def dataset_of_bytes(
    content: bytes, check: Callable[[int], object] = lambda num_bytes: None
) -> xr.Dataset:
    r"""The dataset that a netCDF file in memory holds.

    Arguments:
        content: The file.
        check: Called with the bytes that its variables will take, before any is read.

    Raises:
        OSError: If it is no such file; other errors of h5py if it is damaged.
    """
    with h5py.File(io.BytesIO(content), "r") as file:
        check(sum(value.nbytes for value in file.values()))
        found = {}
        for name, value in file.items():
            about = dict(value.attrs)
            if not _text(about.get("NAME", "")).startswith(NO_VARIABLE):
                dims = (name,) if "NAME" in about else [d[0].name[1:] for d in value.dims]
                texts = h5py.check_string_dtype(value.dtype) is not None
                data = np.asarray(value.asstr()[()], dtype=str) if texts else value[()]
                found[name] = xr.Variable(dims, data, _attributes(about))
        return xr.decode_cf(xr.Dataset(found, attrs=_attributes(dict(file.attrs))))


def _scale(file: h5py.File, name: str, size: int, variables: Any) -> h5py.Dataset:
    if name in variables:
        return _create(file, name, variables[name])
    return file.create_dataset(name, (size,), ">f4", maxshape=(size or None,))


def _create(file: h5py.File, name: str, value: xr.Variable) -> h5py.Dataset:
    texts = value.dtype.kind in "UO"
    data = value.values.astype(object) if texts else value.values
    options: dict[str, Any] = {"dtype": h5py.string_dtype() if texts else data.dtype}
    if data.nbytes >= SMALL and not texts:
        options |= {"compression": "gzip", "compression_opts": 4}
    if data.ndim and not data.size:  # an axis without entries is one that may grow
        options |= {"maxshape": tuple(n or None for n in data.shape), "chunks": True}
    made = file.create_dataset(name, data.shape, data=data if data.size else None, **options)
    # NaN is NaN to every reader, and need not be declared as what is missing.
    _set_attributes(made, {k: v for k, v in value.attrs.items() if k != "_FillValue"})
    return made


def _set_attributes(place: h5py.File | h5py.Dataset, attrs: Any) -> None:
    for name, value in attrs.items():
        number = np.isscalar(value) and not isinstance(value, (str, bytes))
        place.attrs[str(name)] = np.atleast_1d(value) if number else value


def _attributes(raw: dict[str, Any]) -> dict[str, Any]:
    # As readers of netCDF give them: one of a kind is itself, several texts are a list.
    found = {}
    for name, value in raw.items():
        if name not in HIDDEN:
            plain = value.tolist() if np.asarray(value).dtype.kind == "O" else value
            found[name] = plain[0] if np.ndim(plain) and len(plain) == 1 else plain
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
