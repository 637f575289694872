r"""How often the checks at the door refuse a trained network that was labelled rightly.

Run:  python benchmarks/door_checks.py [RUN ...] [--strangers FOLDER ...] [--out PATH]

The checks are asked of networks whose labels and reading are known to be right: every network of
the run folders that are named, read as what it is (a network of EDM's preconditioning, so that
all other readings compete); the folders that `examples/train_strangers.py` wrote; and small
networks trained here on digits by a plain loop over `DDPMScheduler.add_noise`, in three pairs of
schedule and prediction, on 16 and on 1,000 images, looked at after 20 to 500 steps.
Then each of the latter is declared otherwise, in prediction and in schedule, and must be refused
with the right name. Two minutes on one core, and seconds for each network that is named, of which
one of each training-set size is looked at.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from side_by_side import versions
from torch import Tensor

from geomem.compute.files import atomic_write_text
from geomem.compute.progress import Progress
from geomem.compute.threads import one_thread
from geomem.data import load_data
from geomem.models.doors.checking import check_model
from geomem.models.doors.denoisers import NetworkDenoiser
from geomem.models.doors.loaded import LoadedModel, ModelCheck
from geomem.models.doors.opening import load_model
from geomem.models.doors.schedules import Labels, labels_named
from geomem.models.networks import ResidualMLP, load_network
from geomem.runs.asked import find_networks
from geomem.runs.kinds import open_run
from geomem.runs.records import RunFolder

HERE = Path(__file__).parent
SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
PREDICTIONS = ("epsilon", "v_prediction", "sample")
PAIRS = (
    ("linear", "epsilon"),
    ("cosine", "v_prediction"),
    ("linear", "sample"),
)
SIZES, MOMENTS, MOST = (16, 1000), (20, 100, 500), 1


@dataclass(frozen=True, eq=False)
class Network:
    r"""A network whose labels are right, and what it was trained on and was not."""

    family: str
    name: str
    model: LoadedModel
    training: Tensor
    held_out: Tensor


def loaded(denoiser: Any, labels: Labels, shape: tuple[int, ...]) -> LoadedModel:
    r"""A network behind the door, without any file."""
    ends = (labels.low, labels.high)
    return LoadedModel(denoiser, shape, ends, labels.levels, {}, torch.float32, "cpu")


def of_run(folder: Path) -> Iterator[Network]:
    r"""The networks of a run, as what they are: EDM's preconditioning around a backbone."""
    run, study = open_run(folder), RunFolder.open(folder).study
    data, split = run.source.data, run.source.split
    seen: Counter[str] = Counter()
    for stem in find_networks(folder):
        seen[stem.name.partition("-seed")[0]] += 1
        if seen[stem.name.partition("-seed")[0]] > MOST:
            continue
        network = load_network(stem)
        labels = replace(
            labels_named("edm"),
            sigma_data=network.sigma_data,
            low=float(network.sigma_min or 0),
            high=float(network.sigma_max or 0),
        )
        denoiser = NetworkDenoiser(network.backbone, labels, "epsilon")
        size = int(stem.name.partition("N")[2].partition("-")[0])
        order = study["reference"] if stem.name.startswith("reference") else study["order"][:size]
        model = loaded(denoiser, labels, data.item_shape)
        yield Network(
            study["data"]["name"],
            stem.name,
            model,
            data.tensor(order[:64]),
            data.tensor(split.held_out[:64]),
        )


def of_stranger(folder: Path) -> Network:
    r"""A pipeline with its arrays, as `examples/train_strangers.py` leaves them."""
    parts = [np.load(folder / f"{name}.npy")[:64] for name in ("training", "held_out")]
    images = [torch.from_numpy(part).float()[:, None] / 127.5 - 1 for part in parts]
    return Network("pipelines", folder.name, load_model(folder / "pipeline"), *images)


