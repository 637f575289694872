r"""Fine-tunes that memorize, watched and audited, and what each remedy does about it.

Run:  python benchmarks/fine_tune.py [--seeds S] [--only ROW ...] [--folder FOLDER] [--out PATH]

A base `UNet2DModel` of diffusers' (.28M parameters) learns 56,000 clothes of eight classes of
Fashion-MNIST, at 8 x 8 pixels. It is then fine-tuned on N bags and ankle boots, the two classes
that it has not seen: full, or by a LoRA of all its convolutions and linear maps. Every fine-tune

- is watched by a `MemorizationMonitor` in its loop, whose first warning keeps a checkpoint;
- is saved as diffusers saves it, and audited by `geomem.Audit` against its base (64 training
  and 64 held-out images, the same for all rows of a seed and N);
- draws 300 samples, of which copies are counted as an audit counts them, and whose quality is
  the Fréchet distance of Gaussians in the 32 first principal directions of 3,000 new bags and
  boots, over the variance of these along them: 0 is perfect, and what 300 real images have is
  given beside it.

The remedies are tried at N = 20 beside the plain fine-tune, one at a time: everything else, the
images and the seed included, is the same. With near-duplicates four of the 20 images are there in
four near copies each, too; without these it is the plain fine-tune. The first full fine-tune and
the first LoRA are checked at the audit's door, the others not again. Each unit (a row, a seed) is
written to the file when it is done, and an interrupted run goes on. Images need GEOMEM_DATA.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from numpy.typing import NDArray
from safetensors.torch import save_file
from side_by_side import versions
from torch import Tensor, nn
from torch.nn.utils import parametrize

import geomem
from geomem.compute.files import atomic_write_text
from geomem.compute.progress import say
from geomem.compute.threads import one_thread
from geomem.denoiser import Denoiser
from geomem.findings.plan_sentences import entry, two_lines
from geomem.measure.copies import LEVEL, nearest, p_values
from geomem.models.sample import heun, sigma_steps
from geomem.monitor import MemorizationMonitor, scheduled_denoiser
from geomem.runs.audit import Audit
from geomem.runs.plan import Plan
from geomem.runs.records import RunFolder
from geomem.runs.results import results
from geomem.stats import numpy_rng, torch_rng
from geomem.theory.duplicates import near_duplicates, without_copies
from geomem.theory.planning import KEPT

Pixels = NDArray[np.uint8]
KIND = (8, 9)  # bags and ankle boots
BASE_STEPS, STEPS, BATCH = 1500, 200, 32
EVERY, GROWTH = 20, 1.5  # looks at steps 20, 30, 45, 68, 102, 153 of 200
HELD_OUT, RESERVED, JUDGES, SAMPLES, PRINCIPAL = 300, 300, 3000, 300, 32
REPEATED, TIMES = 4, 5  # how many images are there in near copies too, and how often


@dataclass(frozen=True)
class Row:
    r"""One way to fine-tune.

    Attributes:
        count: How many images there are.
        rank: Of the LoRA; 0 for a full fine-tune.
        flips: Whether images are mirrored at random.
        dropout: In the residual blocks.
        decay: AdamW's weight decay.
        copies: Whether four of the images are there in four near copies each, too.
        early: Whether the checkpoint of the monitor's first warning is measured as well.
    """

    count: int
    rank: int = 0
    flips: bool = False
    dropout: float = 0.0
    decay: float = 0.01
    copies: bool = False
    early: bool = False

    @property
    def rate(self) -> float:
        r"""The learning rate."""
        return 4e-3 if self.rank else 1e-3


ROWS = {
    "full, 20": Row(20, early=True),
    "full, 200": Row(200),
    "full, 2000": Row(2000),
    "LoRA, 20": Row(20, rank=16, early=True),
    "LoRA, 200": Row(200, rank=16),
    "LoRA, 2000": Row(2000, rank=16),
    "near-duplicates": Row(20, copies=True),
    "flips": Row(20, flips=True),
    "dropout": Row(20, dropout=0.2),
    "weight decay": Row(20, decay=1.0),
    "rank 2": Row(20, rank=2),
}


def network(dropout: float = 0.0) -> UNet2DModel:
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        dropout=dropout,
    )


def scheduler() -> DDPMScheduler:
    return DDPMScheduler(1000, beta_schedule="linear")


# ------------------------------------------------------------------------------------- images


@cache
def clothes(kinds: tuple[int, ...], seed: int) -> Pixels:
    r"""Images of some classes in random order, means of 4 x 4 pixels, (n, 8, 8)."""
    data = geomem.load_data("fashion-mnist")
    labels = np.asarray(data.labels)
    index = numpy_rng(seed, "benchmark/clothes").permutation(np.flatnonzero(np.isin(labels, kinds)))
    images = nn.functional.pad(data.tensor(index), (2, 2, 2, 2), value=-1.0)
    small = nn.functional.avg_pool2d(images, 4)[:, 0]
    found: Pixels = ((small + 1) * 127.5).round().to(torch.uint8).numpy()
    return found


def floats(images: Pixels) -> Tensor:
    r"""As the networks take them: (n, 1, 8, 8) within ±1."""
    return torch.from_numpy(images).float()[:, None] / 127.5 - 1


@dataclass(frozen=True, eq=False)
class Images:
    r"""What a fine-tune is given, and what it is judged by.

    Attributes:
        files: What it is trained on.
        distinct: The same without near copies: what is measured.
        held_out: Others, for monitor and audit.
        reserved: Likewise, never measured.
        judges: Others, for the quality of samples.
    """

    files: Pixels
    distinct: Pixels
    held_out: Pixels
    reserved: Pixels
    judges: Pixels


def images_of(row: Row, seed: int) -> Images:
    everything = clothes(KIND, seed)
    ends = np.cumsum([HELD_OUT, RESERVED, JUDGES + SAMPLES])
    held_out, reserved, judges, rest = np.split(everything, ends)
    distinct = rest[: row.count]
    if not row.copies:
        return Images(distinct, distinct, held_out, reserved, judges)
    return Images(with_copies(distinct, seed), distinct, held_out, reserved, judges)


def with_copies(distinct: Pixels, seed: int) -> Pixels:
    r"""Images, with near copies of the first of them at the end."""
    rng = numpy_rng(seed, "benchmark/copies")
    # As another exposure and another compression leave an image.
    again = np.repeat(distinct[:REPEATED], TIMES - 1, axis=0).astype(float)
    again *= rng.uniform(0.95, 1.05, (len(again), 1, 1))
    again += rng.normal(0, 2, again.shape)
    return np.concatenate([distinct, again.round().clip(0, 255).astype(np.uint8)])


def copies_found(count: int) -> int:
    r"""How many near copies `geomem plan` finds and would remove beside so many images."""
    flat = floats(with_copies(clothes(KIND, 0)[:count], 0)).flatten(1).double().numpy()
    axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:16]
    left = without_copies(len(flat), near_duplicates(flat, axes).pairs)
    assert set(left) >= set(range(count)), "an image was taken for a copy"
    return len(flat) - len(left)


# ----------------------------------------------------------------------------------- training


class LowRank(nn.Module):
    r"""A weight with a trained part of low rank beside it: W + B A, flattened."""

    def __init__(self, weight: Tensor, rank: int, rng: torch.Generator) -> None:
        super().__init__()
        out, inputs = weight.flatten(1).shape
        self.down = nn.Parameter(torch.randn(rank, inputs, generator=rng) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(out, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).reshape(weight.shape)


def adapt(model: UNet2DModel, rank: int, seed: int) -> dict[str, LowRank]:
    r"""Freezes a network and gives every convolution and linear map a part of low rank."""
    model.requires_grad_(False)
    rng, found = torch_rng(seed, "benchmark/lora"), {}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            found[name] = LowRank(module.weight, rank, rng)
            parametrize.register_parametrization(module, "weight", found[name])
    return found


def save(
    model: UNet2DModel, adapters: dict[str, LowRank], kernels: dict[str, Any], out: Path
) -> None:
    r"""As diffusers saves it: a pipeline, or the file of a LoRA."""
    if not adapters:
        DDPMPipeline(model, scheduler()).save_pretrained(out)
        return
    out.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, part in adapters.items():
        down, up = part.down.detach(), part.up.detach()
        shape = kernels[name]
        tensors[f"unet.{name}.lora_A.weight"] = down.reshape(len(down), *shape).contiguous()
        tensors[f"unet.{name}.lora_B.weight"] = up.reshape(*up.shape, *[1] * (len(shape) - 1))
    save_file(tensors, out / "pytorch_lora_weights.safetensors")


def steps_of(
    model: UNet2DModel,
    images: Tensor,
    steps: int,
    *,
    rate: float,
    batch: int,
    seed: int,
    decay: float = 0.01,
    flips: bool = False,
) -> Iterator[int]:
    r"""Trains as diffusers' own script does, and yields the number of each step."""
    noiser, rng = scheduler(), torch_rng(seed, "benchmark/training")
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=decay, fused=True)
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, (k + 1) / 50))
    model.train()
    for step in range(1, steps + 1):
        clean = images[torch.randint(len(images), (batch,), generator=rng)]
        if flips:
            mirrored = torch.rand(batch, 1, 1, 1, generator=rng) < 0.5
            clean = torch.where(mirrored, clean.flip(-1), clean)
        noise = torch.randn(clean.shape, generator=rng)
        t = torch.randint(1000, (batch,), generator=rng)
        loss = nn.functional.mse_loss(model(noiser.add_noise(clean, noise, t), t).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        warm.step()
        yield step


def base_of(folder: Path) -> Path:
    r"""The base, trained if it is not there yet."""
    if not (folder / "base" / "model_index.json").exists():
        torch.manual_seed(0)
        model = network()
        images = floats(clothes(tuple(k for k in range(10) if k not in KIND), 0))
        for step in steps_of(model, images, BASE_STEPS, rate=1e-3, batch=64, seed=0):
            if step % 500 == 0:
                say(f"base: step {step} of {BASE_STEPS}")
        save(model, {}, {}, folder / "base")
    return folder / "base"


# ---------------------------------------------------------------------------------- measuring


class Trusted(Audit):
    r"""An audit without the checks at the door, which models written alike have passed."""

    def _check(self, model: Any, index: Any) -> list[Any]:
        return []


def audit(
    model: Path, base: Path, images: Images, out: Path, seed: int, *, checked: bool
) -> dict[str, Any]:
    r"""What an audit against the base says."""
    for name in ("distinct", "held_out", "reserved"):
        np.save(out.with_name(f"{name}.npy"), getattr(images, name))
    asked = (Audit if checked else Trusted)(
        model=str(model),
        base=str(base),
        data=str(out.with_name("distinct.npy")),
        held_out=str(out.with_name("held_out.npy")),
        reserved=str(out.with_name("reserved.npy")),
        controls=("linear", "base"),
        points=64,
        levels=6,
        draws=1,
        samples=0,
        trajectories=0,
        jacobian_points=0,
        seed=seed,
    )
    dataset = asked.run(out, processes=1, quiet=True)
    found = results(RunFolder.open(out), dataset)
    assert found.numbers is not None
    assert found.verdict is not None
    known, verdict = found.numbers, found.verdict.to_json()
    row = known.isel(subject=int(np.flatnonzero(known["kind"].values == "model")[0]))

    def pair(name: str, **where: str) -> list[float]:
        return [float(row[name + end].sel(where)) for end in ("", "_stderr")]

    return {
        "nats": pair("information"),
        "nats_beside": {
            control: pair("information_beside", control=control) for control in ("linear", "base")
        },
        "excess": pair("excess"),
        "control": verdict["control"],
        "p_value": float(row.p_value),
        "verdict": verdict["text"],
    }


def sampled(denoiser: Denoiser, images: Images, seed: int) -> dict[str, float]:
    r"""Copies among samples, and their Fréchet distance."""
    noise = torch.randn(SAMPLES, 1, 8, 8, generator=torch_rng(seed, "benchmark/samples"))
    with torch.no_grad():
        made = heun(denoiser, noise, sigma_steps(0.02, 80.0, 12))
    made = made.clamp(-1, 1)
    train, held_out = floats(images.distinct), floats(images.held_out)
    groups = np.arange(len(train))
    ratios = (nearest(x, train, groups).ratio for x in (made, held_out))
    others, real = floats(images.judges).split([JUDGES, SAMPLES])
    return {
        "copies": float((p_values(*ratios) <= LEVEL).mean()),
        "frechet": frechet(made, others),
        "frechet_of_real": frechet(real, others),
    }


def frechet(samples: Tensor, judges: Tensor) -> float:
    r"""|difference of means|² + tr(S + J - 2 (S J)^½) along the judges' directions, over tr J."""
    flat, own = (x.flatten(1).double().numpy() for x in (judges, samples))
    axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:PRINCIPAL].T
    one, two = own @ axes, flat @ axes
    first, second = np.cov(one.T), np.cov(two.T)
    # The trace of (S J)^½: S J has the eigenvalues of J^½ S J^½, which are positive.
    values, vectors = np.linalg.eigh(second)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    both = float(np.sqrt(np.linalg.eigvalsh(root @ first @ root).clip(0)).sum())
    gap = float(np.square(one.mean(0) - two.mean(0)).sum())
    return (gap + float(np.trace(first) + np.trace(second)) - 2 * both) / float(np.trace(second))


