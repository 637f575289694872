r"""What is wrong with a denoiser is said at the door, once, and nothing is said of a good one."""

from __future__ import annotations

import functools
import gc
import math
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geomem import checks
from geomem.checks import admit
from geomem.denoiser import Denoiser, ProductDenoiser, ScheduledDenoiser
from geomem.dimension import SoftCount
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser
from geomem.measure.errors import Errors
from geomem.measure.probes import measure
from geomem.measure.study import make_study
from geomem.measure.subject import Description, Subject
from geomem.models.networks import NetworkConfig, PreconditionedDenoiser, load_network, save_network
from geomem.modules import networks, trained_range
from geomem.noise import EDM, DiscreteBetas, FlowMatching, VarianceExploding, VariancePreserving
from geomem.subspaces import PrincipalDirections
from tests.references import estimate, level, normal

X = normal(0, 6)
ONE = level(1.0)


def half(x: Tensor, sigma: Tensor) -> Tensor:
    return x / 2


class Net(nn.Module):
    r"""A small backbone with one module in it that may matter in train mode."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 32), inside, nn.Linear(32, 6)).double()

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        out: Tensor = self(x, sigma)
        return out


@pytest.fixture(autouse=True)
def fresh() -> None:
    checks._known.clear()


@pytest.fixture
def silence() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ------------------------------------------------------------------------------- answers

BAD_ANSWERS: dict[str, tuple[Callable[..., object], str]] = {
    "NaN": (lambda x, s: x * math.nan, "NaN or infinity at sigma = 1"),
    "infinity": (lambda x, s: x / 0.0, "NaN or infinity"),
    "a sum": (lambda x, s: x.sum(1), "shape \\(2,\\) for points of shape \\(2, 6\\)"),
    "a broadcast": (lambda x, s: x[:1], "shape \\(1, 6\\)"),
    "another layout": (lambda x, s: x[..., None], "shape \\(2, 6, 1\\)"),
    "integers": (lambda x, s: x.long(), "int64"),
    "nothing": (lambda x, s: None, "returned a NoneType; return a tensor"),
    "an output object": (lambda x, s: SimpleNamespace(sample=x), "return its `.sample`"),
    "its input changed": (lambda x, s: x.mul_(0.5), "in place"),
    "a random draw": (lambda x, s: x + 1e-3 * torch.randn_like(x), "draws random numbers"),
}


@pytest.mark.parametrize("case", sorted(BAD_ANSWERS))
def test_bad_answers_are_named(case: str) -> None:
    denoiser, named = BAD_ANSWERS[case]
    for _ in range(2):  # what failed is not remembered as good
        with pytest.raises(InputError, match=named):
            admit(denoiser, X, ONE)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=named):  # every dimension that reads a spectrum asks
        SoftCount()(denoiser, X, ONE)  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_bad_levels(sigma: float) -> None:
    with pytest.raises(InputError, match="above 0"):
        admit(half, X, level(sigma))


def test_a_level_is_one_tensor() -> None:
    for sigma in (torch.ones(2), 1.0, None):
        with pytest.raises(InputError, match=r"a tensor of shape \(\), got"):
            admit(half, X, sigma)  # type: ignore[arg-type]


def test_a_bad_point() -> None:
    with pytest.raises(InputError, match="the point holds NaN"):
        admit(half, torch.tensor([1.0, math.nan]), ONE)


def test_nan_at_another_level_is_seen_though_the_first_was_good() -> None:
    def breaks_above_two(x: Tensor, sigma: Tensor) -> Tensor:
        return x * (math.nan if float(sigma) > 2 else 1)

    admit(breaks_above_two, X, ONE)
    with pytest.raises(InputError, match="sigma = 3"):
        admit(breaks_above_two, X, level(3.0))


GOOD: dict[str, Denoiser] = {
    "linear": GaussianDenoiser(torch.zeros(6), torch.linspace(0, 1, 6)),
    "empirical": EmpiricalDenoiser(normal(1, 9, 6)),
    "one point": EmpiricalDenoiser(normal(1, 1, 6)),
    "product": ProductDenoiser([([0, 2, 4], half), ([1, 3, 5], half)]),
    "scheduled": ScheduledDenoiser(lambda x, t: x / 2, FlowMatching(), "noise"),
    "seeded": lambda x, s: x + torch.randn(6, generator=torch.Generator().manual_seed(0)),
    "clipped": lambda x, s: x.clamp(-1, 1),
    "network": NetworkConfig("mlp", (6,), 0.5, width=16, blocks=1).build(0).double().train(),
    "dropout at rest": Net(nn.Dropout(0.5)).eval(),
    "no dropout": Net(nn.Dropout(0.0)).train(),
    "batch norm at rest": Net(nn.BatchNorm1d(32)).eval(),
}


@pytest.mark.parametrize("name", sorted(GOOD))
@pytest.mark.usefixtures("silence")
def test_good_denoisers_pass_without_a_word(name: str) -> None:
    before = torch.get_rng_state()
    for sigma in (0.03, 1.0, 5.0):
        admit(GOOD[name], X, level(sigma))
        admit(GOOD[name], torch.zeros(6, dtype=torch.float64), level(sigma))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("silence")
def test_a_memory_that_has_collapsed_is_no_constant() -> None:
    # At sigma = 1e-3 every answer is a training point: legal for an exact denoiser.
    admit(EmpiricalDenoiser(torch.zeros(1, 6).double()), X, level(1e-3))


def test_a_constant_is_told_and_measured() -> None:
    def constant(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.ones_like(x)

    with pytest.warns(UserWarning, match="same answer at two points far apart"):
        found = estimate(SoftCount()(constant, X, ONE))
    assert found.value == 0  # true all the same: nothing varies


# ---------------------------------------------------------------------------- train mode


def wrapped(kind: str, net: Net) -> Denoiser:
    r"""One network behind all that a user may put around it."""
    holder = SimpleNamespace(network=net)
    ways: dict[str, Denoiser] = {
        "itself": net,
        "attribute": ScheduledDenoiser(net, EDM(), "clean"),
        "preconditioned": PreconditionedDenoiser(Backbone(net), 0.5),
        "closure": lambda x, sigma: net(x, sigma),
        "bound method": net.denoise,
        "partial": functools.partial(_call, net),
        "keyword": functools.partial(_call_keyword, network=net),
        "nested": ProductDenoiser([(range(6), lambda x, sigma: holder.network(x, sigma))]),
        "no_grad": torch.no_grad()(net.denoise),
    }
    return ways[kind]


class Backbone(nn.Module):
    r"""Takes what a preconditioned denoiser passes on."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        out: Tensor = self.net(x, c_noise)
        return out


