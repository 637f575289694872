r"""The spectrum of the exact denoiser's Jacobian, side by side with the usual ways.

Run on a quiet machine:  python benchmarks/exact_spectrum.py [--quick] [--out FILE]

One query among N images in d dimensions, at the noise level at which about 600 training points
(or as many as stated) are kept at a tolerance of 1e-7. Ours starts from the data: it finds the
points, takes their differences and solves the small eigenproblem. ``from kept points`` starts
where they are known, as they are after a posterior.

Peers: the covariance of all points, with eigvalsh in float64; torch.func.jacrev through a
naive float32 score, then eigvalsh; SciPy's ARPACK for the leading 16 eigenvalues.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side as bench
import torch
from side_by_side import Competitor
from torch import Tensor

from geomem.data import load_data
from geomem.exact import EmpiricalDenoiser
from geomem.operators import Factored, LinearOperator
from geomem.spectra import Gram

KEPT = (100, 600)
LEADING = 16


def images(shrink: int) -> tuple[Tensor, str]:
    N, d = 20_000 // shrink, 3072 // shrink
    if os.environ.get("GEOMEM_DATA") and shrink == 1:
        return load_data("cifar10").tensor(range(N)).flatten(1).contiguous(), "cifar10"
    rng = torch.Generator().manual_seed(0)
    return torch.randn(N, d, generator=rng) * torch.logspace(0, -2, d), "Gaussian"


def level_with(denoiser: EmpiricalDenoiser, x: Tensor, kept: int) -> Tensor:
    r"""The level at which so many points are kept, by bisection of its logarithm."""
    low, high = math.log(1e-3), math.log(10.0)
    for _ in range(30):
        middle = (low + high) / 2
        operator = denoiser.jacobian(x, torch.tensor(math.exp(middle)).double())
        count = operator.factor.shape[1] if isinstance(operator, Factored) else operator.size
        low, high = (middle, high) if count < kept else (low, middle)
    return torch.tensor(math.exp(high)).double()


def dense(data: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    r"""Weighted covariance of all points in float64, and all its eigenvalues."""
    y = data.double()
    weights = (-(y - x).square().sum(1) / (2 * sigma**2)).softmax(0)
    centred = y - weights @ y
    return torch.linalg.eigvalsh(centred.T @ (weights[:, None] * centred) / sigma**2).flip(0)


def naive_jacobian(data: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    r"""What jacrev makes of the usual three lines."""
    s = sigma.float()

    def denoise(q: Tensor) -> Tensor:
        squares = q.square().sum() + data.square().sum(1) - 2 * data @ q
        return (-squares / (2 * s**2)).softmax(0) @ data

    J = torch.func.jacrev(denoise, chunk_size=256)(x)
    return torch.linalg.eigvalsh((J + J.T) / 2).flip(0)


def arpack(operator: LinearOperator) -> Tensor:
    from scipy.sparse.linalg import LinearOperator as SciPy
    from scipy.sparse.linalg import eigsh

    def product(v: np.ndarray) -> np.ndarray:
        return (
            operator.matmat(torch.from_numpy(v.reshape(operator.size, -1))).numpy().reshape(v.shape)
        )

    A = SciPy((operator.size, operator.size), matvec=product, dtype=np.float64)
    return torch.from_numpy(eigsh(A, LEADING, return_eigenvectors=False)[::-1].copy())


def compare(data: Tensor, kept: int, rounds: int) -> dict[str, Any]:
    denoiser, x = EmpiricalDenoiser(data), data[0] * 0.5 + data[1] * 0.5
    sigma = level_with(denoiser, x, kept)
    known = denoiser.jacobian(x, sigma)
    count = known.factor.shape[1] if isinstance(known, Factored) else known.size
    print(f"{count} of {len(data)} points kept, d = {data.shape[1]}", file=sys.stderr)
    found = {
        "ours": Competitor(lambda: Gram()(denoiser.jacobian(x, sigma)).nodes[0]),
        "ours, from kept points": Competitor(lambda: Gram()(known).nodes[0]),
        "dense covariance + eigvalsh": Competitor(lambda: dense(data, x, sigma)),
        "jacrev of a naive score + eigvalsh": Competitor(lambda: naive_jacobian(data, x, sigma)),
        "ARPACK, leading 16 only, from kept points": Competitor(lambda: arpack(known)),
    }
    bench.in_turn(found, rounds)
    exact = found["dense covariance + eigvalsh"].answer
    errors = {
        name: float((c.answer - exact[: len(c.answer)]).abs().max() / exact[0])
        for name, c in found.items()
    }
    rng = torch.Generator().manual_seed(1)
    V = torch.randn(data.shape[1], 64, generator=rng, dtype=torch.float64)
    matrix = known.dense()
    products = {
        "ours": Competitor(lambda: known.matmat(V)),
        "dense matrix": Competitor(lambda: matrix @ V),
        "all points": Competitor(lambda: all_points(data, x, sigma, V)),
    }
    bench.in_turn(products, rounds, quiet=True)
    return {
        "kept": count,
        "N": len(data),
        "d": data.shape[1],
        "sigma": float(sigma),
        "competitors": bench.ratios(found, "ours"),
        "errors_of_top_eigenvalue": errors,
        "products_with_64_vectors": bench.ratios(products, "ours"),
    }


def all_points(data: Tensor, x: Tensor, sigma: Tensor, V: Tensor) -> Tensor:
    r"""J V from every point, without the matrix."""
    y = data.double()
    weights = (-(y - x).square().sum(1) / (2 * sigma**2)).softmax(0)
    centred = y - weights @ y
    return centred.T @ (weights[:, None] * (centred @ V)) / sigma**2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=bench.RESULTS / "exact_spectrum.json")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    options = parser.parse_args()
    rounds, shrink = (1, 8) if options.quick else (options.rounds, 1)
    torch.manual_seed(0)
    result = bench.environment("scipy")
    result["command"] = "python benchmarks/exact_spectrum.py" + (
        " --quick" if options.quick else ""
    )
    data, what = images(shrink)
    result["data"] = what
    result["problems"] = {str(k): compare(data, k // shrink, rounds) for k in KEPT}
    bench.write(options.out, result)


if __name__ == "__main__":
    main()
