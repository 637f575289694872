r"""Disjoint parts of the pool: training sets of one size that have no image in common.

The first part is the nested order that every sweep has, so its networks are the ones of a sweep
without other parts. The other parts are dealt from what is left of the pool: without the images
of the largest size that is trained on all parts, without the measured ones, and without all that
belongs to their groups. Groups are dealt whole, and the first N images of a part are in its
larger training sets, as in the nested order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geomem.errors import InputError

Array = NDArray[np.int64]


def other_parts(
    order: Array, groups: Array, sizes: Sequence[int], measured: int, count: int
) -> tuple[list[int], list[list[int]]]:
    r"""The sizes that can be trained on disjoint parts, and the parts besides the first one.

    Arguments:
        order: The whole pool in the order of the nested training sets.
        groups: The group of each image of the data.
        sizes: The training-set sizes N, increasing.
        measured: How many images of the order are measured.
        count: How many parts there are with the first one.

    Returns:
        The sizes of which each part has enough images, and for each further part its images in
        the order of its training sets, as many as the largest of these sizes.

    Raises:
        InputError: If the pool is too small for parts of even the smallest size.
    """
    for k in range(len(sizes), 0, -1):
        largest = sizes[k - 1]
        rest = _strangers(order, groups, max(largest, measured))
        parts = _dealt(rest, groups, count - 1)
        if min(map(len, parts)) >= largest:
            return list(sizes[:k]), [part[:largest] for part in parts]
    first = max(sizes[0], measured)
    left = len(_strangers(order, groups, first))
    raise InputError(
        f"`disjoint` is {count}, and the pool of {len(order)} images has {left} besides those of "
        f"the first part and the measured ones, not {count - 1} x {sizes[0]}; pass smaller "
        "`sizes`, fewer `points`, or hold out fewer images"
    )


def _strangers(order: Array, groups: Array, first: int) -> Array:
    # The images of the pool that share no group with the first ones.
    return order[~np.isin(groups[order], groups[order[:first]])]


def _dealt(images: Array, groups: Array, parts: int) -> list[list[int]]:
    # Whole groups, in the order of their first image, each to the part that has the fewest.
    members: dict[int, list[int]] = {}
    for i in images:
        members.setdefault(int(groups[i]), []).append(int(i))
    dealt: list[list[int]] = [[] for _ in range(parts)]
    for group in members.values():
        min(dealt, key=len).extend(group)
    return dealt
