r"""The paper's three figures of spectra at x = 0: one network at all times, sizes, the panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from geomem.experiments.experiment import Experiment, Judgement, Runs, Scale, Table, Verdict
from geomem.experiments.linear import (
    KINDS,
    LIMITS,
    PAPER_SIGMAS,
    RECIPE,
    SETS,
    drop_at,
    one_of,
    read_spectra,
    said,
    spectra_of,
    stages,
    sweep_of,
    trainings,
    unfinished,
)
from geomem.theory.condensation import Form

ONE = 500  # the size of the network that the paper follows through all times
SIDE = (20_000, 500, 250)  # the sizes that it puts side by side
MIDDLE = 25  # d - d2: the high variances are lost, the low ones are not
RANKS = (28, 23, 25)
FORM: Form = "as plotted"
SQUARE = 0.1755  # E[y_1²]/2 of normalised samples, where the population's own drop moves
AGREES = 0.8
SMOOTHED = "smoothed Jacobian"
Stages = Mapping[int, tuple[float, float]]


class _AtOrigin(Experiment):
    limits = LIMITS

    def trainings(self, scale: Scale) -> Runs:
        r"""The trainings of all linear experiments."""
        return trainings(scale)

    def measurements(self, out: Path, scale: Scale) -> Runs:
        r"""Spectra of networks and of exact denoisers."""
        return spectra_of(out, scale)

    def ran(self, out: Path, scale: Scale, sizes: Sequence[int] = ()) -> list[str]:
        r"""What was run, in sentences: as the records have it; of all sizes if none is given."""
        trained = sweep_of("gaussian", scale).training.steps
        said_of = []
        for kind in KINDS:
            rows = read_spectra(out, kind, "spectra").measured
            counts = {
                int(n): int(count)
                for n, count, who in zip(
                    rows.num_samples.values, rows.trainings.values, rows["kind"].values, strict=True
                )
                if who == "learned" and (not sizes or n in sizes)
            }
            names = ", ".join(f"{n:,} ({count})" for n, count in sorted(counts.items()))
            said_of.append(f"on {kind} samples N = {names}")
        return [
            "The paper's plane in 30 dimensions, samples as they are (Gaussian) and normalised to "
            f"length 1. Networks, with their trainings: {'; '.join(said_of)}; {trained:,} steps.",
            *unfinished(out),
            RECIPE,
            "Spectra at x = 0 of scores at σ along 30 orthogonal directions, of their differences "
            "from the score at 0 (the smoothed Jacobian, which the theory is about: verdicts rest "
            "on it; the scores alone share an offset, which shifts ranks), and of the Jacobian. A "
            "drop is the rank of 20 to 29 behind which t times the singular values fall most, "
            "named where more than half of the trainings agree and the fall is at least .1. Beside "
            "them exact denoisers of "
            f"{SETS} other data sets and the theory as the authors plot it.",
            "Two rules were chosen after a first look at these trainings (verdicts rest on the "
            "smoothed Jacobian, not on scores; a stage is one unbroken stretch of levels), and "
            "with the first choice this verdict read otherwise in part: take it as exploratory.",
        ]


class Times(_AtOrigin):
    r"""One network at all noise levels."""

    name = "linear-times"
    title = "One network at all times"
    quote = (
        "Perhaps counterintuitively, we find that, under some conditions, subspaces of higher "
        "variance are lost first due to memorization effects."
    )
    claim = (
        "As noise falls the gap in the spectrum should move from rank 28 (two directions open) to "
        "23 (all seven), then to 25 (the two of high variance lost, five left), then nowhere."
    )

    def judge(self, out: Path, scale: Scale) -> Judgement:
        r"""Where each stage begins and ends, in theory, networks and exact denoisers."""
        rows, curves = [], {}
        both: dict[str, tuple[Stages, Stages]] = {}
        for kind in KINDS:
            learned, exact = (read_spectra(out, kind, whose) for whose in ("spectra", "exact"))
            sigmas = learned.measured.sigma.values
            theory = learned.theory.sel(form=FORM, num_samples=ONE).drop_rank.values
            found = {"theory, as plotted": stages([int(r) or None for r in theory], sigmas)}
            network, denoiser = (
                one_of(learned, "learned", ONE),
                one_of(exact, "empirical", ONE),
            )
            names = {"steps": SMOOTHED, "paper": "scores", "jacobian": "Jacobian"}
            for estimator, name in names.items():
                found[f"networks, {name}"] = stages(drop_at(network, estimator), sigmas)
                found[f"exact denoisers, {name}"] = stages(drop_at(denoiser, estimator), sigmas)
            rows += [[kind, w, *(said(f, rank) for rank in RANKS)] for w, f in found.items()]
            both[kind] = found["theory, as plotted"], found[f"networks, {SMOOTHED}"]
            curves[kind] = _curves(network, sigmas)
        verdict, why = _of_times(both)
        head = ["samples", "of", *(f"drop at {rank}, σ" for rank in RANKS)]
        return Judgement(
            verdict,
            why,
            self.ran(out, scale, [ONE]),
            [Table(f"Levels at which values fall most behind each rank, N = {ONE}", head, rows)],
            curves,
        )

    def draw(self, document: Mapping[str, Any]) -> Figure:
        r"""Spectra of the network, a line a level, by both estimators."""
        return _grid_of_lines(
            {
                f"{kind}: {estimator}": {
                    f"σ = {s:.3g}": v for s, v in zip(c["sigmas"], c[estimator], strict=True)
                }
                for kind, c in document["curves"].items()
                for estimator in ("steps", "jacobian")
            },
            columns=2,
        )


def _of_times(found: Mapping[str, tuple[Stages, Stages]]) -> tuple[Verdict, str]:
    # Of theory and networks on each kind of samples.
    text = "; ".join(
        f"{kind} samples: theory {said(theory, MIDDLE)}, networks {said(networks, MIDDLE)}"
        for kind, (theory, networks) in found.items()
    )
    why = f"σ of the stage at rank {MIDDLE} on {text}."
    for kind, (theory, networks) in found.items():
        end = min((low for _, low in theory.values()), default=np.inf)
        left = min((low for _, low in networks.values()), default=np.inf)
        if left < end:
            why += (
                f" On {kind} samples nothing should be left below σ = {end:.2g}, and networks have "
                f"a drop down to {left:.2g}."
            )
    asked = [kind for kind, (theory, _) in found.items() if MIDDLE in theory]
    seen = [kind for kind in asked if MIDDLE in found[kind][1]]
    if "normalised" in seen:
        why += (
            f" On normalised samples the population has that stage as well, from t = {SQUARE} (σ = "
            f"{SQUARE**0.5:.2f}) whatever N: alone it is no memorization."
        )
    if not asked:
        return "undecided at this scale", why
    if not seen:
        return "not seen", why
    return ("confirmed" if len(seen) == len(found) else "confirmed in this regime"), why


class Sizes(_AtOrigin):
    r"""Three sizes side by side."""

    name = "linear-sizes"
    title = "Three sizes side by side"
    quote = (
        "different tangent subspaces are lost due to memorization effects at different critical "
        "times and dataset sizes, which depend on the local variance of the data along their "
        "directions"
    )
    claim = (
        "The level at which the drop moves to rank 25 should fall with N as t* = v / (2 ln N) of "
        "the high variance: by a quarter in σ from N = 250 to 20,000."
    )

    def judge(self, out: Path, scale: Scale) -> Judgement:
        r"""The first level of the stage at 25 by size."""
        rows, first, curves = [], {}, {}
        for kind in KINDS:
            learned, exact = (read_spectra(out, kind, whose) for whose in ("spectra", "exact"))
            sigmas = learned.measured.sigma.values
            for size in SIDE:
                theory = learned.theory.sel(form=FORM, num_samples=size).drop_rank.values
                network = one_of(learned, "learned", size)
                found = [
                    stages([int(r) or None for r in theory], sigmas),
                    *(stages(drop_at(network, e), sigmas) for e in ("steps", "paper", "jacobian")),
                    stages(drop_at(one_of(exact, "empirical", size), "steps"), sigmas),
                ]
                rows.append([kind, f"{size:,}", *(said(f, MIDDLE) for f in found)])
                first[kind, size] = found[1].get(MIDDLE, (np.nan,))[0]
                curves[f"{kind}, N = {size:,}"] = _curves(network, sigmas)
        verdict, why = _of_sizes(first, sigmas)
        head = ["samples", "N", "theory, as plotted", f"networks, {SMOOTHED}", "scores"]
        head += ["Jacobian", f"exact denoisers, {SMOOTHED}"]
        title = f"Levels σ at which values fall most behind rank {MIDDLE}"
        return Judgement(
            verdict, why, self.ran(out, scale, SIDE), [Table(title, head, rows)], curves
        )

    def draw(self, document: Mapping[str, Any]) -> Figure:
        r"""Spectra of the smoothed Jacobian, a panel a size, a line a level."""
        return _grid_of_lines(
            {
                name: {f"σ = {s:.3g}": v for s, v in zip(c["sigmas"], c["steps"], strict=True)}
                for name, c in document["curves"].items()
            },
            columns=len(document["curves"]) // len(KINDS),
        )


def _of_sizes(first: Mapping[tuple[str, int], float], sigmas: np.ndarray) -> tuple[Verdict, str]:
    step = float(np.exp(np.median(np.diff(np.log(sigmas)))))
    expected = float(np.sqrt(np.log(SIDE[0]) / np.log(SIDE[-1])))
    moved = {}
    for kind in KINDS:
        levels = [first[kind, n] for n in SIDE]
        moved[kind] = levels[-1] / levels[0] if np.isfinite(levels).all() else np.nan
    known = {k: m for k, m in moved.items() if np.isfinite(m)}
    if not known:
        return "not seen", (
            f"The stage at rank {MIDDLE} is missing at one size or more on both kinds of samples, "
            "so no level of it could move with N."
        )
    text = ", ".join(f"{m:.2f} on {k} samples" for k, m in known.items())
    none = [k for k in KINDS if k not in known]
    besides = f" On {none[0]} samples some size has no such stage at all." if none else ""
    if all(m >= expected / step**0.5 for m in known.values()):
        verdict: Verdict = "confirmed" if len(known) == len(KINDS) else "confirmed in this regime"
        return verdict, (
            f"From N = 20,000 to 250 the first σ of the stage rises by a factor {text}, theory "
            f"{expected:.2f}, levels being {step:.2f} apart.{besides}"
        )
    return "not seen", (
        f"From N = 20,000 to 250 the first σ of the stage changes by a factor {text}, where the "
        f"theory has {expected:.2f} and levels are {step:.2f} apart: it does not move as t* "
        f"does.{besides}"
    )


class Panel(_AtOrigin):
    r"""Theory, network and empirical side by side at the paper's four levels."""

    name = "linear-panel"
    title = "Theory, networks and exact denoisers side by side"
    quote = "remarkable qualitative agreement with the theoretical predictions"
    claim = (
        "At σ = 1.66, .129, .023 and .01 theory, networks and exact denoisers should fall most "
        "behind the same rank at every N: guides stand at 23, 25 and 28."
    )

    def judge(self, out: Path, scale: Scale) -> Judgement:
        r"""Cell by cell, whether the three agree on the rank."""
        rows, curves = [], {}
        counts: dict[tuple[str, str], list[int]] = {}
        for kind in KINDS:
            learned, exact = (read_spectra(out, kind, whose) for whose in ("spectra", "exact"))
            sigmas = learned.measured.sigma.values
            places = [int(np.abs(sigmas - s).argmin()) for s in PAPER_SIGMAS]
            sizes = [int(n) for n in learned.theory.num_samples.values]
            for size in sizes:
                theory = learned.theory.sel(form=FORM, num_samples=size)
                network, denoiser = (
                    one_of(learned, "learned", size),
                    one_of(exact, "empirical", size),
                )
                drops = {
                    "theory": [int(r) or None for r in theory.drop_rank.values],
                    "network": drop_at(network, "steps"),
                    "empirical": drop_at(denoiser, "steps"),
                }
                cells = [" / ".join(str(d[k] or "–") for d in drops.values()) for k in places]
                rows.append([kind, f"{size:,}", *cells])
                for who in ("network", "empirical"):
                    same = sum(drops[who][k] == drops["theory"][k] for k in places)
                    got = counts.setdefault((kind, who), [0, 0])
                    got[0], got[1] = got[0] + same, got[1] + len(places)
                curves[f"{kind}, {size}"] = {
                    "sigmas": list(PAPER_SIGMAS),
                    "theory": _rounded(theory.value.values[places]),
                    "network": _rounded(network.value.sel(estimator="steps").values[places]),
                    "empirical": _rounded(denoiser.value.sel(estimator="steps").values[places]),
                }
        text = "; ".join(
            f"{'networks' if who == 'network' else 'exact denoisers'} in {a} of {b} cells on "
            f"{kind} samples"
            for (kind, who), (a, b) in counts.items()
        )
        shares = {kind: counts[kind, "network"][0] / counts[kind, "network"][1] for kind in KINDS}
        verdict: Verdict = "not seen"
        if any(s >= AGREES for s in shares.values()):
            both = all(s >= AGREES for s in shares.values())
            verdict = "confirmed" if both else "confirmed in this regime"
        head = ["samples", "N", *(f"σ = {s:g}" for s in PAPER_SIGMAS)]
        title = "Rank of the drop: theory / networks / exact denoisers (– where nothing falls)"
        return Judgement(
            verdict,
            f"The rank is the theory's for {text}; agreement was to be 80 % of the networks' "
            "cells.",
            self.ran(out, scale),
            [Table(title, head, rows)],
            curves,
        )

    def draw(self, document: Mapping[str, Any]) -> Figure:
        r"""The panel on normalised samples, as in the paper: a column a level, a line a size."""
        panels: dict[str, dict[str, Any]] = {}
        for who in ("theory", "network", "empirical"):
            for k, sigma in enumerate(PAPER_SIGMAS):
                panels[f"{who}, σ = {sigma:g}"] = {
                    f"N = {int(name.split(', ')[1]):,}": c[who][k]
                    for name, c in document["curves"].items()
                    if name.startswith("normalised")
                }
        return _grid_of_lines(panels, columns=len(PAPER_SIGMAS))


