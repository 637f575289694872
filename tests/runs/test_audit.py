r"""Audits of functions whose memory is known, and everything that may be wrong with an audit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import geomem
from geomem.cli.main import run as command
from geomem.errors import Inconclusive, InputError
from geomem.exact.gaussian import GaussianDenoiser
from geomem.findings.verdict import Verdict
from geomem.measure.mirror import MirrorDenoiser
from geomem.models.doors.loaded import LoadedModel
from geomem.runs.audit import Audit
from geomem.runs.audit_time import TimedAudit
from geomem.runs.kinds import open_run
from geomem.runs.records import RunFolder
from geomem.runs.results import results
from tests.models.doors.strangers import images
from tests.runs.audited import HELD_OUT, TRAINING, Labelled, law, memory, save_images, small


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return save_images(tmp_path_factory.mktemp("images"))


def judged(audit: Audit, out: Path) -> Verdict:
    dataset = audit.run(out, processes=1, quiet=True)
    found = results(RunFolder.open(out), dataset).verdict
    assert found is not None
    return found


def said(text: str) -> str:
    r"""A line of output without the terminal's wrapping."""
    return " ".join(text.split())


# ------------------------------------------------------------------------------ what is found


@pytest.fixture(scope="module")
def memorized(places: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    r"""A finished audit of the function that knows its images by heart."""
    out = tmp_path_factory.mktemp("audit") / "run"
    audit = small(places, "empirical", samples=16, controls=("mirror", "linear"))
    audit.run(out, processes=1, quiet=True)
    geomem.report(out)
    return out


@pytest.fixture(scope="module")
def clean(places: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    r"""A finished audit of the function that knows the law."""
    out = tmp_path_factory.mktemp("clean") / "run"
    small(places, "population").run(out, processes=1, quiet=True)
    return out


def test_a_population_is_not_said_to_have_memorized(clean: Path) -> None:
    found = results(RunFolder.open(clean)).verdict
    assert found is not None
    assert found.severity == 0
    assert found.word in ("generalization", "inconclusive")
    assert found.p_value > 0.05
    assert found.units == (32, 32)


def test_a_function_that_knows_its_images_by_heart_is_full_memorization(memorized: Path) -> None:
    summary = json.loads((memorized / "summary.json").read_text())
    assert summary["verdict"]["word"] == "full memorization"
    assert summary["findings"][0] == "Verdict: full memorization."
    assert summary["verdict"]["lost_share"]["value"] > 0.9
    kinds = [row["kind"] for row in summary["subjects"]]
    assert kinds[0] == "model"
    assert {"linear", "empirical", "mirror"} <= set(kinds)
    page = (memorized / "report.html").read_text()
    assert "model" in page


def test_the_verdict_follows_from_the_records_alone(memorized: Path, tmp_path: Path) -> None:
    # Neither model nor images are needed, and what was stored of it is not believed.
    copy = tmp_path / "copy"
    shutil.copytree(memorized, copy)
    (copy / "findings.nc").unlink()
    config = json.loads((copy / "config.json").read_text())
    config |= {"model": "nowhere:gone", "data": "gone.npy", "held_out": "gone.npy"}
    (copy / "config.json").write_text(json.dumps(config))
    again = results(RunFolder.open(copy)).verdict
    assert again == results(RunFolder.open(memorized)).verdict
    assert again == geomem.verdict(geomem.load(copy))


def test_the_same_study_and_seed_give_the_same_bytes(
    clean: Path, places: dict[str, str], tmp_path: Path
) -> None:
    small(places, "population").run(tmp_path / "run", processes=1, quiet=True)
    first, second = (run / "summary.json" for run in (clean, tmp_path / "run"))
    assert first.read_bytes() == second.read_bytes()


def test_a_run_is_private_and_says_what_it_rests_on(memorized: Path) -> None:
    study = json.loads((memorized / "study.json").read_text())
    assert study["models"]["model"]["prediction"] == "sample"
    assert study["plan"]["controls"] == ["mirror", "linear"]
    assert study["overlap"] == []
    assert set(study["checks"]) >= {"answers", "labels"}
    checks = json.loads((memorized / "model.json").read_text())["checks"]
    assert all(check["sentence"] for check in checks)
    assert oct((memorized / "records").stat().st_mode)[-2:] == "00"


def test_pixels_and_lost_directions_are_among_the_numbers(memorized: Path) -> None:
    known = geomem.numbers(geomem.load(memorized), replicates=20, permutations=99)
    row = known.isel(subject=0)
    assert row.lost_pixels.shape == (8, 8)
    linear = float(row.information_beside.sel(control=str(known.attrs["control"])))
    assert float(row.lost_pixels.sum()) == pytest.approx(linear, rel=0.2)
    axes = row.lost_direction.values
    axes = axes[np.isfinite(axes).any(1)]
    assert len(axes) > 3
    kept = np.nan_to_num(axes)
    assert np.allclose(kept @ kept.T, np.eye(len(kept)), atol=1e-5)
    # Directions along principal ones of which each is one vector of the records.
    assert "vector" in geomem.load(memorized)


def test_the_model_is_followed_along_its_own_trajectories(memorized: Path) -> None:
    known = geomem.numbers(geomem.load(memorized), replicates=20, permutations=99)
    row = known.isel(subject=0)
    assert "trajectory" in known["at"].values
    # One that knows its images by heart ends at one of them.
    assert float(row.nearest_distance.sel(at="trajectory").isel(sigma=0)) < 0.01
    assert '<h2 id="t-trajectories">' in (memorized / "report.html").read_text()
    assert json.loads((memorized / "study.json").read_text())["plan"]["trajectories"] == 16


def test_what_an_audit_holds_is_on_the_page_of_records(memorized: Path) -> None:
    dataset = geomem.load(memorized)
    known = geomem.numbers(dataset, replicates=10, permutations=99)
    files = {p.name: json.loads(p.read_text()) for p in memorized.glob("*.json")}
    names = {str(n) for n in (*dataset.variables, *dataset.dims, *known.data_vars, *known.dims)}
    names |= {*files["study.json"]} - {"schema_version"}
    names |= {*files["summary.json"], *files["summary.json"]["verdict"], *files}
    text = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
    ends = ("_stderr", "_low", "_high")
    plain = {"axis_1", "axis_2", "unseen_copies_of", "near_duplicates_of"}
    missing = [n for n in sorted(names - plain) if f"`{n}`" not in text and not n.endswith(ends)]
    assert not missing


# ------------------------------------------------------------------------------- the controls


def test_the_mirror_is_the_model_at_the_mirror_image() -> None:
    x, sigma = images(4, seed=3), torch.tensor(0.3)
    found = MirrorDenoiser(law())(x, sigma)
    assert torch.allclose(found.flip(-1), law()(x.flip(-1), sigma))


def test_the_mirror_sees_memory_and_nothing_in_a_mirrored_law(
    memorized: Path, places: dict[str, str]
) -> None:
    known = geomem.numbers(geomem.load(memorized), replicates=100, permutations=99)
    beside = known.isel(subject=0).sel(control="mirror")
    assert float(beside.information_beside) > 4 * float(beside.information_beside_stderr)


def test_a_reference_is_trained_resumed_and_used(places: dict[str, str], tmp_path: Path) -> None:
    audit = small(places, "population", controls=("reference",), reference_steps=30)
    found = judged(audit, tmp_path / "run")
    subjects = RunFolder.open(tmp_path / "run").subjects
    assert [s.kind for s in subjects] == ["linear", "empirical", "model", "reference"]
    assert subjects[-1].num_samples == HELD_OUT // 2
    assert (tmp_path / "run" / "networks" / "reference.safetensors").exists()
    assert found.control in ("reference", "linear")
    known = geomem.numbers(geomem.load(tmp_path / "run"), replicates=20, permutations=99)
    assert set(known.control.values) == {"reference", "linear"}
    assert np.isfinite(known.r_squared.isel(subject=0)).all()


def test_a_base_and_a_reference_of_the_users_are_controls(
    places: dict[str, str], tmp_path: Path
) -> None:
    law_of = "tests.runs.audited:population"
    audit = small(places, "empirical", controls=("auto",), reference=law_of)
    assert audit.chosen == ("reference", "mirror", "linear")
    found = judged(audit, tmp_path / "run")
    assert found.word == "full memorization"
    assert found.control in ("reference", "mirror")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"controls": ("mirror",), "flip": True}, "leave mirror out"),
        ({"controls": ("base",)}, "`base`"),
        ({"controls": ()}, "`controls`"),
        ({"model": ""}, "`model`"),
    ],
)
def test_controls_that_cannot_be_had_are_refused(
    places: dict[str, str], more: dict[str, object], word: str
) -> None:
    with pytest.raises(InputError, match=word):
        small(places, "population", **more).study()


