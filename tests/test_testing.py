r"""The checks for strangers' methods: ours pass, and every check fails for a broken twin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.dimension import (
    DimensionMethod,
    ForwardSoftCount,
    LargestGap,
    NoGap,
    SoftCount,
    Threshold,
    jacobian_spectrum,
)
from geomem.dimension.local import LocalDimension
from geomem.dimension.scores import FLIPD, FilteredTrace, NormalBundle, SpikeRule
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser
from geomem.models.networks import NetworkConfig
from geomem.operators import Factored, LinearOperator
from geomem.spectra import Dense, Gram, LanczosQuadrature, Spectrum, SpectrumMethod
from geomem.spectra.randomized import RandomizedSVD
from geomem.stats import Estimate
from geomem.testing import check_denoiser, check_dimension_method, check_spectrum_method
from tests.references import level, normal

LANCZOS = LanczosQuadrature(depth=8, probes=8)


def factored(matrix: Tensor) -> LinearOperator:
    values, vectors = torch.linalg.eigh(matrix)
    return Factored(vectors * values.clamp(min=0).sqrt())


# ------------------------------------------------------------------------------- ours pass


@pytest.mark.parametrize(
    "method",
    [
        Dense(),
        LANCZOS,
        LanczosQuadrature(depth=2, probes=2),
        LanczosQuadrature(depth=12, probes=3),
        RandomizedSVD(rank=6),
    ],
    ids=repr,
)
def test_our_spectrum_methods_pass(method: SpectrumMethod) -> None:
    check_spectrum_method(method)


def test_a_method_that_needs_a_factor_passes_with_one() -> None:
    check_spectrum_method(Gram(), operator=factored)


def test_one_probe_says_nothing_about_its_error_and_passes() -> None:
    check_spectrum_method(LanczosQuadrature(depth=8, probes=1))


@pytest.mark.parametrize(
    "method",
    [
        Threshold(),
        SoftCount(),
        LargestGap(),
        ForwardSoftCount(pairs=32),
        SoftCount(LanczosQuadrature(depth=4, probes=4)),
        LocalDimension(),
        FLIPD(),
        FilteredTrace(),
    ],
    ids=lambda m: type(m).__name__,
)
def test_our_dimension_methods_pass(method: DimensionMethod) -> None:
    check_dimension_method(method, seeds=12)


@pytest.mark.parametrize(
    ("method", "why"),
    [
        (NormalBundle(), "spectra without a gap get a dimension"),
        (SpikeRule(), "data in all of 12 dimensions"),
    ],
    ids=["NormalBundle", "SpikeRule"],
)
def test_published_rules_without_a_test_of_their_gap_do_not(
    method: DimensionMethod, why: str
) -> None:
    # Both are here as they were published, and say in their docstrings that they always answer.
    with pytest.raises(AssertionError, match=why):
        check_dimension_method(method)


GOOD: dict[str, Callable[[], Denoiser]] = {
    "linear": lambda: GaussianDenoiser(torch.zeros(6), torch.linspace(0, 1, 6)),
    "empirical": lambda: EmpiricalDenoiser(normal(1, 40, 6)),
    "network": lambda: NetworkConfig("mlp", (6,), 1.0, width=16, blocks=1).build(0).double(),
    "constant": lambda: lambda x, sigma: torch.ones_like(x),
}


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("name", sorted(GOOD))
def test_our_denoisers_pass(name: str, sigma: float) -> None:
    check_denoiser(GOOD[name](), normal(0, 4, 6), level(sigma))


@pytest.mark.parametrize("name", ["linear", "empirical"])
def test_our_denoisers_pass_in_float32(name: str) -> None:
    check_denoiser(GOOD[name](), normal(0, 4, 6).float(), torch.tensor(0.5))


# ----------------------------------------------------------------------- broken denoisers


def pull(x: Tensor, sigma: Tensor) -> Tensor:
    s = sigma.reshape(-1, *(1,) * (x.ndim - 1)) if sigma.ndim else sigma
    return x.tanh() / (1 + s**2)


def in_place(x: Tensor, sigma: Tensor) -> Tensor:
    y = pull(x, sigma)
    x *= 1.5
    return y


def changes_threads(x: Tensor, sigma: Tensor) -> Tensor:
    torch.set_num_threads(2)
    return pull(x, sigma)


def no_graph(x: Tensor, sigma: Tensor) -> Tensor:
    return pull(x.detach(), sigma)


def by_the_first_level(x: Tensor, sigma: Tensor) -> Tensor:
    return pull(x, sigma.reshape(-1)[0])


class Once(torch.autograd.Function):
    r"""A backward pass that has none of its own."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x / 2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad / 2


