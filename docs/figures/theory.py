r"""Computes every number and draws every figure of the theory pages.

    python docs/figures/theory.py OUT                    all of it, in half an hour
    python docs/figures/theory.py OUT --only origin      one page: higher, origin, information,
                                                         phases or predictions
    python docs/figures/theory.py OUT --redraw           figures alone, from OUT/theory-*.json

OUT receives figures, and numbers as ``theory-*.json``. With OUT = docs/figures,
``python docs/figures/quotes.py`` then writes the numbers into the pages.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import common
import higher
import information
import matplotlib.pyplot as plt
import origin
import phases
import predictions

PAGES = {
    "higher": higher,
    "origin": origin,
    "information": information,
    "phases": phases,
    "predictions": predictions,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Numbers and figures of the theory pages.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=list(PAGES))
    parser.add_argument("--redraw", action="store_true", help="figures alone")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update(common.STYLE)
    for name in [chosen.only] if chosen.only else PAGES:
        page, path = PAGES[name], chosen.out / f"theory-{name}.json"
        if not chosen.redraw:
            began = time.time()
            found = page.compute()
            seconds = round(time.time() - began, 1)
            head = {"seed": common.SEED, "versions": common.versions(), "seconds": seconds}
            common.write(head | found, path)
            print(f"{name}: {seconds} s")
        page.draw(json.loads(path.read_text(encoding="utf-8")), chosen.out)


if __name__ == "__main__":
    main()
