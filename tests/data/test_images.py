r"""Images: what tensors show, what digests name, and which images belong together."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geomem.data import ImageData, duplicate_groups, load_data
from geomem.errors import InputError
from tests.data.files import GREY, RNG, write_images


def test_digits_are_the_bundled_ones() -> None:
    digits = load_data("digits")
    assert len(digits) == 1797
    assert digits.item_shape == (1, 8, 8)
    assert digits.quantum == 1 / 8
    assert digits.labels is not None
    assert set(digits.labels) == set(range(10))
    x = digits.tensor(range(len(digits)))
    assert x.dtype == torch.float32
    assert (float(x.min()), float(x.max())) == (-1, 1)
    assert torch.equal(x * 8 + 8, torch.from_numpy(digits.pixels).float())


def test_8_bit_images_go_from_minus_one_to_one() -> None:
    data = ImageData.of("x", GREY)
    expected = GREY[[4, 0], None].astype(np.float32) / 127.5 - 1
    assert torch.equal(data.tensor([4, 0]), torch.from_numpy(expected))
    assert torch.equal(data.tensor(torch.tensor([4, 0])), data.tensor(np.array([4, 0])))
    assert data.quantum == pytest.approx(2 / 255)


def test_float_arrays_stay_as_they_are() -> None:
    array = RNG.normal(size=(4, 6))
    data = ImageData.of("x", array)
    assert torch.equal(data.tensor(range(4)), torch.from_numpy(array.astype(np.float32)))
    assert data.quantum == 0


def test_tensors_do_not_share_memory_with_the_data() -> None:
    data = ImageData.of("x", np.eye(3))
    data.tensor(range(3)).zero_()
    assert data.tensor([0])[0, 0] == 1


def test_labels_and_groups_must_be_one_for_each_image() -> None:
    with pytest.raises(InputError, match="one for each image"):
        ImageData.of("x", np.eye(3), labels=[0, 1])
    with pytest.raises(InputError, match=r"ImageData\.of"):
        ImageData("x", np.eye(3))


def test_a_digest_is_over_type_shape_and_pixels() -> None:
    data = ImageData.of("x", GREY)
    assert data.digests()[2] == hashlib.sha256(b"uint8 1x5x7\n" + GREY[2].tobytes()).hexdigest()
    assert data.digests() != ImageData.of("x", GREY.reshape(6, 7, 5)).digests()
    assert data.digests() != ImageData.of("x", GREY.astype(np.float32)).digests()


def test_the_digest_of_a_set_depends_on_its_order_and_not_on_its_name() -> None:
    data = ImageData.of("x", GREY)
    assert data.digest == ImageData.of("y", GREY).digest
    assert data.digest != ImageData.of("x", GREY[::-1]).digest


@given(st.lists(st.integers(0, 4), min_size=2, max_size=12), st.data())
@settings(max_examples=50, deadline=None)
def test_groups_are_the_finest_partition_that_joins_twins_and_subjects(
    values: list[int], draw: st.DataObject
) -> None:
    subjects = draw.draw(st.lists(st.integers(0, 5), min_size=len(values), max_size=len(values)))
    values[0] = 9  # never all equal
    data = ImageData.of("x", np.array(values, float)[:, None], groups=subjects)
    joined = np.eye(len(values), dtype=bool)
    for ties in (values, subjects):
        joined |= np.equal.outer(ties, ties)
    for _ in values:  # the transitive closure, slowly
        joined = (joined.astype(int) @ joined) > 0
    groups = duplicate_groups(data)
    assert np.array_equal(np.equal.outer(groups, groups), joined)
    assert set(groups) == set(range(len(set(groups))))


@pytest.mark.parametrize("index", [[0.5], [True, False], [[0]], [-1], [6], "a", [None]])
def test_wrong_indices_are_refused(index: object) -> None:
    with pytest.raises(InputError, match="`indices`"):
        ImageData.of("x", GREY).tensor(index)  # type: ignore[arg-type]


def test_no_indices_give_no_images() -> None:
    assert ImageData.of("x", GREY).tensor([]).shape == (0, 1, 5, 7)


def test_labels_and_groups_of_any_type_stay_apart() -> None:
    data = ImageData.of("x", np.eye(3), labels=["b", "a", "b"], groups=[1.5, 1.2, 1.5])
    assert data.labels is not None
    assert data.groups is not None
    assert (data.labels.tolist(), data.classes) == ([1, 0, 1], ("a", "b"))
    assert data.groups.tolist() == [1, 0, 1]
    with pytest.raises(InputError, match="`labels` holds NaN"):
        ImageData.of("x", np.eye(3), labels=[0, np.nan, 1])


def test_tensors_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ImageData.of("x", RNG.integers(0, 256, (3000, 50, 50), dtype=np.uint8))
    monkeypatch.setattr("geomem.compute.memory.available_memory", lambda: 5e7)
    assert data.tensor(range(100)).shape == (100, 1, 50, 50)
    with pytest.raises(InputError, match="of memory"):
        data.tensor(range(3000))


def test_digests_of_groups_and_labels_name_what_they_mean() -> None:
    data = [
        ImageData.of("x", np.eye(4), groups=groups, labels=labels)
        for groups, labels in (
            ([0, 0, 1, 2], ["a", "a", "b", "b"]),
            ([7, 7, 9, 3], ["a", "a", "b", "b"]),
            ([0, 1, 1, 2], ["a", "a", "c", "c"]),
        )
    ]
    assert data[0].groups_digest == data[1].groups_digest != data[2].groups_digest
    assert data[0].labels_digest == data[1].labels_digest != data[2].labels_digest
    assert (ImageData.of("x", np.eye(4)).groups_digest, data[0].digest) == (None, data[2].digest)


def test_images_are_called_by_file_or_number(tmp_path: Path) -> None:
    assert ImageData.of("x", np.eye(3)).items == ("0", "1", "2")
    assert load_data(str(write_images(tmp_path, {"a.png": GREY[0], "b/c.png": GREY[1]}))).items == (
        "a.png",
        "b/c.png",
    )


@pytest.mark.parametrize(
    "array",
    [[[1.0], [1.0, 2.0]], {"a": 1}, "text", None, [[None]], [["a"], ["b"]], 3, object()],
)
def test_what_is_no_array_is_refused(array: object) -> None:
    with pytest.raises(InputError, match=r"array|type"):
        ImageData.of("x", array)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"ImageData\.of"):
        ImageData("x", array)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [[None, 1, 2], [[1], [2], [3]], [[1], [1, 2], [3]], "abc"])
def test_what_are_no_labels_is_refused(values: object) -> None:
    with pytest.raises(InputError, match="labels"):
        ImageData.of("x", np.eye(3), labels=values)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"scale": 0}, {"scale": np.nan}, {"num_train": 0}, {"name": 3}])
def test_what_describes_images_is_checked(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"`{next(iter(change))}`"):
        replace(ImageData.of("x", np.eye(3)), **change)
