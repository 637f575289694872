r"""What should happen: the population, the paper's theory, collapse, and exact finite size.

| question | module |
|---|---|
| what infinitely much data would give | :mod:`~geomem.theory.population` |
| the paper: directions condense one by one | :mod:`~geomem.theory.condensation` |
| when one training point is picked | :mod:`~geomem.theory.collapse` |
| exact, at one noisy point, any N and prior | :mod:`~geomem.theory.finite_size` |
| exact, averaged over planted points | :mod:`~geomem.theory.averages` |
| the size or level at which half is kept | :mod:`~geomem.theory.critical` |
| priors without a formula | :mod:`~geomem.theory.draws` |
| a data set as the prior | :mod:`~geomem.theory.data_prior` |
| maps, nats, the phase diagram | :mod:`~geomem.theory.maps`, :mod:`~geomem.theory.phase` |
| predicted against measured | :mod:`~geomem.theory.cases` |

How the exact part works is told by :mod:`~geomem.theory.moments` (what is integrated),
:mod:`~geomem.theory.contour` (how each moment is computed) and :mod:`~geomem.theory.grid`.
"""
