r"""Digits against training time, size and width: how fast they are memorized, and as what.

One set of trainings serves both experiments. Shares are of the control's nats over the whole
window, or of its dimension at one level; the control is a reference network that never saw the
measured images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.optimize import OptimizeWarning, curve_fit

from geomem.errors import InputError
from geomem.experiments.experiment import Experiment, Judgement, Runs, Scale, Table, Verdict
from geomem.experiments.linear import sweep_of
from geomem.information import integrate_log
from geomem.runs.load import load
from geomem.runs.records import RunFolder
from geomem.runs.results import results
from geomem.runs.sweep import Sweep
from geomem.stats import Estimate, numpy_rng

FOLDER = "digits-epochs"
BANDS = {"1 to 4": slice(0, 4), "5 to 16": slice(4, 16), "17 to 64": slice(16, 64)}
LEVEL = 0.3  # rms, chosen beforehand: where digits lose most
HALF = 0.5
DRAWS = 2000  # of the numbers that a crossing is interpolated between
RMS_LEFT = 0.05  # of a share, that a law may leave unexplained and still be one curve


def digits_sweep(scale: Scale) -> Sweep:
    r"""The trainings on the digits, frozen."""
    steps = 12_000 if scale == "gpu" else 2000
    return Sweep(
        "digits",
        sizes=(32, 64, 128, 256, 512, *((1024,) if scale == "gpu" else ())),
        steps=steps,
        measured_steps=(steps // 8, steps // 4, steps // 2),
        seeds=(0, 1, 2, 3) if scale == "gpu" else (0, 1),
        widths=(64, 128, 256, 512) if scale == "gpu" else (64, 256),
        network="mlp",
        levels=10,
        jacobian_points=0,
    )


def _ran(scale: Scale) -> list[str]:
    sweep = digits_sweep(scale)
    widths = " and ".join(map(str, sweep.widths))
    return [
        f"scikit-learn's digits (8 x 8); MLPs of width {widths}, N = "
        f"{', '.join(map(str, sweep.sizes))}, nested; {len(sweep.seeds)} trainings each of "
        f"{sweep.training.steps:,} steps of {sweep.training.batch_size}, measured at "
        f"{', '.join(f'{s:,}' for s in sweep.measured_steps)} on the way (the rate falls to 0 in "
        f"the second half); 64 training and 64 held-out images, {sweep.levels} levels.",
        "± is over trainings and images together.",
    ]


# -------------------------------------------------------------------------------- epochs


class Epochs(Experiment):
    r"""Is the number of passes over an image what it takes to memorize it?"""

    name = "epochs"
    title = "Training time to memorize grows like N"
    quote = "τ_mem increases linearly with the training set size n, while τ_gen remains constant"
    source = (
        "Bonnaire, Urfin, Biroli, Mézard: *Why diffusion models don't memorize: the role of "
        "implicit dynamical regularization in training*, arXiv 2505.17638, abstract"
    )
    claim = (
        "For shares of dimension in place of copies: the lost share should be one curve of steps / "
        "N, so that in the fitted law (share = most / (1 + exp(-a (ln steps - b ln N - c)))) the "
        "exponent b is 1."
    )
    limits = (
        "Two widths of an MLP on 64 pixels and at most 2,000 steps: at the largest N an "
        "image has been seen 500 times, so that the plateau of the law is known from small "
        "N alone. The falling rate of the second half is part of the law that is fitted."
    )

    def trainings(self, scale: Scale) -> Runs:
        r"""The trainings on the digits."""
        return {FOLDER: digits_sweep(scale)}

    def judge(self, out: Path, scale: Scale) -> Judgement:
        r"""Shares of nats by band, and the law's exponent with its error, width by width."""
        dataset, known = _read(out / FOLDER)
        shares = band_shares(dataset, known)
        batch = digits_sweep(scale).training.batch_size
        rows, laws, curves = [], [], {}
        widths = sorted({int(w) for w in shares.width.values})
        fits = {}
        for width in widths:
            one = shares.isel(subject=shares.width.values == width)
            for k in range(one.sizes["subject"]):
                cell = one.isel(subject=k)
                epochs = float(cell.step) * batch / float(cell.num_samples)
                share = Estimate(float(cell.share), float(cell.share_stderr))
                nats = Estimate(float(cell.nats), float(cell.nats_stderr))
                bands = [f"{float(b):.2f}" for b in cell.band_share.values]
                rows.append(
                    [str(width), f"{int(cell.num_samples):,}", f"{int(cell.step):,}",
                     f"{epochs:,.0f}", repr(nats), repr(share), *bands]
                )  # fmt: skip
            fits[width] = law_of(one)
            law = fits[width]
            laws.append(
                [str(width), *(repr(Estimate(*law[name])) for name in ("b", "a", "most")),
                 f"{law['rms']:.3f}"]
            )  # fmt: skip
            curves[str(width)] = {
                "num_samples": [int(n) for n in one.num_samples.values],
                "epochs": [float(e) for e in one.step.values * batch / one.num_samples.values],
                "share": [float(f"{s:.4g}") for s in one.share.values],
                "share_stderr": [float(f"{s:.3g}") for s in one.share_stderr.values],
                "bands": {
                    name: [float(f"{s:.4g}") for s in one.band_share.values[:, b]]
                    for b, name in enumerate(BANDS)
                },
            }
        verdict, why = _of_laws(fits, shares)
        head = ["width", "N", "steps", "epochs", "nats", "share of nats"]
        head += [f"share of directions {name}" for name in BANDS]
        return Judgement(
            verdict,
            why,
            _ran(scale),
            [
                Table(
                    "The fitted law (± by leaving out one N after the other)",
                    ["width", "exponent b of N", "steepness a", "most", "left unexplained, rms"],
                    laws,
                ),
                Table("Memorized nats, and their share of the control's", head, rows),
            ],
            curves,
        )

    def draw(self, document: Mapping[str, Any]) -> Figure:
        r"""Shares against epochs: all N on one axis, a panel a width; below by band."""
        return _epochs_figure(document["curves"])


