r"""Methods by name: what is found, what is refused, and that nothing is ever evaluated."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from geomem.dimension import (
    LargestGap,
    NoGap,
    SoftCount,
    Threshold,
    ask,
    has_seed,
    reseeded,
    seeded_for,
)
from geomem.dimension.names import DIMENSIONS, PARTS, dimension_method
from geomem.errors import InputError
from geomem.spectra import Dense, LanczosQuadrature
from geomem.stats import Estimate

OWN = """
from dataclasses import dataclass, field
import geomem

@dataclass(frozen=True)
class Twice:
    factor: float = 2.0
    inner: object = field(default_factory=geomem.SoftCount)
    def __call__(self, denoiser, x, sigma):
        return geomem.Estimate(self.factor * self.inner(denoiser, x, sigma).value)

class Outer:
    class Inner(Twice):
        pass

def bare(denoiser, x, sigma):
    return geomem.NoGap("bare")

def made(factor):
    return Twice(factor)

class Quadrature:
    def __init__(self, depth):
        self.depth = depth
    def __call__(self, operator):
        return geomem.Dense()(operator)

number = 7
instance = Twice(0.5)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    (tmp_path / "broken_module.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("name", sorted(DIMENSIONS))
def test_every_name_is_a_method(name: str) -> None:
    method = dimension_method(name)
    assert callable(method)
    assert type(method).__name__.lower() == name.replace("-", "")


@pytest.mark.parametrize("name", sorted(set(PARTS) - {"lanczos"}))
def test_every_part_can_be_made(name: str) -> None:
    method = dimension_method(f"soft-count(spectrum={name})")
    assert isinstance(method, SoftCount)


def test_arguments() -> None:
    assert dimension_method("threshold( 0.9 )") == Threshold(0.9)
    assert dimension_method("threshold") == Threshold()
    assert dimension_method("threshold()") == Threshold()
    expected = LargestGap(ratio=2.0, spectrum=Dense())
    assert dimension_method("largest-gap(ratio=2.0, spectrum=dense)") == expected
    lanczos = LanczosQuadrature(depth=4, probes=2, seed=3)
    text = "soft-count(spectrum=lanczos(depth=4, probes=2, seed=3))"
    assert dimension_method(text) == SoftCount(lanczos)
    assert dimension_method("threshold(above=1e-3)") == Threshold(1e-3)
    assert dimension_method("Threshold(above=.3)") == Threshold(0.3)  # as Python calls it


def test_a_strangers_method(own: str) -> None:
    before = list(sys.path)
    x, sigma = torch.zeros(3), torch.tensor(1.0)
    asked = {
        f"{own}:Twice": 3.0,
        f"{own}:Twice(factor=1)": 1.5,
        f"{own}:Twice(3.0, inner=lanczos(depth=3, probes=2))": None,
        f"{own}:Outer.Inner": 3.0,
        f"{own}:made(1.5)": 2.25,
        f"{own}:instance": 0.75,
        f"soft-count(spectrum={own}.Quadrature(depth=8))": 1.5,
    }
    for text, value in asked.items():
        method = dimension_method(text)
        if value is not None:
            assert ask(method, lambda x, sigma: x / 2, x, sigma) == Estimate(value)
    assert dimension_method(f"{own}:bare")(lambda x, sigma: x, x, sigma) == NoGap("bare")
    assert sys.path == before  # the folder was looked at, not moved in


BAD = {
    "treshold": "did you mean 'threshold'\\? There are 'local-dimension', 'threshold'",
    "no_such_module:Thing": "No module named 'no_such_module'",
    "geomem.dimension:Nothing": "has no attribute 'Nothing'",
    "broken_module:Thing": "ZeroDivisionError",
    ":Thing": "package.module:Class",
    "geomem.dimension:": "package.module:Class",
    "threshold(abov=1)": "no argument 'abov'; did you mean 'above'",
    "threshold(above=0.5": "was never closed",
    "threshold)": "no method 'threshold\\)'",
    "threshold(0.5)(0.6)": "write NAME",
    "threshold(0.5) + 1": "write NAME",
    "threshold(*[1])": "without \\* or \\*\\*",
    "threshold(**{})": "without \\* or \\*\\*",
    "threshold(above=__import__('os').getcwd())": "no literal",
    "threshold(above=open('x'))": "no literal",
    "threshold(above=[x for x in (1,)])": "no literal",
    "threshold(above=lambda: 1)": "no literal",
    "threshold(above=1 if 1 else 2)": "no literal",
    "soft-count(spectrum=lanczos(depth=0, probes=1))": "depth is 0; pass a whole number from 1",
    "soft-count(spectrum=lanczos)": "missing a required argument: 'depth'; it takes depth, probes",
    "own:number": "is a int; name a class",
    "own:number()": "not callable",
}


@pytest.mark.parametrize("text", sorted(BAD))
def test_bad_names_and_arguments(text: str, own: str) -> None:
    with pytest.raises(InputError, match=BAD[text]) as error:
        dimension_method(text.replace("own:", f"{own}:"))
    assert "\n" not in str(error.value)


def test_an_answer_that_is_none() -> None:
    with pytest.raises(InputError, match="check_dimension_method"):
        ask(lambda D, x, s: 4.0, lambda x, s: x, torch.zeros(2), torch.tensor(1.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(DIMENSIONS))
def test_every_method_asks_at_the_door(name: str) -> None:
    dropout = torch.nn.Dropout(0.5).train()
    bad = {
        "draws random numbers": lambda x, s: x / 2 + 0.1 * torch.randn_like(x),
        "dropout \\(Dropout": lambda x, s: dropout(x) / 2,
        "for points of shape": lambda x, s: x.sum(1),
        "NaN or infinity": lambda x, s: x / 0 * 0,
    }
    for named, denoiser in bad.items():
        with pytest.raises(InputError, match=named):
            dimension_method(name)(denoiser, torch.ones(6), torch.tensor(0.3))


# -------------------------------------------------------------------------------------- seeds


def test_seeds_of_units_differ_by_all_that_makes_them() -> None:
    method = dimension_method("soft-count(lanczos(depth=4, probes=2, seed=3))")
    seeds = {
        seeded_for(one, seed, purpose, unit).spectrum.seed
        for one in (method, reseeded(method, 4))
        for seed in (0, 1)
        for purpose in ("a", "b")
        for unit in range(5)
    }
    assert len(seeds) == 2 * 2 * 2 * 5
    assert seeded_for(method, 0, "a", 1) == seeded_for(method, 0, "a", 1)


def test_a_method_without_a_seed_stays_what_it_is(own: str) -> None:
    for text in ("threshold", f"{own}:bare", f"{own}:Twice"):
        method = dimension_method(text)
        assert not has_seed(method)
        assert seeded_for(method, 0, "a", 1) is method


def test_what_a_method_fails_at_is_told_in_one_line_and_with_its_cause(own: str) -> None:
    x, sigma = torch.zeros(3), torch.tensor(1.0)
    with pytest.raises(InputError, match=r"cannot answer.*check its arguments") as error:
        ask(dimension_method(f"{own}:made('two')"), lambda x, s: x / 2, x, sigma)
    assert "\n" not in str(error.value)
    assert isinstance(error.value.__cause__, TypeError)
    with pytest.raises(InputError, match="returned shape"):  # said well before: passed on
        ask(dimension_method("flipd"), lambda x, s: x[:, :2], x, sigma)
