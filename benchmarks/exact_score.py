r"""The exact denoiser side by side with what else computes it.

Run on a quiet machine:  python benchmarks/exact_score.py [--quick] [--out FILE]

Four problems: N training points in d dimensions, B noised queries, T noise levels; means and
scalars at all of them. Peers work level by level, so they are timed at three levels and their
times multiplied; ours is timed at all levels, as it is used. ``ours, dense`` is the same at
levels so large that every point weighs, where nothing can be left out.

Then: noised paths against one product a level, neighbours against faiss, the growth with
N, B, T and d, and what memory each takes. Seeds are fixed; images are MNIST and CIFAR-10
where GEOMEM_DATA names them, else Gaussian ones of the same size.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import side_by_side as bench
import torch
from side_by_side import Competitor
from torch import Tensor

from geomem.data import load_data
from geomem.exact import EmpiricalDenoiser, one_pass

# name: N, d, B, T
PROBLEMS = {
    "images 28": (60_000, 784, 128, 20),
    "images 32": (20_000, 3072, 32, 20),
    "toy 100": (100_000, 100, 128, 100),
    "toy 30": (100_000, 30, 128, 100),
}
DATA = {"images 28": "mnist", "images 32": "cifar10"}
PEER_LEVELS = 3


def problem(name: str, shrink: int) -> tuple[Tensor, Tensor, Tensor, str]:
    r"""Data, queries, levels from .05 to 5 times the data's deviation, and what they are."""
    N, d, B, T = PROBLEMS[name]
    N, rng = N // shrink, torch.Generator().manual_seed(0)
    data, what = _points(name, N, d, rng)
    rms = float((data - data.mean(0)).square().mean().sqrt())
    x = data[:B] + 0.5 * rms * torch.randn(B, d, generator=rng)
    return data, x, torch.logspace(math.log10(0.05 * rms), math.log10(5 * rms), T), what


def _points(name: str, N: int, d: int, rng: torch.Generator) -> tuple[Tensor, str]:
    if name in DATA and os.environ.get("GEOMEM_DATA"):
        images = load_data(DATA[name])
        return images.tensor(range(min(N, len(images)))).flatten(1).contiguous(), DATA[name]
    scale = torch.linspace(0, -2, d)
    return torch.randn(N, d, generator=rng) * 10**scale, "Gaussian, deviations from 1 to .01"


# ------------------------------------------------------------------------------- competitors


def softmax_of_distances(data: Tensor, x: Tensor, sigmas: Tensor) -> Tensor:
    weights = (-torch.cdist(x, data).square() / (2 * sigmas[:, None, None] ** 2)).softmax(2)
    return weights @ data


def level_by_level(one: Callable[[Tensor], Tensor], sigmas: Tensor) -> Callable[[], Tensor]:
    return lambda: torch.stack([one(s) for s in sigmas])


