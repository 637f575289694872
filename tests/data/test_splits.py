r"""Splits: nothing is in two parts, twins stay together, and every label gets its share."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomem.data import ImageData, duplicate_groups, load_data
from geomem.data.sets import data_folder
from geomem.data.splits import (
    Split,
    default_split,
    make_split,
    nested_subsets,
    read_split,
    write_split,
)
from geomem.errors import InputError

SHARES = st.sampled_from([0.0, 0.1, 0.15, 0.3, 0.4])
SEEDS = st.integers(0, 2**32)


def points(n: int, **names: object) -> ImageData:
    return ImageData.of("points", np.arange(n, dtype=float)[:, None], **names)  # type: ignore[arg-type]


def parts_of(split: Split) -> list[np.ndarray]:
    return [split.pool, split.held_out, split.reserved]


def is_partition(split: Split, n: int) -> bool:
    return np.array_equal(np.sort(np.concatenate(parts_of(split))), np.arange(n))


# -------------------------------------------------------------------------- invariants


@given(st.lists(st.integers(0, 6), min_size=10, max_size=80), SHARES, SHARES, SEEDS)
@settings(max_examples=150, deadline=None)
def test_single_images_are_stratified_to_one(
    labels: list[int], held_out: float, reserved: float, seed: int
) -> None:
    data = points(len(labels), labels=labels)
    split = make_split(data, held_out=held_out, reserved=reserved, seed=seed)
    assert is_partition(split, len(data))
    for part, share in ((split.held_out, held_out), (split.reserved, reserved)):
        count = max(1, round(share * len(data))) if share else 0
        assert len(part) == count
        expected = np.bincount(labels) * count / len(data)
        got = np.bincount(np.array(labels)[part], minlength=len(expected))
        assert np.abs(got - expected).max() <= 1 + 1e-9  # integers divided: rounding only


@given(
    st.lists(st.tuples(*[st.integers(0, 9)] * 3), min_size=30, max_size=60), SHARES, SHARES, SEEDS
)
@settings(max_examples=100, deadline=None)
def test_groups_and_twins_stay_together(
    rows: list[tuple[int, int, int]], held_out: float, reserved: float, seed: int
) -> None:
    # Subjects, labels and twins that cut across each other; every third image is single.
    single = np.arange(len(rows)) % 3 > 0
    labels, subjects, values = (np.array(column) for column in zip(*rows, strict=True))
    subjects = np.where(single, 100 + np.arange(len(rows)), subjects)
    values = np.where(single, 100 + np.arange(len(rows)), values)
    data = ImageData.of("x", values[:, None].astype(float), labels=labels, groups=subjects)
    groups = duplicate_groups(data)
    split = make_split(data, held_out=held_out, reserved=reserved, seed=seed)
    assert is_partition(split, len(data))
    sets = [set(groups[part]) for part in parts_of(split)]
    assert sum(map(len, sets)) == len(set(groups))
    again = make_split(data, held_out=held_out, reserved=reserved, seed=seed)
    assert all(map(np.array_equal, parts_of(split), parts_of(again)))


def test_another_seed_is_another_split() -> None:
    data = points(100)
    drawn = {tuple(make_split(data, seed=seed).held_out) for seed in range(10)}
    assert len(drawn) == 10


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_image_is_as_likely_held_out_whatever_its_group(size: int) -> None:
    # A fifth of the images in groups of `size`: their share of the held-out part, over 200
    # seeds fixed beforehand, is theirs of the data within 4 standard errors.
    n, in_groups = 200, 40
    subjects = np.where(np.arange(n) < in_groups, np.arange(n) // size, 1000 + np.arange(n))
    data = points(n, groups=subjects)
    shares = [(make_split(data, seed=seed).held_out < in_groups).mean() for seed in range(200)]
    assert abs(np.mean(shares) - in_groups / n) < 4 * np.std(shares) / 200**0.5


def test_many_equal_groups_fill_the_parts_exactly() -> None:
    split = make_split(points(400, groups=np.arange(400) // 10))
    assert [len(part) for part in parts_of(split)] == [280, 60, 60]


def test_rare_labels_are_not_all_taken_from_the_pool() -> None:
    split = make_split(points(60, labels=range(60)), held_out=0.4, reserved=0.4)
    assert [len(part) for part in parts_of(split)] == [12, 24, 24]


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0.1), (1.0, 0.0), (float("nan"), 0.1)])
def test_impossible_shares_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=r"together less than 1|`(held_out|reserved)` is"):
        make_split(points(50), held_out=shares[0], reserved=shares[1])


def test_too_few_images_or_too_large_groups_are_refused() -> None:
    with pytest.raises(InputError, match="keep 2 to train on"):
        make_split(points(3))
    with pytest.raises(InputError, match="groups of points are too large"):
        make_split(points(50, groups=np.zeros(50)))
    with pytest.raises(InputError, match="`seed` is -1"):
        make_split(points(50), seed=-1)


# ---------------------------------------------------------------------------- defaults


def test_the_digits_have_a_split_of_their_own() -> None:
    digits = load_data("digits")
    split = default_split(digits, 3)
    assert repr(split) == "1,297 pool, 250 held out, 250 reserved"
    assert is_partition(split, 1797)
    assert digits.labels is not None
    for part in (split.held_out, split.reserved):
        assert np.abs(np.bincount(digits.labels[part]) - 25).max() <= 1


def test_an_official_test_part_is_halved() -> None:
    labels = np.arange(40) % 2
    data = replace(points(40, labels=labels), num_train=20)
    split = default_split(data, 0)
    assert np.array_equal(split.pool, np.arange(20))
    assert is_partition(split, 40)
    assert [np.bincount(labels[part]).tolist() for part in parts_of(split)[1:]] == [[5, 5]] * 2


def test_test_images_with_a_twin_in_training_are_left_out() -> None:
    values = np.arange(10.0)[:, None]
    values[[7, 9]] = values[[0, 1]]
    split = default_split(replace(ImageData.of("x", values), num_train=6), 0)
    assert sorted([*split.held_out, *split.reserved]) == [6, 8]
    assert split.left_out == 2
    twins = ImageData.of("x", np.array([0.0, 1, 0, 1])[:, None])
    with pytest.raises(InputError, match="geomem split"):
        default_split(replace(twins, num_train=2), 0)


def test_other_data_are_split_70_15_15() -> None:
    assert repr(default_split(points(100), 0)) == "70 pool, 15 held out, 15 reserved"


@pytest.mark.parametrize("name", ["fashion-mnist", "olivetti"])
def test_public_sets(name: str) -> None:
    try:
        data_folder()
    except InputError as reason:
        pytest.skip(str(reason))
    data = load_data(name)
    split = default_split(data, 0)
    groups = duplicate_groups(data)
    assert not set(groups[split.pool]) & set(groups[split.held_out])
    if name == "olivetti":
        assert repr(split) == "280 pool, 60 held out, 60 reserved"
    else:
        assert len(split.pool) == 60_000
        assert len(split.held_out) - len(split.reserved) in (0, 1)


# ------------------------------------------------------------------------- split files


def test_a_split_finds_its_images_in_another_order(tmp_path: Path) -> None:
    values = np.arange(40.0)
    values[[3, 20]] = values[[8, 30]]  # exact duplicates
    data = ImageData.of("x", values[:, None])
    split = make_split(data, seed=5)
    write_split(split, data, tmp_path / "split.json")
    order = np.random.default_rng(0).permutation(40)
    other = read_split(tmp_path / "split.json", ImageData.of("y", values[order, None]))
    assert (other.seed, other.left_out) == (5, 0)
    assert is_partition(other, 40)
    for part, found in zip(parts_of(split), parts_of(other), strict=True):
        assert np.array_equal(values[part], values[order][found])
    same = read_split(tmp_path / "split.json", data)
    assert all(map(np.array_equal, map(np.sort, parts_of(same)), parts_of(split)))


def test_images_that_a_split_does_not_name_are_counted(tmp_path: Path) -> None:
    write_split(make_split(points(20)), points(20), tmp_path / "split.json")
    split = read_split(tmp_path / "split.json", points(23))
    assert split.left_out == 3
    assert is_partition(split, 20)


def test_images_that_are_missing_are_an_error(tmp_path: Path) -> None:
    write_split(make_split(points(20)), points(20), tmp_path / "split.json")
    with pytest.raises(InputError, match="3 of 20 images named in"):
        read_split(tmp_path / "split.json", points(17))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "version 2 and this geomem reads 1"),
        ({"seed": "0"}, "seed '0'"),
        ({"pool": "all"}, "sha256 digests in pool"),
        ({"held_out": [1]}, "sha256 digests in held_out"),
        ({"reserved": ["ab"]}, "sha256 digests in reserved"),
        ({"extra": 1}, "has the keys"),
    ],
)
def test_other_schemas_are_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = tmp_path / "split.json"
    write_split(make_split(points(20)), points(20), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=reason):
        read_split(path, points(20))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"split"', "\udcff", "[" * 100_000])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="geomem split"):
        read_split(path, points(20))
    with pytest.raises(InputError, match=r"none\.json"):
        read_split(tmp_path / "none.json", points(20))


def test_an_image_in_two_parts_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    write_split(make_split(points(20)), points(20), path)
    content = json.loads(path.read_text())
    content["held_out"].append(content["pool"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"1 image\(s\) are in two parts"):
        read_split(path, points(20))


# ----------------------------------------------------------------------------- subsets


@given(st.sets(st.integers(2, 200), min_size=1, max_size=8), SEEDS)
@settings(max_examples=50, deadline=None)
def test_small_training_sets_begin_the_large_ones(sizes: set[int], seed: int) -> None:
    pool = np.arange(200) * 3
    subsets = nested_subsets(pool, sizes, seed)
    assert list(subsets) == sorted(sizes)
    full = nested_subsets(pool, [200], seed)[200]
    assert np.array_equal(np.sort(full), pool)
    for n, subset in subsets.items():
        assert np.array_equal(subset, full[:n])


def test_a_size_given_twice_is_one_size() -> None:
    assert list(nested_subsets(range(9), [4, 2, 4], seed=0)) == [2, 4]


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ([], "is empty"),
        ([1, 5], "from 2"),
        ([0], "from 2"),
        ([32.9], "32.9"),
        ([5, 11], "N = 11 is more"),
    ],
)
def test_impossible_sizes_are_refused(sizes: list[int], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        nested_subsets(range(10), sizes, seed=0)


@pytest.mark.parametrize("pool", [[0.5, 1.5, 2.5], [[0, 1, 2]], [True, True, True]])
def test_impossible_pools_are_refused(pool: list[object]) -> None:
    with pytest.raises(InputError, match="`pool`"):
        nested_subsets(pool, [2], seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 1.5, None, True])
def test_impossible_seeds_are_refused(seed: object) -> None:
    for call in (
        lambda s: make_split(points(50), seed=s),
        lambda s: default_split(points(50), s),
        lambda s: nested_subsets(range(9), [2], s),
    ):
        with pytest.raises(InputError, match="`seed`"):
            call(seed)


def test_the_digest_of_a_split_names_its_images_and_not_their_places() -> None:
    values = np.arange(40.0)[:, None]
    data, order = ImageData.of("x", values), np.random.default_rng(0).permutation(40)
    split = make_split(data, seed=5)
    moved = np.argsort(order)
    same = Split(moved[split.pool], moved[split.held_out], moved[split.reserved], 5)
    assert split.digest(data) == same.digest(ImageData.of("y", values[order]))
    assert split.digest(data) != make_split(data, seed=6).digest(data)
    other = Split(split.pool[::-1], split.held_out, split.reserved, 5)
    assert split.digest(data) != other.digest(data)  # nested training sets follow the order


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (([0, 1], [1], [2]), "in two parts"),
        (([0, 0], [1], [2]), "twice in one"),
        (([0, 1], [-2], [3]), "`held_out` reaches from -2"),
        (([0, 1], [2], [0.5]), "`reserved` is float64"),
    ],
)
def test_parts_that_overlap_or_are_no_numbers_are_refused(
    parts: tuple[list[int], list[int], list[int]], reason: str
) -> None:
    pool, held_out, reserved = map(np.array, parts)
    with pytest.raises(InputError, match=reason):
        Split(pool, held_out, reserved, 0)
    with pytest.raises(InputError, match="`seed`"):
        Split(np.arange(3), np.arange(3, 5), np.arange(5, 7), -1)


def test_a_split_of_other_data_has_no_digest() -> None:
    with pytest.raises(InputError, match="`pool` reaches from"):
        make_split(points(40)).digest(points(20))


def test_a_split_that_tears_a_declared_group_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    write_split(make_split(points(40)), points(40), path)
    together = replace(points(40), groups=np.arange(40) // 20)
    with pytest.raises(InputError, match=r"2 declared group\(s\) of images are in two parts"):
        read_split(path, together)
    write_split(make_split(points(40, groups=np.arange(40) // 4)), points(40), path)
    assert is_partition(read_split(path, points(40, groups=np.arange(40) // 4)), 40)