def _read(path: Path) -> tuple[xr.Dataset, xr.Dataset]:
    dataset = load(path)
    found = results(RunFolder.open(path), dataset)
    if found.numbers is None:
        raise InputError(f"{path} says nothing yet ({found.reason}); finish its run")
    return dataset, found.numbers


def band_shares(dataset: xr.Dataset, known: xr.Dataset) -> xr.Dataset:
    r"""Memorized nats of each row of networks, and shares of the control's: all, and by band.

    Arguments:
        dataset: What :func:`geomem.load` returns.
        known: What :func:`geomem.numbers` returns.

    Returns:
        Over ``subject``: ``nats``, ``share`` and their ``_stderr``; ``band_share`` (band).
    """
    learned = known.isel(subject=known["kind"].values == "learned")
    place = np.flatnonzero(dataset["kind"].values == dataset.attrs["control"])[0]
    errors = dataset.error.isel(subject=place).sel(at="training")
    squares = (errors.astype(float) ** 2).mean(("draw", "point"))
    whole = integrate_log(squares.transpose("sigma", "direction").values, dataset.sigma.values)
    by_band = np.stack(
        [
            learned.by_direction.values[:, band].sum(1) / whole[band].sum()
            for band in BANDS.values()
        ],
        axis=1,
    )
    total = learned.control_information.values
    coords = {name: ("subject", learned[name].values) for name in ("num_samples", "step", "width")}
    return xr.Dataset(
        {
            "nats": ("subject", learned.information.values),
            "nats_stderr": ("subject", learned.information_stderr.values),
            "share": ("subject", learned.information.values / total),
            "share_stderr": ("subject", learned.information_stderr.values / total),
            "band_share": (("subject", "band"), by_band),
        },
        coords,
    )


