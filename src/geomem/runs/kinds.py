r"""The kinds of run, and how one is opened from its folder alone."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from geomem.errors import InputError
from geomem.runs.records import RunFolder
from geomem.runs.run import Run

KINDS = {
    "sweep": "geomem.runs.sweep:Sweep",
    "dimension": "geomem.runs.dimension:Dimensions",
    "plan": "geomem.runs.plan:Plan",
    "pilot": "geomem.runs.pilot:Pilot",
    "spectrum": "geomem.runs.spectrum:ScoreSpectra",
    "tangents": "geomem.runs.tangents:Tangents",
    "audit": "geomem.runs.audit:Audit",
}


def open_run(path: str | Path, **anew: Any) -> Run:
    r"""The run that a folder holds: everything follows from its config.

    Arguments:
        path: The run folder.
        anew: Options that may be given anew, such as where the data lie on this machine; that
            they are the same data is checked by digest when the run goes on.

    Raises:
        InputError: If the folder holds no run, one of a kind that this geomem does not know, or
            looks at a training, which no command can take anew.
    """
    config = RunFolder.open(path).config
    kind = config.get("kind")
    if kind == "monitor":
        raise InputError(
            f"{path} is filled by the training that it looks at; `geomem report` draws it"
        )
    if kind not in KINDS:
        raise InputError(f"{path} holds a run of kind {kind!r}; this geomem knows {list(KINDS)}")
    module, _, name = KINDS[kind].partition(":")
    run: Run = getattr(import_module(module), name).from_config(config)
    given = {key: value for key, value in anew.items() if value is not None}
    return replace(run, **given) if given else run  # type: ignore[type-var]
