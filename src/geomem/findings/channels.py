r"""How a LoRA's update lies in its base: alignment with the base's principal channels."""

from __future__ import annotations

import numpy as np
import xarray as xr

from geomem.findings.measured import Measured
from geomem.stats import Estimate

SIDES = ("input", "output")


def channel_numbers(run: Measured) -> xr.Dataset:
    r"""Of the whole squared update, the share in principal channels, and what chance would give.

    Modules weigh by their squared updates; errors are those of a ratio of sums over modules.

    Returns:
        ``alignment`` and ``alignment_stderr``, ``alignment_chance`` (subject, side: input,
        output), ``updated_modules`` (subject).
    """
    if "update_share" not in run.dataset:
        return xr.Dataset()
    share, chance = (
        run.dataset[name].transpose("subject", "module", "side").values.astype(float)
        for name in ("update_share", "update_chance")
    )
    weight = run.dataset.update_weight.transpose("subject", "module").values.astype(float)
    found = np.full((3, len(run.rows), len(SIDES)), np.nan)
    modules = np.full(len(run.rows), np.nan)
    for k, row in enumerate(run.rows):
        member = row.members[0]
        there = np.isfinite(weight[member]) & (np.nan_to_num(weight[member]) > 0)
        count = int(there.sum())
        if not count:
            continue
        w = weight[member][there] / weight[member][there].sum()
        mine = share[member][there]
        found[0, k] = w @ mine
        found[2, k] = w @ chance[member][there]
        if count > 1:
            spread = np.square(w[:, None] * (mine - found[0, k])).sum(0)
            found[1, k] = np.sqrt(spread * count / (count - 1))
        modules[k] = count
    dims, one = ("subject", "side"), {"units": "1"}
    said = "share of the squared update in the base's principal channels"
    return xr.Dataset(
        {
            "alignment": (dims, found[0], one | {"long_name": said}),
            "alignment_stderr": (dims, found[1], one | {"long_name": "its error over modules"}),
            "alignment_chance": (dims, found[2], one | {"long_name": f"{said}, by chance"}),
            "updated_modules": ("subject", modules, one | {"long_name": "modules updated"}),
        },
        coords={"side": list(SIDES)},
    )


def channel_sentence(row: xr.Dataset) -> str | None:
    r"""How far a LoRA's update lies in its base's principal channels; None if there is none.

    Arguments:
        row: One row of the numbers.
    """
    if "alignment" not in row or not row.alignment.notnull().all():
        return None
    parts = []
    for side in SIDES:
        one = row.sel(side=side)
        share = Estimate(100 * float(one.alignment), 100 * float(one.alignment_stderr))
        parts.append(
            f"{share} % on the side of {side}s ({100 * float(one.alignment_chance):.0f} %)"
        )
    return (
        f"Of the LoRA's squared update of {float(row.updated_modules):.0f} modules, what lies in "
        f"the base's principal channels (by chance): {' and '.join(parts)}."
    )