def _rounded(values: np.ndarray) -> list[list[float]]:
    return [[float(f"{v:.4g}") for v in row] for row in values]


def _curves(row: Any, sigmas: np.ndarray) -> dict[str, Any]:
    # Every third level: a line each.
    chosen = np.arange(len(sigmas))[::-1][::3]
    values = {e: row.value.sel(estimator=e).values[chosen] for e in ("steps", "jacobian")}
    return {
        "sigmas": [float(f"{s:.4g}") for s in sigmas[chosen]],
        **{e: _rounded(v) for e, v in values.items()},
    }


def _grid_of_lines(panels: Mapping[str, Mapping[str, Any]], columns: int) -> Figure:
    from matplotlib import colormaps

    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.6 * columns + 1.4, 2.2 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax, (title, lines) in zip(grid.flat, panels.items(), strict=True):
        colors = colormaps["viridis"](np.linspace(0, 0.9, len(lines)))
        for color, (name, values) in zip(colors, lines.items(), strict=True):
            ax.plot(np.arange(1, len(values) + 1), values, ".-", ms=3, lw=0.9, color=color,
                    label=name)  # fmt: skip
        for guide in sorted(RANKS):
            ax.axvline(guide + 0.5, color="0.8", lw=0.8, zorder=0)
        ax.set_yscale("log")
        ax.set_ylim(3e-3, 30)
        ax.set_title(title, fontsize=9)
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in grid[-1]:
        ax.set_xlabel("rank", fontsize=8)
    for ax in grid[:, 0]:
        ax.set_ylabel("t × singular value", fontsize=8)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=7)
    return figure