def test_auto_takes_no_mirror_where_flips_are_declared(places: dict[str, str]) -> None:
    audit = small(places, "population", controls=("auto",), flip=True)
    assert audit.chosen == ("linear",)  # 48 reserved images are too few to train on
    assert any("mirrored" in text for text in audit.study().content["declared"])


# ----------------------------------------------------------------------- conditions and latents


def test_each_image_is_denoised_under_its_own_label(tmp_path: Path) -> None:
    places, tables = {}, []
    for name, count, seed in (("data", 40, 1), ("held_out", 80, 2)):
        labels = np.arange(count) % 2
        pictures = images(count, seed=seed).numpy() + Labelled.shift * (
            2.0 * labels[:, None, None, None] - 1
        )
        np.save(tmp_path / f"{name}.npy", pictures.astype(np.float32))
        places[name] = str(tmp_path / f"{name}.npy")
        rows = "".join(f"{k},{label}\n" for k, label in enumerate(labels))
        (tmp_path / f"{name}.csv").write_text(f"file,value\n{rows}")
        tables.append(tmp_path / f"{name}.csv")
    more = {"labels": tuple(tables), "jacobian_points": 8, "samples": 8, "levels": 4}
    dataset = small(places, "labelled", **more).run(tmp_path / "run", processes=1, quiet=True)
    known = geomem.numbers(dataset, replicates=20, permutations=199)
    row = known.isel(subject=0)
    assert geomem.verdict(known).word != "full memorization"
    assert float(row.p_value) > 0.01
    assert set(known["class"].values) == {"0", "1"}
    assert geomem.verdict(known).limits[1].startswith("Each image was denoised under its own label")
    # Under its own label the law is right; without one it is none, and the verdict says so.
    dataset = small(places, "labelled", levels=4).run(tmp_path / "none", processes=1, quiet=True)
    without = geomem.verdict(geomem.numbers(dataset, replicates=20, permutations=199))
    assert without.word == "inconclusive"
    assert without.reasons[0].startswith("The model is underfit")
    assert any("takes conditions, and none were given" in limit for limit in without.limits)


