r"""What is wrong is refused by the name of what would fit; what is right passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.models.doors import LoadedModel, ModelCheck, check_model
from geomem.models.doors.denoisers import CallableDenoiser, NetworkDenoiser
from geomem.models.doors.schedules import Labels, labels_named, predictions_of
from tests.models.doors.strangers import images, network_of, population

DISCRETE = ("linear", "scaled_linear", "cosine", "sigmoid")


def model_of(denoiser: Any, labels: Labels | None = None, **more: Any) -> LoadedModel:
    ends = (0.01, 100.0) if labels is None else (labels.low, labels.high)
    levels = None if labels is None else labels.levels
    given = {"dtype": torch.float32, "device": "cpu", **more}
    return LoadedModel(denoiser, (1, 8, 8), ends, levels, {}, **given)


def checks_of(
    exact: Any, true: tuple[str, str], said: tuple[str, str], **more: Any
) -> dict[str, ModelCheck]:
    r"""The checks of a network that was trained one way and is declared another."""
    network = network_of(exact, labels_named(true[0]), true[1])
    labels = labels_named(said[0])
    model = model_of(NetworkDenoiser(network, labels, said[1]), labels)
    return {c.name: c for c in check_model(model, images(24, seed=5), **more)}


RIGHT = [
    *((s, p) for s in ("linear", "cosine") for p in predictions_of(labels_named("linear"))),
    ("flow", "flow_prediction"),
    ("edm", "epsilon"),
    ("edm", "v_prediction"),
    ("ve", "score"),
]


@pytest.mark.parametrize("true", RIGHT)
def test_what_is_right_passes(true: tuple[str, str]) -> None:
    checks = checks_of(population(), true, true)
    assert list(checks) == ["answers", "prediction", "labels", "derivatives", "bounds"]
    assert all(c.passed for c in checks.values()), checks


@pytest.mark.parametrize("true", ["epsilon", "v_prediction", "sample", "score"])
@pytest.mark.parametrize("said", ["epsilon", "v_prediction", "sample", "score"])
def test_a_wrong_prediction_is_refused_by_the_right_name(true: str, said: str) -> None:
    checks = checks_of(population(), ("linear", true), ("linear", said))
    check = checks["prediction"]
    assert check.passed == (true == said)
    if true != said:
        assert check.sentence.startswith(f"outputs behave like {true}, not {said}")
        assert check.sentence.endswith(f"pass `prediction` {true}")
        assert "labels" not in checks  # what rests on it is not asked


@pytest.mark.parametrize("true", DISCRETE)
@pytest.mark.parametrize("said", DISCRETE)
def test_a_wrong_schedule_is_refused_by_the_right_name(true: str, said: str) -> None:
    checks = checks_of(population(), (true, "epsilon"), (said, "epsilon"))
    assert checks["prediction"].passed
    check = checks["labels"]
    assert check.passed == (true == said), check
    if true != said:
        assert "labels behave as" in check.sentence
        assert check.sentence.endswith(f"pass `schedule` {true}")


@pytest.mark.parametrize(
    ("true", "said"),
    [
        (("flow", "flow_prediction"), ("linear", "epsilon")),
        (("linear", "v_prediction"), ("flow", "flow_prediction")),
        (("cosine", "v_prediction"), ("linear", "epsilon")),
        (("ve", "score"), ("linear", "epsilon")),
    ],
)
def test_both_wrong_at_once_are_both_named(true: tuple[str, str], said: tuple[str, str]) -> None:
    check = checks_of(population(), true, said)["prediction"]
    assert not check.passed
    assert check.sentence.endswith(f"pass `prediction` {true[1]} and `schedule` {true[0]}")


@pytest.mark.parametrize("factor", [0.7, 1.25, 1.4])
def test_a_function_that_is_told_another_sigma_is_refused_with_the_factor(factor: float) -> None:
    exact = population()
    wrong = CallableDenoiser(lambda x, sigma: exact(x, sigma / factor), "wrong")
    found = check_model(model_of(wrong), images(96, seed=5), points=96)
    checks = {c.name: c for c in found}
    assert not checks["labels"].passed
    assert checks["labels"].value == factor
    assert f"labels behave as {factor:g}" in checks["labels"].sentence


# ----------------------------------------------------------------------- models that memorized


def test_at_training_images_a_model_that_memorized_is_judged_as_any_other() -> None:
    train = images(16)
    exact = EmpiricalDenoiser(train.double())
    true = ("cosine", "epsilon")
    right = checks_of(exact, true, true, training=train)
    assert all(c.passed for c in right.values()), right
    for said, name in ((("linear", "epsilon"), "labels"), (("cosine", "sample"), "prediction")):
        wrong = checks_of(exact, true, said, training=train)
        assert not wrong[name].passed
        assert true[0] in wrong[name].sentence or true[1] in wrong[name].sentence


def test_at_held_out_images_alone_it_is_not_refused_for_what_smooths() -> None:
    exact = EmpiricalDenoiser(images(16).double())
    for schedule in ("linear", "cosine"):
        checks = checks_of(exact, (schedule, "epsilon"), (schedule, "epsilon"))
        assert all(c.passed for c in checks.values()), checks


# ------------------------------------------------------------------- models that are hardly trained


def small_output(prediction: str, size: float = 0.05) -> Any:
    r"""A network of the right labels that has hardly left zero, or the mean image."""
    right = network_of(population(), labels_named("linear"), prediction)
    mean = 0.25 if prediction == "sample" else 0.0
    return lambda x, label: mean + size * (right(x, label) - mean)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_model_that_is_hardly_trained_is_not_refused_for_that(prediction: str) -> None:
    labels = labels_named("linear")
    model = model_of(NetworkDenoiser(small_output(prediction), labels, prediction), labels)
    for training in (None, images(24, seed=6)):
        checks = {c.name: c for c in check_model(model, images(24, seed=5), training=training)}
        assert all(c.passed for c in checks.values()), (prediction, checks)
        assert len(checks) == 5
        if training is not None:
            assert any("hardly trained" in c.sentence for c in checks.values()), checks


# --------------------------------------------------------------------------- the other checks


def rounding(x: Tensor, sigma: Tensor) -> Tensor:
    clean = population()(x, sigma)
    return clean + ((clean * 8).round() / 8 - clean).detach() + 0.3 * (x - x.detach()) / sigma


def test_derivatives_that_are_not_those_of_the_answers_are_found() -> None:
    found = {c.name: c for c in check_model(model_of(rounding), images(24, seed=5))}
    assert not found["derivatives"].passed
    assert "rounding" in found["derivatives"].sentence
    with_no_grad = CallableDenoiser(torch.no_grad()(population()), "it")
    found = {c.name: c for c in check_model(model_of(with_no_grad), images(24, seed=5))}
    assert "detached" in found["derivatives"].sentence


def test_images_of_another_scale_are_found_at_large_levels() -> None:
    exact = population()
    in_bytes = CallableDenoiser(lambda x, sigma: 3 + exact(x - 3, sigma), "it")
    found = {c.name: c for c in check_model(model_of(in_bytes), images(24, seed=5))}
    assert not found["bounds"].passed
    assert "scaled" in found["bounds"].sentence


def nan_above(x: Tensor, sigma: Tensor) -> Tensor:
    level = sigma.reshape(-1, *(1,) * (x.ndim - 1))
    return torch.where(level > 0.3, torch.nan, population()(x, sigma))


def raises(x: Tensor, sigma: Tensor) -> Tensor:
    raise RuntimeError("no such bird")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda x, sigma: x + torch.randn_like(x), "draws random numbers"),
        (lambda x, sigma: x.flatten(1), "returned shape"),
        (nan_above, "NaN or infinity at sigma"),
        (raises, "it failed with RuntimeError: no such bird"),
    ],
)
def test_what_cannot_be_measured_ends_after_the_first_check(wrong: Any, sentence: str) -> None:
    model = model_of(CallableDenoiser(wrong, "it"))
    (check,) = check_model(model, images(24, seed=5))
    assert (check.name, check.passed) == ("answers", False)
    assert sentence in check.sentence


def test_images_of_another_size_are_an_input_error() -> None:
    with pytest.raises(InputError, match=r"have shape \(1, 4, 16\).*as its trainer did"):
        check_model(model_of(population()), images(24).reshape(-1, 1, 4, 16))


def test_the_same_seed_gives_the_same_checks() -> None:
    model = model_of(CallableDenoiser(population(), "it"))
    first, second, other = (check_model(model, images(24), seed=s) for s in (0, 0, 1))
    assert repr(first) == repr(second) != repr(other)
