"""The commands: exit statuses, one JSON document on standard output, pictures."""

import json
from pathlib import Path

import pytest

from geomem.cli.main import run

FILE = Path(__file__).parents[1] / "data" / "theory_checks.json"
TWO = ["--variances", "1", "0.09"]


def main(arguments):
    return run(["theory", *arguments])


def document(capsys):
    """Standard output, which must be one JSON document and nothing else."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(capsys.readouterr().out, parse_constant=refuse)


def bare_file(tmp_path, keep=slice(0, 3), **changes):
    cases = json.loads(FILE.read_text())["cases"][keep]
    names = ("variances", "num_samples", "t", "kind", "x", "planted")
    path = tmp_path / "cases.json"
    path.write_text(json.dumps({"cases": [{k: c[k] for k in names} | changes for c in cases]}))
    return str(path)


def test_check_passes_and_a_wrong_file_fails(tmp_path, capsys):
    wrong = json.loads(FILE.read_text())
    wrong["cases"] = wrong["cases"][:1]
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(wrong))
    assert main(["check", "--cases", str(path)]) == 0
    assert "z" in capsys.readouterr().out
    wrong["cases"][0]["retention"][0] = 0.5
    wrong["cases"][0]["retention"][1] = 0.5
    path.write_text(json.dumps(wrong))
    assert main(["check", "--cases", str(path), "--json"]) == 1
    out = document(capsys)
    assert out["beyond"] == 2 > out["allowed"]


def test_retention_of_cases_is_one_document(tmp_path, capsys):
    assert main(["retention", "--cases", bare_file(tmp_path), "--json"]) == 0
    out = document(capsys)
    assert list(out) == ["cases"]
    reference = json.loads(FILE.read_text())["cases"]
    for mine, theirs in zip(out["cases"], reference, strict=False):
        assert list(mine) == [
            "retention", "retention_stderr", "participation", "participation_stderr",
        ]  # fmt: skip
        assert mine["retention"] == pytest.approx(theirs["retention"], abs=0.06)
        assert mine["participation"] == pytest.approx(theirs["participation"], abs=0.02)


@pytest.mark.parametrize(
    "arguments",
    [
        ["spectrum", *TWO, "--ambient-dim", "5"],
        ["retention", *TWO, "--sigmas", ".3", "--kind", "centre"],
        ["information", *TWO, "--levels", "3", "--window", ".1", "3"],
        ["critical", *TWO, "--num-samples", "20", "--levels", "5"],
        ["phase-diagram", *TWO, "--sizes", "3", "--levels", "5", "--largest", "100"],
    ],
)
def test_commands_print_json_and_draw(arguments, tmp_path, capsys):
    picture = tmp_path / "figure.png"
    assert main([*arguments, "--json", "--figure", str(picture)]) == 0
    assert "dims" in document(capsys)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_tables_for_people(capsys):
    assert main(["spectrum", *TWO]) == 0
    assert main(["retention", *TWO, "--sigmas", ".3", "--kind", "centre"]) == 0
    out = capsys.readouterr().out
    assert "eigenvalues" in out
    assert "±" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spectrum", "--variances", "1", "-1"], "never negative"),
        (["spectrum", *TWO, "--sigmas", "0"], "`sigma` holds 0"),
        (["spectrum", *TWO, "--sigmas"], "`sigma` has shape"),
        (["spectrum", *TWO, "--sigmas", "1e300"], "`sigma` holds 1e+300"),
        (["retention", *TWO, "--sigmas", "1e-200"], "--sigmas holds 1e-200"),
        (["retention", *TWO, "--num-samples", "1e13"], "--num-samples holds 1e+13"),
        (["phase-diagram", *TWO, "--sizes", "0"], "`num_samples` has shape"),
        (["phase-diagram", *TWO, "--levels", "0"], "`sigmas` has shape"),
        (["critical", *TWO, "--num-samples", "1"], "N >= 2"),
        (["retention"], "pass --variances"),
        (["retention", *TWO, "--sigmas", "nan"], "NaN"),
        (["information", *TWO, "--window", "2", "1"], "low < high"),
        (["information", *TWO, "--levels", "1"], "two levels"),
        (["phase-diagram"], "either --variances or --data"),
        (["phase-diagram", *TWO, "--kept", "2"], "between 0 and 1"),
        (["check", "--cases", "missing.json"], "cannot be read"),
        (["spectrum", *TWO, "--figure", "picture.doc"], "no known format"),
    ],
)
def test_bad_input_is_one_sentence_and_status_two(arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("change", [{"t": -1}, {"num_samples": 1}, {"kind": "x"}, {"x": [1]}])
def test_bad_cases_have_status_two(change, tmp_path, capsys):
    assert main(["retention", "--cases", bare_file(tmp_path, **change), "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "case 1" in captured.err
