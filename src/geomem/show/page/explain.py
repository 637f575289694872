r"""What the figures of a page show and how their numbers were obtained, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from geomem.findings.measured import MIN_UNITS
from geomem.findings.numbers import REPLICATES
from geomem.findings.sentences import networks, window
from geomem.show.figures.data import PLACES, shown_rows, words
from geomem.show.page.pictures import is_picture

# What an audit's control is, in a sentence on its map.
AUDITED = {
    "linear": "that of a linear denoiser that never saw them, after allowing for how much better "
    "the model is on new images",
    "reference": "that of a reference network that never saw them, image by image with the same "
    "noise, after allowing for how much better the model is on new images",
    "base": "that of the model it was tuned from, image by image with the same noise, after "
    "allowing for how much better the model is on new images",
    "mirror": "its own error at the mirrored image, beyond what mirroring costs at held-out images",
}


def errors(known: xr.Dataset) -> str:
    r"""What every ± on the page is."""
    over = (
        f"over images, by {REPLICATES:,} bootstrap resamplings of image groups, with the same "
        "images and noise for every subject"
        if known.attrs["error_over"] == "images"
        else "over trainings with different seeds"
    )
    shown, there = len(shown_rows(known)), len(networks(known, early=True))
    fewer = (
        f" Figures show {shown} of {there} networks, the table has all." if shown < there else ""
    )
    return (
        f"Every ± is one standard error {over}, if nothing else is said. Nats are integrals over "
        f"the noise levels σ from {window(known)}; rms is the data's root-mean-square deviation."
        f"{fewer}"
    )


def source_of_dimension(dataset: xr.Dataset) -> str:
    r"""What the dimension of the networks was measured from, as the numbers choose it."""
    there = 0
    if "diagonal" in dataset:
        one = dataset.diagonal.isel(sigma=0, direction=0)
        there = int(one.notnull().sum("point").max())
    enough = there >= MIN_UNITS
    return "the Jacobian's diagonal" if enough else "noise and error, without a Jacobian"


def explain(
    dataset: xr.Dataset, known: xr.Dataset, study: Mapping[str, Any], *, show_images: bool
) -> dict[str, str]:
    r"""A few sentences for each figure.

    Arguments:
        dataset: The records.
        known: Their numbers.
        study: The content of the study.
        show_images: Whether pixels of the data are on the page.
    """
    total = words(known, "density").total
    pictures = "vector" in dataset and is_picture(dataset.vector.shape[2:])
    maps = (
        "White is nothing. Below each map its integral over noise, by direction; at the end its "
        "sum over directions, by level."
    )
    if "direction_count" in known and bool((known.direction_count > 1).any()):
        maps += " Directions far down the spectrum come in bands, drawn as the mean of theirs."
    exact = bool((known["kind"] == "empirical").any())
    density = (
        "Each cell: by how much the network's denoising error at training images lies below that "
        "of a linear denoiser that never saw them, after allowing for how much better the best "
        "network of the run is on new images. Red is memorized, blue is the contrary."
    )
    if known.attrs["control"] == "reference":
        density = (
            "Each cell: by how much the network's denoising error at training images lies below "
            "that of a network of the same recipe that never saw them, image by image with the "
            "same noise. Red is memorized, blue is the contrary."
        )
    if known.attrs["control"] == "population":
        density = (
            "Each cell: by how much the network's denoising error at training images lies below "
            "that of the population denoiser, which is known here: the missing dimension. Red is "
            "missing, blue is the contrary."
        )
    if known.attrs.get("kind") == "audit" and known.attrs["control"] in AUDITED:
        density = (
            "Each cell: by how much the model's denoising error at training images lies below "
            f"{AUDITED[known.attrs['control']]}. Red is memorized, blue is the contrary."
        )
    images = (
        f"The measured training images with the most {total} of their own: how many nats likelier "
        "the network finds this image than the control does, between the ends of the window; ± "
        f"over {study['draws']} draws of noise at that image."
    )
    if not show_images:
        images += " Pixels of the data are left out."
    return {
        "density": density,
        "gap": (
            "Each cell: how much of a direction the network keeps at held-out images beyond what "
            "it keeps at training images; red is lost at training images only. A network that has "
            "collapsed everywhere shows no gap."
        ),
        "maps": maps,
        "dimension": (
            "Along how many directions the denoised image still follows its noisy input, the "
            f"trace of the Jacobian, measured from {source_of_dimension(dataset)}. Bands are ± one "
            "standard error."
        )
        + (
            " The exact denoiser of the training set shows what perfect memorization looks like."
            if exact and networks(known)
            else ""
        ),
        "local": _local(known, study),
        "looks": (
            "Each point is a look at the training while it went on. First, by how many nats the "
            "network has gained more at training images than at held-out ones, beside the linear "
            "control and beside the best earlier look; then the memorized density of all "
            "directions at the slider's noise level, which counts lost directions, beside the "
            "linear control; last, the error at both kinds of images. Bands are ± one "
            "standard error over image groups. The dotted line is the first look that is beyond "
            "chance, all looks considered."
        ),
        "directions": (
            f"The principal directions along which most and least {total} was found, in nats "
            "over the window, among those that have something to lose (a tenth of the largest or "
            "more); below 0 the network is worse than the control. "
            + (
                "A picture shows a direction of change, grey is no change."
                if pictures
                else "These data are no pictures, so directions are given by number."
            )
        ),
        "samples": _samples(dataset, known, show_images=show_images),
        "numbers": (
            f"Nats are over {window(known)}. Proportions carry exact (Clopper-Pearson) intervals. "
            "The identity check compares the Jacobian's trace with noise against error, which "
            "agree for every denoiser."
        ),
        "images": images,
    }


def _local(known: xr.Dataset, study: Mapping[str, Any]) -> str:
    if "local_dimension" not in known:
        return ""
    methods = " and ".join(map(str, known.dimension_method.values))
    asked = [int(p["points"]) for p in study["probes"] if "methods" in p and "points" in p]
    return (
        f"What {methods} answers at single points, mean over "
        + (f"up to {max(asked)} of each kind. " if asked else "those of each kind. ")
        + "A method that looks for a gap has no answer where it finds none: lines go where at "
        "least half of the points have one, rings mark levels where fewer have, and nothing is "
        "drawn where none has. Point at a level for the share."
    )


def _samples(dataset: xr.Dataset, known: xr.Dataset, *, show_images: bool) -> str:
    pictured = "sample_image" in dataset and is_picture(dataset.sample_image.shape[2:])
    if pictured and show_images:
        first = "Above a generated sample, below it its nearest training image."
    elif pictured:
        first = (
            "Generated samples only: pixels of the data are left out, and the nearest training "
            "image is given by its name. A copy among the samples looks like its original."
        )
    else:
        first = "These data are no pictures: each sample by its numbers."
    calibration = (
        "With fewer than 199 held-out images the ratio is not calibrated: no p-values."
        if "copies" not in known or known.copies.isnull().all()
        else "p is the share of held-out images, which cannot be copies, with a ratio as small; a "
        "sample is called a copy, or memorized, at p ≤ 1 %. Else it is spurious if another sample "
        "is nearer, beside its distance to training images, than 99 % of held-out images have each "
        "other; the rest is new. Where a kind is not among the first samples, one of it is shown."
    )
    return (
        f"{first} c, the distance ratio, is the distance to the nearest training image over that "
        "to the second nearest, of another group: near 1 is new, near 0 is a copy. Samples at the "
        f"same place start from the same noise. {calibration}"
    )


def about(dataset: xr.Dataset, study: Mapping[str, Any]) -> str:
    r"""One line about data, control and state of the run."""
    data, shape = study["data"], tuple(study["data"]["item_shape"])
    size = " × ".join(str(s) for s in shape if s != 1 or len(shape) == 1)
    what = f"{'images of' if is_picture(shape) else 'vectors of length'} {size}"
    if len(shape) > 1 and not is_picture(shape):
        what = f"items of {size}"
    done = f"{dataset.attrs['subjects_done']} of {dataset.attrs['subjects_planned']} subjects"
    if "pool" not in data:
        points = "; ".join(f"{len(i)} {PLACES.get(at, at)}" for at, i in study["points"].items())
        return f"{what[0].upper()}{what[1:]}: {points}; {done} measured."
    return (
        f"{data['pool']:,} {what} to train on, {data['held_out']:,} held out, "
        f"{data['reserved']:,} reserved for the principal directions, the scale and the linear "
        f"control; {done} measured."
    )