def unit(name: str, seed: int, base: Path, folder: Path) -> dict[str, Any]:
    r"""One fine-tune: trained, watched, audited at its end and at the monitor's first warning."""
    row, images, began = ROWS[name], images_of(ROWS[name], seed), time.perf_counter()
    model = network(row.dropout)
    model.load_state_dict(DDPMPipeline.from_pretrained(base).unet.state_dict())
    kernels = {n: m.weight.shape[1:] for n, m in model.named_modules() if hasattr(m, "weight")}
    adapters = adapt(model, row.rank, seed) if row.rank else {}
    torch.manual_seed(seed)  # of dropout
    monitor = MemorizationMonitor(
        floats(images.distinct), floats(images.held_out), every=EVERY, growth=GROWTH,
        share=math.inf, levels=5, draws=1, seed=seed,
    )  # fmt: skip
    denoiser, kept = scheduled_denoiser(model, scheduler()), None
    for step in steps_of(
        model, floats(images.files), STEPS, rate=row.rate, batch=BATCH, seed=seed,
        decay=row.decay, flips=row.flips,
    ):  # fmt: skip
        monitor.step(denoiser, step)
        if row.early and monitor.warning is not None and kept is None:
            kept = {key: value.clone() for key, value in model.state_dict().items()}
    assert not monitor.fault, monitor.fault

    def judged(where: str) -> dict[str, Any]:
        model.eval()
        out = folder / f"{name}, seed {seed}, {where}"
        shutil.rmtree(out, ignore_errors=True)  # of a unit that was interrupted
        out.mkdir(parents=True)
        save(model, adapters, kernels, out / "model")
        checked = seed == 0 and name in ("full, 20", "LoRA, 20")
        said = audit(out / "model", base, images, out / "audit", seed, checked=checked)
        return said | sampled(denoiser, images, seed)

    found = {
        "row": name,
        "seed": seed,
        "settings": asdict(row),
        "files": len(images.files),
        "distinct": len(images.distinct),
        "looks": [look.step for look in monitor.history],
        "warning": None if monitor.warning is None else monitor.warning.step,
        "end": judged("end"),
    }
    if kept is not None:
        model.load_state_dict(kept)
        found["at_warning"] = judged("at the warning")
    return found | {"seconds": round(time.perf_counter() - began, 1)}


