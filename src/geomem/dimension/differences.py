r"""The paper's estimator: differences of scores along orthogonal directions.

.. math:: S_i = s(x_0 + \sigma z_i, \sigma) \, , \qquad i = 1, \dots, K \, ,

with Haar-orthogonal unit rows :math:`z_i`. Up to the offset :math:`s(x_0)`, which all rows share,
:math:`S = \sigma Z J`, so that large singular values (near :math:`1/\sigma`) count normal
directions and small ones tangent directions. The singular values of S are returned.

References:
    | Losing dimensions (Achilli et al., 2024), arXiv 2410.08727
    | Manifolds, random matrices and spectral gaps (Ventura et al., 2024), arXiv 2410.05898
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from geomem.arguments import Whole, checked
from geomem.checks import admit
from geomem.denoiser import Denoiser, score
from geomem.errors import InputError
from geomem.operators import one_point
from geomem.stats import torch_rng


def haar_rows(num_rows: int, size: int, rng: torch.Generator) -> Tensor:
    r"""Unit rows, orthogonal in blocks of ``size``, each block Haar-distributed.

    Returns:
        The rows, with shape ``(num_rows, size)``, in float64.

    Example:
        >>> rows = haar_rows(3, 5, torch.Generator().manual_seed(0))
        >>> torch.allclose(rows @ rows.T, torch.eye(3).double())
        True
    """
    return haar_blocks(-(-num_rows // size), size, rng).reshape(-1, size)[:num_rows]


def haar_blocks(count: int, size: int, rng: torch.Generator) -> Tensor:
    r"""Orthogonal matrices from Haar's measure, with shape ``(count, size, size)``."""
    normal = torch.randn(count, size, size, generator=rng, dtype=torch.float64)
    Q, R = torch.linalg.qr(normal)
    # QR alone is not Haar: the diagonal of R must be positive (Mezzadri, math-ph/0609050).
    signs: Tensor = R.diagonal(dim1=-2, dim2=-1).sign()
    blocks: Tensor = Q * signs[:, None, :]
    return blocks


def image_directions(num_rows: int, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    r"""Directions for images: one orthogonal h x h block for each channel of each direction.

    Each has length :math:`\sqrt{C h}`; different ones are independent, which is why the paper
    takes 4d of them.

    Returns:
        The directions, with shape ``(num_rows, C, h, h)``, in float64.
    """
    if len(shape) != 3 or shape[1] != shape[2]:
        raise InputError(
            f"one block per channel needs square images (C, h, h), got {tuple(shape)}; "
            'use directions="vectors"'
        )
    return haar_blocks(num_rows * shape[0], shape[1], rng).reshape(num_rows, *shape)


@checked
@dataclass(frozen=True, kw_only=True)
class OrthogonalDifferences:
    r"""Singular values of scores around a clean point, as in the paper.

    Arguments:
        factor: The number of directions K in units of d. The paper: 1 for vectors, 4 for
            images; that is what is taken if it is not given.
        directions: ``"vectors"`` (orthogonal unit rows), ``"images"`` (one block per channel),
            or, if it is not given, the second for square images (C, h, h).
        symmetrised: Whether :math:`[s(x_0 + \sigma z) - s(x_0 - \sigma z)]/2` takes the place of
            s: no offset is left, at twice the cost.
        seed: The seed of the directions.
        chunk_size: How many points the denoiser sees at a time.

    Example:
        At a plane's own point the score is 0, and normal directions stand at 1/sigma.

        >>> plane = lambda x, sigma: x * torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
        >>> method = OrthogonalDifferences()
        >>> method(plane, torch.zeros(5), torch.tensor(0.1)).round(decimals=3)
        tensor([10., 10., 10.,  0.,  0.], dtype=torch.float64)
    """

    factor: Annotated[int | None, Whole(least=1)] = None
    directions: Literal["vectors", "images"] | None = None
    symmetrised: bool = False
    seed: Annotated[int, Whole(least=0)] = 0
    chunk_size: Annotated[int, Whole(least=1)] = 128

    def num_calls(self, shape: tuple[int, ...]) -> int:
        r"""How many points the denoiser is asked for at a point of such a shape."""
        calls = self._factor(shape) * torch.Size(shape).numel()
        return 2 * calls if self.symmetrised else calls

    def _factor(self, shape: tuple[int, ...]) -> int:
        return self.factor or (4 if self._is_image(shape) else 1)

    def _is_image(self, shape: tuple[int, ...]) -> bool:
        square = len(shape) == 3 and shape[1] == shape[2]
        return self.directions == "images" or (self.directions is None and square)

    def __call__(self, denoiser: Denoiser, x_0: Tensor, sigma: Tensor | float) -> Tensor:
        r"""The singular values, largest first, with shape :math:`(\min(K, d))`, in float64."""
        x_0, sigma = one_point(x_0, sigma)
        admit(denoiser, x_0, sigma)
        K, rng = self._factor(x_0.shape) * x_0.numel(), torch_rng(self.seed, "differences")
        if self._is_image(x_0.shape):
            z = image_directions(K, tuple(x_0.shape), rng)
        else:
            z = haar_rows(K, x_0.numel(), rng).reshape(K, *x_0.shape)
        steps = sigma.double() * z.to(x_0.device)
        S = scores_at(denoiser, x_0 + steps.to(x_0.dtype), sigma, self.chunk_size)
        if self.symmetrised:
            S = (S - scores_at(denoiser, x_0 - steps.to(x_0.dtype), sigma, self.chunk_size)) / 2
        values: Tensor = torch.linalg.svdvals(S)
        return values


def scores_at(denoiser: Denoiser, x: Tensor, sigma: Tensor, chunk_size: int = 128) -> Tensor:
    r"""Scores at many points, with shape :math:`(K, d)`, in float64, a chunk at a time."""
    with torch.no_grad():
        rows = [score(denoiser, chunk, sigma) for chunk in torch.split(x, chunk_size)]
    return check_finite(torch.cat(rows).flatten(1).double())


def check_finite(answers: Tensor) -> Tensor:
    r"""The answers, if they are finite: a denoiser is let in for what it says at one point.

    Raises:
        InputError: If there is NaN or infinity.

    Example:
        >>> check_finite(torch.tensor([1.0, float("inf")]))
        Traceback (most recent call last):
        ...
        geomem.errors.InputError: the denoiser returned NaN or infinity at noise around the point...
    """
    if not bool(torch.isfinite(answers).all()):
        raise InputError(
            "the denoiser returned NaN or infinity at noise around the point, though not at the "
            "point itself; check it there, or choose a lower level"
        )
    return answers