def _law(x: np.ndarray, a: float, b: float, c: float, most: float) -> np.ndarray:
    steps, sizes = x
    return np.asarray(most / (1 + np.exp(-a * (np.log(steps) - b * np.log(sizes) - c))))


def law_of(shares: xr.Dataset) -> dict[str, Any]:
    r"""The law of one width, each number with its error by a jackknife over N.

    Example:
        >>> n, step = np.meshgrid([32.0, 128, 512], [500.0, 1000, 2000, 4000])
        >>> share = _law(np.stack([step.ravel(), n.ravel()]), 1.5, 1.0, 2.0, 0.9)
        >>> names = ("num_samples", "step", "share", "share_stderr")
        >>> columns = (n.ravel(), step.ravel(), share, 0.01 + 0 * share)
        >>> cells = xr.Dataset({k: ("subject", v) for k, v in zip(names, columns)})
        >>> [round(law_of(cells)["b"][0], 3), round(law_of(cells)["rms"], 3)]
        [1.0, 0.0]
    """
    sizes = shares.num_samples.values
    whole = _fit(shares)
    each = np.array([_fit(shares.isel(subject=sizes != n)) for n in np.unique(sizes)])
    count = len(each)
    errors = np.sqrt((count - 1) / count * ((each - each.mean(0)) ** 2).sum(0))
    names = ("a", "b", "c", "most")
    found: dict[str, Any] = {
        name: [float(v), float(e)] for name, v, e in zip(names, whole, errors, strict=True)
    }
    x = np.stack([shares.step.values, sizes])
    found["rms"] = float(np.sqrt(np.mean((_law(x, *whole) - shares.share.values) ** 2)))
    return found


def _fit(shares: xr.Dataset) -> np.ndarray:
    import warnings

    x = np.stack([shares.step.values, shares.num_samples.values]).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # its covariance is not used
        found, _ = curve_fit(
            _law,
            x,
            shares.share.values,
            p0=(1.0, 1.0, 2.0, 0.9),
            sigma=np.hypot(shares.share_stderr.values, 0.02),  # no cell outweighs the law
            bounds=([0.1, -1.0, -10.0, 0.05], [10.0, 3.0, 15.0, 1.2]),
            maxfev=20_000,
        )
    return np.asarray(found)


def _of_laws(fits: Mapping[int, Mapping[str, Any]], shares: xr.Dataset) -> tuple[Verdict, str]:
    text = ", ".join(f"{Estimate(*law['b'])} at width {w}" for w, law in fits.items())
    one = {
        w: abs(law["b"][0] - 1) <= 2 * law["b"][1] and law["b"][1] <= 0.15
        for w, law in fits.items()
    }
    off = {w: abs(law["b"][0] - 1) > 3 * law["b"][1] for w, law in fits.items()}
    curve = {w: law["rms"] <= RMS_LEFT for w, law in fits.items()}
    left = ", ".join(f"{law['rms']:.3f}" for law in fits.values())
    band = shares.band_share.mean("subject").values
    first = list(BANDS)[int(band.argmax())]
    besides = f"Of the directions, {first} lose the largest share on average over all cells."
    why = f"The exponent of N is {text}, and the law leaves {left} of a share. {besides}"
    if all(one.values()) and all(curve.values()):
        return "confirmed", why
    if any(one[w] and curve[w] for w in fits):
        return "confirmed in this regime", why
    if all(off.values()):
        return "not seen", why
    return "undecided at this scale", why


