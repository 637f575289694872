r"""The data: checked arrays of images, with their names, groups, digests and splits."""

from __future__ import annotations

from geomem.data.images import ImageData, duplicate_groups, load_data
from geomem.data.splits import Split, make_split, nested_subsets, read_split, write_split

__all__ = [
    "ImageData",
    "Split",
    "duplicate_groups",
    "load_data",
    "make_split",
    "nested_subsets",
    "read_split",
    "write_split",
]
