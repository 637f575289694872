r"""A fine-tune beside its base, both as diffusers saves them, on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import geomem
from geomem.cli.main import run as command
from tests.models.doors.strangers import images, save_ddpm, scheduler_of, tiny_unet


def trained(network: Any, clean: Tensor, steps: int, seed: int) -> Any:
    r"""A plain training by a DDPM scheduler's own noise."""
    scheduler = scheduler_of("DDPM", prediction_type="epsilon")
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = clean[torch.randint(len(clean), (32,), generator=rng)]
        z, t = torch.randn(x.shape, generator=rng), torch.randint(1000, (32,), generator=rng)
        optimizer.zero_grad()
        (network(scheduler.add_noise(x, z, t), t).sample - z).square().mean().backward()
        optimizer.step()
    return network


@pytest.mark.slow  # test_audit has the same of functions
def test_a_fine_tune_is_audited_beside_its_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = images(16, seed=1)
    for name, data in (("train", training), ("test", images(48, seed=2))):
        np.save(tmp_path / f"{name}.npy", data.numpy())
    scheduler = scheduler_of("DDPM", prediction_type="epsilon")
    network = trained(tiny_unet(), images(512, seed=3), 40, seed=0)
    save_ddpm(tmp_path / "base", network, scheduler)
    save_ddpm(tmp_path / "tuned", trained(network, training, 40, seed=1), scheduler)
    out = tmp_path / "run"
    options = ["--model", str(tmp_path / "tuned"), "--base", str(tmp_path / "base")]
    options += ["--data", str(tmp_path / "train.npy"), "--held-out", str(tmp_path / "test.npy")]
    options += ["--points", "16", "--levels", "3", "--draws", "1", "--samples", "0"]
    options += ["--jacobian-points", "0", "--trajectories", "0", "--processes", "1"]
    status = command(["audit", *options, "--out", str(out)])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    study = json.loads((out / "study.json").read_text())
    assert set(study["plan"]["controls"]) == {"base", "mirror", "linear"}
    assert set(study["models"]) == {"model", "base"}
    assert study["models"]["model"]["sha256"] != study["models"]["base"]["sha256"]
    summary = json.loads((out / "summary.json").read_text())
    model = next(row for row in summary["subjects"] if row["kind"] == "model")
    assert np.isfinite(model["information_beside_base"])
    assert np.isfinite(model["information_beside_base_stderr"])
    assert '<th scope="row">base' in (out / "report.html").read_text()
    known = geomem.numbers(geomem.load(out), replicates=20, permutations=99)
    row = known.isel(subject=known["kind"].values.tolist().index("model"))
    # The two err alike at new images, far more than either does like a linear denoiser.
    r_squared = row.r_squared.mean("sigma")
    assert float(r_squared.sel(control="base")) > float(r_squared.sel(control="linear"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--held-out", "{wide}"], "(1, 8, 9)"),
        (["--held-out", "{none}"], "there is no data set"),
        (["--held-out", "{test}", "--base", "{none}"], "none.npy"),
        (["--held-out", "{test}", "--reserved", "{none}"], "there is no data set"),
        (["--held-out", "{test}", "--budget", "soon"], "--budget"),
        (["--held-out", "{test}", "--budget", "1s", "--study", "{none}"], "--budget or --study"),
        (["--held-out", "{test}", "--controls", "base"], "--base"),
        (["--held-out", "{test}", "--labels", "{none}"], "--labels names 1 table"),
        (["--held-out", "{test}", "--labels", "{none}", "{none}"], "none.npy"),
        (["--held-out", "{test}", "--study", "{none}"], "none.npy"),
        (["--held-out", "{few}"], "fewer than 8"),
        (["--held-out", "{nan}"], "NaN"),
        (["--held-out", "{test}", "--model", "tests.runs.audited:nothing"], "nothing"),
        (["--held-out", "{test}", "--model", "{pickle}"], "pickle"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_bad_input_ends_in_one_sentence_before_anything_begins(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = images(24, seed=2).numpy()
    arrays = {
        "train": images(16, seed=1).numpy(),
        "test": test,
        "wide": np.pad(test, ((0, 0), (0, 0), (0, 0), (0, 1))),
        "few": test[:9],
        "nan": np.where(np.arange(len(test))[:, None, None, None] == 3, np.nan, test),
    }
    places = {"none": str(tmp_path / "none.npy"), "pickle": str(tmp_path / "model.pkl")}
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04}q\x00.")
    for name, values in arrays.items():
        places[name] = str(tmp_path / f"{name}.npy")
        np.save(places[name], values)
    out = tmp_path / "run"
    given = [option.format(**places) for option in options]
    if "--model" not in given:
        given += ["--model", "tests.runs.audited:population"]
    assert command(["audit", "--data", places["train"], *given, "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("geomem audit: ") or len(error) > 1
    text = " ".join(error)
    assert said in text, text
    assert "Traceback" not in text
    assert not out.exists()