def _call(net: Net, x: Tensor, sigma: Tensor) -> Tensor:
    return net.denoise(x, sigma)


def _call_keyword(x: Tensor, sigma: Tensor, network: Net) -> Tensor:
    return network.denoise(x, sigma)


NAMES = {
    "itself": "denoiser.body.1",
    "attribute": "denoiser.backbone.body.1",
    "preconditioned": "denoiser.backbone.net.body.1",
    "closure": "net.body.1",
    "bound method": "denoiser.body.1",
    "partial": "denoiser.body.1",
    "keyword": "network.body.1",
    "nested": "holder.network.body.1",
    "no_grad": "body.1",
}


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_a_dropout_in_train_mode_is_named(kind: str) -> None:
    net = Net(nn.Dropout(0.25)).train()
    denoiser = wrapped(kind, net)
    with pytest.raises(InputError, match=r"call \.eval\(\)") as error:
        admit(denoiser, X, ONE)
    assert f"{NAMES[kind]} (Dropout, p=0.25" in str(error.value)
    net.eval()
    admit(denoiser, X, ONE)  # its own advice works
    net.train()  # going back is seen, too, wherever the network hides
    with pytest.raises(InputError, match="train mode"):
        admit(denoiser, X, ONE)


class DropPath(nn.Module):
    r"""Leaves out whole points, as stochastic depth does."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        keep = torch.rand(len(x), 1, dtype=x.dtype) >= self.drop_prob
        return x * keep if self.training else x


@pytest.mark.parametrize(
    "module", [nn.Dropout(0.002), DropPath(0.05)], ids=lambda m: type(m).__name__
)
def test_a_low_rate_does_not_slip_through(module: nn.Module) -> None:
    # Two calls of two points agree in 3 of 4 cases for the first (2 x 2 x 32 units, .002 each),
    # and in 5 of 6 for the second: of 20 networks some would pass. 31 x 16 points: 1 in 10^11.
    torch.manual_seed(0)
    for _ in range(20):
        with pytest.raises(InputError, match=f"net.body.1 \\({type(module).__name__}"):
            admit(wrapped("closure", Net(module).train()), X, ONE)


MODULE_LEVEL = Net(nn.Dropout(0.25)).train()
net = Net(nn.Dropout(0.5)).train()  # a namesake of an attribute below, used by nobody


def test_a_global_network_is_found_and_a_namesake_is_not() -> None:
    with pytest.raises(InputError, match=r"^MODULE_LEVEL\.body\.1"):
        admit(lambda x, sigma: MODULE_LEVEL(x, sigma), X, ONE)
    holder = SimpleNamespace(net=Net(nn.Identity()))
    names = [name for name, _ in networks(lambda x, sigma: holder.net(x, sigma))]
    assert names[0] == "holder.net"
    assert not any(name.startswith("net") for name in names)


def test_a_dropout_at_rest_is_not_to_blame() -> None:
    resting = Net(nn.Dropout(0.5)).eval()
    with pytest.raises(InputError, match="draws random numbers"):
        admit(lambda x, sigma: resting(x, sigma) + torch.randn_like(x), X, ONE)


@pytest.mark.usefixtures("silence")
def test_a_training_network_that_is_not_asked_does_no_harm() -> None:
    # A state of training holds the network that learns beside the average that is measured.
    state = SimpleNamespace(learning=MODULE_LEVEL, average=Net(nn.Dropout(0.5)).eval())
    admit(lambda x, sigma: state.average(x, sigma), X, ONE)


@pytest.mark.parametrize(
    "module",
    [nn.AlphaDropout(0.2), nn.RReLU()],
    ids=lambda m: type(m).__name__,
)
def test_other_modules_that_draw(module: nn.Module) -> None:
    with pytest.raises(InputError, match=f"body.1 \\({type(module).__name__}"):
        admit(Net(module).train(), X, ONE)


def test_attention_hides_its_dropout_in_a_number() -> None:
    attention = nn.MultiheadAttention(6, 2, dropout=0.5, batch_first=True).double()

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        out: Tensor = attention(x[:, None], x[:, None], x[:, None])[0][:, 0]
        return out

    with pytest.raises(InputError, match="attention \\(MultiheadAttention"):
        admit(denoiser, X, ONE)


@pytest.mark.parametrize("kind", ["itself", "closure"])
def test_a_batch_norm_in_train_mode_is_named(kind: str) -> None:
    normed = Net(nn.BatchNorm1d(32)).train()
    with pytest.raises(InputError, match=f"{NAMES[kind]} \\(a batch norm\\)"):
        admit(wrapped(kind, normed), X, ONE)


# -------------------------------------------------------------------------------- levels


class Carrier:
    r"""A denoiser that says what it was trained on."""

    sigma_min, sigma_max = 0.1, 10

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x / 2

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x / 2


def scheduled(schedule: object) -> ScheduledDenoiser:
    return ScheduledDenoiser(lambda x, t: x, schedule, "clean")  # type: ignore[arg-type]


BETAS = DiscreteBetas.linear()
RANGES: dict[str, tuple[Denoiser, tuple[float, float] | None]] = {
    "attributes": (Carrier(), (0.1, 10)),
    "a method": (Carrier().denoise, (0.1, 10)),
    "a partial": (functools.partial(Carrier()), (0.1, 10)),
    "exploding": (scheduled(VarianceExploding(0.02, 7.0)), (0.02, 7.0)),
    "discrete": (scheduled(BETAS), (float(BETAS.levels[0]), float(BETAS.levels[-1]))),
    # log(1 + sigma²) = .1 + 19.9/2 at t = 1
    "preserving": (scheduled(VariancePreserving()), (0.0, math.sqrt(math.expm1(10.05)))),
    "flow": (scheduled(FlowMatching()), None),
    "edm": (scheduled(EDM()), None),
    "a function": (half, None),
    "exact": (GOOD["empirical"], None),
}


@pytest.mark.parametrize("name", sorted(RANGES))
def test_the_range_that_a_denoiser_was_trained_on(name: str) -> None:
    denoiser, expected = RANGES[name]
    found = trained_range(denoiser)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-9))


@pytest.mark.parametrize(("sigma", "side"), [(0.05, "below"), (20.0, "above")])
def test_levels_outside_are_told_once_a_side(sigma: float, side: str) -> None:
    denoiser = Carrier()
    with pytest.warns(UserWarning, match=f"{side} the levels .* 0.1 to 10"):
        admit(denoiser, X, level(sigma))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for factor in (1.0, 1.1, 0.9):
            admit(denoiser, X, level(sigma * factor))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for inside in (0.1, 1.0, 10.0, 0.1 * (1 - 1e-6), 10.0 * (1 + 1e-6)):  # rounded ends
            admit(denoiser, X, level(inside))


def test_our_networks_know_their_training(tmp_path: object) -> None:
    network = NetworkConfig("mlp", (6,), sigma_data=0.5, width=16, blocks=1)
    fresh = network.build(0)
    # ln(sigma / rms) ~ N(-1, 1.4²): 10^6 draws know a .5 % quantile in ln sigma to .005.
    draws = 0.5 * (1.4 * normal(3, 10**6) - 1).exp()
    quantiles = draws.quantile(torch.tensor([0.005, 0.995]).double()).log()
    found = trained_range(fresh)
    assert found is not None
    assert torch.tensor(found).log().tolist() == pytest.approx(quantiles.tolist(), abs=0.02)
    path = tmp_path / "network"  # type: ignore[operator]
    save_network(fresh, network, path)
    assert trained_range(load_network(path)) == found
    with pytest.warns(UserWarning, match="below"):
        admit(fresh, X.float(), torch.tensor(1e-3))


def test_a_measurement_of_a_run_tells_it_too() -> None:
    directions = PrincipalDirections.of(GaussianDenoiser.fit(normal(0, 30, 6)))
    study = make_study(
        {"training": normal(1, 3, 6)},
        directions=directions,
        sigmas=torch.tensor([0.01, 1.0]).double(),
        probes=[Errors()],
        rms=1.0,
        draws=2,
    )
    with pytest.warns(UserWarning, match="below the levels"):
        measure(Subject(Description("model"), Carrier()), study)
    drawn: Any = BAD_ANSWERS["a random draw"][0]
    with pytest.raises(InputError, match="draws random numbers"):
        measure(Subject(Description("model"), drawn), study)


# --------------------------------------------------------------------------------- price


class Counting:
    r"""Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        return x / 2