def test_a_model_of_latents_is_audited_in_them(
    places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(pictures: torch.Tensor) -> torch.Tensor:
        return 2 * torch.nn.functional.avg_pool2d(pictures, 2)

    inside = GaussianDenoiser.fit(encode(images(4096, seed=7)))
    about = {"prediction": "sample", "sha256": {}, "warnings": ["Noise was offset."]}
    model = LoadedModel(
        inside, (1, 4, 4), (1e-3, 100.0), None, about, torch.float64, "cpu", encode=encode
    )
    monkeypatch.setattr("geomem.runs.audited.open_door", lambda *given: model)
    audit = small(places, "population", controls=("auto",), levels=4)
    assert audit.chosen == ("linear",)  # the mirror of a latent is no latent of a mirror
    found = judged(audit, tmp_path / "run")
    assert found.severity == 0
    study = json.loads((tmp_path / "run" / "study.json").read_text())
    assert study["data"]["item_shape"] == [1, 4, 4]
    assert study["data"]["digest"] == small(places, "population").joined.data.digest
    assert any("means of its encoder" in text for text in found.limits)
    assert "Noise was offset." in found.limits


# ----------------------------------------------------------------------------------- bad input


def test_no_held_out_images_is_no_control(places: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Inconclusive, match=r"no control.*`held_out`"):
        small({"data": places["data"]}, "population")


def test_overlap_is_named_and_decides_nothing(places: dict[str, str], tmp_path: Path) -> None:
    training, held_out = (np.load(places[name]) for name in ("data", "held_out"))
    # One exactly, one read another way: less than half a grey level apart.
    held_out[3], held_out[5] = training[0], training[1] + 1e-4 * np.sign(training[1])
    np.save(tmp_path / "held.npy", held_out)
    mixed = {**places, "held_out": str(tmp_path / "held.npy")}
    found = judged(small(mixed, "empirical"), tmp_path / "run")
    assert found.word == "inconclusive"
    assert "2 held-out image(s) are among the training images" in found.reasons[0]
    assert "held_out/3" in found.reasons[0]
    assert "held_out/5" in found.reasons[0]


def test_images_that_are_not_alike_come_first(places: dict[str, str], tmp_path: Path) -> None:
    np.save(tmp_path / "held.npy", np.load(places["held_out"]) + 0.8)
    other = {**places, "held_out": str(tmp_path / "held.npy"), "reserved": places["held_out"]}
    found = judged(small(other, "population"), tmp_path / "run")
    assert found.word == "inconclusive"
    assert "not drawn alike" in found.reasons[0]


def test_images_of_another_size_are_refused(places: dict[str, str], tmp_path: Path) -> None:
    np.save(tmp_path / "held.npy", np.random.default_rng(0).normal(size=(96, 1, 10, 10)))
    with pytest.raises(InputError, match=r"\(1, 10, 10\).*\(1, 8, 8\)"):
        small({**places, "held_out": str(tmp_path / "held.npy")}, "population").study()


def test_too_few_held_out_images_are_refused(places: dict[str, str], tmp_path: Path) -> None:
    np.save(tmp_path / "held.npy", images(12, seed=4).numpy())
    with pytest.raises(InputError, match=r"fewer than 8.*`held_out`"):
        small({**places, "held_out": str(tmp_path / "held.npy")}, "population").study()


@pytest.mark.parametrize(
    ("function", "word"), [("broken_below", "NaN"), ("raising_below", "illegal memory")]
)
def test_a_model_that_fails_in_the_middle_loses_nothing(
    places: dict[str, str],
    tmp_path: Path,
    function: str,
    word: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    options = ["--controls", "linear", "--points", "16", "--draws", "1", "--levels", "4"]
    options += ["--samples", "0", "--jacobian-points", "0", "--processes", "1"]
    options += ["--sigmas", "0.02", "0.5", "2"]  # the first lies below the door's
    options += ["--model", f"tests.runs.audited:{function}", "--out", str(out)]
    options += ["--data", places["data"], "--held-out", places["held_out"]]
    assert command(["audit", *options]) == 2
    error = said(capsys.readouterr().err.splitlines()[-1])
    assert error.startswith("geomem audit:")
    assert word in error
    done = [s.kind for n, s in enumerate(RunFolder.open(out).subjects) if n not in _missing(out)]
    assert "model" not in done  # what was measured before it is kept
    assert set(done) <= {"linear", "empirical"}


def _missing(out: Path) -> list[int]:
    return RunFolder.open(out).missing()


def test_a_file_that_is_no_model_is_refused_before_anything_begins(
    places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04...")
    images_of = ["--data", places["data"], "--held-out", places["held_out"]]
    out = tmp_path / "run"
    for model in (tmp_path / "model.pkl", tmp_path / "nowhere"):
        status = command(["audit", "--model", str(model), *images_of, "--out", str(out)])
        assert status == 2
        assert capsys.readouterr().err.startswith("geomem audit: ")
        assert not out.exists()


# ---------------------------------------------------------------------------------- plan, gates


def test_gates_leave_with_their_status(
    memorized: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(memorized, copy)
    assert command(["audit", str(copy)]) == 0
    assert "Verdict: full memorization." in capsys.readouterr().out
    assert command(["audit", str(copy), "--fail-on", "full"]) == 4
    assert command(["audit", str(copy), "--fail-on", "geometric"]) == 4


def test_a_gate_without_held_out_images_is_inconclusive(
    places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", "tests.runs.audited:empirical", "--data", places["data"]]
    assert command(["audit", *options, "--fail-on", "full"]) == 3
    assert "--held-out" in capsys.readouterr().err


def test_a_study_is_repeated_image_by_image(places: dict[str, str], tmp_path: Path) -> None:
    first = small(places, "population", seed=3)
    first.prepare(tmp_path / "a")
    study = tmp_path / "a" / "study.json"
    # In another order, and with another seed of its own.
    np.save(tmp_path / "data.npy", np.load(places["data"])[::-1])
    moved = {**places, "data": str(tmp_path / "data.npy")}
    again = small(moved, "empirical", repeat=study).study().content
    wanted = json.loads(study.read_text())
    for name in ("point_digests", "sigmas", "draws", "seed"):
        assert again[name] == wanted[name]
    np.save(tmp_path / "less.npy", np.load(places["data"])[:20])
    with pytest.raises(InputError, match="not among the images given"):
        small({**places, "data": str(tmp_path / "less.npy")}, "empirical", repeat=study).study()
    with pytest.raises(InputError, match=r"holds no run|no study"):
        small(places, "empirical", repeat=tmp_path / "nothing.json").study()


def test_a_budget_becomes_a_plan(places: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimedAudit, "_call_seconds", lambda self, device: 1e-5)
    monkeypatch.setattr(TimedAudit, "_step_seconds", lambda self, device: 0.05)
    audit = small(places, "population", samples=64, controls=("auto",))
    rich = audit.within(3600, 1)
    assert rich.samples == 64
    assert rich.points == 32
    with pytest.raises(InputError, match="`budget`"):
        audit.within(0.001, 1)
    wanted = small(places, "population", controls=("reference", "linear"))
    assert (wanted.within(3600, 1).reference_steps or 0) >= 300
    # Where no 300 steps fit it is left out, and the rest goes on.
    assert "reference" not in wanted.within(12, 1).controls


def test_a_budget_takes_samples_and_trajectories_first(
    places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TimedAudit, "_call_seconds", lambda self, device: 0.01)
    # 768 calls at points, 2,304 for samples, 66 for each trajectory; and 5 seconds.
    audit = small(places, "population", samples=64)
    assert [
        (plan.samples, plan.trajectories, plan.points)
        for plan in (audit.within(seconds, 1) for seconds in (60, 55, 20))
    ] == [(64, 16, 32), (64, 8, 32), (0, 0, 32)]


def test_an_audit_is_timed_where_it_will_compute(
    places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []

    def timed(action: Callable[[], object], device: str) -> float:
        action()
        seen.append((action.__name__, device))
        return 64e-5

    monkeypatch.setattr("geomem.runs.audit_time.timed", timed)
    audit = small(places, "population", controls=("reference", "linear"))
    for _ in range(2):
        assert audit.within(3600, 2, "cpu:0").points == 32
    assert seen == [("call", "cpu:0"), ("advance", "cpu:0")]


def test_an_audit_is_opened_from_its_folder_alone(memorized: Path) -> None:
    there = open_run(memorized)
    assert isinstance(there, Audit)
    assert there.controls == ("mirror", "linear")
    assert len(memory().data) == TRAINING


def test_levels_are_the_models_own(places: dict[str, str]) -> None:
    audit = small(places, "population")
    model = audit.opened("cpu")
    own = np.geomspace(0.01, 10, 7)
    from dataclasses import replace

    levels = audit._levels(replace(model, levels=own))
    assert set(np.round(levels, 12)) <= set(np.round(own, 12))
    assert np.all(np.diff(levels) > 0)
