r"""Several places of images as one set: parts, what is declared, and what is on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geomem.data.images import load_data
from geomem.data.joined import PartsOptions, in_space, join, load_part, overlap
from geomem.errors import InputError


def pictures(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 6), dtype=np.uint8)


def save(path: Path, array: np.ndarray) -> str:
    np.save(path, array)
    return str(path)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Any]:
    return {
        "data": save(tmp_path / "a.npy", pictures(10, 0)),
        "held_out": save(tmp_path / "b.npy", pictures(20, 1)),
    }


def table(path: Path, values: Sequence[object]) -> Path:
    path.write_text("file,value\n" + "".join(f"{k},{v}\n" for k, v in enumerate(values)))
    return path


def test_parts_play_their_parts(places: dict[str, Any], tmp_path: Path) -> None:
    joined = join(PartsOptions(**places), seed=0)
    assert joined.parts == (10, 20)
    assert joined.split.pool.tolist() == list(range(10))
    assert len(joined.split.held_out) == len(joined.split.reserved) == 10
    assert sorted([*joined.split.held_out, *joined.split.reserved]) == list(range(10, 30))
    assert joined.data.items[0] == "training/0"
    assert joined.data.items[10] == "held_out/0"
    further = save(tmp_path / "c.npy", pictures(7, 2))
    third = join(PartsOptions(**places, reserved=further), seed=0)
    assert len(third.split.held_out) == 20
    assert third.split.reserved.tolist() == list(range(30, 37))


def test_another_seed_reserves_other_images(places: dict[str, Any]) -> None:
    first, again, other = (
        join(PartsOptions(**places), seed=s).split.reserved.tolist() for s in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_twins_and_groups_stay_on_one_side_of_the_reserved(
    places: dict[str, Any], tmp_path: Path
) -> None:
    array = pictures(20, 1)
    array[1] = array[0]
    places["held_out"] = save(tmp_path / "twins.npy", array)
    tables = (table(tmp_path / "a.csv", list("abcdefghij")), table(tmp_path / "b.csv", []))
    tables[1].write_text(
        "file,value\n" + "".join(f"{k},{'xy' if k in (4, 9) else f'g{k}'}\n" for k in range(20))
    )
    joined = join(PartsOptions(**places, groups=tables), seed=3)
    for pair in ((10, 11), (14, 19)):
        assert len(set(np.isin(pair, joined.split.reserved).tolist())) == 1


def test_labels_and_captions_are_of_all_places(places: dict[str, Any], tmp_path: Path) -> None:
    labels = (
        table(tmp_path / "a.csv", ["cat"] * 4 + ["dog"] * 6),
        table(tmp_path / "b.csv", ["dog"] * 5 + ["owl"] * 15),
    )
    texts = (
        table(tmp_path / "c.csv", [f"picture {k}" for k in range(10)]),
        table(tmp_path / "d.csv", [f"other {k}" for k in range(20)]),
    )
    data = join(PartsOptions(**places, labels=labels, captions=texts)).data
    assert data.classes == ("cat", "dog", "owl")
    assert data.labels is not None
    assert data.labels.tolist() == [0] * 4 + [1] * 11 + [2] * 15
    assert data.captions is not None
    assert (data.captions[3], data.captions[10]) == ("picture 3", "other 0")
    with pytest.raises(InputError, match="1 table"):
        join(PartsOptions(**places, labels=labels[:1]))


def test_what_is_on_both_sides_is_named(places: dict[str, Any], tmp_path: Path) -> None:
    assert overlap(join(PartsOptions(**places))) == []
    array = pictures(20, 1)
    array[7] = pictures(10, 0)[2]
    places["held_out"] = save(tmp_path / "mixed.npy", array)
    assert overlap(join(PartsOptions(**places))) == ["held_out/7"]
    # The same person on both sides is no control, either.
    groups = (
        table(tmp_path / "a.csv", [f"p{k}" for k in range(10)]),
        table(tmp_path / "b.csv", ["p5", *(f"q{k}" for k in range(19))]),
    )
    found = overlap(join(PartsOptions(**places, groups=groups)))
    assert found == ["held_out/0", "held_out/7"]


def test_an_image_read_another_way_is_the_same_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    training = rng.normal(size=(10, 1, 6, 6))
    held_out = rng.normal(size=(20, 1, 6, 6))
    held_out[4] = training[3] + 1e-5
    options = PartsOptions(
        data=save(tmp_path / "a.npy", training), held_out=save(tmp_path / "b.npy", held_out)
    )
    assert overlap(join(options)) == ["held_out/4"]


def test_kinds_and_sizes_must_agree(places: dict[str, Any], tmp_path: Path) -> None:
    other = save(tmp_path / "c.npy", np.random.default_rng(0).normal(size=(20, 1, 6, 6)))
    with pytest.raises(InputError, match="`held_out` has images of shape"):
        join(PartsOptions(data=places["data"], held_out=other))


def test_a_named_set_has_parts() -> None:
    options = PartsOptions()
    with pytest.raises(InputError, match="no parts"):
        load_part("digits:train", options)
    assert len(load_part("digits", options)) == len(load_data("digits"))


def test_latents_keep_the_digests_of_their_pixels(places: dict[str, Any]) -> None:
    data = join(PartsOptions(**places)).data
    there = in_space(data, torch.randn(len(data), 4, 2, 2))
    assert there.item_shape == (4, 2, 2)
    assert there.digests() == data.digests()
    assert there.digest == data.digest
