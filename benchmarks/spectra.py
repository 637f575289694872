r"""Spectra of Jacobians of networks: cost and accuracy beside the peers', in one process.

Run on a quiet machine:  python benchmarks/spectra.py [--quick] [--out PATH] [--parts ...]

``full``       every eigenvalue: our Dense; torch.func's jacrev and jacfwd with eigvalsh; the
               paper's estimator, 4 d scores along orthogonal directions and their SVD.
               Ratios are medians over interleaved repeats, with their range; the count of kept
               directions (above 1/2) of each; the Jacobian's error against float64.
``sampled``    the same products by our quadrature (all probes at a time) and curvlinops' Lanczos
               (one vector at a time); leading eigenvalues by ours and scipy's eigsh.
``dimension``  d = 3072, a trained U-Net at four levels: trace to ± max(1, 2 %) over seeds, against
               the trace of the full Jacobian: cost ratio, z-scores.
``large``      64 x 64 x 3 and a latent of 4 x 32 x 32: seconds of the matrix-free path, and the
               forecast's ratio to them.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import peak_memory, versions
from torch import Tensor

from geomem.compute.files import atomic_write_text
from geomem.compute.progress import say
from geomem.compute.threads import num_cores
from geomem.dimension.differences import OrthogonalDifferences
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState
from geomem.operators import DenoiserJacobian
from geomem.spectra import AdaptiveTrace, Dense, LanczosQuadrature, spectrum, trace
from geomem.stats import torch_rng
from geomem.tangents import tangent_basis

SIGMA = 0.2
LEVELS = (0.2, 0.5, 1.0, 2.0)  # of the part "dimension": the higher, the fewer directions are kept
PARTS = ("full", "sampled", "dimension", "large")
MEMORY = 2**28  # bytes of activations that a product may take, in that part


# ------------------------------------------------------------------------------- networks


def images(num: int, shape: tuple[int, ...], seed: int = 0, modes: int = 24) -> Tensor:
    r"""Smooth synthetic images: so many cosine modes a channel, squashed, with shape (N, *)."""
    rng = torch_rng(seed, "images")
    c, h, w = shape
    k = [(i, j) for i in range(h) for j in range(w)]
    k = sorted(k, key=lambda p: p[0] ** 2 + p[1] ** 2)[:modes]
    rows = [torch.cos(math.pi * i * (torch.arange(h) + 0.5) / h) for i, _ in k]
    columns = [torch.cos(math.pi * j * (torch.arange(w) + 0.5) / w) for _, j in k]
    basis = torch.stack([torch.outer(a, b) for a, b in zip(rows, columns, strict=True)])
    a = torch.randn(num, c, len(k), generator=rng) / math.sqrt(len(k)) * 1.5
    return torch.einsum("nck,khw->nchw", a, basis).tanh()


def vectors(num: int, d: int, seed: int = 0) -> Tensor:
    r"""Points on a linear manifold of a quarter of the dimensions, with shape (N, d)."""
    rng = torch_rng(seed, "vectors")
    return torch.randn(num, d // 4, generator=rng) @ (
        torch.randn(d // 4, d, generator=rng) / math.sqrt(d // 4)
    )


@functools.cache
def trained(kind: str, shape: tuple[int, ...], steps: int) -> tuple[Any, Tensor]:
    r"""A network in evaluation mode, and one noisy point of its data."""
    data = images(4096, shape) if kind == "unet" else vectors(4096, shape[0])
    channels = (16, 32, 32) if shape[0] == 1 else (32, 64, 64)
    config = NetworkConfig(kind, shape, float(data.std()), channels=channels)  # type: ignore[arg-type]
    batch = 64 if kind == "unet" else 128
    state = TrainState(config, Training(steps=steps, batch_size=batch), data, seed=0)
    for _ in range(steps):
        state.advance()
    x = data[0] + SIGMA * torch.randn(shape, generator=torch_rng(0, "point"))
    return state.average, x


# ------------------------------------------------------------------------------ measuring


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def interleaved(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, Any]]:
    r"""Seconds of each way, taken in turns, so that a busy minute hits all of them."""
    results: dict[str, dict[str, Any]] = {name: {"seconds": []} for name in ways}
    for _ in range(repeats):
        for name, work in ways.items():
            try:
                took, results[name]["found"] = timed(work)
                results[name]["seconds"].append(took)
            except (RuntimeError, NotImplementedError) as error:
                results[name]["skipped"] = str(error).splitlines()[0][:200]
    return results


def ratios(results: dict[str, dict[str, Any]], ours: str) -> dict[str, Any]:
    r"""How many times longer the others took, turn by turn: median and range."""
    mine, table = results[ours]["seconds"], {}
    for name, other in results.items():
        if "skipped" in other:
            table[name] = {"skipped": other["skipped"]}
            continue
        each = [b / a for a, b in zip(mine, other["seconds"], strict=True)]
        table[name] = {
            "seconds": statistics.median(other["seconds"]),
            "ratio": statistics.median(each),
            "range": [min(each), max(each)],
        }
    return table


def kept(J: Tensor) -> int:
    A = J.double()
    return int((torch.linalg.eigvalsh((A + A.T) / 2) > 0.5).sum())


def paper(denoiser: Any, x: Tensor, sigma: Tensor) -> int:
    r"""The paper's 4 d scores and their SVD; kept are those whose singular value is small."""
    image = x.ndim == 3
    method = OrthogonalDifferences(factor=4, directions="images" if image else "vectors")
    values = method(denoiser, x, sigma)
    # Rows are (J - I) z / sigma: 4 d of them, of mean square c h (images) or 1 over d.
    scale = float(sigma) / math.sqrt(4 * x.shape[0] * x.shape[1] if image else 4)
    return int((values * scale < 0.5).sum())