def two_products(data: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    r"""What everybody writes first."""
    squares = x.square().sum(1)[:, None] + data.square().sum(1) - 2 * x @ data.T
    return (-squares / (2 * sigma**2)).softmax(1) @ data


def distances(data: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    return (-torch.cdist(x, data).square() / (2 * sigma**2)).softmax(1) @ data


def attention(data: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    # |x - y|² = |x|² - 2 x·y + |y|²: a query x, keys y and a bias -|y|²/2 sigma².
    bias = (-data.square().sum(1) / (2 * sigma**2)).expand(1, 1, len(x), -1)
    q, k = x[None, None], data[None, None]
    attend = torch.nn.functional.scaled_dot_product_attention
    return attend(q, k, k, attn_mask=bias, scale=float(1 / sigma**2))[0, 0]


def small_diffusion(data: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    # Its data module wants torchvision's image transforms, which have no part in this.
    if "torchvision" not in sys.modules:
        try:
            import torchvision  # noqa: F401
        except ImportError:
            stub = types.ModuleType("torchvision")
            stub.transforms = mock.MagicMock()  # type: ignore[attr-defined]
            sys.modules["torchvision"] = stub
    from smalldiffusion.model import IdealDenoiser

    ideal = IdealDenoiser(list(data))
    return lambda x, sigma: x - sigma * ideal(x, sigma)


def jax_jit(data: Tensor, x: Tensor) -> Callable[[Tensor], Tensor]:
    import jax
    import jax.numpy as jnp

    Y, X = jnp.asarray(data.numpy()), jnp.asarray(x.numpy())

    # Data as arguments: of constants XLA would take the distances while it compiles.
    @jax.jit
    def mean(X: Any, Y: Any, sigma: Any) -> Any:
        squares = (X**2).sum(1)[:, None] + (Y**2).sum(1) - 2 * X @ Y.T
        return jax.nn.softmax(-squares / (2 * sigma**2), axis=1) @ Y

    return lambda s: torch.from_numpy(np.array(mean(X, Y, float(s)).block_until_ready()))


def keops(data: Tensor, x: Tensor) -> Callable[[Tensor], Tensor]:
    from pykeops.torch import LazyTensor

    X, Y = LazyTensor(x[:, None, :].contiguous()), LazyTensor(data[None].contiguous())

    def mean(sigma: Tensor) -> Tensor:
        logits = -((X - Y) ** 2).sum(-1) / float(2 * sigma**2)
        return logits.sumsoftmaxweight(Y, axis=1)

    return mean


def peer(make: Callable[[], Callable[[Tensor], Tensor]], sigmas: Tensor, T: int) -> Competitor:
    r"""A peer that works level by level, or the reason why it does not take part."""
    try:
        one = make()
        one(sigmas[-1])
    except Exception as error:  # anything that keeps a peer from running is its reason
        return Competitor(None, skipped=f"{type(error).__name__}: {str(error)[:120]}")
    return Competitor(level_by_level(one, sigmas), times=T / len(sigmas))


def competitors(data: Tensor, x: Tensor, sigmas: Tensor, with_keops: bool) -> dict[str, Competitor]:
    T = len(sigmas)
    some = sigmas[torch.linspace(0, T - 1, PEER_LEVELS).long()]
    ours = EmpiricalDenoiser(data)
    large = 100 * sigmas / sigmas[0] * float(data.std())
    square = torch.randn(2048, 2048)
    ideal: Callable[[], Any] = lambda: small_diffusion(data)  # noqa: E731
    found = {
        "ours": Competitor(lambda: ours.posterior(x, sigmas)),
        "ours, dense": Competitor(lambda: ours.posterior(x, large)),
        "ours, scalars": Competitor(lambda: ours.posterior(x, sigmas, scalars_only=True)),
        "bare product": Competitor(lambda: bench.some_products(square)),
        "smalldiffusion": peer(lambda: _bind(ideal(), x), some, T),
        "cdist + softmax": peer(lambda: lambda s: distances(data, x, s), some, T),
        "two products": peer(lambda: lambda s: two_products(data, x, s), some, T),
        "attention": peer(lambda: lambda s: attention(data, x, s), some, T),
        "jax": peer(lambda: jax_jit(data, x), some, T),
    }
    if with_keops:
        found["keops"] = peer(lambda: keops(data, x), some[1:2], T)
    return found


def _bind(denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda s: denoise(x, s)


# -------------------------------------------------------------------------------- accuracy


def errors(data: Tensor, x: Tensor, sigmas: Tensor, found: dict[str, Competitor]) -> dict[str, Any]:
    r"""Largest error of means at the peers' levels, in units of the data's largest radius."""
    T = len(sigmas)
    at = torch.linspace(0, T - 1, PEER_LEVELS).long()
    exact = EmpiricalDenoiser(data.double(), tolerance=1e-12).posterior(x.double(), sigmas[at])
    radius = float((data - data.mean(0)).norm(dim=1).max())
    table: dict[str, Any] = {}
    for name, c in found.items():
        if c.run is None or name in ("ours, dense", "ours, scalars", "bare product"):
            continue
        known = exact.mean[1:2] if name == "keops" else exact.mean
        answer = c.answer.mean[at] if name == "ours" else c.answer
        off = (answer.double() - known).flatten(2).norm(dim=2).amax()
        table[name] = None if math.isnan(off) else float(off) / radius
    scalars = found["ours"].answer
    table["ours, participation"] = float(
        (scalars.participation[at] / exact.participation - 1).abs().max()
    )
    table["ours, log Z"] = float((scalars.log_partition[at] - exact.log_partition).abs().max())
    table["ours, dropped at most"] = float(scalars.dropped.max())
    return table


# ------------------------------------------------------------------------------------ parts


def score(name: str, rounds: int, shrink: int) -> dict[str, Any]:
    data, x, sigmas, what = problem(name, shrink)
    (N, d), B, T = data.shape, len(x), len(sigmas)
    print(f"{name}: N = {N}, d = {d}, B = {B}, T = {T} ({what})", file=sys.stderr)
    found = competitors(data, x, sigmas, with_keops=True)
    bench.in_turn(found, rounds)
    table = bench.ratios(found, "ours")
    for key in ("ours", "smalldiffusion", "cdist + softmax", "attention"):
        c = found[key]
        if c.run is not None:
            with bench.peak_memory() as peak:
                c.run()
            table[key]["memory_mib"] = peak[0]
    flops = 2 * B * N * d * (1 + T)
    seconds = found["bare product"].seconds, found["ours, dense"].seconds
    shares = [p / bench.SOME_FLOPS * flops / t for p, t in zip(*seconds, strict=True)]
    scalars = table["ours, scalars"]["seconds"]["median"]
    return {
        "sizes": {"N": N, "d": d, "B": B, "T": T},
        "data": what,
        "competitors": table,
        "errors": errors(data, x, sigmas, found),
        "share_of_product_rate": bench.summary(shares),
        "scalars_ns_per_pair_and_level": scalars / (B * N * T) * 1e9,
        "allowed_mib": 4 * B * N / 2**20 + 64,
        "means_mib": 8 * T * B * d / 2**20,
    }


def paths(rounds: int, shrink: int, T: int) -> dict[str, Any]:
    data, y_0, sigmas, what = problem("images 28", shrink)
    rng = torch.Generator().manual_seed(1)
    sigmas = torch.logspace(float(sigmas[0].log10()), float(sigmas[-1].log10()), T)
    z = torch.randn(*y_0.shape, generator=rng)
    squares = data.square().sum(1)
    ours = EmpiricalDenoiser(data)

    def per_level(sigma: Tensor) -> Tensor:
        x = y_0 + sigma * z
        distance = squares + x.square().sum(1)[:, None] - 2 * x @ data.T
        return (-distance / (2 * sigma**2)).logsumexp(1)

    some = sigmas[torch.linspace(0, T - 1, PEER_LEVELS).long()]
    found = {
        "ours": Competitor(lambda: ours.path(y_0, z, sigmas, scalars_only=True)),
        "one product and log-sum-exp a level": Competitor(
            level_by_level(per_level, some), times=T / len(some)
        ),
    }
    bench.in_turn(found, rounds)
    return {"data": what, "levels": T, "competitors": bench.ratios(found, "ours")}


def neighbours(rounds: int, shrink: int) -> dict[str, Any]:
    data, x, _, what = problem("images 28", shrink)
    ours = EmpiricalDenoiser(data)
    found = {"ours": Competitor(lambda: ours.neighbours(x, 10))}
    try:
        import faiss

        index = faiss.IndexFlatL2(data.shape[1])
        index.add(data.numpy())
        found["faiss IndexFlatL2"] = Competitor(lambda: index.search(x.numpy(), 10))
    except ImportError as error:
        found["faiss IndexFlatL2"] = Competitor(None, skipped=str(error))
    bench.in_turn(found, rounds)
    result = {"data": what, "k": 10, "competitors": bench.ratios(found, "ours")}
    if found["faiss IndexFlatL2"].run is not None:
        theirs = torch.from_numpy(found["faiss IndexFlatL2"].answer[1])
        result["same_neighbours"] = float((theirs == found["ours"].answer[0]).double().mean())
    return result


def growth(shrink: int) -> dict[str, Any]:
    r"""Fitted exponents of the dense pass's time, one size at a time."""
    base = {"N": 60_000 // shrink, "B": 64, "T": 40, "d": 100}
    table = {}
    for name, factors in {
        "N": (1, 2, 4),
        "B": (1, 2, 4),
        "T": (1, 2, 4),
        "d": (1, 2, 4, 8),
    }.items():
        sizes, seconds = [], []
        for factor in factors:
            s = base | {name: base[name] * factor}
            rng = torch.Generator().manual_seed(0)
            data = torch.randn(s["N"], s["d"], generator=rng)
            ours, levels = EmpiricalDenoiser(data), torch.logspace(2, 3, s["T"])
            c = {"ours": Competitor(lambda o=ours, q=data[: s["B"]], v=levels: o.posterior(q, v))}
            bench.in_turn(c, 3, quiet=True)
            sizes.append(s[name])
            seconds.append(min(c["ours"].seconds))
        slope = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
        table[name] = {"sizes": sizes, "seconds": seconds, "exponent": float(slope)}
        print(f"  growth with {name}: exponent {slope:.2f}", file=sys.stderr)
    return {"base": base, "fits": table}


STAGES = {
    "distances": "distances, one float64 product",
    "smallest": "the nearest 256 of each query",
    "_few": "small levels, explicit differences",
    "_all": "large levels, one float32 product each",
}


def profile(name: str, shrink: int) -> dict[str, Any]:
    r"""Where our time goes, and what the products alone would take at the machine's rate."""
    data, x, sigmas, _ = problem(name, shrink)
    ours, taken, dense = EmpiricalDenoiser(data), dict.fromkeys(STAGES, 0.0), [0]
    plain = {stage: getattr(one_pass, stage) for stage in STAGES}

    def timed(stage: str) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = plain[stage](*arguments, **options)
            taken[stage] += time.perf_counter() - start
            dense[0] += len(arguments[0]) if stage == "_all" else 0
            return result

        return run

    ours.posterior(x, sigmas)
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        for stage in STAGES:
            stack.enter_context(mock.patch.object(one_pass, stage, timed(stage)))
        ours.posterior(x, sigmas)
    total = time.perf_counter() - start
    products = 2 * len(x) * data.numel() / bench.product_rate()
    return {
        "seconds": total,
        "shares": {text: taken[stage] / total for stage, text in STAGES.items()},
        "dense_levels": dense[0],
        "levels": len(sigmas),
        # A float64 product takes as long as two float32 ones.
        "products_alone": (2 + dense[0]) * products / total,
    }


PARTS = ("problems", "paths", "neighbours", "growth", "profiles")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=bench.RESULTS / "exact_score.json")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the points, one round")
    parser.add_argument("--only", nargs="*", default=list(PROBLEMS), help="some of the problems")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    rounds, shrink = (1, 20) if options.quick else (options.rounds, 1)
    torch.manual_seed(0)
    result = bench.environment("smalldiffusion", "jax", "pykeops", "faiss-cpu")
    result["command"] = "python benchmarks/exact_score.py" + (" --quick" if options.quick else "")
    if options.out.exists() and len(options.parts) < len(PARTS):  # add to what is there
        result = json.loads(options.out.read_text()) | {"machine_of_parts": result["machine"]}
    work: dict[str, Callable[[], Any]] = {
        "problems": lambda: {name: score(name, rounds, shrink) for name in options.only},
        "paths": lambda: {str(T): paths(rounds, shrink, T) for T in (20, 100)},
        "neighbours": lambda: neighbours(rounds, shrink),
        "growth": lambda: growth(shrink),
        "profiles": lambda: {name: profile(name, shrink) for name in options.only},
    }
    for part in options.parts:
        result[part] = work[part]()
    bench.write(options.out, result)


if __name__ == "__main__":
    main()