def _epochs_figure(curves: Mapping[str, Any]) -> Figure:
    from matplotlib import colormaps

    figure = Figure(figsize=(4.6 * len(curves), 6), layout="constrained")
    grid = figure.subplots(2, len(curves), squeeze=False, sharex=True, sharey=True)
    for column, (width, one) in zip(grid.T, curves.items(), strict=True):
        sizes = np.array(one["num_samples"])
        colors = colormaps["viridis"](np.linspace(0, 0.9, len(np.unique(sizes))))
        for color, n in zip(colors, np.unique(sizes), strict=True):
            mine = sizes == n
            x = np.array(one["epochs"])[mine]
            column[0].errorbar(
                x, np.array(one["share"])[mine], np.array(one["share_stderr"])[mine],
                fmt="o-", ms=3, lw=1, color=color, label=f"N = {n}",
            )  # fmt: skip
        for name, marker in zip(one["bands"], "v^o", strict=True):
            column[1].plot(
                one["epochs"], one["bands"][name], marker, ms=4, label=f"directions {name}"
            )
        column[0].set_title(f"width {width}", fontsize=9)
        column[1].set(xscale="log", xlabel="epochs: steps × batch / N")
    for ax in grid[:, 0]:
        ax.set_ylabel("memorized share of the control's nats")
        ax.legend(frameon=False, fontsize=8)
    for ax in grid.flat:
        ax.axhline(0, color="0.8", lw=0.8)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


# ------------------------------------------------------------------------------- regimes


class Regimes(Experiment):
    r"""Is there a phase in which dimensions are lost and nothing is copied?"""

    name = "regimes"
    title = "Between generalization and copying"
    quote = (
        "identifying geometric memorization as a distinct phase between generalization and exact "
        "copying"
    )
    claim = (
        "The N below which half of the samples are copies should lie below the N at which half of "
        f"the dimension is lost, at {LEVEL} rms."
    )
    limits = (
        "Small networks and short trainings on 64 pixels and on a plane; copies are samples "
        "nearer to a training image than 99 % of held-out images are, relative to the next "
        "one; samples near each other and not to the data are not told apart here."
    )

    def trainings(self, scale: Scale) -> Runs:
        r"""The trainings on the digits and on Gaussian samples of the plane."""
        return {FOLDER: digits_sweep(scale), "linear-gaussian": sweep_of("gaussian", scale)}

    def judge(self, out: Path, scale: Scale) -> Judgement:
        r"""Copies and lost dimension by N, and where both cross one half."""
        rows, ends, curves = [], {}, {}
        for folder in (FOLDER, "linear-gaussian"):
            known = _read(out / folder)[1]
            learned = known.isel(subject=known["kind"].values == "learned")
            last = learned.isel(subject=learned.step.values == learned.step.values.max())
            for width in sorted({int(w) for w in last.width.values}):
                one = last.isel(subject=last.width.values == width).sortby("num_samples")
                name = f"{folder.split('-')[0]}, width {width}"
                found = _phases(one)
                for k, n in enumerate(found["num_samples"]):
                    low, high = found["copies_interval"][k]
                    rows.append(
                        [name, f"{n:,}", f"{found['copies'][k]:.2f} ({low:.2f} to {high:.2f})",
                         repr(Estimate(found["lost"][k], found["lost_stderr"][k]))]
                    )  # fmt: skip
                ends[name] = (
                    crossing(found["num_samples"], found["copies"], found["copies_stderr"]),
                    crossing(found["num_samples"], found["lost"], found["lost_stderr"]),
                )
                curves[name] = found
        verdict, why = _of_phases(ends)
        head = ["trainings", "N", "copies, share of samples (95 %)", f"lost share at {LEVEL} rms"]
        return Judgement(
            verdict,
            why,
            [
                *_ran(scale),
                "The linear trainings of the other experiments beside them; 256 samples of each "
                "network.",
            ],
            [
                Table(
                    "N at which each falls below one half (95 % interval)",
                    ["trainings", "copies", "lost dimension"],
                    [[name, _span(a), _span(b)] for name, (a, b) in ends.items()],
                ),
                Table("Copies and lost dimension, last step", head, rows),
            ],
            curves,
        )

    def draw(self, document: Mapping[str, Any]) -> Figure:
        r"""Both shares against N, a panel a set of trainings."""
        figure = Figure(figsize=(4 * len(document["curves"]), 3.4), layout="constrained")
        axes = figure.subplots(1, len(document["curves"]), squeeze=False, sharey=True)[0]
        for ax, (name, one) in zip(axes, document["curves"].items(), strict=True):
            x = one["num_samples"]
            interval = np.array(one["copies_interval"]).T
            bars = np.abs(interval - np.array(one["copies"]))
            ax.errorbar(x, one["copies"], bars, fmt="s-", ms=4, label="copies")
            ax.errorbar(x, one["lost"], one["lost_stderr"], fmt="o-", ms=4, label="lost dimension")
            ax.axhline(HALF, color="0.7", lw=0.8)
            ax.set(xscale="log", xlabel="training points N", title=name)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0].set_ylabel("share")
        axes[0].legend(frameon=False)
        return figure


