r"""Writes the pages of the paper's experiments into docs/results, from what ``reproduce`` left.

python docs/figures/experiments.py OUT    takes the documents of a folder of experiments
python docs/figures/experiments.py        writes the pages from the documents as they are
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from geomem.experiments.names import EXPERIMENTS
from geomem.experiments.publish import publish_all

PAGES = Path(__file__).parent.parent / "results"


def main() -> None:
    PAGES.mkdir(exist_ok=True)
    for folder in map(Path, sys.argv[1:]):
        for name in EXPERIMENTS:
            if (folder / f"{name}.json").exists():
                shutil.copyfile(folder / f"{name}.json", PAGES / f"{name}.json")
    for path in PAGES.glob("*.json"):  # without spaces and line ends half as large
        document = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    for page in publish_all(PAGES):
        print(page)


if __name__ == "__main__":
    main()
