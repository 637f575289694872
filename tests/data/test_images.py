r"""Images: what tensors show, what digests name, and which images belong together."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geomem.data import ImageData, duplicate_groups, load_data
from geomem.errors import InputError
from tests.data.files import GREY, RNG


def test_digits_are_the_bundled_ones() -> None:
    digits = load_data("digits")
    assert len(digits) == 1797
    assert digits.item_shape == (1, 8, 8)
    assert digits.quantum == 1 / 8
    assert digits.labels is not None
    assert set(digits.labels) == set(range(10))
    x = digits.tensor(range(len(digits)))
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
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
