r"""How to cite the paper that geomem builds on, and geomem itself."""

from __future__ import annotations

from dataclasses import dataclass

from geomem import __version__

PAPER = """\
@article{achilli2024losing,
  title  = {Losing dimensions: Geometric memorization in generative diffusion},
  author = {Achilli, Beatrice and Ventura, Enrico and Silvestri, Gianluigi and Pham, Bao and
            Raya, Gabriel and Krotov, Dmitry and Lucibello, Carlo and Ambrogioni, Luca},
  year   = {2024},
  eprint = {2410.08727},
  archivePrefix = {arXiv}
}"""

SOFTWARE = f"""\
@software{{geomem,
  title   = {{geomem: which directions a diffusion model has lost to memorization}},
  author  = {{The geomem developers}},
  version = {{{__version__}}},
  year    = {{2026}}
}}"""


@dataclass(frozen=True)
class CiteCommand:
    r"""Print BibTeX entries for the paper and for geomem."""

    def run(self) -> int:
        print(f"{PAPER}\n\n{SOFTWARE}")
        return 0
