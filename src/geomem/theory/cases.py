r"""Files of cases: what the theory says, beside what somebody measured.

A file is JSON, ``{"cases": [{...}, ...]}``, each case with

=====================  ================================================================
``variances``          the variances along the axes, m of them
``num_samples``, ``t``  the size N and the noise level :math:`t = \sigma^2`
``kind``               ``planted``, ``fresh``, ``centre``, or ``planted_average``
``x``                  the noisy point along the axes; null for ``planted_average``
``planted``            the training point behind it, where the kind is ``planted``
``retention``          its measured mean by axis, and ``retention_stderr``
``participation``      its measured mean, and ``participation_stderr``
=====================  ================================================================

Measured values may be absent where only the prediction is asked. Other keys are ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom, norm

from geomem.errors import Inconclusive, InputError
from geomem.theory.averages import planted_average
from geomem.theory.finite_size import predict
from geomem.theory.moments import Array
from geomem.theory.prediction import Prediction
from geomem.theory.priors import Gaussian, check_variances, finite

KINDS = ("planted", "fresh", "centre", "planted_average")
BEYOND = 4.0  # joint standard errors
OURS = (0.02, 0.001)  # our error counts up to this share of the value, or this much
ACCURACY = 0.01  # that averages over planted points are driven to


@dataclass(frozen=True)
class Reference:
    r"""What was measured, by axis; the last entry is the participation."""

    value: Array
    stderr: Array


@dataclass(frozen=True)
class Case:
    r"""One case of a file."""

    variances: Array
    num_samples: float
    sigma: float
    kind: str
    x: Array | None
    planted: Array | None
    reference: Reference | None

    def predict(self) -> Prediction:
        r"""The prediction, by whichever route reaches its accuracy."""
        prior = Gaussian(self.variances)
        if self.kind == "planted_average":
            return planted_average(prior, self.sigma, self.num_samples, accuracy=ACCURACY)
        x = prior.mean if self.x is None else self.x
        return predict(prior, x, self.sigma, self.num_samples, planted=self.planted)


def read_cases(path: Path, *, references: bool) -> list[Case]:
    r"""Reads and validates a file of cases.

    Arguments:
        path: The file.
        references: Whether measured values are required.

    Raises:
        InputError: If the file cannot be read, or a case is not as it should be.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); pass a JSON file of cases") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON ({error}); see `geomem theory check -h`") from error
    cases = document.get("cases") if isinstance(document, dict) else None
    if not isinstance(cases, list) or not cases:
        raise InputError(f'{path} has no list of cases; expected {{"cases": [{{...}}, ...]}}')
    return [parse_case(case, f"case {k}", references) for k, case in enumerate(cases, start=1)]


def _refuse(name: str) -> float:
    raise InputError(f"a file of cases contains {name}; every value must be a number")


def parse_case(case: object, name: str, references: bool = False) -> Case:
    r"""One validated case, or an error that names it."""
    if not isinstance(case, Mapping):
        raise InputError(f"{name} is not an object with keys such as variances, num_samples, t")
    try:
        return _parse(case, references)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _parse(case: Mapping[str, Any], references: bool) -> Case:
    variances = check_variances(_numbers(case, "variances"))
    size, t = _number(case, "num_samples"), _number(case, "t")
    if size < 2 or size % 1:
        raise InputError(f"num_samples is {size:g}; pass a whole number N >= 2")
    if not t > 0:
        raise InputError(f"t is {t:g}; pass t = sigma**2 > 0")
    kind = case.get("kind")
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    x, planted = _point(case, "x", variances), _point(case, "planted", variances)
    _check_kind(kind, x, planted)
    reference = _reference(case, len(variances)) if references else None
    return Case(variances, size, math.sqrt(t), kind, x, planted, reference)


def _check_kind(kind: str, x: Array | None, planted: Array | None) -> None:
    if (x is None) != (kind == "planted_average") and kind != "centre":
        need = "takes no x" if x is not None else "needs x"
        raise InputError(f"kind {kind!r} {need}")
    if (planted is not None) != (kind == "planted"):
        need = "takes no planted point" if planted is not None else "needs a planted point"
        raise InputError(f"kind {kind!r} {need}")
    if kind == "centre" and x is not None and x.any():
        raise InputError("the centre is x = 0; call any other point 'fresh'")


def _numbers(case: Mapping[str, Any], key: str) -> Array:
    value = case.get(key)
    if not isinstance(value, list) or not all(map(_is_number, value)):
        raise InputError(f"{key} must be a list of numbers")
    return finite(value, key)


def _number(case: Mapping[str, Any], key: str) -> float:
    value: Any = case.get(key)
    if not _is_number(value):
        raise InputError(f"{key} must be a number; got {value!r}")
    return float(finite(value, key))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _point(case: Mapping[str, Any], key: str, variances: Array) -> Array | None:
    if case.get(key) is None:
        return None
    point = _numbers(case, key)
    if point.shape != variances.shape:
        raise InputError(f"{key} has {len(point)} coordinates for {len(variances)} variances")
    return point


def _reference(case: Mapping[str, Any], dim: int) -> Reference:
    columns = []
    for suffix in ("", "_stderr"):
        retention = _numbers(case, f"retention{suffix}")
        if len(retention) != dim:
            raise InputError(f"retention{suffix} has {len(retention)} values for {dim} variances")
        columns.append(np.append(retention, _number(case, f"participation{suffix}")))
    if (columns[1] < 0).any():
        raise InputError("standard errors are never negative")
    return Reference(*columns)


def predict_cases(cases: Sequence[Case]) -> list[Prediction]:
    r"""The prediction of each case; one that cannot be made is named and ends it all."""
    predictions = []
    for k, case in enumerate(cases, start=1):
        try:
            predictions.append(case.predict())
        except (Inconclusive, InputError) as error:
            raise InputError(f"case {k}: {error}") from error
    return predictions


@dataclass(frozen=True)
class CaseCheck:
    r"""One case, predicted and measured, by axis; the last entry is the participation."""

    case: Case
    value: Array
    stderr: Array
    z_score: Array


def check_cases(cases: Sequence[Case]) -> list[CaseCheck]:
    r"""Predicts cases that hold measured values, and compares."""
    pairs = zip(cases, predict_cases(cases), strict=True)
    return [_compare(case, prediction) for case, prediction in pairs]


def _compare(case: Case, p: Prediction) -> CaseCheck:
    assert case.reference is not None
    value = np.append(p.retention, p.participation)
    ours = np.append(p.retention_stderr, p.participation_stderr)
    counted = np.minimum(ours, np.maximum(OURS[0] * np.abs(value), OURS[1]))
    joint = np.hypot(counted, case.reference.stderr)
    difference = value - case.reference.value
    with np.errstate(invalid="ignore"):  # a direction that the population lacks has no retention
        return CaseCheck(case, value, ours, difference / joint)


def count_beyond(checks: Sequence[CaseCheck]) -> tuple[int, int]:
    r"""How many entries lie beyond 4 joint standard errors, and how many chance allows.

    Chance allows the 99.9 % quantile of their number if every z-score is standard normal.
    """
    z = np.concatenate([c.z_score for c in checks])
    z = z[~np.isnan(z)]
    allowed = binom.ppf(0.999, len(z), 2 * norm.sf(BEYOND)) if len(z) else 0
    return int((np.abs(z) > BEYOND).sum()), int(allowed)