def trained(prediction: str, schedule: str, size: int, seed: int) -> Iterator[Network]:
    r"""A small network at several moments of a plain training on digits."""
    torch.manual_seed(seed)
    images = load_data("digits").tensor(torch.randperm(1700)[: size + 64].tolist())
    clean, held_out = images[:size], images[size:]
    shape = tuple(clean.shape[1:])
    network = ResidualMLP(clean[0].numel(), 256, 3)
    scheduler = DDPMScheduler(1000, beta_schedule=SCHEDULES[schedule], prediction_type=prediction)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    average = copy.deepcopy(network)
    for step in range(1, max(MOMENTS) + 1):
        x = clean[torch.randint(size, (64,))]
        z, t = torch.randn_like(x), torch.randint(1000, (64,))
        noisy = scheduler.add_noise(x, z, t)
        goals = {"epsilon": z, "sample": x}
        goal = goals[prediction] if prediction in goals else scheduler.get_velocity(x, z, t)
        optimizer.zero_grad()
        (network(noisy, t / 250 - 2) - goal).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            pairs = zip(average.parameters(), network.parameters(), strict=True)
            for mean, new in pairs:
                mean.lerp_(new, 1 - min(0.99, step / (step + 10)))
        if step in MOMENTS:
            kept, labels = copy.deepcopy(average).eval(), labels_named(schedule)

            def told(x_t: Tensor, label: Tensor, kept: ResidualMLP = kept) -> Tensor:
                return kept(x_t, label.float() / 250 - 2)

            denoiser = NetworkDenoiser(told, labels, prediction)
            name = f"{schedule}, {prediction}, N = {size}, {step} steps"
            model = loaded(denoiser, labels, shape)
            yield Network(f"digits, {step} steps", name, model, clean, held_out)


def declared(network: Network, prediction: str, schedule: str) -> Network:
    r"""The same network under other labels."""
    denoiser = network.model.denoiser
    assert isinstance(denoiser, NetworkDenoiser)
    labels = labels_named(schedule)
    other = NetworkDenoiser(denoiser.network, labels, prediction)
    shape = network.model.item_shape
    assert shape is not None
    return replace(network, model=loaded(other, labels, shape))


def failed(network: Network, *, training: bool) -> ModelCheck | None:
    r"""The first check that does not hold; at training or at held-out images."""
    known = {"training": network.training} if training else {}
    for check in check_model(network.model, network.held_out, **known):
        if not check.passed:
            return check
    return None


def refusals(networks: list[Network]) -> list[dict[str, Any]]:
    r"""One row a family: how many there are, and how many are refused, and by what."""
    rows: dict[str, dict[str, Any]] = {}
    progress = Progress(float(len(networks)), "door_checks")
    for k, network in enumerate(networks):
        blank = {"networks": 0, "training": 0, "held_out": 0, "why": []}
        row = rows.setdefault(network.family, {"family": network.family, **blank})
        row["networks"] += 1
        for side in ("training", "held_out"):
            check = failed(network, training=side == "training")
            if check is not None:
                row[side] += 1
                row["why"].append(f"{network.name}, {side}: {check.name}: {check.sentence}")
        progress.update(float(k + 1), network.family)
    progress.finish()
    return list(rows.values())


def wrong_ones(networks: list[Network]) -> dict[str, Any]:
    r"""Of the trained ones, declared otherwise: how many are refused, how many by the right name.

    Networks of a few steps are left out: they know little of any level.
    """
    found: dict[str, dict[str, int]] = {}
    for network in networks:
        schedule, prediction, *_ = network.name.split(", ")
        wrong = [(p, schedule, p) for p in PREDICTIONS if p != prediction]
        wrong += [(prediction, s, s) for s in SCHEDULES if s != schedule]
        for said_prediction, said_schedule, said in wrong:
            kind = "prediction" if said in PREDICTIONS else "schedule"
            true = prediction if kind == "prediction" else schedule
            row = found.setdefault(
                f"{kind}, {network.family}", {"asked": 0, "refused": 0, "right name": 0}
            )
            check = failed(declared(network, said_prediction, said_schedule), training=True)
            row["asked"] += 1
            row["refused"] += check is not None
            row["right name"] += check is not None and f"pass `{kind}` {true}" in check.sentence
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="run folders with networks")
    parser.add_argument("--strangers", nargs="*", type=Path, default=[])
    parser.add_argument("--quick", action="store_true", help="one small training, as a smoke test")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "door_checks.json")
    asked = parser.parse_args()
    with one_thread():
        own = [
            network
            for k, (schedule, prediction, size) in enumerate((*p, n) for p in PAIRS for n in SIZES)
            if not asked.quick or k == 0
            for network in trained(prediction, schedule, size, k)
        ]
        others = [network for run in asked.runs for network in of_run(run)]
        others += [of_stranger(folder) for folder in asked.strangers]
        late = [n for n in own if not n.family.endswith((", 20 steps", ", 100 steps"))]
        content = {
            "command": "python benchmarks/door_checks.py RUN ... --strangers FOLDER ...",
            "versions": versions(),
            "refusals": refusals([*others, *own]),
            "declared_otherwise": wrong_ones(late),
        }
    for row in content["refusals"]:
        print(f"{row['family']}: {row['networks']} networks, refused at training images "
              f"{row['training']}, at held-out images {row['held_out']}")  # fmt: skip
        for why in row["why"]:
            print(f"  {why}")
    print(json.dumps(content["declared_otherwise"], indent=1))
    if not asked.quick:
        atomic_write_text(asked.out, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