once: Any = Once.apply  # untyped in torch


BAD_DENOISERS: dict[str, tuple[Denoiser, str]] = {
    "another shape": (lambda x, s: pull(x, s)[..., :2], "shape"),
    "NaN": (lambda x, s: x * math.nan, "NaN"),
    "random": (lambda x, s: pull(x, s) + 0.01 * torch.randn_like(x), "draws random numbers"),
    "another dtype": (lambda x, s: pull(x, s).float(), "float32"),
    "a batch that sees itself": (lambda x, s: pull(x - x.mean(0), s), "alone"),
    "one level for all": (by_the_first_level, "level of one point"),
    "one level's own way": (lambda x, s: pull(x, s) * (1 + 0.1 * s.ndim), r"shape \(B\) and \(\)"),
    "no graph": (no_graph, "detached"),
    "half a graph": (lambda x, s: (pull(x, s) + pull(x.detach(), s)) / 2, "look for .detach"),
    "rounding inside": (lambda x, s: pull((x * 8).round() / 8, s), "has no derivative"),
    "one derivative": (lambda x, s: once(x), "has no derivative"),
    "in place": (in_place, "in place"),
    "threads": (changes_threads, "number of threads"),
}


@pytest.fixture
def threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", sorted(BAD_DENOISERS))
@pytest.mark.usefixtures("threads")
def test_broken_denoisers_fail(name: str) -> None:
    denoiser, named = BAD_DENOISERS[name]
    check_denoiser(pull, normal(0, 4, 6), level(0.5))  # its twin passes
    with pytest.raises(AssertionError, match=named):
        check_denoiser(denoiser, normal(0, 4, 6), level(0.5))


def test_one_point_is_no_batch() -> None:
    with pytest.raises(AssertionError, match="two points"):
        check_denoiser(pull, normal(0, 1, 6), level(0.5))


# ----------------------------------------------------------------- broken spectrum methods


@dataclass(frozen=True)
class Twin:
    r"""A spectrum method, and what is done to its answer."""

    break_it: Callable[[Spectrum], Any]
    inner: Any = field(default_factory=Dense)

    def __call__(self, operator: LinearOperator) -> Any:
        return self.break_it(self.inner(operator))


def scaled(factor: float) -> Callable[[Spectrum], Spectrum]:
    return lambda s: replace(s, nodes=factor * s.nodes)


def copied(s: Spectrum) -> Spectrum:
    # The same probes again and again: the error shrinks, the truth does not come nearer.
    return replace(s, nodes=s.nodes.repeat(4, 1), weights=s.weights.repeat(4, 1))


@dataclass(frozen=True)
class Doubts:
    r"""Nearly exact, with probes moved apart in pairs: an error far above its spread."""

    seed: int = 0

    def __call__(self, operator: LinearOperator) -> Spectrum:
        nodes = Dense()(operator).nodes.expand(8, -1)
        jitter = 1e-2 * float(normal(self.seed, 1))
        pairs = torch.tensor([1.5, 0.5]).repeat(4)[:, None] + jitter
        return Spectrum(nodes, pairs.expand_as(nodes))


@dataclass(frozen=True)
class Asks:
    r"""Asks an operator in a way of its own."""

    how: Callable[[LinearOperator], object]

    def __call__(self, operator: LinearOperator) -> Spectrum:
        self.how(operator)
        return Dense()(operator)


@dataclass(frozen=True)
class Unseeded:
    r"""Draws from torch's own stream."""

    def __call__(self, operator: LinearOperator) -> Spectrum:
        seed = int(torch.randint(10**6, ()))
        return LanczosQuadrature(depth=8, probes=8, seed=seed)(operator)


@dataclass
class Counts:
    r"""Another seed at each call: reproducible by nobody."""

    calls: int = 0

    def __call__(self, operator: LinearOperator) -> Spectrum:
        self.calls += 1
        return LanczosQuadrature(depth=8, probes=8, seed=self.calls)(operator)


@dataclass(frozen=True)
class NoField:
    r"""Sampled, and nobody can ask for other samples."""

    def __call__(self, operator: LinearOperator) -> Spectrum:
        return LANCZOS(operator)


@dataclass(frozen=True)
class Ignores:
    r"""Has a seed and draws with another."""

    seed: int = 0

    def __call__(self, operator: LinearOperator) -> Spectrum:
        return LANCZOS(operator)


