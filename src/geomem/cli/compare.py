r"""``geomem compare``: runs side by side, on the noise levels that all of them have measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import FlagCreatePairsOff, Positional

from geomem.cli.output import print_table
from geomem.errors import InputError
from geomem.findings.compare import compare
from geomem.findings.compare_sentences import comparison_sentences, comparison_table
from geomem.runs.load import load
from geomem.show.page.compare import write_comparison


@dataclass(frozen=True)
class CompareCommand:
    r"""Put runs side by side: before and after deduplication, an early stop, another rank.

    Sweeps, audits and monitored trainings are compared on the noise levels that all of them
    have measured; images that are the same are paired. Differences are to the first run.

    Examples:

      geomem compare runs/before runs/after

      geomem compare runs/rank4 runs/rank16 runs/rank64 --out ranks.html --csv
    """

    runs: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN RUN...")]
    """The folders of the runs, two or more; differences are to the first."""
    out: Path = Path("compare.html")
    """The file of the page."""
    csv: FlagCreatePairsOff[bool] = False
    """Write its numbers as CSV files beside the page, too."""

    def run(self) -> int:
        r"""Compares, prints findings and table, writes the page."""
        if len(self.runs) < 2:
            raise InputError("pass the folders of at least two runs, which are to be compared")
        short = Counter(path.resolve().name for path in self.runs)
        whole = Counter(map(str, self.runs))
        loaded = []
        for k, path in enumerate(self.runs, start=1):
            name = path.resolve().name
            if short[name] > 1:
                name = str(path) if whole[str(path)] == 1 else f"{path} ({k})"
            loaded.append(load(path).assign_attrs(run=name))
        compared = compare(loaded)
        for sentence in comparison_sentences(compared):
            print(sentence)
        print_table(*comparison_table(compared))
        print(", ".join(map(str, write_comparison(compared, self.out, csv=self.csv))))
        return 0
