r"""The data of a command: what is loaded, what follows from it, and what names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from geomem.data import make_split, write_split
from geomem.data.images import load_data
from geomem.data.source import LINEAR_SPARE, DataOptions, load_source
from geomem.errors import InputError
from tests.data.files import RNG, save


@pytest.fixture
def array(tmp_path: Path) -> Path:
    return save(tmp_path / "x.npy", RNG.normal(size=(60, 8)) * np.arange(1, 9))


def table(path: Path, values: list[int]) -> Path:
    path.write_text("file,value\n" + "".join(f"{k},{v}\n" for k, v in enumerate(values)))
    return path


def test_what_follows_from_the_reserved_images(array: Path) -> None:
    source = load_source(DataOptions(str(array)))
    x = source.data.tensor(source.split.reserved).double()
    assert torch.equal(source.reserved.double(), x)
    assert source.rms == pytest.approx(float((x - x.mean(0)).square().mean().sqrt()))
    V = source.directions.vectors
    largest = V[V.abs().argmax(0), range(V.shape[1])]
    assert (largest > 0).all()  # signs do not depend on the library that found them
    assert torch.allclose(V.T @ V, torch.eye(V.shape[1], dtype=V.dtype), atol=1e-10)
    assert source.population is None


@pytest.mark.parametrize("spec", ["linear", "linear-sphere"])
def test_manifolds_are_drawn_with_spare_points(spec: str) -> None:
    options = DataOptions(spec, variances=(1.0, 0.5), ambient_dim=5)
    source = load_source(options, seed=3, largest=20)
    assert len(source.split.pool) == 20
    assert len(source.split.held_out) == len(source.split.reserved) == LINEAR_SPARE
    assert source.data.item_shape == (5,)
    assert (source.population is not None) == (spec == "linear")
    again = load_source(options, seed=3, largest=40)
    assert torch.equal(again.reserved, source.reserved)  # whatever is drawn to train on
    assert load_source(DataOptions(spec, variances=()), largest=40).data.item_shape == (30,)


def test_digests_name_all_that_a_study_rests_on(array: Path, tmp_path: Path) -> None:
    groups = table(tmp_path / "g.csv", [k // 2 for k in range(60)])
    labels = table(tmp_path / "l.csv", [k % 3 for k in range(60)])
    plain = DataOptions(str(array))
    first = load_source(plain).digests
    assert first == load_source(plain).digests
    assert (first["groups"], first["labels"]) == (None, None)
    data = load_data(array)
    write_split(make_split(data, seed=1), data, tmp_path / "s.json")
    changed = {
        "split": load_source(DataOptions(str(array), split=tmp_path / "s.json")),
        "groups": load_source(DataOptions(str(array), groups=groups)),
        "labels": load_source(DataOptions(str(array), labels=labels)),
    }
    for what, source in changed.items():
        assert source.digests[what] != first[what]
        assert source.digests["data"] == first["data"]
    assert load_source(plain, seed=1).digests["split"] == changed["split"].digests["split"]
    table(groups, [k // 3 for k in range(60)])  # the same file, replaced
    replaced = load_source(DataOptions(str(array), groups=groups))
    assert replaced.digests["groups"] != changed["groups"].digests["groups"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("data", ""),
        ("data", 3),
        ("groups", 3),
        ("ambient_dim", 0),
        ("ambient_dim", 2.5),
        ("variances", (1.0, float("nan"))),
        ("variances", "abc"),
    ],
)
def test_wrong_options_are_named(option: str, value: object) -> None:
    with pytest.raises(InputError, match=f"`{option}`"):
        DataOptions(**{option: value})  # type: ignore[arg-type]
