r"""Disjoint parts of the pool: no image and no group in two of them, the first one as ever."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import geomem
from geomem.errors import InputError
from geomem.runs.parts import other_parts
from geomem.runs.records import RunFolder
from geomem.runs.sweep import Sweep

SMALL = Sweep(
    "digits",
    sizes=(16, 32, "all"),
    steps=20,
    levels=2,
    points=24,
    draws=2,
    samples=8,
    jacobian_points=0,
    trajectories=0,
    control="linear",
)


@given(
    st.integers(0, 2**31 - 1),
    st.integers(1, 4),
    st.integers(2, 4),
    st.sampled_from([(2,), (2, 5), (3, 8, 20)]),
)
def test_no_group_is_in_two_parts(
    seed: int, per_group: int, count: int, sizes: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 200 // per_group, 300)  # groups of images outside the pool, too
    order = rng.permutation(300)[:200]
    measured = 4
    try:
        kept, parts = other_parts(order, groups, sizes, measured, count)
    except InputError:
        left = ~np.isin(groups[order], groups[order[: max(sizes[0], measured)]])
        assert left.sum() < (count - 1) * (sizes[0] + 20)  # groups cannot be cut
        return
    largest = kept[-1]
    everything = [order[: max(largest, measured)], *parts]
    assert [len(p) for p in parts] == [largest] * (count - 1)
    seen = [set(groups[np.array(p)].tolist()) for p in everything]
    for a in range(count):
        for b in range(a):
            assert not seen[a] & seen[b]
    assert {*np.concatenate(parts)} <= {*order}
    if kept != list(sizes):  # the next size really does not fit
        n = sizes[len(kept)]
        rest = ~np.isin(groups[order], groups[order[: max(n, measured)]])
        assert rest.sum() < (count - 1) * (n + np.bincount(groups).max())


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("parts")
    SMALL.run(folder / "one", processes=1, quiet=True)
    replace(SMALL, disjoint=2).run(folder / "two", processes=1, quiet=True)
    return folder / "one", folder / "two"


def test_the_first_part_is_the_sweep_without_others(both: tuple[Path, Path]) -> None:
    one, two = (geomem.load(run) for run in both)
    first = two.isel(subject=np.flatnonzero(~(two.part.values > 0)))
    assert first.sizes["subject"] == one.sizes["subject"]
    for name in ("error", "forward_diagonal", "sample_ratio", "entropy"):
        np.testing.assert_array_equal(first[name].values, one[name].values)
    summaries = [json.loads((run / "summary.json").read_text())["subjects"] for run in both]
    rows = [{s["label"]: s for s in summary} for summary in summaries]
    for label, row in rows[0].items():
        same = {k: v for k, v in rows[1][label].items() if k in row}
        assert same == row
    study = RunFolder.open(both[0]).study
    assert not {"parts", "part_sizes"} & set(study)


def test_other_parts_are_trained_on_other_images_and_measured_at_new_ones(
    both: tuple[Path, Path],
) -> None:
    folder = RunFolder.open(both[1])
    (part,) = folder.study["parts"]
    assert folder.study["part_sizes"] == [16, 32]  # no second part as large as the pool
    measured = folder.study["points"]["training"]
    assert not set(part) & {*folder.study["order"][:32], *measured}
    dataset = geomem.load(both[1])
    others = dataset.isel(subject=np.flatnonzero(dataset.part.values > 0))
    assert others.num_samples.values.tolist() == [16, 32]
    assert others.error.sel(at="training").isnull().all()
    assert others.error.sel(at="held_out").notnull().all()
    first = dataset.isel(subject=np.flatnonzero(dataset.part.values == 0))
    for k in range(2):
        a, b = (one.error.isel(subject=k).sel(at="held_out").values for one in (first, others))
        assert np.abs(a - b).max() > 1e-3  # another network
    grid = geomem.grid(dataset)
    assert {"num_samples", "seed", "step", "part"} <= set(grid.error.dims)


def test_findings_say_which_sizes_have_no_second_part(both: tuple[Path, Path]) -> None:
    findings = json.loads((both[1] / "summary.json").read_text())["findings"]
    (said,) = [f for f in findings if "disjoint" in f]
    assert "no second part of the pool is measured for N = 1297" in said
    known = geomem.numbers(geomem.load(both[1]), replicates=50)
    small = known.isel(subject=[0, 2])
    assert small.label.values.tolist() == ["N = 16", "N = 32"]
    assert (small.variance > 0).all()
    total = small.variance + small.bias
    np.testing.assert_allclose(total.values, small.parts_excess.values, rtol=1e-9)


def test_bands_are_sketched_in_a_sweep_of_larger_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", images=rng.integers(0, 255, (160, 12, 12)).astype(np.uint8))
    sweep = replace(SMALL, data=str(tmp_path / "images.npz"), sizes=(16,), disjoint=2, points=8)
    dataset = sweep.run(tmp_path / "run", processes=1, quiet=True)
    assert dataset.band_sketch.dims[1:] == ("sigma", "held_out_point", "draw", "sketch", "band")
    known = geomem.numbers(dataset, replicates=50).isel(subject=0)
    assert float(known.variance) > 0
    # Sketches of a band have the mean square of its norm, within 4 of its own errors.
    one = dataset.isel(subject=int(np.flatnonzero(dataset.part.values == 1)[0]))
    bands = one.sizes["band"]
    norms = (one.error.sel(at="held_out").isel(direction=slice(-bands, None)) ** 2).mean("draw")
    found = (one.band_sketch**2).mean(["draw", "sketch"]).values
    difference = (found - norms.transpose("sigma", "point", "direction").values).sum(-1)
    error = difference.std(1, ddof=1) / np.sqrt(difference.shape[1])
    assert (np.abs(difference.mean(1)) < 4 * error).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (700,), "disjoint": 2}, "`disjoint` is 2, and the pool of 1297 images has"),
        ({"sizes": (16,), "disjoint": 90}, "`disjoint` is 90"),
        ({"sizes": (16,), "disjoint": 0}, "`disjoint` is 0"),
    ],
)
def test_what_the_pool_does_not_allow_is_refused_before_anything_begins(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        replace(SMALL, **change).run(tmp_path / "run", quiet=True)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