def _phases(rows: xr.Dataset) -> dict[str, Any]:
    level = int(np.abs(rows.sigma_relative.values - LEVEL).argmin())
    share = rows.copies.values / rows.copies_of.values
    low, high = (rows[f"copies_{end}"].values for end in ("low", "high"))
    return {
        "num_samples": [int(n) for n in rows.num_samples.values],
        "copies": [float(f"{v:.4g}") for v in share],
        "copies_interval": [
            [float(f"{a:.4g}"), float(f"{b:.4g}")] for a, b in zip(low, high, strict=True)
        ],
        "copies_stderr": [float(f"{v:.4g}") for v in (high - low) / 3.92],
        "lost": [float(f"{v:.4g}") for v in rows.lost_share.values[:, level]],
        "lost_stderr": [float(f"{v:.4g}") for v in rows.lost_share_stderr.values[:, level]],
    }


def crossing(
    sizes: Sequence[int], values: Sequence[float], errors: Sequence[float]
) -> tuple[float, float, float]:
    r"""The N at which falling shares cross one half: the median and a 95 % interval.

    Interpolated in ln N between draws of the shares; 0 or infinity where all N lie on one side.

    Example:
        >>> crossing([10, 100, 1000], [1.0, 0.5, 0.0], [0.0, 0.0, 0.0])
        (100.0, 100.0, 100.0)
    """
    rng = numpy_rng(0, "crossings")
    x, shares = np.log(sizes), np.array(values)
    found = []
    for noise in rng.standard_normal((DRAWS, len(shares))):
        y = shares + noise * np.array(errors)
        above = np.flatnonzero(y >= HALF)
        if not len(above) or (len(above) and above[-1] == len(y) - 1):
            found.append(-np.inf if not len(above) else np.inf)
            continue
        k = above[-1]
        found.append(x[k] + (y[k] - HALF) / (y[k] - y[k + 1]) * (x[k + 1] - x[k]))
    low, middle, high = np.quantile(found, (0.025, 0.5, 0.975), method="nearest")
    return tuple(float(f"{np.exp(v):.4g}") for v in (middle, low, high))  # type: ignore[return-value]


def _span(found: tuple[float, float, float]) -> str:
    middle, low, high = found
    if middle in (0.0, np.inf):
        return "below all sizes" if middle == 0 else "above all sizes"
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _of_phases(ends: Mapping[str, tuple[Any, Any]]) -> tuple[Verdict, str]:
    before = {name: a[2] < b[1] for name, (a, b) in ends.items()}
    after = {name: a[1] > b[2] for name, (a, b) in ends.items()}
    text = "; ".join(
        f"{name}: copies {_span(a)}, dimension {_span(b)}" for name, (a, b) in ends.items()
    )
    why = f"N at one half: {text}."
    if all(before.values()):
        return "confirmed", why
    if any(before.values()):
        return "confirmed in this regime", why
    if all(after.values()):
        return "not seen", why
    return "undecided at this scale", why