def paper_in_part(denoiser: Any, x: Tensor, sigma: Tensor, share: int = 8) -> None:
    r"""An eighth of the paper's scores: they are linear in their number, and take minutes."""
    rng = torch_rng(0, "scores")
    with torch.no_grad():
        for k in range(0, 4 * x.numel() // share, 98):
            z = torch.randn(min(98, 4 * x.numel() // share - k), *x.shape, generator=rng)
            denoiser(x + sigma * z, sigma)


def paper_svd(d: int) -> None:
    torch.linalg.svdvals(torch.randn(4 * d, d, generator=torch_rng(0, "svd")))


def jacfwd_in_chunks(f: Callable[[Tensor], Tensor], x: Tensor, size: int = 98) -> Tensor:
    # torch.func.jacfwd takes all columns at a time and has no chunks; this is what it does.
    unit = torch.eye(x.numel()).reshape(-1, *x.shape)
    push = lambda v: torch.func.jvp(f, (x,), (v,))[1]  # noqa: E731
    return torch.func.vmap(push, chunk_size=size)(unit).flatten(1).detach().T


def full(job: argparse.Namespace) -> dict[str, Any]:
    cases = [("mlp", (d,)) for d in (30, 100, 784)] + [("unet", (1, 28, 28)), ("unet", (3, 32, 32))]
    table = {}
    for kind, shape in cases[:4] if job.quick or job.small else cases:
        denoiser, x = trained(kind, shape, job.steps if kind == "unet" else 10 * job.steps)
        table[f"{kind} {'x'.join(map(str, shape))}"] = full_of(denoiser, x, job)
    return table


def full_of(denoiser: Any, x: Tensor, job: argparse.Namespace) -> dict[str, Any]:
    sigma, d = torch.tensor(SIGMA), x.numel()
    J = DenoiserJacobian(denoiser, x, sigma).tuned()
    f = lambda x: denoiser(x[None], sigma)[0]  # noqa: E731
    chunk = {"chunk_size": 98}
    ways = {
        "ours": lambda: int(spectrum(J, Dense()).count(0.5).value),
        "jacrev": lambda: kept(torch.func.jacrev(f, **chunk)(x).reshape(d, d)),
        "jacfwd": lambda: kept(jacfwd_in_chunks(f, x)),
        "paper_4d": lambda: paper(denoiser, x, sigma),
    }
    if d > 1024:  # minutes each: fewer ways, and the paper's in parts
        del ways["jacfwd"], ways["paper_4d"]
        ways["paper_part"] = lambda: paper_in_part(denoiser, x, sigma)
        ways["paper_svd"] = lambda: paper_svd(d)
    results = interleaved(ways, job.repeats if d <= 1024 else 2)
    if d > 1024:
        scores, svd = (results.pop(name)["seconds"] for name in ("paper_part", "paper_svd"))
        whole = [8 * a + b for a, b in zip(scores, svd, strict=True)]
        results["paper_4d"] = {"seconds": whole}
    exact = DenoiserJacobian(J._in_double(), x.double(), sigma.double()).dense()
    A = J.dense().double()
    return {
        "strategy": J.strategy,
        "ways": ratios(results, "ours"),
        "counts": {name: r.get("found") for name, r in results.items()} | {"float64": kept(exact)},
        "relative_error": float((A - exact).norm() / exact.norm()),
        "largest_eigenvalue_error": float(
            (torch.linalg.eigvalsh((A + A.T) / 2) - torch.linalg.eigvalsh((exact + exact.T) / 2))
            .abs()
            .max()
        ),
    }


# -------------------------------------------------------------------------------- sampled


def curvlinops_ways(J: DenoiserJacobian, depth: int, probes: int) -> dict[str, Callable[[], Any]]:
    import curvlinops
    from curvlinops._torch_base import PyTorchLinearOperator

    S = J.symmetric_part

    class Ours(PyTorchLinearOperator):  # type: ignore[misc]
        SELF_ADJOINT = True
        device, dtype = J.like.device, J.like.dtype

        def __init__(self) -> None:
            super().__init__([(J.size,)], [(J.size,)])

        def _matmat(self, X: list[Tensor]) -> list[Tensor]:
            return [S.matmat(X[0])]

    def lanczos() -> Any:
        # Its boundaries are given, so that it takes `depth` products a repeat, as ours does.
        return curvlinops.lanczos_approximate_spectrum(
            Ours(), depth, num_repeats=probes, boundaries=(-0.5, 1.5)
        )

    return {
        "curvlinops_slq": lanczos,
        "curvlinops_hutchinson": lambda: float(curvlinops.hutchinson_trace(Ours(), 48)),
        "curvlinops_xtrace": lambda: float(curvlinops.xtrace(Ours(), 48)),
    }


def scipy_ways(J: DenoiserJacobian, k: int) -> dict[str, Callable[[], Any]]:
    from scipy.sparse.linalg import LinearOperator, eigsh, svds

    def of(product: Callable[[Tensor], Tensor]) -> Callable[[Any], Any]:
        return lambda v: product(
            torch.as_tensor(np.ascontiguousarray(v).reshape(J.size, -1), dtype=J.like.dtype)
        ).numpy()

    n, dtype = J.size, np.float32
    S = of(J.symmetric_part.matmat)
    symmetric = LinearOperator((n, n), matvec=S, matmat=S, dtype=dtype)
    plain = LinearOperator(
        (n, n), matvec=of(J.matmat), rmatvec=of(J.rmatmat), matmat=of(J.matmat), dtype=dtype
    )
    return {
        "scipy_eigsh": lambda: float(
            eigsh(symmetric, k, which="LA", tol=1e-4, return_eigenvectors=False).max()
        ),
        "scipy_svds": lambda: svds(plain, k, tol=1e-4, return_singular_vectors=False),
    }


def sampled(job: argparse.Namespace) -> dict[str, Any]:
    denoiser, x = trained("unet", (1, 28, 28), job.steps)
    J = DenoiserJacobian(denoiser, x, torch.tensor(SIGMA)).tuned()
    depth, probes, k = 16, 8, 10
    ours = LanczosQuadrature(depth=depth, probes=probes)
    groups: dict[str, dict[str, Callable[[], Any]]] = {
        "quadrature": {"ours": lambda: spectrum(J, ours).trace().value},
        "leading": {"ours": lambda: float(tangent_basis(denoiser, x, J.sigma, k).values.max())},
        "trace": {"ours": lambda: trace(J, 1.0).value},
    }
    try:
        peers = curvlinops_ways(J, depth, probes)
        groups["quadrature"]["curvlinops_slq"] = peers.pop("curvlinops_slq")
        groups["trace"] |= peers
    except ImportError as error:
        say(f"without curvlinops: {error}")
    groups["leading"] |= scipy_ways(J, k)
    A = J.dense().double()
    values = torch.linalg.eigvalsh((A + A.T) / 2).flip(0)
    basis = tangent_basis(denoiser, x, J.sigma, k)
    table: dict[str, Any] = {
        "exact_trace": float(A.trace()),
        "exact_leading": float(values[0]),
        "leading_gap": float(values[k - 1] - values[k]),
        "leading_turned": basis.turned,
        "leading_worst": float((basis.values - values[:k]).abs().max()),
    }
    for name, ways in groups.items():
        results = interleaved(ways, job.repeats)
        found = {w: r["found"] for w, r in results.items() if isinstance(r.get("found"), float)}
        table[name] = {"ways": ratios(results, "ours"), "found": found}
    return table


# ------------------------------------------------------------------------------ dimension


def dimension(job: argparse.Namespace) -> dict[str, Any]:
    shape = (3, 16, 16) if job.quick else (3, 32, 32)
    denoiser, x_0 = trained("unet", shape, job.steps)[0], images(1, shape)[0]
    return {f"sigma {s:g}": dimension_at(denoiser, x_0, s, job.seeds) for s in LEVELS}


def dimension_at(denoiser: Any, x_0: Tensor, sigma: float, seeds: int) -> dict[str, Any]:
    x = x_0 + sigma * torch.randn(x_0.shape, generator=torch_rng(0, "point"))
    J = DenoiserJacobian(denoiser, x, torch.tensor(sigma), max_bytes=MEMORY).tuned()
    with peak_memory() as peak:
        trace(J, 1.0, relative=0.02)
    whole, A = timed(J.dense)
    exact = float(A.double().trace())
    goal, rows = max(1.0, 0.02 * exact), []
    for seed in range(seeds):
        took, found = timed(lambda s=seed: trace(J, 1.0, relative=0.02, seed=s))
        rows.append(
            {
                "seconds": took,
                "products": found.products,
                "stderr": found.stderr,
                "error": found.value - exact,
                "z": found.z_score(exact),
            }
        )
    z = [row["z"] for row in rows]
    return {
        "d": J.size,
        "trace": exact,
        "count": kept(A),
        "goal": goal,
        "max_bytes": MEMORY,
        "peak_mib": peak[0],
        "cost_ratio_products": J.size / statistics.median(row["products"] for row in rows),
        "cost_ratio_seconds": whole / statistics.median(row["seconds"] for row in rows),
        "rms_error_over_goal": math.sqrt(statistics.mean(r["error"] ** 2 for r in rows)) / goal,
        "z_mean": statistics.mean(z),
        "z_sd": statistics.stdev(z),
        "rows": rows,
    }


# ---------------------------------------------------------------------------------- large


def large(job: argparse.Namespace) -> dict[str, Any]:
    cases = {"latent 4x32x32": (4, 32, 32)}
    if not job.quick:
        cases["pixels 3x64x64"] = (3, 64, 64)
    return {name: large_of(shape, job) for name, shape in cases.items()}


def large_of(shape: tuple[int, ...], job: argparse.Namespace) -> dict[str, Any]:
    config = NetworkConfig("unet", shape, 0.5, channels=(32, 64, 64))
    denoiser = config.build(0).eval()
    x = images(1, shape)[0]
    J = DenoiserJacobian(denoiser, x, torch.tensor(SIGMA), max_bytes=2**29)
    depth, probes = (4, 4) if job.quick else (24, 8)
    methods = {
        "quadrature": LanczosQuadrature(depth=depth, probes=probes),
        "trace": AdaptiveTrace(accuracy=0, max_products=64),
    }
    table = {}
    for name, method in methods.items():
        forecast_took, cost = timed(lambda m=method: J.cost(m))
        operator = J.symmetric_part if name == "quadrature" else J
        took, found = timed(lambda m=method, A=operator: m(A))
        table[name] = {
            "products": cost.products,
            "forecast_took": forecast_took,
            "seconds": took,
            "forecast_ratio": cost.seconds / took,
            "forecast": repr(cost),
            "found": repr(found if name == "trace" else found.trace()),
        }
    return table


def machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions("scipy", "diffusers", "curvlinops-for-pytorch"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, in two minutes")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    here = Path(__file__).parent / "results" / "spectra.json"
    parser.add_argument("--out", type=Path, default=here)
    parser.add_argument("--steps", type=int, help="training steps of a U-Net")
    parser.add_argument(
        "--small",
        action="store_true",
        help="every eigenvalue up to d = 784 only; keeps the rest of the file",
    )
    job = parser.parse_args()
    steps, job.repeats, job.seeds = (20, 2, 5) if job.quick else (400, 5, 20)
    job.steps = job.steps or steps
    results: dict[str, Any] = {"machine": machine(), "quick": job.quick, "sigma": SIGMA}
    if job.out.exists() and len(job.parts) < len(PARTS):  # add to what is there
        results = json.loads(job.out.read_text()) | results
    for part in job.parts:
        took, found = timed(lambda p=part: globals()[p](job))
        results[part] = results.get(part, {}) | found if part == "full" else found
        results.setdefault("steps", {})[part] = job.steps
        say(f"{part}: {took:.0f} s")
        say(json.dumps(results[part], indent=1))
        atomic_write_text(job.out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
