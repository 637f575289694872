r"""The images of a monitor: which are measured, and the study that asks for them.

Of the training images some are measured; of the held-out ones as many, and the rest is reserved:
for the unit of noise, the principal directions, the linear control, and for the choice of the
best look so far. Images are taken as the training takes them, so that nothing is scaled here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Sized
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
from geomem.runs.design import choose_levels, study_of
from geomem.stats import numpy_rng

KEYS = ("input", "pixel_values", "images", "image", "x")  # of items that are dictionaries
MOST_RESERVED = 1024  # more sharpen the linear control little, and cost memory


def study_of_images(
    train: Any,
    held_out: Any,
    *,
    points: int,
    levels: int,
    draws: int,
    seed: int,
    batch_size: int,
    name: str,
) -> Study:
    r"""The study of a monitor.

    Arguments:
        train: The training images: an array or a tensor (N, \*), or a data set of N items.
        held_out: Images of the same kind that are not trained on.
        points: How many are measured on each side.
        levels: How many noise levels.
        draws: Noise draws for each image.
        seed: The seed of the choice and of the noise.
        batch_size: How many noised points are denoised at a time.
        name: What to call the data.

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
    pool = _take("train", train, order[0][:points])
    rest = _take("held_out", held_out, order[1][: measured + MOST_RESERVED])
    if pool.shape[1:] != rest.shape[1:]:
        raise InputError(
            f"training images have shape {tuple(pool.shape[1:])} and held-out ones "
            f"{tuple(rest.shape[1:])}; pass images of one shape, as the network takes them"
        )
    if bool((rest == rest[0]).all()):
        raise InputError("all held-out images are equal, so there is no variation to measure")
    _check_apart(train if isinstance(train, Tensor | np.ndarray) else pool, rest)
    data = ImageData(name, np.concatenate([pool, rest]))
    edges = np.array([len(pool), len(pool) + measured, len(data)])
    parts = np.split(np.arange(len(data), dtype=np.int64), edges[:2])
    split = Split(parts[0], parts[1], parts[2], seed)
    source = Source(data, split)
    return study_of(
        source,
        {
            "training": split.pool.tolist(),
            "held_out": split.held_out.tolist(),
            # Half of the reserved ones: the drawn-alike check compares with the others.
            "reserved": split.reserved[: min(points, len(split.reserved) // 2)].tolist(),
        },
        sigmas=choose_levels(source, None, levels),
        probes=[Errors(batch_size), Alike()],
        draws=draws,
        seed=seed,
        more={"num_samples": sizes[0]},
    )


def _count(name: str, images: Any) -> int:
    if not isinstance(images, Sized) or not hasattr(images, "__getitem__"):
        raise InputError(
            f"`{name}` is a {type(images).__name__}; pass a tensor, an array, or a data set with a "
            "length and items"
        )
    return len(images)


def _take(name: str, images: Any, index: NDArray[np.int64]) -> NDArray[np.float32]:
    if isinstance(images, Tensor | np.ndarray):
        chosen = images[torch.from_numpy(index)] if isinstance(images, Tensor) else images[index]
        rows: Sequence[Any] = [chosen]
    else:
        rows = [_image(name, images[int(i)])[None] for i in index]
    parts = [r.detach().cpu().numpy() if isinstance(r, Tensor) else np.asarray(r) for r in rows]
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1 or any(part.dtype.kind != "f" for part in parts):
        raise InputError(
            f"`{name}` holds {parts[0].dtype} of shape {' and '.join(map(str, sorted(shapes)))}; "
            "pass floats of one shape, scaled as the network takes them"
        )
    return np.concatenate(parts).astype(np.float32)


def _image(name: str, item: Any) -> Any:
    # What data sets give: the image, or the image and its label, or a dictionary of columns.
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
    known = {_digest(image) for image in train}
    both = sum(_digest(image) in known for image in held_out)
    if both:
        raise InputError(
            f"{both} of {len(held_out)} held-out images are among the training images, so that "
            "their memory would count as generalization; hold out others"
        )


def _digest(image: Any) -> bytes:
    plain = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    return hashlib.sha256(plain.astype(np.float32).tobytes()).digest()