@dataclass(frozen=True)
class Leans:
    r"""Always one of its own errors too high: within them each time, and wrong on average."""

    seed: int = 0

    def __call__(self, operator: LinearOperator) -> Spectrum:
        found = LanczosQuadrature(depth=8, probes=8, seed=self.seed)(operator)
        return replace(found, nodes=found.nodes + found.trace().stderr / operator.size)


def set_default(operator: LinearOperator) -> None:
    torch.set_default_dtype(torch.float64)


BAD_SPECTRA: dict[str, tuple[Any, str]] = {
    "no spectrum": (Twin(lambda s: s.nodes), "not a Tensor"),
    "one axis": (
        Twin(lambda s: Spectrum(s.nodes[0], s.weights[0], exact=True)),
        "shape \\(P, K\\)",
    ),
    "NaN": (Twin(scaled(math.nan)), "not finite"),
    "a graph": (Twin(lambda s: replace(s, nodes=s.nodes.clone().requires_grad_())), "detach"),
    "one eigenvalue lost": (
        Twin(lambda s: Spectrum(s.nodes[:, 1:], s.weights[:, 1:], exact=True)),
        "the number of eigenvalues of the identity",
    ),
    "5 % off": (Twin(scaled(1.05)), "the trace of the identity"),
    "squared": (Twin(lambda s: replace(s, nodes=s.nodes**2)), "a diagonal matrix"),
    "exact to three digits": (
        Twin(lambda s: replace(s, nodes=(1000 * s.nodes).round() / 1000)),
        "and that it is exact",
    ),
    "errors too small": (Twin(copied, LANCZOS), "error is too small"),
    "errors too large": (Doubts(), "error is too large"),
    "biased": (Leans(), "the trace is off by"),
    "unseeded": (Unseeded(), "torch's random state"),
    "another answer each time": (Counts(), "two answers"),
    "no seed": (NoField(), "add a field `seed`"),
    "a seed that does nothing": (Ignores(), "is it used"),
    "a vector without columns": (
        Asks(lambda A: A.matmat(torch.ones(A.size).to(A.like))),
        "shape \\(12, k\\)",
    ),
    "always float64": (Asks(lambda A: A.matmat(torch.ones(A.size, 1).double())), "float32"),
    "threads": (Asks(lambda A: torch.set_num_threads(2)), "number of threads"),
    "no gradients": (Asks(lambda A: torch.set_grad_enabled(False)), "gradients are recorded"),
    "default dtype": (Asks(set_default), "default dtype"),
    "numpy's stream": (Asks(lambda A: np.random.rand()), "numpy's random state"),
}


@pytest.fixture
def tidy(threads: None) -> object:
    yield
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", sorted(BAD_SPECTRA))
@pytest.mark.usefixtures("tidy")
def test_broken_spectrum_methods_fail(name: str) -> None:
    method, named = BAD_SPECTRA[name]
    with pytest.raises(AssertionError, match=named):
        check_spectrum_method(method)


# ---------------------------------------------------------------- broken dimension methods


