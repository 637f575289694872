r"""Files of strangers: JSON and safetensors; what only unpickling could read is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from geomem.data.reading import PICKLE_SUFFIXES, printable, reading
from geomem.errors import InputError

RECIPE = (
    "load it where you trust it, save its weights with safetensors.torch.save_file, or name a "
    "function of yours, package.module:function, which is called with (x, sigma)"
)
INDEX = ".safetensors.index.json"


def read_json(path: Path) -> dict[str, Any]:
    r"""The object in a JSON file.

    Raises:
        InputError: If there is none.
    """
    with reading(path):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{printable(path)} is no JSON ({error}); get it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{printable(path)} holds no JSON object; get it again")
    return content


def read_weights(path: Path) -> dict[str, Tensor]:
    r"""The tensors of a safetensors file, by name.

    Raises:
        InputError: If the file is missing, truncated or something else.
    """
    with reading(path):
        return load_file(path)


def read_header(path: Path) -> dict[str, str]:
    r"""What a safetensors file says of itself beside its tensors.

    Raises:
        InputError: If the file is missing, truncated or something else.
    """
    with reading(path), safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def read_state(path: Path) -> Any:
    r"""What a checkpoint of torch holds, by torch's own reader of plain tensors and containers.

    Raises:
        InputError: If it holds anything else: that would run code.
    """
    with reading(path):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            if "weights_only" in str(error) or "Unsupported" in str(error):
                raise InputError(
                    f"{printable(path)} holds more than tensors, and reading that would run the "
                    f"code inside it, which geomem never does; {RECIPE}"
                ) from error
            raise


def weight_files(folder: Path) -> tuple[list[Path], str]:
    r"""The safetensors of a model's folder, in their shards, and what they are called.

    Raises:
        InputError: If there are none, or only pickles.
    """
    for stem in ("diffusion_pytorch_model", "model", "pytorch_model"):
        for variant in ("", ".fp16", ".bf16"):
            whole = folder / f"{stem}{variant}.safetensors"
            if whole.is_file():
                return [whole], variant
            for index in (
                folder / f"{stem}{INDEX.replace('.index', f'.index{variant}')}",
                folder / f"{stem}{variant}{INDEX}",
            ):
                if index.is_file():
                    names = read_json(index).get("weight_map", {})
                    return [folder / name for name in sorted(set(names.values()))], variant
    pickles = sorted(
        p.name for p in folder.glob("*") if p.suffix.lower() in (*PICKLE_SUFFIXES, ".bin")
    )
    if pickles:
        raise InputError(
            f"{printable(folder)} holds its weights as a pickle ({pickles[0]}), and reading one "
            "would run the code inside it, which geomem never does; save the pipeline again with "
            "safe_serialization=True"
        )
    raise InputError(
        f"{printable(folder)} holds no weights (diffusion_pytorch_model.safetensors); get the "
        "folder again"
    )


def sha256_of(paths: Iterable[Path]) -> dict[str, str]:
    r"""The sha256 of files, by their last two names."""
    found = {}
    for path in paths:
        with reading(path), path.open("rb") as stream:
            found["/".join(path.parts[-2:])] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found
