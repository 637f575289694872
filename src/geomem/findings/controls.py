r"""What controls know: how much of an image's difficulty, and how finely they can decide.

An error at one image is large because the image is hard, or because the subject has not seen
it. A control that finds the same images hard takes the first out of every difference. How much
it takes out is its squared correlation with the subject's error over held-out images; what it
leaves is the error of the mean difference, in nats. Both are known without any training image.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from geomem.findings.measured import SIDES, Measured
from geomem.information import integrate_log
from geomem.measure.subject import NETWORKS


def control_numbers(run: Measured) -> xr.Dataset:
    r"""How finely each control decides, and how a subject's error on new images compares.

    Returns:
        ``r_squared`` (subject, control, sigma) over held-out images; ``control_error`` (subject,
        control), how finely a control can decide in nats, as held-out images tell;
        ``held_out_ratio`` (subject), the subject's error on new images over the linear control's,
        both over the whole window; ``mirror_asymmetry`` and ``mirror_asymmetry_stderr``
        (subject), by how many nats new images are harder the wrong way round; ``image_groups``
        (subject, at), how many were measured.
    """
    if "error" not in run.dataset or not run.controls:
        return xr.Dataset()
    rows, names, levels = len(run.rows), list(run.controls), len(run.sigmas)
    r_squared = np.full((rows, len(names), levels), np.nan)
    errors = np.full((rows, len(names)), np.nan)
    ratio = np.full(rows, np.nan)
    mirror = np.full((2, rows), np.nan)
    groups = np.zeros((rows, len(run.kinds)))
    for k, row in enumerate(run.rows):
        member = row.members[0]
        for a, at in enumerate(run.kinds):
            here = run.dataset.point_group.sel(at=at).values[: run.squares(member, at).shape[1]]
            groups[k, a] = len(np.unique(here))
        if row.kind not in NETWORKS or not set(SIDES) <= set(run.kinds):
            continue
        own = run.squares(member, "held_out").sum(-1)
        if own.shape[1] < 2:
            continue
        for c, name in enumerate(names):
            if run.controls[name] == member or (name == "mirror" and row.kind != "model"):
                continue
            them = run.squares(run.controls[name], "held_out").sum(-1)[:, : own.shape[1]]
            a, b = (v - v.mean(1, keepdims=True) for v in (own, them))
            scale = np.square(a).sum(1) * np.square(b).sum(1)
            shared = np.square((a * b).sum(1))
            r_squared[k, c] = np.where(scale > 0, shared / np.where(scale > 0, scale, 1), np.nan)
            errors[k, c] = run.control_error(member, name)
            if name == "mirror":
                gaps = run.held_out_gaps(member, name)
                if len(gaps) > 1:
                    mirror[:, k] = gaps.mean(), gaps.std(ddof=1) / np.sqrt(len(gaps))
            if name == "linear":
                both = [float(integrate_log(v.mean(1), run.sigmas)) for v in (own, them)]
                ratio[k] = both[0] / both[1] if both[1] > 0 else np.nan
    one, nats = {"units": "1"}, {"units": "nats"}
    same = {"long_name": "squared correlation of control's and subject's error, held-out images"}
    fine = {"long_name": "standard error that a control leaves, as held-out images tell"}
    new = {"long_name": "error on new images, over the linear control's"}
    wrong = {"long_name": "by how much new images are harder mirrored"}
    units = {"long_name": "image groups that were measured"}
    columns: dict[str, object] = {
        "image_groups": (("subject", "at"), groups, one | units),
        "r_squared": (("subject", "control", "sigma"), r_squared, one | same),
        "control_error": (("subject", "control"), errors, nats | fine),
        "held_out_ratio": ("subject", ratio, one | new),
    }
    if "mirror" in names:
        also = {"long_name": "its standard error, over groups"}
        columns["mirror_asymmetry"] = ("subject", mirror[0], nats | wrong)
        columns["mirror_asymmetry_stderr"] = ("subject", mirror[1], nats | also)
    return xr.Dataset(columns, coords={"control": names, "at": run.kinds})
