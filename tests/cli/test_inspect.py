r"""``geomem inspect``: what is printed, and with which status it ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from geomem.cli.main import run
from tests.models.doors.strangers import images, save_ddpm, scheduler_of, tiny_unet

HERE = "tests.models.doors.strangers"


@pytest.fixture
def data(tmp_path: Path) -> str:
    np.save(tmp_path / "data.npy", images(24, seed=5).numpy())
    return str(tmp_path / "data.npy")


def test_a_model_alone_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_ddpm(tmp_path / "it", tiny_unet(), scheduler_of("DDPM"))
    assert run(["inspect", str(folder)]) == 0
    said = capsys.readouterr().out
    for words in (
        "UNet2DModel, 17,305 parameters, float32, weights: unet",
        "works on      1 x 8 x 8",
        "predicts      epsilon (it/scheduler/scheduler_config.json)",
        "linear betas, sigma 0.01 to 157.4, 1000 discrete levels",
        "mirrored      the files do not tell",
        "nothing was checked",
    ):
        assert words in said, words


def test_checks_that_hold_end_with_0(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "it.json"
    assert run(["inspect", f"{HERE}:azula_like", "--data", data, "--json", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("holds  ") == 5
    document = json.loads(out.read_text())
    assert [c["passed"] for c in document["checks"]] == [True] * 5
    assert document["about"]["schedule"]["name"] == "azula's AzulaSchedule"


def test_a_check_that_fails_ends_with_1_and_names_options(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["--prediction", "v_prediction", "--schedule", "linear"]
    assert run(["inspect", f"{HERE}:noise_of_linear", "--data", data, *wrong]) == 1
    said = capsys.readouterr().out
    assert "FAILS  prediction: outputs behave like epsilon, not v_prediction" in said
    assert said.strip().endswith("pass --prediction epsilon")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "there is no nowhere; pass a folder"),
        (["nowhere.at:all"], "cannot be imported"),
        ([f"{HERE}:network_of_noise", "--prediction", "epsilon"], "pass --schedule"),
        ([f"{HERE}:azula_like", "--data", "digits", "--size", "4"], "(--size, --crop)"),
    ],
)
def test_what_cannot_be_loaded_ends_with_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.splitlines()[-1].startswith("geomem inspect: ")
    assert "Traceback" not in said