@dataclass(frozen=True)
class Own:
    r"""A dimension method from a function of ``(denoiser, x, sigma)``."""

    function: Callable[..., Any]

    def __call__(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Any:
        return self.function(denoiser, x, sigma)


@dataclass(frozen=True)
class Sampled:
    r"""A sampled method, and what is done to its answer."""

    break_it: Callable[[Estimate], Any]
    seed: int = 0

    def __call__(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Any:
        found = ForwardSoftCount(pairs=512, seed=self.seed)(denoiser, x, sigma)
        assert isinstance(found, Estimate)
        return self.break_it(found)


def eigenvalues(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    return jacobian_spectrum(denoiser, x, sigma, Dense()).nodes[0]


def dimension(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
    r"""What a method that is right says, where there is a dimension."""
    found = Threshold()(denoiser, x, sigma)
    assert isinstance(found, Estimate)
    return found


def jacobian(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    r"""The whole of it, with shape (d, d)."""
    whole: Any = torch.autograd.functional.jacobian  # untyped in torch
    rows: Tensor = whole(lambda p: denoiser(p[None], sigma)[0], x)
    return rows.reshape(x.numel(), -1)


def by_score(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
    # Curvature of the log-density above an absolute threshold: right in one unit of length.
    return Estimate(float(((1 - eigenvalues(denoiser, x, sigma)) / sigma**2 < 10).sum()))


def about_zero(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
    found = dimension(denoiser, x, sigma)
    return Estimate(found.value + float(denoiser(x[None], sigma).mean().round().clamp(min=0)))


def along_axes(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
    return Estimate(float((jacobian(denoiser, x, sigma).diagonal() > 0.5).sum()))


def careless(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
    # No question asked at the door.
    J = jacobian(denoiser, x, sigma).nan_to_num()
    return Estimate(float((torch.linalg.eigvalsh(J) > 0.5).sum()))


def gap_at_any_price(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate | NoGap:
    # A gap wherever eigenvalues are not all equal.
    values = eigenvalues(denoiser, x, sigma).double().clamp(min=1e-6)
    if float(values.max() / values.min()) < 1.01:
        return NoGap("all eigenvalues are equal")
    return Estimate(float(values.log().diff().argmin() + 1))


def moves_x(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
    found = dimension(denoiser, x, sigma)
    x += 1
    return found


def only_vectors(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
    return dimension(lambda y, s: denoiser(y.flatten(1), s), x.flatten(), sigma)


def only_double(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
    return dimension(denoiser, x.double(), sigma.double())


def no_batch(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
    denoiser(x, sigma)
    return dimension(denoiser, x, sigma)


def plain_sigma(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
    denoiser(x[None], float(sigma))  # type: ignore[arg-type]
    return dimension(denoiser, x, sigma)


def in_two_threads(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
    torch.set_num_threads(2)
    return dimension(denoiser, x, sigma)


class Drifts:
    r"""Another answer at each call."""

    calls = 0

    def __call__(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
        self.calls += 1
        return Estimate(dimension(denoiser, x, sigma).value + 1e-3 * self.calls)


BAD_DIMENSIONS: dict[str, tuple[Any, str]] = {
    "a float": (Own(lambda D, x, s: 4.0), "not a float"),
    "always four": (Own(lambda D, x, s: Estimate(4.0)), "in all of 12 dimensions .* says 4"),
    "never": (Own(lambda D, x, s: NoGap("shy")), "a plane of 4 dimensions in 12 .* no gap: shy"),
    "no reason": (Own(lambda D, x, s: NoGap("")), "its reason"),
    "a negative error": (Own(lambda D, x, s: Estimate(4.0, -1.0)), "negative"),
    "along axes": (Own(along_axes), "the plane turned .* says 3 .* it is 4"),
    "about zero": (Own(about_zero), "the plane moved"),
    "in units": (Own(by_score), "units of a hundredth"),
    "vectors only": (Own(only_vectors), r"shape \(B, 1, 3, 4\)"),
    "float64 only": (Own(only_double), "the dtype of x"),
    "no batch": (Own(no_batch), r"shape \(B, 12\); got \(12,\)"),
    "sigma a float": (Own(plain_sigma), "sigma as a tensor"),
    "careless": (Own(careless), "to sigma = 0 the method answers .*admit"),
    "a gap at any price": (Own(gap_at_any_price), "of 40 spectra without a gap"),
    "in place": (Own(moves_x), "in place"),
    "another answer each time": (Drifts(), "two answers"),
    "errors too small": (Sampled(lambda e: replace(e, stderr=e.stderr / 5)), "too small"),
    "no error": (Sampled(lambda e: Estimate(e.value)), "too small|says"),
    "errors too large": (Sampled(lambda e: replace(e, stderr=5 * e.stderr)), "too large"),
    "threads": (Own(in_two_threads), "threads"),
    "unseeded": (Own(lambda *a: torch.rand(()) and Threshold()(*a)), "torch's random state"),
}


@pytest.mark.parametrize("name", sorted(BAD_DIMENSIONS))
@pytest.mark.usefixtures("tidy")
def test_broken_dimension_methods_fail(name: str) -> None:
    method, named = BAD_DIMENSIONS[name]
    with pytest.raises(AssertionError, match=named):
        check_dimension_method(method)


def test_a_seed_that_does_nothing_fails() -> None:
    @dataclass(frozen=True)
    class Frozen:
        seed: int = 0

        def __call__(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
            found = ForwardSoftCount(pairs=64)(denoiser, x, sigma)
            assert isinstance(found, Estimate)
            return found

    with pytest.raises(AssertionError, match="is it used"):
        check_dimension_method(Frozen())


def test_nan_in_an_answer_must_be_refused_not_only_bad_levels() -> None:
    def half_careful(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
        eigenvalues(lambda y, s: y, x, sigma)  # looks at x and sigma, not at the answers
        return careless(denoiser, x, sigma)

    with pytest.raises(AssertionError, match="to NaN in the answer"):
        check_dimension_method(Own(half_careful))


def test_the_method_must_know_a_gap_to_be_held_to_it() -> None:
    # SoftCount never says no: spectra without a gap are no question to it.
    check_dimension_method(SoftCount())
    assert isinstance(LargestGap()(lambda x, s: 0.5 * x, normal(0, 12), level(1.0)), NoGap)
