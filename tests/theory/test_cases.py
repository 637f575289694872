"""Files of cases: the checks file, cases it has never seen, and files that are refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from geomem.errors import Inconclusive, InputError
from geomem.theory import cases
from geomem.theory.cases import check_cases, count_beyond, parse_case, read_cases
from tests.theory import brute_force

FILE = Path(__file__).parents[1] / "data" / "theory_checks.json"
PLANTED = json.loads(FILE.read_text())["cases"][0]


def test_the_checks_file_passes():
    checks = check_cases(read_cases(FILE, references=True))
    beyond, allowed = count_beyond(checks)
    assert beyond <= allowed
    z = np.concatenate([c.z_score for c in checks])
    # 94 entries, those of one case not independent: .7 to 1.3 is what re-simulations give
    assert 0.7 < z.std() < 1.3


def simulated_case(variances, size, t, kind, rng, sets):
    v, sigma = np.asarray(variances), t**0.5
    y = rng.normal(size=len(v)) * np.sqrt(v)
    x = y + sigma * rng.normal(size=len(v))
    points = {
        "planted": {"x": x, "planted": y},
        "fresh": {"x": x},
        "centre": {"x": 0 * x},
        "planted_average": {},
    }[kind]
    b = brute_force.measure(v, size, sigma, rng, sets=sets, **points)
    r, error = brute_force.retention(b, v, sigma)
    return {
        "variances": v.tolist(),
        "num_samples": size,
        "t": t,
        "kind": kind,
        "x": points["x"].tolist() if "x" in points else None,
        "planted": points["planted"].tolist() if "planted" in points else None,
        "retention": r.tolist(),
        "retention_stderr": error.tolist(),
        "participation": float(b.participation),
        "participation_stderr": float(b.participation_stderr),
        "source": "an unknown key",
    }


UNSEEN = [
    ((1.0, 0.5, 0.2), 20_000, 0.002, "planted", 300),
    ((1.0, 0.5, 0.2), 20_000, 0.002, "fresh", 300),
    (np.arange(1, 21.0) ** -1.0, 300, 0.05, "planted", 2000),
    (np.arange(1, 21.0) ** -2.0, 100, 0.01, "fresh", 2000),
    (np.arange(1, 21.0) ** -1.5, 50, 0.03, "planted_average", 4000),
    ((1.0,), 2, 0.1, "fresh", 40_000),
    ((1.0, 0.01), 3, 0.003, "planted_average", 40_000),
    ((2.0, 0.1, 0.1), 30, 0.02, "centre", 4000),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_cases_never_seen_before_pass(seed, tmp_path):
    rng = np.random.default_rng(seed)
    drawn = [simulated_case(*c[:4], rng, c[4]) for c in UNSEEN]
    path = tmp_path / "unseen.json"
    path.write_text(json.dumps({"cases": drawn}))
    checks = check_cases(read_cases(path, references=True))
    beyond, allowed = count_beyond(checks)
    assert beyond <= allowed


def test_a_wrong_reference_is_noticed():
    wrong = PLANTED | {"retention": [r + 0.1 for r in PLANTED["retention"]]}
    beyond, allowed = count_beyond(check_cases([parse_case(wrong, "case 1", references=True)]))
    assert beyond == 7 > allowed


def test_our_error_counts_up_to_two_per_cent():
    case = parse_case(PLANTED, "case 1", references=True)
    assert case.reference is not None
    p = case.predict()
    loose = cases._compare(case, p)
    p_loose = type(p)(**{**vars(p), "retention_stderr": 10 + 0 * p.retention})
    capped = cases._compare(case, p_loose)
    ratio = np.abs(loose.z_score[:-1] / capped.z_score[:-1])
    expected = np.hypot(case.reference.stderr[:-1], 0.02 * p.retention)
    np.testing.assert_allclose(ratio, expected / case.reference.stderr[:-1], rtol=1e-3)


def test_references_may_be_absent_for_predictions():
    bare = {k: PLANTED[k] for k in ("variances", "num_samples", "t", "kind", "x", "planted")}
    assert parse_case(bare, "case 1").reference is None
    with pytest.raises(InputError, match="retention must be a list"):
        parse_case(bare, "case 1", references=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variances": [1.0, -1.0]}, "`variances` has -1"),
        ({"variances": "1"}, "list of numbers"),
        ({"variances": []}, "`variances` has shape"),
        ({"num_samples": 1}, "N >= 2"),
        ({"num_samples": 2.5}, "whole number"),
        ({"num_samples": True}, "must be a number"),
        ({"t": 0}, "t > 0|sigma"),
        ({"t": None}, "must be a number"),
        ({"kind": "typical"}, "choose one of"),
        ({"x": None}, "needs x"),
        ({"x": [1.0]}, "1 coordinates for 7"),
        ({"planted": None}, "needs a planted point"),
        ({"kind": "fresh"}, "takes no planted point"),
        ({"kind": "planted_average"}, "takes no x"),
        ({"kind": "centre", "planted": None}, "centre is x = 0"),
        ({"retention": [1.0]}, "1 values for 7"),
        ({"retention_stderr": [-1.0] * 7}, "never negative"),
        ({"participation": "half"}, "must be a number"),
    ],
)
def test_wrong_cases_are_named_in_one_sentence(change, message):
    with pytest.raises(InputError, match=message) as error:
        parse_case(PLANTED | change, "case 3", references=True)
    assert str(error.value).startswith("case 3: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "no list of cases"),
        ('{"cases": []}', "no list of cases"),
        ('{"cases": [3]}', "not an object"),
        ('{"cases": [{"t": NaN}]}', "contains NaN"),
        ("\x80", "cannot be read|not JSON"),
    ],
)
def test_wrong_files_are_refused(text, message, tmp_path):
    path = tmp_path / "cases.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        read_cases(path, references=False)
    with pytest.raises(InputError, match="cannot be read"):
        read_cases(tmp_path / "missing.json", references=False)


def test_a_case_beyond_all_methods_gives_no_number(monkeypatch):
    def refuse(*args, **kwargs):
        raise Inconclusive("no method reaches its accuracy")

    monkeypatch.setattr(cases, "predict", refuse)
    with pytest.raises(InputError, match="case 1: no method reaches its accuracy"):
        cases.predict_cases([parse_case(PLANTED, "case 1")])
