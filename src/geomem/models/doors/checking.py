r"""Five checks of a loaded model, none of which needs to know the truth.

A network was trained to have the least error at the label that it was told, read as it was
trained: on the images that it was trained on, this holds however much of them it memorized. So
errors at those images decide whether labels and reading are right. At images that were held out
the same holds of a model that generalizes. One that memorizes may gain there from a wrong label,
which smooths: the exact denoiser of 32 images of clothes, read as a flow, has .4 times the error
at other images. Held-out images alone therefore decide only for a reading that denoises them.

Stein's identity, :math:`E\, z \cdot (D - x_0) / \sigma = E\, \mathrm{tr}\, \nabla_x D`, holds of
any smooth function; where it fails, derivatives do not belong to the answers (a detached tensor,
rounding to grey levels).

References:
    | Stein, Estimation of the mean of a multivariate normal distribution, Ann. Stat. 9 (1981)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from geomem.checks import admit
from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.models.doors.denoisers import NetworkDenoiser, told_otherwise
from geomem.models.doors.loaded import LoadedModel, ModelCheck
from geomem.models.doors.schedules import labels_named, predictions_of
from geomem.noise import log_levels
from geomem.stats import torch_rng

FACTORS = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4)
# In units of the data's rms: below, any error is small; above, any answer is the mean.
MIDDLE = (0.2, 0.5, 1.2, 3.0)
# What is declared is refused for another reading that lowers the error by this share, and by
# four standard errors.
GAIN, SURE = 0.02, 4.0
SCHEDULES = ("linear", "scaled_linear", "cosine", "sigmoid", "flow", "edm", "ve")
DRAWS = ((1e5, 4), (1e8, 2), (math.inf, 1))  # up to so many parameters, so many draws an image


def check_model(
    model: LoadedModel,
    held_out: Tensor,
    *,
    seed: int = 0,
    points: int = 16,
    training: Tensor | None = None,
    conditions: Sequence[Any] | None = None,
) -> list[ModelCheck]:
    r"""The checks of a model at images: answers, labels, prediction, derivatives, bounds.

    Arguments:
        model: The model.
        held_out: Images that it was not trained on, with shape (M, C, H, W), in [-1, 1] where it
            works on latents, else with shape :math:`(M, *)` in its units.
        seed: The seed of the choice of images and of their noise.
        points: How many images are looked at.
        training: Images that it was trained on, of the same shape: labels and prediction are
            looked at there, which is sharper.
        conditions: The caption or label of each of the images that are looked at, ``training``
            if given and else ``held_out``.

    Returns:
        The checks that could be made. After one that fails, those that rest on it are left out.

    Raises:
        InputError: If the images do not fit the model's shape.
    """
    asked = _ask(model, held_out, seed, points, training, conditions)
    found: list[ModelCheck] = []
    for check in (_answers, _prediction, _labels, _derivatives, _bounds):
        try:
            found.append(check(asked))
        except InputError as error:
            found.append(ModelCheck(check.__name__[1:], False, math.nan, str(error)))
        if not found[-1].passed and check is not _labels:
            break
    return found


@dataclass(frozen=True, eq=False)
class _Asked:
    r"""Clean points (n, \*), their noise (draws, n, \*), and who is asked at them."""

    model: LoadedModel
    denoiser: Denoiser
    single: Denoiser
    clean: Tensor
    noise: Tensor
    rms: float
    mean: Tensor
    trained: bool

    @cached_property
    def sigmas(self) -> list[float]:
        r"""Levels in the middle of what the data and the training reach."""
        low, high = self.model.sigma_range
        chosen = [self.rms * s for s in MIDDLE if low <= self.rms * s <= high]
        return chosen or [math.sqrt(low * high)]

    @cached_property
    def here(self) -> str:
        r"""The levels in words."""
        return ", ".join(f"{s:.3g}" for s in self.sigmas)

    @cached_property
    def readings(self) -> list[_Reading]:
        r"""All ways to read a network, its own first; none of a function."""
        own = self.denoiser
        if not isinstance(own, NetworkDenoiser):
            return []
        found = self._read(own, None)
        found.sort(key=lambda reading: reading.prediction != own.prediction)
        for name in SCHEDULES:
            found += self._read(own.with_labels(labels_named(name)), name)
        return found

    def _read(self, network: NetworkDenoiser, schedule: str | None) -> list[_Reading]:
        names = predictions_of(network.labels)
        errors: dict[str, list[Tensor]] = {name: [] for name in names}
        for sigma in self.sigmas:
            level = torch.tensor(sigma, dtype=torch.float64, device=self.clean.device)
            with torch.no_grad():
                noisy = [self.clean + level.to(self.clean) * z for z in self.noise]
                outputs = [network.output(x, level) for x in noisy]
                for name in names:
                    read = [
                        self._square(network.read(y, x, level, name))
                        for x, y in zip(noisy, outputs, strict=True)
                    ]
                    errors[name].append(torch.stack(read).mean(0))
        return [_Reading(name, schedule, torch.stack(e)) for name, e in errors.items()]

    def _square(self, answer: Tensor) -> Tensor:
        error = (answer.double() - self.clean.double()).flatten(1).square().mean(1)
        return error.cpu()

    @cached_property
    def filtered(self) -> Tensor:
        r"""Errors of a filter that knows mean and variance of each pixel, as for readings."""
        variance = (self.clean.double() - self.mean).square().mean(0)

        def answer(x: Tensor, sigma: Tensor) -> Tensor:
            return self.mean + variance / (variance + sigma**2) * (x - self.mean)

        return torch.stack([self.squares(answer, sigma) for sigma in self.sigmas])

    def decides(self, errors: Tensor, own: Tensor) -> bool:
        r"""Whether lower errors, with shape (levels, n), speak against what was declared.

        Only where they are those of a model that denoises these images at all. One that has
        memorized does not at held-out images, and gains from any smoothing; one that has hardly
        been trained does not anywhere, and its small outputs do least harm in the reading that
        gives them least weight.
        """
        gain, sure = _gain(errors, own)
        if not (gain > GAIN and gain > SURE * sure):
            return False
        return _mean_log(errors) < _mean_log(self.filtered)

    def doubt(self, errors: Tensor, own: Tensor) -> str:
        r"""What is said where another reading has less error and does not decide."""
        gain, _ = _gain(errors, own)
        if gain <= GAIN:
            return ""
        sure = _mean_log(errors) < _mean_log(self.filtered)
        why = "within its uncertainty"
        if not sure:
            why = "but does not denoise these images better than a filter of single pixels"
        if self.trained and not sure:
            why += ", so that the model is hardly trained"
        ask = "" if self.trained else "; training images decide"
        return f" (another has {math.exp(-gain):.3g} times as much, {why}{ask})"

    def squares(self, answer: Callable[[Tensor, Tensor], Tensor], sigma: float) -> Tensor:
        r"""Squared errors per coordinate of each image, mean over draws, with shape (n)."""
        level = torch.tensor(sigma, dtype=torch.float64, device=self.clean.device)
        total = torch.zeros(len(self.clean), dtype=torch.float64)
        for z in self.noise:
            with torch.no_grad():
                y = answer(self.clean + level.to(self.clean) * z, level)
            if not bool(torch.isfinite(y).all()):
                raise InputError(
                    f"the denoiser returned NaN or infinity at sigma = {sigma:.4g}; check its "
                    "weights and the levels that it was trained on"
                )
            total += self._square(y) / len(self.noise)
        return total


def _ask(
    model: LoadedModel,
    held_out: Tensor,
    seed: int,
    points: int,
    training: Tensor | None,
    conditions: Sequence[Any] | None,
) -> _Asked:
    images = held_out if training is None else training
    if not isinstance(images, Tensor) or images.ndim < 2 or len(images) < 2:
        raise InputError("`held_out` holds fewer than 2 images; pass a tensor of shape (M, *)")
    if conditions is not None and len(conditions) != len(images):
        raise InputError(
            f"`conditions` has {len(conditions)} entries for {len(images)} images; pass one each"
        )
    chosen = torch.randperm(len(images), generator=torch_rng(seed, "door points"))[:points]
    clean = in_space(model, images[chosen])
    size = float(model.about.get("parameters", 0))
    draws = next(count for most, count in DRAWS if size <= most)
    noise = torch.randn((draws, *clean.shape), generator=torch_rng(seed, "door noise"))
    denoiser = single = model.denoiser
    if conditions is not None and model.bind is not None:
        given = [conditions[int(i)] for i in chosen]
        denoiser, single = model.bind(given), model.bind(given[:1])
    mean = clean.double().mean(0)
    rms = float((clean.double() - mean).square().mean().sqrt())
    return _Asked(model, denoiser, single, clean, noise.to(clean), rms, mean, training is not None)


def in_space(model: LoadedModel, images: Tensor) -> Tensor:
    r"""Images in a model's space: as its latents where it has an encoder.

    Arguments:
        model: The model.
        images: Images with shape (B, C, H, W), or points of its own shape.

    Returns:
        The points, with shape :math:`(B, *)`, on the model's device.

    Raises:
        InputError: If they are of another size than those that it was trained on.
    """
    points = images
    if model.encode is not None and tuple(images.shape[1:]) != model.item_shape:
        points = model.encode(images)
    if model.item_shape is not None and tuple(points.shape[1:]) != model.item_shape:
        latent = " in its latents" if model.encode is not None else ""
        raise InputError(
            f"the images have shape {tuple(points.shape[1:])}{latent} and the model works on "
            f"{model.item_shape}; bring them to its size, as its trainer did (`size`, `crop`)"
        )
    kind = torch.float64 if model.dtype == torch.float64 else torch.float32
    return points.to(model.device, kind)


# ------------------------------------------------------------------------- 1. its answers


def _answers(asked: _Asked) -> ModelCheck:
    low, high = asked.model.sigma_range
    middle = asked.sigmas
    ends = [min(max(s, low), high) for s in (middle[0] / 4, *middle, 20 * middle[-1])]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for sigma in sorted(set(ends)):
            level = torch.tensor(sigma, dtype=asked.clean.dtype, device=asked.clean.device)
            admit(asked.single, asked.clean[0] + level * asked.noise[0, 0], level)
            asked.squares(asked.denoiser, sigma)
    said = list(dict.fromkeys(str(w.message) for w in caught))
    sentence = (
        f"finite answers of the right shape, the same twice, at {len(set(ends))} levels from "
        f"{min(ends):.3g} to {max(ends):.3g}"
    )
    return ModelCheck("answers", True, math.nan, "; ".join([sentence, *said]))


# ---------------------------------------------------------------------- 2. its prediction


@dataclass(frozen=True, eq=False)
class _Reading:
    r"""One way to ask a network and to read its outputs.

    Attributes:
        prediction: By diffusers' name.
        schedule: The name of the labels; None for those that it came with.
        errors: Squared errors by level and image, with shape (levels, n).
    """

    prediction: str
    schedule: str | None
    errors: Tensor


def _prediction(asked: _Asked) -> ModelCheck:
    denoiser = asked.denoiser
    if not isinstance(denoiser, NetworkDenoiser):
        said = "a function of (x, sigma): nothing to read otherwise"
        return ModelCheck("prediction", True, math.nan, said)
    own, best = asked.readings[0], min(asked.readings, key=lambda r: _mean_log(r.errors))
    others = [r for r in asked.readings if r.prediction != own.prediction]
    nearest = min(others, key=lambda r: _mean_log(r.errors))
    value = math.exp(_mean_log(nearest.errors) - _mean_log(own.errors))
    if best.prediction == own.prediction or not asked.decides(best.errors, own.errors):
        said = (
            f"{own.prediction} has the least error at sigma = {asked.here}; read as "
            f"{nearest.prediction} it would have {value:.3g} times as much"
        )
        return ModelCheck("prediction", True, value, said + asked.doubt(best.errors, own.errors))
    value = math.exp(_mean_log(best.errors) - _mean_log(own.errors))
    further = f" and `schedule` {best.schedule}" if best.schedule else ""
    return ModelCheck(
        "prediction",
        False,
        value,
        f"outputs behave like {best.prediction}, not {own.prediction}: read so, the error is "
        f"{value:.3g} times as much at sigma = {asked.here}; pass `prediction` {best.prediction}"
        f"{further}",
    )


def _mean_log(errors: Tensor) -> float:
    return float(errors.mean(1).clamp(min=1e-30).log().mean())


def _gain(errors: Tensor, own: Tensor) -> tuple[float, float]:
    r"""By how much ln(error) is lower than its own, mean over levels, and its standard error.

    Both errors are at the same images with the same noise, so that their difference is small
    where each is not. Shapes (levels, n).
    """
    paired = ((own - errors) / own.mean(1, keepdim=True)).mean(0)  # of each image, over levels
    return _mean_log(own) - _mean_log(errors), float(paired.std() / math.sqrt(len(paired)))


# -------------------------------------------------------------------------- 3. its labels


def _labels(asked: _Asked) -> ModelCheck:
    scans = {
        c: torch.stack([asked.squares(told_otherwise(asked.denoiser, c), s) for s in asked.sigmas])
        for c in FACTORS
    }
    own = scans[1.0]
    factor = min(scans, key=lambda c: _mean_log(scans[c]))
    named = [r for r in asked.readings if r.prediction == asked.readings[0].prediction]
    best = min(named, key=lambda r: _mean_log(r.errors), default=None)
    better = best is not None and _mean_log(best.errors) <= _mean_log(scans[factor])
    fits = best.schedule if best is not None and better else None
    least = best.errors if best and fits else scans[factor]
    if asked.decides(least, own):
        much = math.exp(-_gain(least, own)[0])
        factors = [factor] if fits is None else _factors(asked, fits)
        edge = " or more" if factor == FACTORS[-1] else " or less" if factor == FACTORS[0] else ""
        behaves = " to ".join(dict.fromkeys(f"{c:.3g}" for c in (min(factors), max(factors))))
        advice = (
            f"the schedule behaves like {fits}; pass `schedule` {fits}"
            if fits
            else "check `schedule`, or how the function uses sigma"
        )
        return ModelCheck(
            "labels",
            False,
            factor,
            f"labels behave as {behaves}{'' if fits else edge} x sigma: told so, the error is "
            f"{much:.3g} times as much at sigma = {asked.here}; {advice}",
        )
    said = (
        f"no label of {FACTORS[0]:g} to {FACTORS[-1]:g} x sigma has a lower error at sigma = "
        f"{asked.here}, beyond its uncertainty"
    )
    return ModelCheck("labels", True, factor, said + asked.doubt(least, own))


def _factors(asked: _Asked, schedule: str) -> list[float]:
    r"""What each level would have to be multiplied with to be told as another schedule tells it."""
    assert isinstance(asked.denoiser, NetworkDenoiser)
    own, other = asked.denoiser.labels, labels_named(schedule)
    sigmas = torch.tensor(asked.sigmas, dtype=torch.float64)
    grid = log_levels(own.low, own.high, 20_001)
    told, wanted = own.time(grid), other.time(sigmas)
    nearest = (told[None] - wanted[:, None]).abs().argmin(1)
    return (grid[nearest] / sigmas).tolist()


# --------------------------------------------------------------------- 4. its derivatives


def _derivatives(asked: _Asked) -> ModelCheck:
    sigma = asked.sigmas[len(asked.sigmas) // 2]
    level = torch.tensor(sigma, dtype=torch.float64, device=asked.clean.device)
    probes = torch_rng(0, "door probes")
    differences = list[Tensor]()
    traces = list[Tensor]()
    for z in asked.noise:
        x = (asked.clean + level.to(asked.clean) * z).requires_grad_()
        with torch.enable_grad():
            y = asked.denoiser(x, level)
            v = torch.randn(x.shape, generator=probes).to(x)
            if not y.requires_grad:
                return ModelCheck(
                    "derivatives",
                    False,
                    math.nan,
                    "the answers are detached from the points, so that there are no derivatives; "
                    "leave out no_grad and detach in the function",
                )
            (pulled,) = torch.autograd.grad((y * v).sum(), x)
        forward = (z.double() * (y.detach() - asked.clean).double()).flatten(1).sum(1) / sigma
        traced = (pulled.double() * v.double()).flatten(1).sum(1)
        differences.append((forward - traced).cpu())
        traces.append(traced.cpu())
    each = torch.stack(differences).mean(0)
    mean, error = float(each.mean()), float(each.std()) / math.sqrt(len(each))
    size = asked.clean[0].numel()
    trace = float(torch.stack(traces).mean())
    z = abs(mean) / max(error, 1e-6 * size)
    said = (
        f"E z.(D - x_0)/sigma - E tr dD/dx = {mean:.3g} ± {error:.2g} of {size} dimensions at "
        f"sigma = {sigma:.3g}, where the trace is {trace:.3g}"
    )
    if z <= SURE:
        return ModelCheck("derivatives", True, z, said)
    return ModelCheck(
        "derivatives",
        False,
        z,
        f"{said}; the derivatives are not those of the answers: look for rounding, clipping or "
        "detached tensors in the denoiser",
    )


# -------------------------------------------------------------------------- 5. its bounds


def _bounds(asked: _Asked) -> ModelCheck:
    # A model that is not trained at a level leaves noise in its answers, which is no fault of
    # what was declared: it is said, and the verdict is inconclusive. Images of another scale are
    # another thing: its answers are then off by the same in all draws of the noise.
    low, high = asked.model.sigma_range
    variance = (asked.clean.double() - asked.mean).flatten(1).square().mean(1).cpu()
    variance = variance * len(variance) / (len(variance) - 1)
    large = min(4 * asked.rms, high)
    small = max(0.2 * asked.rms, low)
    far = asked.squares(asked.denoiser, large)
    near = asked.squares(asked.denoiser, small) / small**2
    ratio = float(far.mean() / variance.mean())
    said = (
        f"at sigma = {large:.3g} the error is {ratio:.3g} of the data's variance (at most 1), at "
        f"{small:.3g} it is {float(near.mean()):.3g} of the noise's (at most 1)"
    )
    if _above(far - 1.1 * variance):
        if not _above(_without_offset(asked, large) - 1.1 * variance):
            return ModelCheck(
                "bounds",
                False,
                ratio,
                f"{said}: its answers are off by the same whatever the noise; the images may not "
                "be scaled as in training",
            )
        said += f"; at {large:.3g} it is hardly trained, the mean image alone would be nearer"
    if _above(near - 1.0) and asked.trained:  # one that memorizes sends other images elsewhere
        said += f"; at {small:.3g} it is hardly trained, leaving the noise in would be nearer"
    return ModelCheck("bounds", True, ratio, said)


def _above(excess: Tensor) -> bool:
    # Whether a mean over images, with shape (n), is above 0 by four standard errors.
    error = float(excess.std()) / math.sqrt(len(excess)) + 1e-12
    return float(excess.mean()) / error > SURE


def _without_offset(asked: _Asked, sigma: float) -> Tensor:
    # Squared errors of each image, once the mean error over images and draws is taken off.
    level = torch.tensor(sigma, dtype=torch.float64, device=asked.clean.device)
    with torch.no_grad():
        wrong = torch.stack(
            [
                (asked.denoiser(asked.clean + level.to(asked.clean) * z, level) - asked.clean)
                for z in asked.noise
            ]
        ).double()
    wrong = wrong - wrong.mean((0, 1))
    return wrong.flatten(2).square().mean((0, 2)).cpu()
