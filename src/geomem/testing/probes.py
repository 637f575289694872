r"""Checks of a probe: on two small studies, of exact, learned and unknown denoisers."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from geomem.compute.threads import one_thread
from geomem.data.images import ImageData
from geomem.data.source import Source
from geomem.data.splits import make_split
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser
from geomem.measure.probes import build, measure
from geomem.measure.study import Probe, Study, describe, make_study
from geomem.measure.subject import Description, Subject
from geomem.models.networks import NetworkConfig
from geomem.noise import log_levels
from geomem.runs.design import study_of
from geomem.runs.load import load, subject_coordinates
from geomem.runs.netcdf import bytes_of
from geomem.runs.records import RunFolder
from geomem.subspaces import PrincipalDirections
from geomem.testing.common import as_failures, nothing_changes, require

Case = tuple[Study, list[Callable[[], Subject]]]


def check_probe(probe: Probe) -> None:
    r"""Checks that a probe of yours can be asked in a run of any kind.

    It is a frozen dataclass that a study can write down and build again. Called with the linear,
    population and exact denoisers, networks, and a model of which nothing is known, in a study
    of images and in one of vectors with held-out points alone, it returns an ``xr.Dataset`` (an
    empty one where its question makes no sense) of numbers or texts, each variable with
    ``units`` and ``long_name``, along the dims of records or its own; the same bytes for the
    same subject and study; shares of the work from 0 to 1. It changes neither subject and study
    nor anything else on the machine, and what it returns is found in the dataset of a run.

    Arguments:
        probe: The probe.

    Raises:
        AssertionError: If any of it does not hold; the message says which.

    Example:
        >>> from geomem.measure.errors import Errors
        >>> check_probe(Errors())
    """
    name = type(probe).__name__
    params = getattr(type(probe), "__dataclass_params__", None)
    require(
        params is not None and params.frozen,
        f"{name} is no frozen dataclass: write @dataclass(frozen=True) above it, so that a study "
        "can hold its fields",
    )
    require(
        "<locals>" not in type(probe).__qualname__,
        f"{name} is defined inside a function, where no worker finds it; move it to a module",
    )
    with as_failures():
        written = describe(probe)
        again = build(written)
    require(
        again == probe and type(again) is type(probe),
        f"{name} is {probe} and comes back from a study as {again}; let its fields be numbers, "
        "texts, and tuples of them",
    )
    something = False
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning is no failure
        for study, makers in (_of_images(probe), _of_vectors(probe)):
            first = [_asked(probe, maker(), study) for maker in makers]
            something = something or any(len(found.data_vars) for found in first)
            dims: dict[Any, set[Any]] = {}
            for key, value in (pair for found in first for pair in found.data_vars.items()):
                require(
                    dims.setdefault(key, set(value.dims)) == set(value.dims),
                    f"{key} of {name} has other dims for other subjects; let them be the same",
                )
            _check_run(name, study, makers, first)
    require(something, f"{name} returns nothing of any denoiser, exact, learned or unknown")


# ---------------------------------------------------------------------------------- answers


def _asked(probe: Probe, subject: Subject, study: Study) -> xr.Dataset:
    name, shares = type(probe).__name__, list[float]()
    about = f"of {subject.description} at {', '.join(study.points(subject))} points"
    before = _state(subject, study)
    try:
        with nothing_changes(name), as_failures():
            found: Any = probe(subject, study, shares.append)
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(
            f"{name}, asked {about}, raises {type(error).__name__}: {error}; return an empty "
            "xr.Dataset where the question makes no sense"
        ) from error
    changed = [key for key, value in _state(subject, study).items() if value != before[key]]
    require(not changed, f"{name}, asked {about}, changes {', '.join(changed)}; leave them alone")
    require(
        isinstance(found, xr.Dataset),
        f"{name}, asked {about}, returns a {type(found).__name__}; return xr.Dataset",
    )
    steps = np.array([0.0, *shares], dtype=float)
    require(
        bool(np.isfinite(steps).all() and (np.diff(steps) >= 0).all() and steps[-1] <= 1),
        f"{name} reports shares {[float(f'{s:.3g}') for s in shares[:5]]}...; report what is done "
        "of this subject, from 0 rising to 1",
    )
    answer: xr.Dataset = found
    _check_variables(name, answer, subject, study)
    return answer


def _state(subject: Subject, study: Study) -> dict[str, Any]:
    network = subject.denoiser
    module = network if isinstance(network, torch.nn.Module) else torch.nn.Identity()
    return {
        "the study": study.digest,
        "the study's images": [x.numpy().tobytes() for x in study.images.values()],
        "the network's weights": [p.detach().numpy().tobytes() for p in module.parameters()],
        "the network's mode (train or eval)": [m.training for m in module.modules()],
        "what is known of the subject": (subject.description, subject.training),
    }


def _check_variables(name: str, found: xr.Dataset, subject: Subject, study: Study) -> None:
    sizes = {
        "sigma": len(study.sigmas),
        "point": study.width,
        "draw": study.draws,
        "direction": len(study.directions.counts),
    }
    taken = {"subject", *subject_coordinates([])}
    for key, value in found.data_vars.items():
        said = [value.attrs.get(what) for what in ("units", "long_name")]
        require(
            all(isinstance(text, str) and text for text in said),
            f"{name} gives {key} no `units` or `long_name`; add both as texts ('1' if it has none)",
        )
        require(
            value.dtype.kind in "fiubU",
            f"{name} gives {key} the dtype {value.dtype}; return numbers, bools or texts",
        )
        require(
            str(key) not in taken, f"{name} calls a variable {key}, a name of records; rename it"
        )
    for dim, size in found.sizes.items():
        require(
            str(dim) not in taken,
            f"{name} returns a dim {dim!r}, which records add themselves; leave it out",
        )
        require(
            sizes.get(str(dim), size) == size,
            f"{name} returns {dim!r} of length {size} where the study has {sizes.get(str(dim))}; "
            "pad with NaN, or call the dim otherwise",
        )
        require(
            dim not in sizes or dim not in found.coords,
            f"{name} returns a coordinate {dim!r}, which the study gives; leave it out",
        )
    if "at" in found.dims:
        kinds = list(study.points(subject))
        stated = found["at"].values.tolist() if "at" in found.coords else None
        require(
            stated == kinds,
            f"{name} returns a dim 'at' with the coordinate {stated} where the points are {kinds}; "
            "pass coords={'at': list(study.points(subject))}",
        )


def _check_run(
    name: str, study: Study, makers: list[Callable[[], Subject]], answers: list[xr.Dataset]
) -> None:
    # Another time: built from the study, of subjects that nobody asked before, in another order,
    # on the way that answers go in every run: merged, written, loaded.
    known = [maker().description for maker in makers]
    with tempfile.TemporaryDirectory() as folder, as_failures():
        run = RunFolder.create(Path(folder) / "run", {"kind": "check"}, study.content, known)
        for number in reversed(range(len(makers))):
            record = measure(makers[number](), study)
            require(
                bytes_of(record) == bytes_of(xr.Dataset().merge(answers[number])),
                f"{name} gives two answers of {known[number]} in one study; let what it returns "
                "follow from subject and study alone, by a seed made of study.seed",
            )
            run.write_record(number, record)
        dataset = load(run.path)
    for number, found in enumerate(answers):
        for key, value in found.data_vars.items():
            there = dataset[key].isel(subject=number).transpose(*value.dims)
            places: Mapping[Any, Any] = {
                dim: there.get_index("at").get_indexer_for(value["at"].values)
                if dim == "at"
                else slice(value.sizes[dim])
                for dim in value.dims
            }
            kept = there.isel(places).values
            same = kept == value.values
            if value.dtype.kind == "f":
                same |= np.isnan(value.values)
            require(bool(np.all(same)), f"{key} of {name} is not in a run what {name} returned")


# ---------------------------------------------------------------------------------- studies


def _of_images(probe: Probe) -> Case:
    # Small images around a plane: all kinds of subjects, with the data behind them.
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 12))
    pixels = plane + 0.1 * rng.normal(size=plane.shape)
    data = ImageData.of("check", pixels.reshape(-1, 3, 4).astype(np.float32))
    source = Source(data, make_split(data, held_out=0.3, reserved=0.3))
    order = source.split.pool.tolist()
    study = study_of(
        source,
        {"training": order[:6], "held_out": source.split.held_out[:5].tolist()},
        sigmas=log_levels(0.1, 3.0, 3).numpy() * source.rms,
        probes=[probe],
        draws=2,
        seed=0,
        more={"order": order, "sizes": [4, len(order)]},
    )

    def empirical(size: int) -> Subject:
        known = Description("empirical", num_samples=size)
        return Subject(known, EmpiricalDenoiser(data.tensor(order[:size])), training=order[:size])

    def learned(size: int) -> Subject:
        config = NetworkConfig("mlp", data.item_shape, source.rms, width=16, blocks=1)
        known = Description("learned", num_samples=size, seed=0, step=1)
        network = config.build(0).eval()
        return Subject(known, network, torch.float32, training=order[:size])

    return study, [
        lambda: Subject(Description("linear"), source.linear_control),
        lambda: empirical(4),
        lambda: empirical(len(order)),
        lambda: learned(4),
    ]


def _of_vectors(probe: Probe) -> Case:
    # Held-out points alone and no data behind them: what an audit knows of a stranger's model.
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    variances = torch.tensor([1.0, 0.5, 0.2, 0.1], dtype=torch.float64)
    control = GaussianDenoiser(torch.zeros(4, dtype=torch.float64), variances)
    study = make_study(
        {"held_out": points},
        directions=PrincipalDirections(torch.eye(4).double(), variances, 0.0, 3, (3, 4)),
        sigmas=log_levels(0.2, 1.0, 2),
        probes=[probe],
        rms=float(variances.mean().sqrt()),
        draws=1,
        control="population",
    )
    config = NetworkConfig("mlp", (4,), study.rms, width=16, blocks=1)
    return study, [
        lambda: Subject(Description("population"), control),
        lambda: Subject(Description("model", label="x"), config.build(1).eval(), torch.float32),
    ]
