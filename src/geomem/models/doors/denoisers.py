r"""A stranger's network as a denoiser in sigma, and what else its answers could mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from geomem.denoiser import Denoiser, expand
from geomem.errors import InputError
from geomem.models.doors.schedules import Labels
from geomem.noise import level_of_each

# Called with x_t of shape (B, *) and what it is told, of shape (B).
Network = Callable[[Tensor, Tensor], Any]


class NetworkDenoiser:
    r"""A network of a stranger, asked at the levels that it knows and read as it was trained.

    Arguments:
        network: Called with scaled points ``(B, *)`` and labels ``(B)``.
        labels: What it is told at which level.
        prediction: What it returns, by diffusers' name.
        dtype: The dtype that it works in.
    """

    def __init__(
        self,
        network: Network,
        labels: Labels,
        prediction: str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.network, self.labels, self.prediction = network, labels, prediction
        self.dtype = dtype
        self.sigma_min, self.sigma_max = labels.low, labels.high

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.told(x, sigma, 1.0)

    def told(self, x: Tensor, sigma: Tensor, factor: float) -> Tensor:
        r"""The denoiser where the network is told ``factor * sigma`` and all else is right.

        Arguments:
            x: The noisy points, with shape :math:`(B, *)`.
            sigma: The noise level, with shape :math:`()` or :math:`(B)`.
            factor: What the level is multiplied with before the network is told.

        Returns:
            The denoised points, with shape :math:`(B, *)`.
        """
        return self.read(self.output(x, sigma, factor), x, sigma, self.prediction)

    def output(self, x: Tensor, sigma: Tensor, factor: float = 1.0) -> Tensor:
        r"""What the network returns at noisy points ``x``, told ``factor * sigma``; same shapes."""
        level = level_of_each(sigma, x)
        label = self.labels.time(factor * level)
        # Products in float64 are rounded once: alpha and sigma may be far from 1.
        scaled = (expand(self._scale(level), x) * x).to(self.dtype)
        exact = torch.float64 if self.dtype == torch.float64 else torch.float32
        output = tensor_in(self.network(scaled, label.to(exact)), x)
        return output if self.labels.sign > 0 else -output

    def read(self, output: Tensor, x: Tensor, sigma: Tensor, prediction: str) -> Tensor:
        r"""The denoised points, if an output of the network is a prediction of that kind.

        Arguments:
            output: What the network returned, with shape :math:`(B, *)`.
            x: The noisy points, with shape :math:`(B, *)`.
            sigma: The noise level, with shape :math:`()` or :math:`(B)`.
            prediction: By diffusers' name.

        Returns:
            The denoised points, with shape :math:`(B, *)`.
        """
        level = level_of_each(sigma, x)
        s, alpha = expand(level, x), expand(self._scale(level), x)
        data = self.labels.sigma_data
        if data is not None:  # EDM: skip and output are scaled to unit variance
            sign = -1 if prediction == "v_prediction" else 1
            clean = alpha**2 * data**2 * x + sign * alpha * data * s * output
        elif prediction == "sample":
            clean = output
        elif prediction == "epsilon":
            clean = x - s * output
        elif prediction == "score":
            clean = x + alpha * s**2 * output
        elif prediction == "v_prediction":
            clean = alpha**2 * x - alpha * s * output
        else:
            clean = alpha * x - alpha * s * output
        return clean.to(x.dtype)

    def _scale(self, level: Tensor) -> Tensor:
        if self.labels.sigma_data is not None:
            return (level**2 + self.labels.sigma_data**2).rsqrt()
        return self.labels.scale(level)

    def with_labels(self, labels: Labels) -> NetworkDenoiser:
        r"""The same network, told other labels."""
        return NetworkDenoiser(self.network, labels, self.prediction, self.dtype)


def tensor_in(output: Any, x: Tensor) -> Tensor:
    r"""The tensor of a network's answer to points of x's shape; learned variances are split off.

    Raises:
        InputError: If there is none, or it has another shape.
    """
    found = output
    if isinstance(found, (tuple, list)) and len(found):
        found = found[0]
    elif not isinstance(found, Tensor):
        found = getattr(found, "sample", None)
    if not isinstance(found, Tensor):
        raise InputError(
            f"the network returned a {type(output).__name__} without a tensor; return the tensor "
            "of its prediction, or an object with a `sample`"
        )
    if x.ndim > 1 and found.ndim == x.ndim and found.shape[1] == 2 * x.shape[1]:
        found = found[:, : x.shape[1]]
    if found.shape != x.shape:
        raise InputError(
            f"the network returned shape {tuple(found.shape)} for points of shape "
            f"{tuple(x.shape)}; pass images of the size that it was trained on"
        )
    return found


class CallableDenoiser:
    r"""A user's function of ``(x, sigma)`` as a denoiser: one tensor, in the dtype of x.

    Arguments:
        function: Called with points ``(B, *)`` and levels ``(B)``.
        name: What to call it in errors.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Any], name: str) -> None:
        self.function, self.name = function, name
        self.sigma_min = getattr(function, "sigma_min", None)
        self.sigma_max = getattr(function, "sigma_max", None)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = level_of_each(sigma, x).to(x.dtype)
        return tensor_in(called(self.function, self.name, x, level), x).to(x.dtype)


def called(function: Callable[..., Any], name: str, *arguments: Any) -> Any:
    r"""What a user's function returns; whatever it raises is told with its name.

    Raises:
        InputError: If it fails.
    """
    try:
        return function(*arguments)
    except InputError:
        raise
    except Exception as error:
        first = str(error).partition("\n")[0][:200]
        raise InputError(
            f"{name} failed with {type(error).__name__}: {first}; call it yourself with a batch of "
            "points and levels of shape (B)"
        ) from error


def told_otherwise(denoiser: Denoiser, factor: float) -> Denoiser:
    r"""A denoiser whose network is told ``factor * sigma`` at noise sigma.

    Of a function of the user all that can be done is to call it with another sigma.
    """
    if isinstance(denoiser, NetworkDenoiser):
        return lambda x, sigma: denoiser.told(x, sigma, factor)
    return lambda x, sigma: denoiser(x, factor * sigma)
