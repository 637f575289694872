r"""Training sets larger than memory: tensors, memory-mapped files and streams, in blocks.

Whatever a set is, the exact denoiser sees blocks of rows, one after the other, and merges
what it learned from each. A memory-mapped block is read when it is used and never copied as
a whole, so that the memory does not depend on the size of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from geomem.arguments import check, checked, shown
from geomem.errors import InputError

__all__ = ["Block", "Blocks", "InMemory", "MemoryMapped", "Streamed", "as_blocks", "open_npy"]


NOT_FINITE = "the training set holds NaN or infinite values; clean it first"
_ROWS = 4096


class Blocks(Protocol):
    r"""A training set that can be gone through again and again, in the same order."""

    @property
    def num_samples(self) -> int:
        r"""The number N of points."""

    @property
    def item_shape(self) -> tuple[int, ...]:
        r"""The shape of a point."""

    @property
    def dtype(self) -> torch.dtype:
        r"""The dtype in which the points are kept."""

    def blocks(self, size: int) -> Iterator[Tensor]:
        r"""The points in order, at most ``size`` at a time, each with shape :math:`(n, d)`."""

    def part(self, start: int, stop: int) -> Blocks:
        r"""Points ``start`` to ``stop`` as a set of their own, which can be sent elsewhere."""

    def some(self, count: int) -> Tensor:
        r"""Up to ``count`` points, always the same ones, with shape :math:`(n, d)`."""


@dataclass(frozen=True)
class Block:
    r"""Training points as they lie in memory or on a disk, and the centre of all of them.

    Products are taken about the centre; differences are taken as the points are, so that equal
    distances stay equal.

    Arguments:
        rows: The points, with shape :math:`(n, d)`, in any dtype.
        centre: Their approximate centre, with shape :math:`(d)`, in float64; exact in the
            dtype of the rows, so that subtracting it rounds once.
    """

    rows: Tensor
    centre: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def points(self, index: slice | Tensor) -> Tensor:
        r"""Some of the points as they are, with shape :math:`(k, d)`, in float64."""
        rows = self.rows[index if isinstance(index, slice) else index.to(self.rows.device)]
        return rows.to(self.centre.device, torch.float64)

    def centred(
        self, index: slice, dtype: torch.dtype = torch.float64, out: Tensor | None = None
    ) -> Tensor:
        r"""Some of the points about the centre; into the first rows of ``out``, if given."""
        rows = self.rows[index]
        if out is None:
            return rows.to(self.centre.device, dtype) - self.centre.to(dtype)
        # Fresh arrays of megabytes cost ten times the subtraction: the system clears them.
        return out[: len(rows)].copy_(rows).sub_(self.centre.to(dtype))

    def buffer(self, size: int, dtype: torch.dtype) -> Tensor:
        r"""A working array for chunks of so many points."""
        shape = (min(size, len(self)), self.rows.shape[1])
        return torch.empty(shape, dtype=dtype, device=self.centre.device)

    def chunks(self, size: int) -> list[slice]:
        r"""Slices that cover the block."""
        return [slice(k, min(k + size, len(self))) for k in range(0, len(self), size)]


@checked
@dataclass(frozen=True, eq=False)
class InMemory:
    r"""A tensor ``(N, *)``."""

    data: Tensor

    def __post_init__(self) -> None:
        _check_shape(tuple(self.data.shape))
        object.__setattr__(self, "data", self.data.detach())
        if self.data.is_complex():
            raise InputError("the training set is complex; pass real numbers")
        # In parts: a mask as large as the data is memory that nobody forecast.
        if not all(bool(torch.isfinite(rows).all()) for rows in self.blocks(_ROWS)):
            raise InputError(NOT_FINITE)

    def __reduce__(self) -> tuple[Any, ...]:
        return InMemory, (self.data.clone(),)  # a view would be sent with its whole set

    @property
    def num_samples(self) -> int:
        return len(self.data)

    @property
    def item_shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self.data.dtype

    def blocks(self, size: int) -> Iterator[Tensor]:
        for rows in torch.split(self.data, size):
            yield rows.flatten(1)  # a copy where it is not contiguous, of these rows only

    def part(self, start: int, stop: int) -> InMemory:
        return InMemory(self.data[start:stop])

    def some(self, count: int) -> Tensor:
        return self.data[:count].flatten(1)


@checked
@dataclass(frozen=True, eq=False)
class MemoryMapped:
    r"""Arrays ``(n, *)`` on a disk, one after the other; read when used: see :func:`open_npy`.

    Sent to another process it is opened there anew, by its path.

    Attributes:
        arrays: The arrays, each the whole of its file.
        start: The first point that belongs to the set.
        stop: The point after the last one; all if not given.
        unchanged: Whether the arrays are what is on the disk.
    """

    arrays: tuple[np.memmap[Any, Any], ...]
    start: int = 0
    stop: int | None = None
    unchanged: bool = True

    @property
    def num_samples(self) -> int:
        last = self._length if self.stop is None else self.stop
        return last - self.start

    @property
    def _length(self) -> int:
        return sum(len(a) for a in self.arrays)

    @property
    def item_shape(self) -> tuple[int, ...]:
        return tuple(self.arrays[0].shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return torch.from_numpy(np.empty(0, self.arrays[0].dtype)).dtype

    def _rows(self) -> Iterator[np.ndarray[Any, Any]]:
        first, last = self.start, self.start + self.num_samples
        for array in self.arrays:
            rows = array.reshape(len(array), -1)[max(first, 0) : max(last, 0)]
            if len(rows):
                yield rows
            first, last = first - len(array), last - len(array)

    def blocks(self, size: int) -> Iterator[Tensor]:
        for rows in self._rows():
            for start in range(0, len(rows), size):
                yield torch.from_numpy(rows[start : start + size])

    def part(self, start: int, stop: int) -> MemoryMapped:
        return MemoryMapped(self.arrays, self.start + start, self.start + stop, self.unchanged)

    def some(self, count: int) -> Tensor:
        # Slices that are spread over each file: single rows would cost a disk access each.
        each = max(1, count // (16 * len(self.arrays)))
        parts = [
            rows[start : start + each]
            for rows in self._rows()
            for start in np.linspace(0, max(0, len(rows) - each), min(16, len(rows)), dtype=int)
        ]
        return torch.from_numpy(np.concatenate(parts))

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.unchanged:
            raise InputError(
                "this memory-mapped array may have been changed in memory, and another process "
                "would read the disk; pass the path of the file"
            )
        where = tuple((str(a.filename), a.dtype.str, a.offset, a.shape) for a in self.arrays)
        return _map_again, (where, self.start, self.stop)


def _map_again(
    where: tuple[tuple[str, str, int, tuple[int, ...]], ...],
    start: int = 0,
    stop: int | None = None,
) -> MemoryMapped:
    arrays = tuple(
        np.memmap(path, dtype=dtype, mode="c", offset=offset, shape=shape)
        for path, dtype, offset, shape in where
    )
    return MemoryMapped(arrays, start, stop)


@checked
@dataclass(frozen=True, eq=False)
class Streamed:
    r"""Blocks that are made when they are needed, by a function that starts anew each time.

    Arguments:
        factory: Called without arguments; yields tensors or arrays of shape :math:`(n, *)`,
            the same ones each time.
        num_samples: How many points they hold together.

    Example:
        >>> stream = Streamed(lambda: (torch.full((2, 3), float(k)) for k in range(4)), 8)
        >>> stream.item_shape, [len(block) for block in stream.blocks(5)]
        ((3,), [2, 2, 2, 2])
    """

    factory: Callable[[], Iterable[Tensor | np.ndarray[Any, Any]]]
    num_samples: int

    def _tensors(self) -> Iterator[Tensor]:
        for part in self.factory():
            yield part if isinstance(part, Tensor) else torch.from_numpy(np.asarray(part))

    def _first(self) -> Tensor:
        first = next(self._tensors(), None)
        if first is None:
            raise InputError("the stream of training points is empty; pass at least one block")
        _check_shape(tuple(first.shape))
        return first

    @property
    def item_shape(self) -> tuple[int, ...]:
        return tuple(self._first().shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self._first().dtype

    def blocks(self, size: int) -> Iterator[Tensor]:
        shape, seen = self.item_shape, 0
        for part in self._tensors():
            if tuple(part.shape[1:]) != shape:
                raise InputError(
                    f"a block of the stream holds points of shape {tuple(part.shape[1:])} and "
                    f"the first one of {shape}; all must be alike"
                )
            seen += len(part)
            if len(part):
                yield from torch.split(part.flatten(1), size)
        if seen != self.num_samples:
            raise InputError(
                f"the stream gave {seen} points and {self.num_samples} were announced; "
                "pass a factory that starts anew each time, and the right number"
            )

    def part(self, start: int, stop: int) -> Blocks:
        raise InputError(
            "a stream cannot be split between workers; save it as .npy files and pass their paths"
        )

    def some(self, count: int) -> Tensor:
        return self._first()[:count].flatten(1)


@checked
def open_npy(*paths: Path | str) -> MemoryMapped:
    r"""Memory-maps ``.npy`` files whose points together are one training set.

    Arguments:
        paths: The files, each with an array of shape :math:`(n, *)`, all of one kind.

    Raises:
        InputError: If a file is missing, truncated, empty, pickled or holds other points.
    """
    if not paths:
        raise InputError("no file was named; pass at least one .npy file")
    arrays = tuple(_open(check("paths", p, Path)) for p in paths)
    for path, array in zip(paths, arrays, strict=True):
        if array.shape[1:] != arrays[0].shape[1:]:
            raise InputError(
                f"{path} holds points of shape {array.shape[1:]} and {paths[0]} of "
                f"{arrays[0].shape[1:]}; the shards of a set must be alike"
            )
    return MemoryMapped(arrays)


def _open(path: Path) -> np.memmap[Any, Any]:
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        there = False
    if not there:
        raise InputError(f"{str(path)[:100]!r} is not there; check the path")
    try:
        # Copy on write, so that nothing can change the file.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(
            f"{path} is no whole .npy array ({error}); it may be truncated: write it again "
            "with numpy.save"
        ) from error
    if not isinstance(array, np.memmap) or array.dtype.kind not in "fiu":
        raise InputError(f"{path} holds no plain numbers; save one array of floats with numpy.save")
    _check_shape(array.shape)
    if not array.dtype.isnative or not array.flags.c_contiguous:
        raise InputError(
            f"{path} is not in this machine's byte order or not in C order; save "
            "numpy.ascontiguousarray(array) in its native dtype"
        )
    return array


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) < 2:
        raise InputError(f"a training set has shape (N, *), got {shape}; give each point its row")
    if 0 in shape:
        raise InputError("the training set is empty; pass at least one point")


def as_blocks(
    data: Tensor | np.ndarray[Any, Any] | Blocks | Path | str | Sequence[Path | str],
) -> Blocks:
    r"""A tensor, an array, a memory-mapped array, paths or blocks, as :class:`Blocks`."""
    if isinstance(data, Tensor):
        return InMemory(data)
    if isinstance(data, Path | str):
        data = [data]
    if isinstance(data, np.memmap):
        _check_shape(data.shape)
        if not isinstance(data.base, mmap) or not data.flags.c_contiguous:
            raise InputError(
                "this array is a part of a memory-mapped one; pass the whole one, or the path"
            )
        if data.mode == "c":  # may differ from the file
            return MemoryMapped((data,), unchanged=False)
        return _map_again(((str(data.filename), data.dtype.str, data.offset, data.shape),))
    if isinstance(data, np.ndarray):
        if data.dtype.kind not in "fiu":
            raise InputError(f"the training set holds {data.dtype}; pass floats")
        return InMemory(torch.from_numpy(np.ascontiguousarray(data)))
    if isinstance(data, Sequence):
        mapped = open_npy(*data)
        if mapped.dtype == torch.uint8:  # load_data gives the same file in -1 to 1
            raise InputError(
                f"{data[0]} holds 8-bit grey levels; pass `load_data(path).tensor(...)` for images "
                "from -1 to 1, or `open_npy(path)` for levels of 0 to 255"
            )
        return mapped
    if isinstance(data, type) or not hasattr(data, "item_shape"):
        raise InputError(f"the training set is {shown(data)}; pass a tensor, a path or blocks")
    return data
