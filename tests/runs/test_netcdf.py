r"""netCDF files in memory: what was written is what is read, by us and by any other reader."""

from __future__ import annotations

import io

import numpy as np
import pytest
import xarray as xr

from geomem.runs.netcdf import SMALL, bytes_of, dataset_of_bytes

RNG = np.random.default_rng(0)
ABOUT = {"units": "nats", "long_name": "of each"}
SETS = {
    "numbers": xr.Dataset(
        {
            "small": (("a", "b"), RNG.normal(size=(2, 3)), ABOUT),
            "large": (("b", "c"), RNG.normal(size=(3, 999)).astype(np.float32)),
            "missing": ("a", np.array([np.nan, 1.0])),
            "whole": ("b", np.arange(3, dtype=np.uint8)),
            "one": ((), 3.0),
        },
        coords={"b": [0.1, 0.2, 0.3], "beside": ("b", [4, 5, 6])},
    ),
    "texts and truths": xr.Dataset(
        {
            "name": ("a", np.array(["x", "ü", ""], dtype=object)),
            "flag": ("a", np.array([True, False, True])),
            "word": ((), "text"),
        },
        coords={"a": ["p", "q", "r"]},
        attrs={"list": ["a", "b"], "n": 3, "f": 2.5, "array": np.arange(3), "empty": ""},
    ),
    "an axis without entries": xr.Dataset({"none": (("a", "b"), np.zeros((0, 3), np.float32))}),
    "times": xr.Dataset({"day": ("a", np.array(["2001-01-01"] * 2, dtype="M8[ns]"))}),
    "nothing": xr.Dataset(),
}


def of_any_reader(content: bytes) -> xr.Dataset:
    with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as lazy:
        return lazy.load()


@pytest.mark.parametrize("name", SETS)
def test_what_is_written_is_read(name: str) -> None:
    dataset = SETS[name]
    content = bytes_of(dataset)
    for read in (dataset_of_bytes(content), of_any_reader(content)):
        xr.testing.assert_identical(read, dataset)
        for key, value in dataset.variables.items():
            assert read[key].dtype.kind == ("U" if value.dtype == object else value.dtype.kind)
            assert read[key].dtype.itemsize == value.dtype.itemsize or value.dtype.kind in "UO"


@pytest.mark.parametrize("name", SETS)
def test_files_of_other_writers_are_read_as_others_read_them(name: str) -> None:
    content = bytes(SETS[name].to_netcdf(engine="h5netcdf"))  # as records of before were written
    xr.testing.assert_identical(dataset_of_bytes(content), of_any_reader(content))


def test_the_same_dataset_is_the_same_bytes() -> None:
    assert len({bytes_of(dataset.copy(deep=True)) for dataset in [SETS["numbers"]] * 3}) == 1


def test_what_is_large_is_compressed_and_what_is_declared_is_checked_first() -> None:
    zeros = xr.Dataset({"x": ("a", np.zeros(100 * SMALL))})
    content = bytes_of(zeros)
    assert len(content) < zeros.nbytes / 10
    asked: list[int] = []

    def refuse(num_bytes: int) -> None:
        asked.append(num_bytes)
        raise MemoryError

    with pytest.raises(MemoryError):
        dataset_of_bytes(content, refuse)
    assert zeros.nbytes <= asked[0] < zeros.nbytes * 2


def test_what_is_no_file_is_said() -> None:
    with pytest.raises(OSError, match="file signature"):
        dataset_of_bytes(b"nothing of the kind")
