r"""False alarms, lead and cost of the monitor, beside what else is watched in a training.

Run:  python benchmarks/monitor.py [--null R] [--seeds S] [--cost C] [--again] [--out PATH]

An interrupted run goes on: trainings of the second and third part that are in the file, by the
same recipe, are not done again. How long the rest will take is said while it runs.

*Null*: R trainings of small networks whose data are fresh draws at every step, so that nothing can
be memorized; the "training images" are a set of the same law that is never trained on. They are
trained side by side; each has 20 looks, by the test that the monitor asks. Counted are trainings
with a significant look; with one at p <= .05, as if it were the only one; and with an alarm of
the plain gap: a mean error at held-out images 2 standard errors above that at training images.

*Lead*: digits, N = 128 and 512, S seeds of everything (images, weights, noise). Held-out loss:
the same nats at all 400 held-out images, at steps 10 % apart, whose minimum is compared with the
step of the monitor's warning. Copies: the first look, or the end, at which more than 1 % of 128
samples are copies, at 95 %. The stable rank of the weights, |W|²/|W|_2² averaged over the
matrices, has no threshold of its own, so only its values are given.

*Cost*: the monitor with its defaults, in a run folder, in C trainings of an MLP and of a U-Net; and
by how many seconds it was beyond its share where it was so the most, after any step.
Run it on a machine that does nothing else; --again drops what is in the file.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import versions
from torch import Tensor, nn

import geomem
from geomem.compute.files import atomic_write_text
from geomem.compute.progress import Progress
from geomem.compute.threads import one_thread
from geomem.exact import GaussianDenoiser
from geomem.findings.looks import Look, Moment, judge
from geomem.measure.copies import LEVEL, nearest, p_values
from geomem.models.networks import NetworkConfig, PreconditionedDenoiser
from geomem.models.sample import heun, sigma_steps
from geomem.models.train import Training, TrainState
from geomem.monitor import MemorizationMonitor
from geomem.monitor.images import MOST_RESERVED
from geomem.monitor.spacing import Spacing
from geomem.stats import Proportion, torch_rng

NULL_STEPS, NULL_GROWTH = 200, 1.24
NULL_POINTS = {"training": 48, "held_out": 48, "reserved": 24}
NULL_SIGMAS = (0.1, 0.2, 0.4, 0.8, 1.6)
# Twice as long as the held-out loss needs to turn in most trainings; 20 looks reach to the end.
LEAD_STEPS = {128: 2000, 512: 16_000}
EVERY, GROWTH, FINE = 25, 1.4, 1.1
HELD_OUT, SAMPLES = 400, 128


def gap_alarm(look: Look) -> bool:
    r"""The plain gap between two losses, two standard errors of it."""
    gap = look.held_out.value - look.training.value
    return gap > 2 * math.hypot(look.held_out.stderr, look.training.stderr)


# ----------------------------------------------------------------------------- null trainings


def ring(count: int, rng: torch.Generator) -> Tensor:
    r"""A thickened circle in four dimensions, of unequal axes."""
    angle = 2 * math.pi * torch.rand(count, generator=rng)
    waves = torch.stack([angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()], 1)
    noise = 0.05 * torch.randn(count, 4, generator=rng)
    return waves * torch.tensor([1.0, 0.7, 0.4, 0.2]) + noise


class Networks(nn.Module):
    r"""R small networks side by side, each called at its own points: (R, B, 4) -> (R, B, 4)."""

    def __init__(self, count: int, width: int, rng: torch.Generator) -> None:
        super().__init__()
        sizes = [(8, width), (width, width), (width, 4)]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(count, a, b, generator=rng) / a**0.5) for a, b in sizes
        )
        self.offsets = nn.ParameterList(
            nn.Parameter(torch.zeros(count, 1, size)) for _, size in sizes
        )

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        # EDM's preconditioning, with data of unit scale.
        total = (1 + sigma**2).sqrt()
        level = sigma.log() / 4
        told = torch.cat([level, level**2, level.cos(), level.sin()], -1).expand(*x.shape)
        h = torch.cat([x / total, told], -1)
        for k, (weight, offset) in enumerate(zip(self.weights, self.offsets, strict=True)):
            h = torch.baddbmm(offset, h, weight)
            h = nn.functional.silu(h) if k < 2 else h
        return x / total**2 + sigma / total * h


def rings(shape: tuple[int, int], rng: torch.Generator) -> Tensor:
    return ring(math.prod(shape), rng).reshape(*shape, 4)


class Watched:
    r"""The points of R monitors with their noise, and errors there as looks see them."""

    def __init__(self, count: int, rng: torch.Generator) -> None:
        self.points = {at: rings((count, n), rng) for at, n in NULL_POINTS.items()}
        self.noise = {at: torch.randn(x.shape, generator=rng) for at, x in self.points.items()}

    def errors(self, denoiser: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Any]:
        r"""Squared errors in noise units, by kind of points (R, n, T)."""
        found = {}
        for at, x in self.points.items():
            levels = []
            for sigma in NULL_SIGMAS:
                level = torch.full((1, 1, 1), sigma)
                with torch.no_grad():
                    error = denoiser(x + sigma * self.noise[at], level) - x
                levels.append(error.square().sum(-1) / sigma**2)
            found[at] = torch.stack(levels, -1).double().numpy()
        return found


def null(count: int) -> dict[str, Any]:
    r"""Trainings on fresh draws, side by side, each with 20 looks by the monitor's own test."""
    rng = torch_rng(0, "benchmark/null")
    networks, watched = Networks(count, 32, rng), Watched(count, rng)
    controls = [GaussianDenoiser.fit(points) for points in rings((count, 48), rng)]

    def linear(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.stack([c(one, sigma[0, 0, 0]) for c, one in zip(controls, x, strict=True)])

    beside = watched.errors(linear)
    optimizer = torch.optim.Adam(networks.parameters(), lr=3e-3)
    spacing, looks, losses = Spacing(2, NULL_GROWTH, math.inf), [], []
    for step in range(1, NULL_STEPS + 1):
        x = rings((count, 32), rng)
        sigma = (1.2 * torch.randn(count, 32, 1, generator=rng) - 1).exp()
        noisy = x + sigma * torch.randn(x.shape, generator=rng)
        error = networks(noisy, sigma) - x
        loss = ((1 + sigma**2) / sigma**2 * error.square()).mean((1, 2)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if spacing.due(step):
            spacing.took(step)
            looks.append((step, watched.errors(networks)))
            losses.append(float(loss.detach()) / count)
    alarms = dict.fromkeys(("significant", "unadjusted", "gap"), 0)
    progress = Progress(count, "null trainings")
    for r in range(count):
        moments = [Moment({at: e[r] for at, e in found.items()}, step) for step, found in looks]
        control = Moment({at: e[r] for at, e in beside.items()})
        said = [
            judge(moments[: k + 1], control, np.array(NULL_SIGMAS), seed=r)
            for k in range(len(moments))
        ]
        alarms["significant"] += any(look.significant for look in said)
        alarms["unadjusted"] += any(look.p_value <= 0.05 for look in said)
        alarms["gap"] += any(map(gap_alarm, said))
        progress.update(r + 1)
    progress.finish()
    return {
        "trainings": count,
        "looks": [step for step, _ in looks],
        "loss": losses,
        "alarms": alarms,
        "allowed": 0.05 + 3 * math.sqrt(0.05 * 0.95 / count),
        "said": {name: str(Proportion(k, count)) for name, k in alarms.items()},
    }


# --------------------------------------------------------------------------------------- lead


def stable_rank(network: nn.Module) -> float:
    r"""The mean over weight matrices of squared Frobenius over squared spectral norm."""
    found = []
    for parameter in network.parameters():
        if parameter.ndim == 2:
            values = torch.linalg.svdvals(parameter.detach().double())
            if float(values[0]) > 0:
                found.append(float(values.square().sum() / values[0].square()))
    return float(np.mean(found))


def copies_of(network: PreconditionedDenoiser, train: Tensor, held_out: Tensor, seed: int) -> int:
    r"""How many samples are copies, by distances and held-out images."""
    rms = network.sigma_data
    noise = torch.randn(SAMPLES, *train.shape[1:], generator=torch_rng(seed, "benchmark/samples"))
    with torch.no_grad():
        made = heun(network, noise, sigma_steps(0.01 * rms, 80 * rms, 18))
    groups = np.arange(len(train))
    ratios = (nearest(images, train, groups).ratio for images in (made, held_out))
    return int((p_values(*ratios) <= LEVEL).sum())


class HeldOutLoss:
    r"""Nats of error at held-out images, always with the same noise and levels."""

    def __init__(self, images: Tensor, sigmas: Tensor, seed: int) -> None:
        rng = torch_rng(seed, "benchmark/held-out")
        self.images, self.sigmas = images, sigmas
        self.noise = torch.randn(len(images), *images.shape[1:], generator=rng)

    def __call__(self, network: nn.Module) -> float:
        density = []
        with torch.no_grad():
            for sigma in self.sigmas.to(self.images):
                error = network(self.images + sigma * self.noise, sigma) - self.images
                density.append(float(error.square().flatten(1).sum(1).mean() / sigma**2))
        return float(np.trapezoid(density, self.sigmas.log().numpy()))


def recipe_of(N: int) -> dict[str, Any]:
    r"""What a known training must have been made with, to be one of these."""
    return {"steps": LEAD_STEPS[N], "every": EVERY, "growth": GROWTH, "reserved": MOST_RESERVED}


def lead_training(N: int, seed: int) -> dict[str, Any]:
    r"""One training on digits: when does what become visible?"""
    data = geomem.load_data("digits")
    order = torch.randperm(len(data), generator=torch_rng(seed, "benchmark/digits"))
    images = data.tensor(order)
    train, held_out = images[:N], images[-HELD_OUT:]
    monitor = MemorizationMonitor(
        train, held_out, every=EVERY, growth=GROWTH, share=math.inf, seed=seed
    )
    config = NetworkConfig("mlp", data.item_shape, float(held_out.std()), width=128, blocks=2)
    # Twice the steps, so that the rate is constant; an average over about 1 % of them.
    steps = LEAD_STEPS[N]
    recipe = Training(2 * steps, ema_half_life=0.005)
    state = TrainState(config, recipe, train, seed=seed)
    loss_of = HeldOutLoss(held_out, monitor.sigmas, seed)
    losses, copies, ranks, fine = {}, {}, {}, float(EVERY)
    while state.step < steps:
        state.advance()
        if state.step >= fine:
            losses[state.step], fine = loss_of(state.average), fine * FINE
        if monitor.step(state.average) is not None:
            copies[state.step] = copies_of(state.average, train, held_out, seed)
            ranks[state.step] = stable_rank(state.average)
    copies[steps] = copies_of(state.average, train, held_out, seed)
    assert not monitor.fault, monitor.fault
    warned = monitor.warning

    def first(steps: Sequence[int]) -> int | None:
        return steps[0] if steps else None

    def beyond(count: int) -> bool:
        return Proportion(count, SAMPLES).interval[0] > LEVEL

    return {
        "N": N,
        "seed": seed,
        "recipe": recipe_of(N),
        "looks": [look.step for look in monitor.history],
        "warning": warned.step if warned else None,
        "gap": first([look.step for look in monitor.history if gap_alarm(look)]),
        "held_out_loss": losses,
        "copies": first([s for s, c in copies.items() if beyond(c)]),
        "copy_share": {s: c / SAMPLES for s, c in copies.items()},
        "stable_rank": ranks,
        "nats": {look.step: look.gains["linear"].value for look in monitor.history},
        "at_warning": None if warned is None else str(warned.gains["linear"]),
    }


def middle(steps: Sequence[int | None]) -> dict[str, Any]:
    r"""Median over trainings, with the order statistics that hold it at 95 % or more."""
    values = sorted(math.inf if s is None else float(s) for s in steps)
    n = len(values)
    # Binomial: the largest k with P(fewer than k of n below the median) <= 2.5 %.
    tail, k = 0.5**n, 0
    while tail <= 0.025 and k < n // 2:
        k += 1
        tail += math.comb(n, k) * 0.5**n
    ends = (values[k - 1], values[n - k]) if k else (-math.inf, math.inf)
    return {
        "median": float(np.median(values)),
        "low": ends[0],
        "high": ends[1],
        "never": steps.count(None),
    }


def lead(seeds: int, known: Sequence[dict[str, Any]], save: Callable[[Any], None]) -> None:
    r"""Trainings that are not known yet, saved one by one: an interrupted run goes on."""
    rows = [row for row in known if row.get("recipe") == recipe_of(row["N"])]
    there = {(row["N"], row["seed"]) for row in rows}
    wanted = [(N, seed) for N in LEAD_STEPS for seed in range(seeds) if (N, seed) not in there]
    progress = Progress(len(wanted), "digits")
    for done, (N, seed) in enumerate(wanted, start=1):
        rows.append(lead_training(N, seed))
        progress.update(done)
        save(lead_summary(rows))
    save(lead_summary(rows))
    progress.finish()


def turn_of(row: dict[str, Any]) -> int | None:
    r"""The step of the lowest held-out loss; None where it is the last, and still falling."""
    losses = {int(step): loss for step, loss in row["held_out_loss"].items()}
    lowest = min(losses, key=lambda step: losses[step])
    return lowest if lowest < max(losses) else None


def spread_of(rows: Sequence[Sequence[float]]) -> list[float]:
    r"""The standard error of the mean of each column."""
    if len(rows) < 2:
        return [math.nan] * len(rows[0])
    return [float(e) for e in np.std(rows, axis=0, ddof=1) / math.sqrt(len(rows))]


def lead_summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    summary = {}
    for N in sorted({row["N"] for row in rows}):
        mine = [row | {"lowest": turn_of(row)} for row in rows if row["N"] == N]
        names = ("warning", "lowest", "gap", "copies")
        known = [r for r in mine if r["warning"] is not None]
        # What has not turned by the end turns later, if ever: a lead beyond the training.
        ahead = [None if r["lowest"] is None else r["lowest"] - r["warning"] for r in known]
        both = [r for r in known if r["lowest"] is not None]
        logs = np.array([math.log(r["lowest"] / r["warning"]) for r in both])
        error = float(logs.std(ddof=1) / math.sqrt(len(logs))) if len(logs) > 1 else math.nan
        moments = [(r["looks"][0], r["warning"], r["looks"][-1]) for r in known]
        by_step = [{int(s): v for s, v in r["stable_rank"].items()} for r in known]
        ranks = [[r[s] for s in m] for r, m in zip(by_step, moments, strict=True)]
        summary[str(N)] = {
            **{name: middle([row[name] for row in mine]) for name in names},
            "lead_steps": middle(ahead),
            # Where it has not turned, the lead is at least what was left of the training.
            "lead_at_least": middle([(r["lowest"] or LEAD_STEPS[N]) - r["warning"] for r in known]),
            "lead_factor": [math.exp(float(logs.mean())), math.exp(float(logs.mean())) * error],
            "turned": sum(r["lowest"] is not None for r in mine),
            "warned_first": sum(r["warning"] < (r["lowest"] or math.inf) for r in known),
            "trainings": len(mine),
            "stable_rank": np.mean(ranks, axis=0).tolist(),
            "stable_rank_stderr": spread_of(ranks),
            "last_copy_share": float(np.mean([list(r["copy_share"].values())[-1] for r in mine])),
            "last_nats": float(np.mean([list(r["nats"].values())[-1] for r in mine])),
        }
    plain = [{k: v for k, v in row.items() if k != "lowest"} for row in rows]
    return {"steps": LEAD_STEPS, "summary": summary, "trainings": plain}


def finite(value: Any) -> Any:
    r"""The same as JSON takes it: null for what is not finite."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --------------------------------------------------------------------------------------- cost


COST_SHARE = 0.05
COST_PLANS: dict[str, tuple[dict[str, Any], int]] = {
    "MLP, digits": ({"kind": "mlp", "width": 128, "blocks": 2}, 20_000),
    "U-Net, digits": ({"kind": "unet", "channels": (8, 16)}, 2000),
}


def cost_training(name: str, data: str, repeat: int) -> dict[str, Any]:
    config, steps = COST_PLANS[name]
    images = geomem.load_data(data)
    order = torch.randperm(len(images), generator=torch_rng(0, "benchmark/cost"))
    some = images.tensor(order[:1000])
    train, held_out = some[:512], some[512:]
    network = NetworkConfig(item_shape=images.item_shape, sigma_data=float(some.std()), **config)
    state = TrainState(network, Training(steps, 64), train, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        monitor = MemorizationMonitor(train, held_out, out=Path(folder) / "run", share=COST_SHARE)
        beyond = 0.0
        for _ in range(steps):
            state.advance()
            monitor.step(state.average)
            looks, training = monitor.seconds
            beyond = max(beyond, looks - COST_SHARE * training)
        taken = time.perf_counter() - began
    assert not monitor.fault, monitor.fault
    return {
        "name": name,
        "repeat": repeat,
        "steps": steps,
        "looks": [look.step for look in monitor.history],
        "seconds": {"all": taken, "looks": looks, "training": training},
        "share": looks / training,
        "beyond": beyond,
    }


def cost(repeats: int, known: Sequence[dict[str, Any]], save: Callable[[Any], None]) -> None:
    r"""Trainings that are not known yet, saved one by one: an interrupted run goes on."""
    rows = [row for row in known if "repeat" in row and COST_PLANS[row["name"]][1] == row["steps"]]
    there = {(row["name"], row["repeat"]) for row in rows}
    # One after the other in turns, so that what else the machine does falls on both.
    wanted = [(name, r) for r in range(repeats) for name in COST_PLANS if (name, r) not in there]
    progress = Progress(len(wanted), "cost")
    for done, (name, repeat) in enumerate(wanted, start=1):
        rows.append(cost_training(name, "digits", repeat))
        progress.update(done)
        save(rows)
    save(rows)
    progress.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--null", type=int, default=500, help="null trainings; 0 leaves them out")
    parser.add_argument("--seeds", type=int, default=10, help="trainings of each N; 0 as above")
    parser.add_argument("--cost", type=int, default=3, help="of each kind of training; 0 as above")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--again", action="store_true", help="do what is in the file anew")
    options = parser.parse_args()
    path = options.out / "monitor.json"
    # Parts are made one by one: those that are left out stay as they are.
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    document |= {"command": "python benchmarks/monitor.py", "versions": versions()}

    def save(name: str, found: Any) -> None:
        document[name] = found
        text = json.dumps(finite(document), indent=1, allow_nan=False) + "\n"
        atomic_write_text(path, text)

    with one_thread():
        if options.seeds:
            known = [] if options.again else document.get("lead", {}).get("trainings", [])
            lead(options.seeds, known, lambda found: save("lead", found))
        if options.null:
            save("null", null(options.null))
        if options.cost:
            known = [] if options.again else document.get("cost", [])
            cost(options.cost, known, lambda found: save("cost", found))


if __name__ == "__main__":
    main()
