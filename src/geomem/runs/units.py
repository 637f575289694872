r"""One unit of a sweep: a control measured, or a network trained, measured and sampled.

Whoever opens the run folder can do any unit: everything else follows from config and design.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.measure import copies
from geomem.measure.dimension import Subject, local_dimensions
from geomem.measure.errors import Measurement, measure
from geomem.models.networks import PreconditionedDenoiser, save_network
from geomem.models.sample import heun, sigma_steps
from geomem.models.train import TrainState, checkpoint_step, train
from geomem.runs.records import AT, RunFolder, Unit
from geomem.stats import torch_rng

if TYPE_CHECKING:
    from geomem.runs.sweep import Sweep

GALLERY = 16  # generated samples whose pixels are kept for the page
SAMPLE_STEPS = 18  # of Heun's method, two calls each


class UnitRunner:
    r"""Does units of one run, in whatever process.

    Arguments:
        folder: The run.
        sweep: Its config.
        device: Where networks are trained and measured.
    """

    def __init__(self, folder: RunFolder, sweep: Sweep, device: str) -> None:
        self.folder, self.sweep, self.device = folder, sweep, device
        self.source = sweep.source
        if self.source.data.digest != folder.design["data"]["digest"]:
            raise InputError(f"{sweep.data} has changed since {folder.path} was started")
        design = folder.design
        self.network = self.sweep.network_config(self.source)
        asked = self.sweep.jacobian_points
        default = self.sweep.points if self.network.kind == "mlp" else 8
        self.how = Measurement(
            torch.tensor(design["sigmas"], dtype=torch.float64),
            self.source.directions,
            self.sweep.draws,
            default if asked is None else asked,
            self.sweep.seed,
            device,
        )

    def run(self, numbers: tuple[int, ...], report: Callable[[float], None]) -> None:
        units = [self.folder.units[n] for n in numbers]
        if units[0].denoiser == "learned":
            self._train(units, report)
        else:
            self.folder.write_record(numbers[0], self._control(units[0], report))

    # --------------------------------------------------------------------------- controls

    def _control(self, unit: Unit, report: Callable[[float], None]) -> xr.Dataset:
        denoiser = self._exact(unit)
        tell = self._measuring(report)
        record = measure(
            denoiser, self._points(unit), self._exactly, dtype=torch.float64, report=tell
        )
        record = self._with_dimensions(record, unit, denoiser, report)
        if isinstance(denoiser, EmpiricalDenoiser):
            return record.merge(self._posterior(denoiser))
        return record.merge(self._pictures()) if unit.denoiser == "linear" else record

    @property
    def _exactly(self) -> Measurement:
        # Exact denoisers know their Jacobian at every image, without derivatives.
        return replace(self.how, jacobian_points=self.sweep.points, device="cpu")

    def _exact(self, unit: Unit) -> Denoiser:
        if unit.num_samples is not None:
            return EmpiricalDenoiser(self._training_set(unit))
        if unit.denoiser == "population":
            return self.source.population or self.source.linear_control
        return self.source.linear_control

    def _posterior(self, denoiser: EmpiricalDenoiser) -> xr.Dataset:
        # What the exact denoiser knows for nothing: who shares a noised training image.
        count = min(self.sweep.points, denoiser.num_samples)
        shape = self.source.data.item_shape
        z = self.how.noise("training", count, shape).double()
        x_0 = denoiser.data[:count].double()
        # Noised images are paths in sigma: two products answer for all levels.
        starts = x_0.repeat_interleave(z.shape[1], dim=0)
        known = denoiser.path(starts, z.flatten(0, 1), self.how.sigmas, scalars_only=True)
        rows = torch.stack([known.entropy, known.participation], dim=1)  # (T, 2, B)
        values = rows.unflatten(2, z.shape[:2])  # type: ignore[no-untyped-call]
        blank = np.full((2, len(rows), self.sweep.points, self.sweep.draws), np.nan)
        blank[:, :, :count] = values.transpose(0, 1).numpy()
        dims = ("sigma", "point", "draw")
        nats = {"units": "nats"}
        return xr.Dataset({"entropy": (dims, blank[0], nats), "participation": (dims, blank[1])})

    def _pictures(self) -> xr.Dataset:
        # The principal directions, for the page; means over images, so no image's pixels.
        directions = self.source.directions
        vectors = directions.vectors[:, : directions.singles].T.float().numpy()
        item = [f"axis_{k}" for k in range(len(self.source.data.item_shape))]
        shape = (directions.singles, *self.source.data.item_shape)
        pictures = xr.Dataset({"vector": (("single", *item), vectors.reshape(shape))})
        if self.sweep.show_images:
            points = self.folder.design["points"]["training"]
            images = self.source.data.tensor(points).numpy()
            pictures["training_image"] = (("training_point", *item), images)
        return pictures

    # --------------------------------------------------------------------------- networks

    def _train(self, units: list[Unit], report: Callable[[float], None]) -> None:
        final, wanted = units[-1], {unit.step: unit for unit in units}
        state = TrainState(
            self.network,
            self.sweep.training_recipe(),
            self._training_set(final),
            seed=self.sweep.seed,
            unit=_training_number(final),
            device=self.device,
        )
        checkpoint = self.folder.path / "checkpoints" / f"{_name(final)}.safetensors"
        if checkpoint_step(checkpoint) > min(u.step or 0 for u in units):
            checkpoint.unlink(missing_ok=True)  # a record was deleted that lies before it
        every = _common_step(self.sweep.steps, self.sweep.measured_steps)
        for moment in train(state, every, checkpoint):
            share = 0.87 * moment.step / self.sweep.steps
            report(share)
            if moment.step in wanted:
                unit = wanted[moment.step]
                tell = _between(report, share, share + 0.13 if moment.step == final.step else share)
                self._finish(unit, moment.average, tell)
        checkpoint.unlink(missing_ok=True)

    def _finish(
        self, unit: Unit, denoiser: PreconditionedDenoiser, report: Callable[[float], None]
    ) -> None:
        path = self.folder.path / "networks" / f"{_name(unit)}-step{unit.step}"
        save_network(denoiser, self.network, path)
        tell = self._measuring(report)
        record = measure(denoiser, self._points(unit), self.how, report=tell)
        record = self._with_dimensions(record, unit, denoiser, report)
        if self.sweep.samples:
            record = record.merge(self._generate(unit, denoiser))
        self.folder.write_record(unit.number, record)

    def _generate(self, unit: Unit, denoiser: PreconditionedDenoiser) -> xr.Dataset:
        samples = self._sample(denoiser)
        training = self._training_set(unit)
        index = self.folder.design["order"][: unit.num_samples]
        groups = self.source.groups[np.array(index)]
        split = self.source.split
        found, held, spare = (
            copies.nearest(images, training, groups)
            for images in (samples, self.source.data.tensor(split.held_out), self.source.reserved)
        )
        judged = copies.judge(found.ratio, held.ratio)
        unseen = copies.judge(spare.ratio, held.ratio)
        item = [f"axis_{k}" for k in range(samples.ndim - 1)]
        record = xr.Dataset(
            {
                "sample_ratio": ("sample", found.ratio),
                "sample_distance": ("sample", found.distance, {"units": "data units"}),
                "sample_nearest": ("sample", np.array(index)[found.index]),
                "sample_p_value": ("sample", judged.p_values),
                "unseen_p_value": ("unseen", unseen.p_values),
                "sample_image": (("gallery", *item), samples[:GALLERY].numpy()),
            }
        )
        if self.sweep.show_images:
            nearest = training[torch.from_numpy(found.index[:GALLERY])].numpy()
            record["nearest_image"] = (("gallery", *item), nearest)
        return record

    def _sample(self, denoiser: PreconditionedDenoiser) -> Tensor:
        # The same noise for every network: the same picture, learned from more and more images.
        rng = torch_rng(self.sweep.seed, "samples")
        noise = torch.randn(self.sweep.samples, *self.source.data.item_shape, generator=rng)
        levels = sigma_steps(0.01 * self.source.rms, 80 * self.source.rms, SAMPLE_STEPS)
        batches = torch.split(noise.to(self.device), 256)
        return torch.cat([heun(denoiser, b, levels) for b in batches]).cpu()

    # -------------------------------------------------------------------- local dimensions

    def _measuring(self, report: Callable[[float], None]) -> Callable[[float], None]:
        return _between(report, 0.0, 0.5) if self.sweep.dimension else report

    def _with_dimensions(
        self, record: xr.Dataset, unit: Unit, denoiser: Denoiser, report: Callable[[float], None]
    ) -> xr.Dataset:
        if not self.sweep.dimension:
            return record
        learned, count = unit.denoiser == "learned", self.sweep.dimension_points
        place: Any = (self.device, torch.float32) if learned else ("cpu", torch.float64)
        points = {at: x[:count].to(*place) for at, x in self._points(unit).items()}
        found = local_dimensions(
            Subject(denoiser, points, {"denoiser": unit.denoiser}),
            self.sweep.dimension_methods(),
            self.how.sigmas.tolist(),
            width=record.sizes["point"],
            seed=self.sweep.seed,
            draws=self.sweep.draws,
            report=_between(report, 0.5, 1.0),
        )
        return record.merge(found)

    # ------------------------------------------------------------------------------- data

    def _training_set(self, unit: Unit) -> Tensor:
        return self.source.data.tensor(self.folder.design["order"][: unit.num_samples])

    def _points(self, unit: Unit) -> dict[str, Tensor]:
        points = {at: self.folder.design["points"][at] for at in AT}
        if unit.num_samples is not None:
            points["training"] = points["training"][: unit.num_samples]
        return {at: self.source.data.tensor(index) for at, index in points.items()}


def _name(unit: Unit) -> str:
    return f"N{unit.num_samples:06d}-seed{unit.seed}"


def _training_number(unit: Unit) -> int:
    # All sizes of one seed share initial weights and draws of levels: size is what differs.
    return int(unit.seed or 0)


def _common_step(steps: int, measured: tuple[int, ...]) -> int:
    every = max(1, steps // 20)
    return int(np.gcd.reduce([every, steps, *measured])) if measured else every


def _between(report: Callable[[float], None], low: float, high: float) -> Callable[[float], None]:
    return lambda share: report(low + share * (high - low))
