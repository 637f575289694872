r"""Five checks of a loaded model, none of which needs to know the truth.

A network was trained to have the least error at the label that it was told, read as it was
trained: on the images that it was trained on, this holds however much of them it memorized. So
errors at images decide whether labels and reading are right. At images that were held out the
same holds of a model that generalizes; one that memorizes may gain there from a wrong label
(more smoothing), which is why the bound is wider without training images.

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
from typing import Any

import torch
from torch import Tensor

from geomem.checks import admit
from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.models.doors.denoisers import NetworkDenoiser, told_otherwise
from geomem.models.doors.loaded import LoadedModel, ModelCheck
from geomem.models.doors.schedules import PREDICTIONS, labels_named
from geomem.stats import torch_rng

FACTORS = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4)
# In units of the data's rms: below, any error is small; above, any answer is the mean.
MIDDLE = (0.2, 0.5, 1.2)
# A wrong label must lower the error by this share, and by four standard errors.
GAIN, HELD_OUT_GAIN = 0.02, 0.1
SURE = 4.0
DRAWS = 2


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

    def sigmas(self) -> list[float]:
        low, high = self.model.sigma_range
        chosen = [self.rms * s for s in MIDDLE if low <= self.rms * s <= high]
        return chosen or [math.sqrt(low * high)]

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
            error = (y.double() - self.clean.double()).flatten(1).square().mean(1)
            total += error.cpu() / len(self.noise)
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
    noise = torch.randn((DRAWS, *clean.shape), generator=torch_rng(seed, "door noise"))
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
    middle = asked.sigmas()
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


def _prediction(asked: _Asked) -> ModelCheck:
    denoiser = asked.denoiser
    if not isinstance(denoiser, NetworkDenoiser):
        return ModelCheck(
            "prediction", True, math.nan, "a function of (x, sigma): nothing to read otherwise"
        )
    declared, sigmas = denoiser.prediction, asked.sigmas()
    errors = {name: _read(asked, denoiser, name, sigmas) for name in _readings(denoiser)}
    own = errors[declared]
    best = min(errors, key=lambda name: float(errors[name].mean(1).log().mean()))
    here = ", ".join(f"{s:.3g}" for s in sigmas)
    ratio = math.exp(float((errors[best].mean(1) / own.mean(1)).log().mean()))
    others = [errors[n] for n in errors if n != declared]
    worst_case = min(
        (float((e.mean(1) / own.mean(1)).log().mean()) for e in others), default=math.nan
    )
    if best == declared:
        return ModelCheck(
            "prediction",
            True,
            math.exp(worst_case),
            f"{declared} has the least error at sigma = {here}; the next reading has "
            f"{math.exp(worst_case):.3g} times as much",
        )
    gain, sure = _gain(errors[best], own)
    limit = GAIN if asked.trained else HELD_OUT_GAIN
    if not (gain > limit and gain > SURE * sure):
        return ModelCheck(
            "prediction",
            True,
            ratio,
            f"{declared} has as little error as any reading at sigma = {here}, within its error; "
            f"{best} would have {ratio:.3g} times as much",
        )
    return ModelCheck(
        "prediction",
        False,
        ratio,
        f"the outputs behave like {best}, not {declared}: read so, the error is {ratio:.3g} times "
        f"that of {declared} at sigma = {here}; pass `prediction` {best}"
        + (" and `schedule` flow" if best == "flow_prediction" and _is_other(denoiser) else ""),
    )


def _is_other(denoiser: NetworkDenoiser) -> bool:
    return denoiser.labels.family != "straight"


def _readings(denoiser: NetworkDenoiser) -> list[str]:
    if denoiser.labels.sigma_data is not None:
        return ["epsilon", "v_prediction"]
    return list(PREDICTIONS)


def _read(asked: _Asked, denoiser: NetworkDenoiser, name: str, sigmas: Sequence[float]) -> Tensor:
    r"""Squared errors of a reading by level and image, with shape (levels, n)."""
    other = denoiser
    if name == "flow_prediction" and _is_other(denoiser):
        other = denoiser.with_labels(labels_named("flow"))
    elif name != "flow_prediction" and not _is_other(denoiser):
        other = denoiser.with_labels(labels_named("linear"))

    def answer(x: Tensor, sigma: Tensor) -> Tensor:
        return other.read(other.output(x, sigma), x, sigma, name)

    return torch.stack([asked.squares(answer, s) for s in sigmas])


def _gain(errors: Tensor, own: Tensor) -> tuple[float, float]:
    r"""By how much ln(error) is lower than its own, mean over levels, and its standard error.

    Both errors are at the same images with the same noise, so that their difference is small
    where each is not. Shapes (levels, n).
    """
    base = own.mean(1, keepdim=True)
    paired = ((own - errors) / base).mean(0)  # of each image, over levels
    change = -float((errors.mean(1) / own.mean(1)).log().mean())
    return change, float(paired.std() / math.sqrt(len(paired)))


# -------------------------------------------------------------------------- 3. its labels


def _labels(asked: _Asked) -> ModelCheck:
    sigmas = asked.sigmas()
    errors = {c: _scan(asked, told_otherwise(asked.denoiser, c), sigmas) for c in FACTORS}
    own = errors[1.0]
    best = min(errors, key=lambda c: float((errors[c].mean(1) / own.mean(1)).log().mean()))
    gain, sure = _gain(errors[best], own)
    limit = GAIN if asked.trained else HELD_OUT_GAIN
    here = ", ".join(f"{s:.3g}" for s in sigmas)
    if gain > limit and gain > SURE * sure:
        fits, much = _schedule_that_fits(asked, sigmas, own)
        named = (
            f"the schedule behaves like {fits} ({much:.3g} times the error); pass `schedule` {fits}"
            if fits and -math.log(much) > 0.5 * gain
            else "check `schedule`, or how the function uses sigma"
        )
        edge = " or more" if best == FACTORS[-1] else " or less" if best == FACTORS[0] else ""
        return ModelCheck(
            "labels",
            False,
            best,
            f"labels behave as {best:g}{edge} x sigma: told so, the error is "
            f"{math.exp(-gain):.3g} times that of the label as it is, at sigma = {here}; {named}",
        )
    why = "" if best == 1 else f" ({best:g} x sigma has {math.exp(-gain):.3g} times as much)"
    return ModelCheck(
        "labels",
        True,
        best,
        f"the label as it is has the least error at sigma = {here}, of labels of "
        f"{FACTORS[0]:g} to {FACTORS[-1]:g} x sigma, within its error{why}",
    )


def _scan(asked: _Asked, denoiser: Denoiser, sigmas: Sequence[float]) -> Tensor:
    return torch.stack([asked.squares(denoiser, s) for s in sigmas])


def _schedule_that_fits(
    asked: _Asked, sigmas: Sequence[float], own: Tensor
) -> tuple[str | None, float]:
    r"""The best of the usual schedules of the same family, and its error in units of its own."""
    denoiser = asked.denoiser
    if not isinstance(denoiser, NetworkDenoiser) or denoiser.labels.levels is None:
        return None, 1.0
    best: tuple[str | None, float] = (None, 1.0)
    for name in ("linear", "scaled_linear", "cosine", "sigmoid"):
        errors = _scan(asked, denoiser.with_labels(labels_named(name)), sigmas)
        ratio = math.exp(float((errors.mean(1) / own.mean(1)).log().mean()))
        best = min(best, (name, ratio), key=lambda pair: pair[1])
    return best


# --------------------------------------------------------------------- 4. its derivatives


def _derivatives(asked: _Asked) -> ModelCheck:
    sigma = asked.sigmas()[len(asked.sigmas()) // 2]
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
    low, high = asked.model.sigma_range
    variance = (asked.clean.double() - asked.mean).flatten(1).square().mean(1).cpu()
    variance = variance * len(variance) / (len(variance) - 1)
    large = min(4 * asked.rms, high)
    small = max(0.2 * asked.rms, low)
    far = asked.squares(asked.denoiser, large)
    near = asked.squares(asked.denoiser, small) / small**2
    ratio = float(far.mean() / variance.mean())
    excess = (far - 1.1 * variance).double()
    over = float(excess.mean()) / (float(excess.std()) / math.sqrt(len(excess)) + 1e-12)
    above = float(near.mean() - 1) / (float(near.std()) / math.sqrt(len(near)) + 1e-12)
    said = (
        f"at sigma = {large:.3g} the error is {ratio:.3g} of the data's variance (at most 1), at "
        f"{small:.3g} it is {float(near.mean()):.3g} of the noise's (at most 1)"
    )
    if over > SURE:
        return ModelCheck(
            "bounds",
            False,
            ratio,
            f"{said}: the mean image alone would be nearer; the images may not be scaled as in "
            "training, or it was not trained at this level",
        )
    if above > SURE:
        return ModelCheck(
            "bounds",
            False,
            float(near.mean()),
            f"{said}: leaving the noise in would be nearer; check `schedule` and `prediction`",
        )
    return ModelCheck("bounds", True, ratio, said)
