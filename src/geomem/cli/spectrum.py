r"""``geomem spectrum``: the paper's own figure, by its estimator and by ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from geomem.cli.options import ComputeOptions
from geomem.cli.output import print_table
from geomem.compute.files import check_writable
from geomem.compute.progress import say
from geomem.findings.spectrum import Spectra, window_of
from geomem.measure.study import digest_of
from geomem.runs.records import RunFolder
from geomem.runs.spectrum import ScoreSpectra
from geomem.show.figures.spectrum import Panels, spectrum_figure
from geomem.show.figures.theory import save_figure
from geomem.show.page.report import report
from geomem.stats import Estimate


@dataclass(frozen=True)
class SpectrumCommand:
    r"""Singular values of the smoothed Jacobian, as the paper draws them, and of the Jacobian.

    Of exact denoisers (--data, --sizes) or trained networks (--network), at the origin, at
    training, held-out or given points. Beside them the theory in the authors' and in the
    consistent form. All values are times t = sigma squared: 1 is a direction that is lost, or
    was never there.

    Examples:

      geomem spectrum --data linear-sphere --sizes 250 500 20000 --sigmas 7 .7 --figure out.png

      geomem spectrum --network runs/linear --at training held_out --sigmas .1 .3 1

      geomem spectrum --data linear --sizes 50 --sets 12 --sigmas 1 --panels denoisers
    """

    measuring: Annotated[ScoreSpectra, tyro.conf.OmitArgPrefixes]
    computing: Annotated[ComputeOptions, tyro.conf.OmitArgPrefixes]
    out: Path | None = None
    """The run folder; runs/spectrum-... by what is asked, so that the same command goes on."""
    figure: Path | None = None
    """Draw to this .png, .svg or .pdf; one more for each further kind of points."""
    panels: Panels = "levels"
    """What stands side by side: levels, or denoisers with a line a level."""

    def run(self) -> int:
        r"""Measures, prints a table, draws; returns the exit status."""
        if self.figure is not None:
            check_writable(self.figure)
        short = digest_of(self.measuring.config())[:8]
        out = Path("runs") / f"spectrum-{short}" if self.out is None else self.out
        executor, device = self.computing.build(), self.computing.device
        dataset = self.measuring.run(out, executor=executor, device=device)
        found = Spectra.of(dataset, RunFolder.open(out).study)
        print_table(*_table(found))
        first, last = window_of(found.study)
        print(f"- drop: the rank, of {first} to {last}, behind which values fall most, and the")
        print("  share of points and data sets where it is this one")
        print("- kept: eigenvalues of the denoiser's Jacobian above 1/2; soft: its trace")
        if self.figure is not None:
            for k, at in enumerate(found.measured["at"].values):
                stem = self.figure.stem + (f"-{at}" if k else "")
                figure = spectrum_figure(found, panels=self.panels, at=str(at))
                save_figure(figure, self.figure.with_stem(stem))
        say(str(report(out)))
        return 0


def _table(found: Spectra) -> tuple[list[str], list[list[str]]]:
    head = ["denoiser", "at", "sigma", "drop: paper's", "steps", "Jacobian", "as plotted"]
    head += ["consistent", "kept", "soft"]
    rows, measured, theory = [], found.measured, found.theory
    for s, a, k in np.ndindex(*(measured.sizes[d] for d in ("subject", "at", "sigma"))):
        one = measured.isel(subject=s, at=a, sigma=k)
        if np.isnan(one.kept):
            continue
        label, kind = str(one.label.item()), str(one.kind.item())
        cells = [label if label.startswith(kind) else f"{kind}, {label}"]
        cells += [_place(str(one["at"].item())), f"{float(one.sigma):.3g}"]
        for e in one.estimator.values:
            drop, share = (
                float(one[name].sel(estimator=e)) for name in ("drop_rank", "drop_share")
            )
            cells.append(f"{drop:.0f} ({100 * share:.0f} %)")
        for form in theory.form.values:
            size = float(one.num_samples)
            if np.isnan(size):
                cells.append("—")
                continue
            drop = theory.drop_rank.sel(form=form, num_samples=int(size)).isel(sigma=k)
            cells.append(str(int(drop)) if drop else "none")
        for name in ("kept", "trace"):
            cells.append(repr(Estimate(float(one[name]), float(one[f"{name}_stderr"]))))
        rows.append(cells)
    return head, rows


def _place(at: str) -> str:
    return "origin or given" if at == "fixed" else at.replace("_", "-")
