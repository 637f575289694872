r"""The images of a monitor: which are measured, and the study that asks for them.

Of the training images some are measured; of the held-out ones as many, and the rest is reserved:
for the unit of noise, the principal directions, the linear control, and for the choice of the
best look so far. Images are taken as the training takes them, so that nothing is scaled here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sized
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomem.data.images import ImageData
from geomem.data.source import Source
from geomem.data.splits import Split
from geomem.errors import InputError
from geomem.findings.measured import MIN_UNITS
from geomem.measure.alike import Alike
from geomem.measure.errors import Errors
from geomem.measure.study import Study
from geomem.monitor.rest import own_randomness
from geomem.runs.design import choose_levels, study_of
from geomem.stats import numpy_rng

StudyPieces = Generator[float, None, tuple[Study, float]]
KEYS = ("input", "pixel_values", "images", "image", "x")  # of items that are dictionaries
TELLING = 32  # pixels by which two images are told apart before all of them are compared
# Seconds until the directions are there: a part that is always the same, and so many products of
# the reserved images with each other.
SETUP, PRODUCTS = 0.4, 50
MOST_RESERVED = 256  # more sharpen the linear control little, and a look pays for each direction


def study_in_pieces(
    train: Any,
    held_out: Any,
    *,
    points: int,
    levels: int,
    draws: int,
    seed: int,
    batch_size: int,
    name: str,
    clock: Callable[[], float],
) -> StudyPieces:
    r"""The study of a monitor, made in pieces, so that a training pays for one at a time.

    What takes next to nothing is done before the first piece: images in memory are taken and
    compared there. Data sets are read one item a piece.

    Arguments:
        train: The training images: an array or a tensor (N, \*), or a data set of N items.
        held_out: Images of the same kind that are not trained on.
        points: How many are measured on each side.
        levels: How many noise levels.
        draws: Noise draws for each image.
        seed: The seed of the choice and of the noise.
        batch_size: How many noised points are denoised at a time.
        name: What to call the data.
        clock: Seconds that pass.

    Yields:
        The seconds that the next piece will take, as far as they are known.

    Returns:
        The study, and the seconds of its last piece, the principal directions.

    Raises:
        InputError: If the images are too few, all equal or of different shapes, or one is in both.
    """
    sizes = _count("train", train), _count("held_out", held_out)
    measured = min(points, sizes[1] // 2)
    if sizes[0] < MIN_UNITS or measured < MIN_UNITS:
        raise InputError(
            f"{sizes[0]} training and {sizes[1]} held-out images are too few to tell memory from "
            f"chance; pass at least {MIN_UNITS} and {2 * MIN_UNITS}"
        )
    order = [numpy_rng(seed, f"monitor/{k}").permutation(n) for k, n in enumerate(sizes)]
    pool = yield from _take("train", train, order[0][:points], seed, clock)
    others = order[1][: measured + MOST_RESERVED]
    rest = yield from _take("held_out", held_out, others, seed, clock)
    if pool.shape[1:] != rest.shape[1:]:
        raise InputError(
            f"training images have shape {tuple(pool.shape[1:])} and held-out ones "
            f"{tuple(rest.shape[1:])}; pass images of one shape, as the network takes them"
        )
    if bool((rest == rest[0]).all()):
        raise InputError("all held-out images are equal, so there is no variation to measure")
    _check_apart(train if _in_memory(train) else pool, rest)
    data = ImageData(name, np.concatenate([pool, rest]))
    edges = np.array([len(pool), len(pool) + measured, len(data)])
    parts = np.split(np.arange(len(data), dtype=np.int64), edges[:2])
    source = Source(data, Split(parts[0], parts[1], parts[2], seed))
    yield 0.0
    flat, before = source.reserved.flatten(1).double(), clock()
    torch.mm(flat, flat.T)
    yield SETUP + PRODUCTS * (clock() - before)
    before = clock()
    study = _study(source, points, levels, Errors(batch_size), draws, seed, sizes[0])
    return study, clock() - before


def _study(
    source: Source, points: int, levels: int, errors: Errors, draws: int, seed: int, N: int
) -> Study:
    split = source.split
    return study_of(
        source,
        {
            "training": split.pool.tolist(),
            "held_out": split.held_out.tolist(),
            # Half of the reserved ones: the drawn-alike check compares with the others.
            "reserved": split.reserved[: min(points, len(split.reserved) // 2)].tolist(),
        },
        sigmas=choose_levels(source, None, levels),
        probes=[errors, Alike()],
        draws=draws,
        seed=seed,
        more={"num_samples": N},
    )


def _count(name: str, images: Any) -> int:
    if not isinstance(images, Sized) or not hasattr(images, "__getitem__"):
        raise InputError(
            f"`{name}` is a {type(images).__name__}; pass a tensor, an array, or a data set with a "
            "length and items"
        )
    return len(images)


def _in_memory(images: Any) -> bool:
    return isinstance(images, Tensor | np.ndarray)


def _take(
    name: str, images: Any, index: NDArray[np.int64], seed: int, clock: Callable[[], float]
) -> Generator[float, None, NDArray[np.float32]]:
    rows: list[Any] = []
    if _in_memory(images):
        places = torch.from_numpy(index) if isinstance(images, Tensor) else index
        rows.append(images[places])
    else:
        for number in index.tolist():
            before = clock()
            with own_randomness(seed + number):
                rows.append(image_of(name, images[number])[None])
            yield clock() - before  # the next one takes as long
    parts = [_plain(r) for r in rows]
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1 or any(part.dtype.kind != "f" for part in parts):
        raise InputError(
            f"`{name}` holds {parts[0].dtype} of shape {' and '.join(map(str, sorted(shapes)))}; "
            "pass floats of one shape, scaled as the network takes them"
        )
    return np.concatenate(parts).astype(np.float32)


def image_of(name: str, item: Any) -> Any:
    r"""The image of an item: itself, the first of a tuple, or a column of a dictionary.

    Raises:
        InputError: If there is none; it names the data set.
    """
    if isinstance(item, dict):
        found = next((item[key] for key in KEYS if key in item), None)
    else:
        found = item[0] if isinstance(item, tuple | list) and item else item
    if not isinstance(found, Tensor | np.ndarray):
        raise InputError(
            f"an item of `{name}` is a {type(item).__name__} in which no image was found; let it "
            f"be a tensor, a tuple that begins with one, or a dictionary with {', '.join(KEYS)}"
        )
    return found


def _check_apart(train: Any, held_out: NDArray[np.float32]) -> None:
    # Of all training images only those are read as a whole that agree with a held-out image in
    # the pixels that vary most: there may be many, and a training pays for this before it begins.
    flat = held_out.reshape(len(held_out), -1)
    telling = np.argsort(-flat.var(0), kind="stable")[:TELLING].copy()
    theirs = {row.tobytes() for row in flat[:, telling]}
    rows = train.reshape(len(train), -1)
    some = rows[:, torch.from_numpy(telling)] if isinstance(rows, Tensor) else rows[:, telling]
    near = [i for i, row in enumerate(_floats(some)) if row.tobytes() in theirs]
    known = {_floats(train[i]).tobytes() for i in near}
    both = sum(image.tobytes() in known for image in held_out)
    if both:
        raise InputError(
            f"{both} of {len(held_out)} held-out images are among the training images, so that "
            "their memory would count as generalization; hold out others"
        )


def _plain(images: Any) -> NDArray[Any]:
    if not isinstance(images, Tensor):
        return np.asarray(images)
    # Half precision of some kinds is unknown to numpy.
    found = images.detach().cpu()
    array: NDArray[Any] = (found.float() if found.is_floating_point() else found).numpy()
    return array


def _floats(images: Any) -> NDArray[np.float32]:
    return np.ascontiguousarray(_plain(images), dtype=np.float32)
