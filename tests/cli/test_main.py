r"""The command line: fast help, one sentence for bad input, the exit statuses."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geomem.cli.main import COMMANDS, load_command, run


def geomem(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "geomem", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def test_help_loads_neither_torch_nor_tyro() -> None:
    code = (
        "import sys; from geomem.cli.main import run; run(['--help']); print(sorted(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    for heavy in ("torch", "tyro", "numpy", "xarray", "sklearn", "matplotlib"):
        assert f"'{heavy}'" not in output
    for name in COMMANDS:
        assert name in output


def test_help_is_fast_beside_an_empty_interpreter() -> None:
    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        return time.perf_counter() - start

    empty = min(seconds("pass") for _ in range(3))
    helped = min(seconds("from geomem.cli.main import run; run(['--help'])") for _ in range(3))
    assert helped < 20 * empty  # torch alone is 100 times an empty interpreter


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_exists_and_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_command(COMMANDS[name][0]).__doc__
    with pytest.raises(SystemExit) as stop:
        run([name, "--help"])
    assert stop.value.code == 0
    assert f"geomem {name}" in capsys.readouterr().out


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["swep"]) == 2
    assert "sweep" in capsys.readouterr().err


def save_images(folder: Path, shapes: list[tuple[int, int]]) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k, shape in enumerate(shapes):
        pixels = rng.integers(0, 255, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:03d}.png")


def bad_nan(folder: Path) -> list[str]:
    values = np.random.default_rng(0).normal(size=(100, 5))
    values[3, 2] = np.nan
    np.save(folder / "nan.npy", values)
    return ["--data", str(folder / "nan.npy")]


def bad_empty_folder(folder: Path) -> list[str]:
    (folder / "empty").mkdir()
    return ["--data", str(folder / "empty")]


def bad_mixed_sizes(folder: Path) -> list[str]:
    save_images(folder / "mixed", [(8, 8)] * 5 + [(8, 9)])
    return ["--data", str(folder / "mixed")]


def bad_truncated_image(folder: Path) -> list[str]:
    save_images(folder / "cut", [(32, 32)] * 5)
    path = folder / "cut" / "002.png"
    path.write_bytes(path.read_bytes()[:200])
    return ["--data", str(folder / "cut")]


def bad_pickle(folder: Path) -> list[str]:
    (folder / "model.pkl").write_bytes(b"\x80\x04N.")
    return ["--data", str(folder / "model.pkl")]


def bad_constant(folder: Path) -> list[str]:
    np.save(folder / "constant.npy", np.ones((100, 5)))
    return ["--data", str(folder / "constant.npy")]


BAD_SWEEPS = {
    "NaN in the data": (bad_nan, [], "nan"),
    "an empty folder": (bad_empty_folder, [], "no image"),
    "mixed image sizes": (bad_mixed_sizes, [], "005.png"),
    "a truncated image": (bad_truncated_image, [], "002.png"),
    "a pickle": (bad_pickle, [], "pickle"),
    "constant data": (bad_constant, [], "equal"),
    "N larger than the data": (None, ["--sizes", "100000"], "100000"),
    "N below 2": (None, ["--sizes", "1"], "from 2"),
    "sigma = 0": (None, ["--sigmas", "0", "1"], "above 0"),
    "negative sigma": (None, ["--sigmas", "-1", "1"], "above 0"),
    "one sigma": (None, ["--sigmas", "1"], "2 different levels"),
    "no such data": (None, ["--data", "nowhere"], "nowhere"),
    "no processes": (None, ["--processes", "0"], "--processes"),
    "a missing split": (None, ["--split", "nosplit.json"], "nosplit.json"),
    "negative variances": (None, ["--data", "linear", "--sizes", "50", "--variances", "-1"], "neg"),
    "all of a manifold": (None, ["--data", "linear", "--sizes", "all"], "manifold"),
}


@pytest.mark.parametrize("case", sorted(BAD_SWEEPS))
def test_bad_input_is_one_sentence_and_status_2(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, extra, named = BAD_SWEEPS[case]
    arguments = prepare(tmp_path) if prepare else ["--data", "digits"]
    if "--data" in extra:
        arguments = []
    out = tmp_path / "out"
    assert run(["sweep", *arguments, "--sizes", "32", *extra, "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip()
    assert named.lower() in error.lower()
    assert "\n" not in error
    assert "Traceback" not in error
    assert not out.exists() or not any(out.iterdir())


def test_a_folder_with_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    assert run(["sweep", "--data", "digits", "--sizes", "32", "--out", str(tmp_path)]) == 2
    assert "--out" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_cite_names_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cite"]) == 0
    assert "2410.08727" in capsys.readouterr().out


def test_a_real_process_leaves_with_the_status() -> None:
    done = geomem("report", "no-such-run")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no-such-run" in done.stderr
