r"""What the figures of a page show and how their numbers were obtained, in plain words."""

from __future__ import annotations

from typing import Any

import xarray as xr

from geomem.findings.numbers import REPLICATES
from geomem.show.figures.views import has_jacobian, words
from geomem.show.page.pictures import is_picture


def window(known: xr.Dataset) -> str:
    r"""The window of noise levels that every number of nats refers to."""
    low, high = (w / known.attrs["rms"] for w in known.attrs["window"])
    return f"{low:.2g} to {high:.2g} rms"


def errors(known: xr.Dataset) -> str:
    r"""What every ± on the page is."""
    over = (
        f"over images, by {REPLICATES:,} bootstrap resamplings of image groups, with the same "
        "images and noise for every N"
        if known.attrs["error_over"] == "images"
        else "over trainings with different seeds"
    )
    return (
        f"Every ± is one standard error {over}, if nothing else is said. Nats are integrals over "
        f"the noise levels σ from {window(known)}; rms is the data's root-mean-square deviation."
    )


def source_of_dimension(dataset: xr.Dataset) -> str:
    r"""What the dimension of the networks was measured from."""
    return (
        "the Jacobian's diagonal"
        if has_jacobian(dataset)
        else "noise and error, without a Jacobian"
    )


def explain(dataset: xr.Dataset, known: xr.Dataset, *, show_images: bool) -> dict[str, str]:
    r"""A few sentences for each figure.

    Arguments:
        dataset: The records.
        known: Their numbers.
        show_images: Whether pixels of the data are on the page.
    """
    pictures = "vector" in dataset and is_picture(dataset.vector.shape[1:])
    said = words(known, "density")
    return {
        "density": _density(known),
        "gap": (
            "Each cell: how much of a direction the network keeps at held-out images beyond what "
            "it keeps at training images; red is lost at training images only. A network that has "
            "collapsed everywhere shows no gap."
        ),
        "maps": _maps(known),
        "dimension": (
            "Along how many directions the denoised image still follows its noisy input, the "
            f"trace of the Jacobian, measured from {source_of_dimension(dataset)}. Bands are ± one "
            "standard error. The exact denoiser of the training set shows what perfect "
            "memorization looks like."
        ),
        "local": _local(known),
        "directions": (
            f"The principal directions along which most and least {said.total} was found, in nats "
            "over the window, among those that have something to lose (a tenth of the largest or "
            "more); choose N above. "
            + (
                "A picture shows a direction of change, grey is no change."
                if pictures
                else "These data are vectors, so there are no pictures."
            )
        ),
        "samples": _samples(dataset, known, show_images=show_images),
        "numbers": (
            f"Nats are over {window(known)}. The exact denoiser's ± is over training images; "
            "proportions carry exact (Clopper-Pearson) intervals. The identity check compares the "
            "Jacobian's trace with noise against error, which agree for every denoiser."
        ),
        "images": _images(dataset, known, show_images=show_images),
    }


def _local(known: xr.Dataset) -> str:
    if "local_dimension" not in known:
        return ""
    methods = " and ".join(map(str, known.dimension_method.values))
    points = known.attrs["dimension_points"]
    return (
        f"What {methods} answers at single images, mean over up to {points} of each kind. A method "
        "that looks for a gap has no answer where it finds none: lines go where at least half of "
        "the images have one, rings mark levels where fewer have, and nothing is drawn where none "
        "has. Point at a level for the share."
    )


def _density(known: xr.Dataset) -> str:
    if known.attrs["control"] == "population":
        return (
            "Each cell: by how much the network's denoising error at training images lies below "
            "that of the population denoiser, which is known here: the missing dimension. Red is "
            "missing, blue is the contrary."
        )
    return (
        "Each cell: by how much the network's denoising error at training images lies below that "
        "of a linear denoiser that never saw them, after allowing for how much better the best "
        "network of the run is on new images. Red is memorized, blue is the contrary."
    )


def _maps(known: xr.Dataset) -> str:
    text = (
        "White is nothing. Below each map its integral over noise, by direction; at the end its "
        "sum over directions, by level."
    )
    if bool((known.direction_count > 1).any()):
        text += " Directions far down the spectrum come in bands, drawn as the mean of theirs."
    return text


def _samples(dataset: xr.Dataset, known: xr.Dataset, *, show_images: bool) -> str:
    if "sample_ratio" not in dataset:
        return "The run drew no samples, so nothing is said about copies."
    pictured = "sample_image" in dataset and is_picture(dataset.sample_image.shape[4:])
    parts = []
    if pictured and show_images:
        parts.append("Above a generated sample, below it its nearest training image.")
    elif pictured:
        parts.append(
            "Generated samples only: pixels of the data are left out, and the nearest training "
            "image is given by its index. A copy among the samples looks like its original."
        )
    else:
        parts.append("These data are vectors: each sample by its numbers.")
    parts.append(
        "c is the distance to the nearest training image over that to the second nearest, of "
        "another group: near 1 is new, near 0 is a copy. Columns start from the same noise."
    )
    return " ".join([*parts, _calibration(known)])


def _calibration(known: xr.Dataset) -> str:
    if known.copies.isnull().all():
        return "With fewer than 199 held-out images the ratio is not calibrated: no p-values."
    return (
        "p is the share of held-out images, which cannot be copies, with a ratio as small; a "
        "sample is called a copy at p ≤ 1 %."
    )


def _images(dataset: xr.Dataset, known: xr.Dataset, *, show_images: bool) -> str:
    draws = dataset.sizes["draw"]
    text = (
        f"The measured training images with the most {words(known, 'density').total} of their "
        "own: how many nats likelier the network finds this image than the control does, between "
        f"the ends of the window; ± over {draws} draws of noise at that image."
    )
    if not show_images:
        text += " Pixels of the data are left out: images are given by their index in the data."
    return text


def about(dataset: xr.Dataset, design: dict[str, Any]) -> str:
    r"""One line about data, control and state of the run."""
    data = design["data"]
    shape = " × ".join(str(s) for s in data["item_shape"] if s != 1 or len(data["item_shape"]) == 1)
    kind = "images of" if is_picture(tuple(data["item_shape"])) else "vectors of length"
    return (
        f"{data['pool']:,} {kind} {shape} to train on, {data['held_out']:,} held out, "
        f"{data['reserved']:,} reserved for the principal directions, the scale and the linear "
        f"control; {dataset.attrs['units_done']} of {dataset.attrs['units_planned']} units of "
        "work done."
    )
