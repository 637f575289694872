"""Runs side by side: on one window, paired where images are the same, and nothing beyond error."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from geomem.errors import InputError
from geomem.findings.compare import common_levels, compare, on_levels
from geomem.findings.compare_sentences import comparison_sentences, comparison_table, headline
from geomem.information import integrate_log
from geomem.measure.subject import KNOWN

LEVELS = np.geomspace(0.1, 3.0, 7)
DRAWS, WIDTH = 4, 5


def run_of(
    lost: float = 0.5,
    *,
    seed: int = 0,
    name: str = "a",
    images: int = 24,
    first: int = 0,
    levels: np.ndarray = LEVELS,
    kind: str = "model",
    digests: bool = True,
    width: int = WIDTH,
) -> xr.Dataset:
    """Errors of a linear control, and of a network that lacks a share of them at training images.

    Image i is as hard wherever it is measured; its noise is another one in another run.
    """
    hard = np.exp(np.random.default_rng(5).normal(0, 0.5, 1000))[first : first + images]
    rng = np.random.default_rng([seed, 3])
    shape = (2, 2, len(levels), images, DRAWS, width)
    kept = 1 / (1 + levels[:, None, None, None] ** 2)
    error = np.sqrt(kept * hard[:, None, None]) * rng.normal(size=shape)
    error[1, 0] *= np.sqrt(1 - lost)
    dims = ("subject", "at", "sigma", "point", "draw", "direction")
    index = np.stack([np.arange(first, first + images), 500 + np.arange(images)])
    names = np.array([[f"sha{i}" for i in row] for row in index], dtype=object)
    coords = {
        "kind": ("subject", np.array(["linear", kind], dtype=object)),
        "label": ("subject", np.array(["linear", "mine"], dtype=object)),
        **{name: ("subject", [np.nan, np.nan]) for name in KNOWN},
        "measured": ("subject", [True, True]),
        "at": ["training", "held_out"],
        "sigma": levels,
        "direction_count": ("direction", np.ones(width, int)),
        "point_index": (("at", "point"), index),
        "point_group": (("at", "point"), index),
        **({"point_digest": (("at", "point"), names)} if digests else {}),
    }
    attrs = {"run": name, "control": "linear", "rms": 1.0, "ambient_dim": width}
    attrs |= {"data_digest": name, "kind": "audit", "window": [levels[0], levels[-1]]}
    return xr.Dataset({"error": (dims, error)}, coords=coords, attrs=attrs)


def test_a_run_beside_itself_differs_by_nothing_at_all() -> None:
    found = compare([run_of(), run_of(name="b")], replicates=50).isel(column=1)
    for name in ("information", "training_error", "excess", "auc", "largest_share"):
        assert float(found[f"{name}_change"]) == 0
        assert float(found[f"{name}_change_stderr"]) == 0
        assert float(found[f"{name}_stderr"]) > 0
    assert float(found.shared_images) == float(found.images) == 24


def test_nats_are_those_of_the_squared_errors() -> None:
    runs = [run_of(), run_of(0.2, seed=1, name="b")]
    found = compare(runs, replicates=50)
    for k, run in enumerate(runs):
        squares = np.square(run.error.values).mean(4)  # draws
        own = integrate_log(squares[1, 0].mean(1).sum(-1), LEVELS)
        assert float(found.training_error[k]) == pytest.approx(own)
        linear, new = squares[0], squares[1, 1]
        ratio = np.minimum(1, new.mean(1) / linear[1].mean(1))
        # The model follows the control from image to image less or more steeply: as it does at
        # held-out images, along the directions in which it is better than the control.
        better = ratio < 1
        theirs = (better[:, None] * ratio[:, None] * linear[1]).sum(-1)
        ours = (better[:, None] * new).sum(-1)
        pairs = zip(theirs, ours, strict=True)
        fitted = [np.polyfit(a, b, 1)[0] if np.ptp(a) else 1.0 for a, b in pairs]
        slope = np.where(better, np.clip(fitted, 0, 2)[:, None], 1)
        unseen = linear[1].mean(1)
        taken = ratio * (unseen + slope * (linear[0].mean(1) - unseen))
        density = (taken - squares[1, 0].mean(1)).sum(-1)
        assert float(found.information[k]) == pytest.approx(integrate_log(density, LEVELS))
        np.testing.assert_allclose(found.by_level[k], density)


def test_the_same_images_are_paired_and_others_are_not() -> None:
    paired, apart = (
        compare([run_of(), run_of(0.3, seed=1, name="b", first=first)], replicates=400, seed=2)
        for first in (0, 100)
    )
    name = "training_error"
    joint = float(np.hypot(*paired[f"{name}_stderr"].values))
    assert float(paired[f"{name}_change_stderr"][1]) < 0.7 * joint
    joint = float(np.hypot(*apart[f"{name}_stderr"].values))
    assert float(apart[f"{name}_change_stderr"][1]) == pytest.approx(joint, rel=0.2)
    assert float(apart.shared_images[1]) == 0
    assert "nothing is paired" in comparison_sentences(apart)[0]


def test_paired_errors_are_those_of_the_differences_image_by_image() -> None:
    runs = [run_of(images=60), run_of(0.3, seed=1, name="b", images=60)]
    found = compare(runs, replicates=2000)
    nats = [integrate_log(np.square(r.error.values[1, 0]).mean(2).sum(-1), LEVELS) for r in runs]
    gaps = nats[1] - nats[0]
    assert float(found.training_error_change[1]) == pytest.approx(gaps.mean())
    expected = gaps.std(ddof=1) / np.sqrt(60)
    assert float(found.training_error_change_stderr[1]) == pytest.approx(expected, rel=0.08)


def test_without_digests_images_are_the_same_only_in_the_same_data() -> None:
    runs = [run_of(digests=False), run_of(0.3, name="b", digests=False)]
    assert float(compare(runs, replicates=20).shared_images[1]) == 0
    runs[1].attrs["data_digest"] = "a"
    assert float(compare(runs, replicates=20).shared_images[1]) == 24


def test_levels_are_all_of_both_inside_the_common_window() -> None:
    other = np.geomspace(0.2, 9.0, 6)
    found = common_levels([run_of(), run_of(levels=other, name="b")])
    assert found[0] == 0.2
    assert found[-1] == 3.0
    assert set(found) == {x for x in (*LEVELS, *other) if 0.2 <= x <= 3.0}


def test_between_levels_squares_are_linear_in_the_logarithm() -> None:
    run = run_of()
    middle = np.sqrt(LEVELS[2] * LEVELS[3])
    there = on_levels(run, np.array([LEVELS[0], middle, LEVELS[6]]))
    squares = np.square(run.error.transpose("sigma", ...).values)
    found = np.square(there.error.values)
    np.testing.assert_allclose(found[[0, 2]], squares[[0, 6]], rtol=1e-6)
    np.testing.assert_allclose(found[1], (squares[2] + squares[3]) / 2, rtol=1e-6)
    # So more levels leave the trapezoid rule's nats as they are.
    finer = np.sort(np.append(LEVELS, middle))
    density = np.square(on_levels(run, finer).error.values).mean((1, 2, 3, 4, 5))
    coarse = squares.mean((1, 2, 3, 4, 5))
    assert integrate_log(density, finer) == pytest.approx(integrate_log(coarse, LEVELS))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (run_of(levels=np.geomspace(5.0, 9.0, 4), name="b"), "windows of noise levels do not meet"),
        (run_of(width=7, name="b"), "differ in shape: 5 values an image in a, 7 in b"),
        (run_of(name="b").drop_vars("error"), "b has no denoising errors"),
        (run_of(name="b").isel(subject=[0]), "b has no network"),
        (run_of(name="b").isel(subject=[1]), "no control in common"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(other: xr.Dataset, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare([run_of(), other], replicates=5)
    with pytest.raises(InputError, match="fewer than two runs"):
        compare([run_of()])


def test_words_claim_only_what_is_beyond_error() -> None:
    near = compare([run_of(), run_of(0.5, seed=1, name="b")], replicates=200)
    assert headline(near) == "mine of b has memorized no less and no more than in a, within error"
    assert "no difference beyond error" in comparison_sentences(near)[0]
    far = compare([run_of(0.8, images=48), run_of(0.1, seed=1, name="b", images=48)])
    assert headline(far).startswith("mine of b has memorized ")
    assert headline(far).endswith(" nats less than in a")
    first = comparison_sentences(far)[0]
    assert "nats less are memorized" in first
    assert "Paired at 48 training images that both were measured at, of 48." in first
    head, rows = comparison_table(far)
    assert head[:3] == ["network", "run", "nats"]
    assert [row[1] for row in rows] == ["a", "b"]
    assert rows[0][3] == ""  # the first run has nothing to change from
    assert all(len(row) == len(head) for row in rows)


def test_intervals_of_a_change_hold_what_they_say() -> None:
    # 60 pairs of runs that have memorized alike: about 57 intervals hold 0, at least 50 do.
    held = 0
    for seed in range(60):
        found = compare([run_of(seed=seed), run_of(seed=seed + 1000, name="b")], replicates=100)
        low, high = (float(found[f"training_error_change_{end}"][1]) for end in ("low", "high"))
        held += low <= 0 <= high
    assert held >= 50
