r"""A text-to-image pipeline with a LoRA, audited end to end: pictures in, latents measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import geomem
from geomem.cli.main import run as command
from tests.models.doors.strangers import scheduler_of
from tests.models.doors.text_to_image import in_names, save_stable_diffusion

TRAINING, HELD_OUT = 16, 32  # half of the latter are reserved
CAPTIONS = ("a bird", "red cat")
STEPS = 80


def pictures(count: int, seed: int) -> Tensor:
    r"""Soft blots of colour, 3 x 16 x 16 in [-1, 1]."""
    rng = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 3, 3, 3, generator=rng) * 2 - 1
    return torch.nn.functional.interpolate(corners, size=16, mode="bilinear", align_corners=True)


def save_pictures(folder: Path, count: int, seed: int) -> Path:
    r"""A folder of PNG files; beside it the captions, one line a file."""
    folder.mkdir()
    lines = ["file,value"]
    for k, picture in enumerate(pictures(count, seed)):
        pixels = ((picture.permute(1, 2, 0) + 1) * 127.5).round().numpy().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:02}.png")
        lines.append(f"{k:02}.png,{CAPTIONS[k % 2]}")
    captions = folder.with_suffix(".csv")
    captions.write_text("\n".join(lines) + "\n")
    return captions


def train_base(folder: Path) -> float:
    r"""Trains the network of a saved pipeline on latents of other pictures; gives their scale."""
    import diffusers

    library: Any = diffusers
    pipeline = library.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    network = pipeline.unet
    scheduler = scheduler_of("DDPM", beta_schedule="scaled_linear", prediction_type="v_prediction")
    with torch.no_grad():
        means = pipeline.vae.encode(pictures(128, seed=1)).latent_dist.mean
        texts, _ = pipeline.encode_prompt(
            list(CAPTIONS), "cpu", 1, do_classifier_free_guidance=False
        )
    scale = float(1 / means.std())
    pipeline.vae.register_to_config(scaling_factor=scale)
    pipeline.vae.save_pretrained(folder / "vae")
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    rng = torch.Generator().manual_seed(2)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * (1 - step / STEPS)
        rows = torch.randint(len(means), (16,), generator=rng)
        clean, z = scale * means[rows], torch.randn(16, *means.shape[1:], generator=rng)
        t = torch.randint(1000, (16,), generator=rng)
        noisy = scheduler.add_noise(clean, z, t)
        found = network(noisy, t, encoder_hidden_states=texts[rows % 2]).sample
        optimizer.zero_grad()
        (found - scheduler.get_velocity(clean, z, t)).square().mean().backward()
        optimizer.step()
    network.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    return scale


def test_a_pipeline_with_a_lora_is_audited_in_its_latents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    base = save_stable_diffusion(tmp_path / "base")
    scale = train_base(base)
    lora = tmp_path / "lora"
    lora.mkdir()
    small = {k: v * (1.0 if k.endswith("alpha") else 0.05) for k, v in in_names("kohya").items()}
    save_file(small, lora / "pytorch_lora_weights.safetensors")
    captions = [
        save_pictures(tmp_path / name, count, seed)
        for name, count, seed in (("train", TRAINING, 3), ("test", HELD_OUT, 4))
    ]
    out = tmp_path / "run"
    status = command(
        [
            *("audit", "--model", str(lora), "--base", str(base)),
            *("--data", str(tmp_path / "train"), "--held-out", str(tmp_path / "test")),
            *("--captions", *map(str, captions), "--points", "16", "--levels", "3"),
            *("--draws", "1", "--samples", "0", "--jacobian-points", "1"),
            *("--trajectories", "2"),
            *("--processes", "1", "--out", str(out)),
        ]
    )
    printed = capsys.readouterr()
    assert status == 0, printed.err
    about = json.loads((out / "model.json").read_text())["models"]
    assert about["model"]["latent"]["scale"] == pytest.approx(scale)
    (told,) = about["model"]["lora"]["scale"]
    assert (told["scale"], told["from"]) == (0.5, "alpha in the file")
    assert "lora" not in about["base"]
    study = json.loads((out / "study.json").read_text())
    assert study["data"]["item_shape"] == [4, 8, 8]
    assert study["plan"]["controls"] == ["base", "linear"]
    assert len(study["sigmas"]) == 3
    summary = json.loads((out / "summary.json").read_text())
    assert summary["verdict"]["word"] in ("generalization", "inconclusive")
    assert f"Verdict: {summary['verdict']['word']}" in printed.out
    page = (out / "report.html").read_text()
    assert "under its own caption, without guidance" in page
    assert "means of its encoder" in page
    assert '<h2 id="t-trajectories">' in page
    # Where the LoRA writes in its base, and the tangent space that is left.
    assert '<h2 id="t-update">Of the LoRA' in page
    assert '<h2 id="t-tangents">' in page
    dataset = geomem.load(out)
    modules = dataset.update_module.sel(subject=dataset["kind"].values.tolist().index("model"))
    assert len(modules) == about["model"]["lora"]["modules"]["network"] == len(set(modules.values))
    row = next(r for r in summary["subjects"] if r["kind"] == "model")
    for side in ("input", "output"):
        assert 0 < row[f"alignment_{side}"] < 1
        assert 0 < row[f"alignment_chance_{side}"] < 1
        assert row[f"alignment_stderr_{side}"] > 0
    assert dataset.sizes["basis_point"] == 1
    known = geomem.numbers(dataset, replicates=20, permutations=99)
    text = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
    names = [*dataset.data_vars, *dataset.dims, *known.data_vars, *known.dims]
    names = [n for n in map(str, names) if not n.endswith(("_stderr", "_low", "_high"))]
    said = {"axis_1", "axis_2", "unseen_copies_of", "near_duplicates_of"}
    assert not [n for n in names if n not in said and f"`{n}`" not in text]
    for row in (known.isel(subject=k) for k in range(known.sizes["subject"])):
        if str(row["kind"].item()) == "model":
            assert np.isfinite(row.information_beside.sel(control="base"))