def test_many_points_and_levels_cost_two_calls_and_one_a_level() -> None:
    denoiser = Counting()
    for k in range(10):
        admit(denoiser, normal(k, 6), ONE)
    assert denoiser.calls == 2
    for k in range(10):
        admit(denoiser, normal(k, 6), level(2.0))
    assert denoiser.calls == 3
    admit(denoiser, normal(0, 2, 3), ONE)  # another shape is another question
    assert denoiser.calls == 5


def test_what_passed_is_forgotten_with_the_denoiser() -> None:
    admit(Counting(), X, ONE)
    gc.collect()
    assert not len(checks._known)


def test_what_cannot_be_remembered_is_asked_again() -> None:
    class Slots:
        __slots__ = ("calls",)

        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            self.calls += 1
            return x / 2

    denoiser = Slots()
    admit(denoiser, X, ONE)
    admit(denoiser, X, ONE)
    assert denoiser.calls == 4


def test_methods_of_one_object_are_different_denoisers() -> None:
    class Two:
        def good(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x / 2

        def bad(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x * math.nan

    two = Two()
    admit(two.good, X, ONE)
    with pytest.raises(InputError, match="NaN"):
        admit(two.bad, X, ONE)


def test_networks_are_found_in_a_loop_and_in_containers() -> None:
    loop = SimpleNamespace(parts=[{"a": MODULE_LEVEL}], depth=0)
    loop.itself = loop
    found = dict(networks(loop))
    assert found["denoiser.parts[0]['a'].body.1"] is MODULE_LEVEL.body[1]
