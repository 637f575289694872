r"""Networks that geomem trained: a safetensors file and a JSON file of one name."""

from __future__ import annotations

from pathlib import Path

import torch

from geomem.data.reading import printable
from geomem.errors import InputError
from geomem.models.doors.files import read_json, sha256_of
from geomem.models.doors.loaded import LoadedModel
from geomem.models.doors.modules import check_finite, size_of
from geomem.models.networks import load_network


def own_network(where: Path) -> Path | None:
    r"""The network that a path names: without a suffix, with one, or alone in its folder."""
    stems = {where, where.with_suffix("")} if where.suffix else {where}
    if where.is_dir():
        stems = {p.with_suffix("") for p in where.glob("*.safetensors")}
    found = [s for s in sorted(stems) if _is_own(s)]
    if len(found) > 1:
        raise InputError(
            f"{printable(where)} holds {len(found)} networks; pass one of them: "
            f"{', '.join(printable(s.name) for s in found[:8])}"
        )
    return found[0] if found else None


def _is_own(stem: Path) -> bool:
    files = [stem.with_name(stem.name + end) for end in (".json", ".safetensors")]
    if not all(file.is_file() for file in files):
        return False
    return {"kind", "item_shape", "sigma_data"} <= set(read_json(files[0]))


def load_own(stem: Path, dtype: str, device: str) -> LoadedModel:
    r"""A network that geomem saved.

    Raises:
        InputError: If its files are damaged, or hold NaN.
    """
    network = load_network(stem)
    check_finite(network, printable(stem))
    config = read_json(stem.with_suffix(".json"))
    network = network.to(device, getattr(torch, dtype))
    low, high = network.sigma_min, network.sigma_max
    assert low is not None  # our recipe tells both
    assert high is not None
    about = {
        "source": printable(stem),
        "weights": "ema",
        **size_of(network),
        "dtype": dtype,
        "prediction": "sample",
        "schedule": {
            "name": f"EDM's preconditioning, sigma_data {network.sigma_data:.4g}",
            "sigma": [low, high],
        },
        "sha256": sha256_of([stem.with_suffix(".safetensors")]),
        "warnings": [],
    }
    return LoadedModel(
        network,
        tuple(config["item_shape"]),
        (low, high),
        None,
        about,
        network_dtype(dtype),
        device,
        flips=False,
    )


def network_dtype(name: str) -> torch.dtype:
    r"""A dtype of torch by its name."""
    found: torch.dtype = getattr(torch, name)
    return found