def planned(folder: Path) -> dict[str, Any]:
    r"""How many bags and boots `geomem plan` asks for, of the first direction, by noise level."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", clothes(KIND, 0)[:4000])
    plan = Plan(data=str(folder / "images.npy"), sigmas=(0.5, 1.0), directions=1, sources=64)
    plan.run(folder / "plan", processes=1, quiet=True)
    found = json.loads((folder / "plan" / "plan.json").read_text())
    return {
        f"{sigma:g}": {f"{kept:g}": two_lines(found, entry(found, kept, k, 0))[0] for kept in KEPT}
        for k, sigma in enumerate(found["sigmas_relative"])
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="fine-tunes of each row")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), help="some rows")
    parser.add_argument("--folder", type=Path, default=Path("runs/fine-tune"), help="for models")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    path = options.out / "fine_tune.json"
    document = json.loads(path.read_text()) if path.exists() else {"units": []}
    document |= {"command": "python benchmarks/fine_tune.py", "versions": versions()}
    document |= {"steps": STEPS, "samples": SAMPLES}
    units: list[dict[str, Any]] = document["units"]
    done = {(found["row"], found["seed"]) for found in units}

    def save_all() -> None:
        atomic_write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")

    with one_thread():
        base = base_of(options.folder)
        for seed in range(options.seeds):
            for name in options.only:
                if (name, seed) not in done:
                    units.append(unit(name, seed, base, options.folder))
                    say(f"{name}, seed {seed}: {units[-1]['seconds']:.0f} s")
                    save_all()
        if "plan" not in document:
            document["plan"] = planned(options.folder / "planned")
        document["copies_found"] = {count: copies_found(count) for count in (20, 200)}
        save_all()


if __name__ == "__main__":
    main()
