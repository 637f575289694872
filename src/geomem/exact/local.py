r"""The exact denoiser of a network that is local: each pixel from the patch around it alone.

A convolutional network of receptive field k cannot see more of an image than a k x k patch
about each pixel, and at small levels it uses even less. The best such denoiser of given images
is known without any training, the posterior mean of a pixel given its patch,

.. math:: D_p(x, \sigma) = \sum_i w_i \, x_{i, p} \, , \qquad
    w_i \propto \exp \left( - \frac{|x_{\Omega_p} - x_{i, \Omega_p}|^2}{2 \sigma^2} \right) \, ,

over the images i at the same position, or, for one that is also blind for where it is, over
their patches at all positions. Unless a patch is the whole image it mixes images, pixel by
pixel: a null model of what convolutional networks make of few images without any of them.

At the border a patch ends where the image ends. A network that pads with zeros sees where that
is, so patches are compared with those that the border cuts in the same way: inside with all
positions inside, at an edge with those of the same row, in a corner with the same position.

References:
    | Kamb & Ganguli, An analytic theory of creativity in convolutional diffusion models,
      PMLR 267 (2025): the local and the equivariant local score machine, with borders
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from geomem.arguments import Values, Whole, checked, shown
from geomem.compute.progress import Forecast
from geomem.errors import InputError
from geomem.exact.blocks import Blocks, as_blocks
from geomem.exact.patches import AnyPlace, SamePlace, groups
from geomem.exact.queries import (
    centre_of,
    checked_queries,
    exactly,
    level_rows,
    needs_derivatives,
)
from geomem.stats import torch_rng

Images = Tensor | np.ndarray[Any, Any] | Blocks | Path | str | Sequence[Path | str]
# exp of less is a slow number in float32, or none, and nothing beside 1.
_SMALLEST = {torch.float32: -80.0, torch.float64: -700.0}
# What autograd keeps of each pair of a pixel and a patch at each level, in bytes.
_KEPT = 64
# Directions at a time, each a field as large as the distances.
_COLUMNS = 16


@dataclass(frozen=True)
class LocalPosterior:
    r"""What patches tell about the pixels in their middle.

    Attributes:
        mean: The posterior means, with shape :math:`(T, B, *)`.
        variance: The posterior variances, with the same shape, in float64; over ``sigma²`` they
            are the Jacobian's diagonal in the basis of pixels. Empty where not asked for.
    """

    mean: Tensor
    variance: Tensor


@checked
class LocalDenoiser:
    r"""Exact denoiser of images that looks at the patch around each pixel alone.

    Arguments:
        images: The images, with shape :math:`(N, *, H, W)`: a tensor, a memory-mapped array,
            paths of ``.npy`` files, or any :class:`~geomem.exact.blocks.Blocks`.
        patch: The side of the patches, odd; or pairs of a level and the side there, of which
            the level nearest in ln sigma counts: see :meth:`fit`. From 2 max(H, W) - 1 on it is
            the whole image from every pixel.
        equivariant: Whether a patch is compared with those at all positions that the border
            cuts in the same way, or with those at its own position alone.

    Raises:
        InputError: If there are no images or they are not finite, or a side is not odd.

    Note:
        At the same position squared distances are sums of squared differences, right at any
        level. Over positions they are products in float64, which leave an error of about
        ``1e-16 |patch|²/sigma²`` in an exponent.

    Example:
        Patches of one pixel make new images of two, where those of three hesitate.

        >>> images = torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]]])
        >>> x, sigma = torch.tensor([[[0.1, 0.9]]]), torch.tensor(0.1)
        >>> LocalDenoiser(images, patch=1)(x, sigma)
        tensor([[[0., 1.]]])
        >>> LocalDenoiser(images, patch=3)(x, sigma)
        tensor([[[0.5000, 0.5000]]])
    """

    def __init__(
        self,
        images: Images,
        patch: int | Sequence[tuple[float, int]],
        *,
        equivariant: bool = False,
    ) -> None:
        self.source = as_blocks(images)
        if len(self.source.item_shape) < 2:
            raise InputError(
                f"`images` holds points of shape {self.source.item_shape}; "
                "pass images, with shape (N, *, H, W)"
            )
        whole = (int, np.integer)
        try:
            table = [(1.0, patch)] if isinstance(patch, whole) else [(s, k) for s, k in patch]
            fine = all(s > 0 and isinstance(k, whole) and k > 0 and k % 2 == 1 for s, k in table)
        except (TypeError, ValueError):
            table, fine = [], False
        if not table or not fine:
            raise InputError(
                f"`patch` is {shown(patch)}; pass an odd side, or pairs of a level above 0 and one"
            )
        self.patch = patch
        self.equivariant = equivariant
        self.held_out_errors: Tensor | None = None
        self._levels = torch.tensor([s for s, _ in table], dtype=torch.float64)
        self._sides = torch.tensor([int(k) for _, k in table])
        # One number for all pixels: patches at different places stay comparable.
        self._middle = centre_of(self.source).mean()

    @classmethod
    @checked
    def fit(
        cls,
        images: Images,
        held_out: Annotated[Tensor, Values(shape="(n, *)")],
        sigmas: Annotated[Tensor, Values(shape="(T)", above=0.0)],
        *,
        patches: tuple[int, ...] | None = None,
        equivariant: bool = False,
        seed: Annotated[int, Whole(least=0)] = 0,
    ) -> LocalDenoiser:
        r"""With the side that denoises held-out images best, level by level.

        Arguments:
            images: The images that the denoiser is of, with shape :math:`(N, *, H, W)`.
            held_out: Other images of the same kind, with shape :math:`(n, *, H, W)`; a dozen
                do. Each is denoised once at every level with every side.
            sigmas: The levels, with shape :math:`(T)`.
            patches: The K sides to choose from; 1, 3, 5, 9, 15, 25 and so on up to the whole
                image if not given.
            equivariant: Whether patches are compared over positions.
            seed: The seed of the noise, which is the same at all levels and for all sides.

        Returns:
            The denoiser. Its ``patch`` is the choice, and ``held_out_errors`` the mean of
            ``|D - x_0|²/sigma²`` that it was made by, with shape :math:`(T, K)`.

        Raises:
            InputError: If a held-out image is among the images: the whole image would be best.
        """
        source = as_blocks(images)
        parts = itertools.chain(source.blocks(4096), [held_out.flatten(1)])
        # Hashes: as bytes they would be a second set of images in memory.
        *known, new = [[hash(r.tobytes()) for r in p.double().numpy(force=True)] for p in parts]
        again = len(set(new).intersection(*[set().union(*known)]))
        if again:
            raise InputError(
                f"{again} of the {len(held_out)} images of `held_out` are among `images`, where "
                "the largest patch is always best; hold them out of `images`"
            )
        sides = list(patches or ())
        if not sides:
            whole = 2 * max(source.item_shape[-2:]) - 1
            sides = [k for k in (1, 3, 5, 9, 15, 25, 41, 69, 115, 191) if k < whole] + [whole]
        rng = torch_rng(seed, "held-out patches")
        z = torch.randn(held_out.shape, generator=rng, dtype=torch.float64).to(held_out)
        errors = torch.empty(len(sigmas), len(sides), dtype=torch.float64)
        for k, side in enumerate(sides):
            denoiser = cls(source, side, equivariant=equivariant)
            for t, sigma in enumerate(sigmas.to(held_out)):
                error = (denoiser(held_out + sigma * z, sigma) - held_out).double() / sigma
                errors[t, k] = error.square().flatten(1).sum(1).mean()
        best = [(float(s), sides[k]) for s, k in zip(sigmas, errors.argmin(1), strict=True)]
        denoiser = cls(source, best, equivariant=equivariant)
        denoiser.held_out_errors = errors
        return denoiser

    def sides(self, sigmas: Tensor) -> Tensor:
        r"""The side of the patch at levels of any shape, with that shape."""
        away = sigmas.detach().double().cpu()[..., None].log() - self._levels.log()
        return self._sides[away.abs().argmin(-1)]

    # ------------------------------------------------------------------ posteriors

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.posterior(x, sigma.expand(len(x))[None]).mean[0]

    def posterior(self, x: Tensor, sigmas: Tensor, *, variance: bool = False) -> LocalPosterior:
        r"""Means, and variances where asked, at several levels for one pass over the patches.

        Arguments:
            x: The noisy images, with shape :math:`(B, *, H, W)`.
            sigmas: The levels, with shape :math:`(T)` or :math:`(T, B)`.
            variance: Whether variances are wanted; the weights are then in float64.

        Returns:
            The posterior of each pixel given its patch; ``mean`` in the dtype of ``x``.

        Raises:
            InputError: If shapes do not match, ``x`` is not finite, a level is not above 0, or
                someone differentiates and what that takes does not fit into memory.
        """
        levels = level_rows(sigmas, x)
        T, B = levels.shape
        slow = needs_derivatives(x, sigmas)
        if slow:
            pixels = math.prod(x.shape[1:])
            pairs = pixels * self.source.num_samples * (pixels if self.equivariant else 1)
            Forecast(0, _KEPT * B * T * pairs).check_memory(
                "ask `jacobian_diagonal`, which needs no derivatives, or pass fewer images"
            )
        fine = variance or slow or torch.float64 in (self.source.dtype, x.dtype)
        with nullcontext() if slow else exactly(x.device):
            queries = self._queries(x)
            C = queries.shape[1]
            mean = queries.new_zeros(T, B, *queries.shape[1:]).flatten(3)
            spread = torch.zeros_like(mean) if variance else mean[..., :0]
            features = partial(_moments, order=2 if variance else 1)
            dtype = torch.float64 if fine else torch.float32
            for t, b, rows, sums in self._sums(queries, levels, features, dtype):
                moments = (sums[..., 1:] / sums[..., :1]).mT
                mean[t[:, None], b, :, rows] = moments[:, :C].mT
                if variance:
                    left = (moments[:, C:] - moments[:, :C].square()).clamp(min=0)
                    spread[t[:, None], b, :, rows] = left.mT
            means = (mean + self._middle.to(mean)).reshape(T, *x.shape).to(x.dtype)
        return LocalPosterior(means, spread.reshape(T, *x.shape) if variance else spread)

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor, directions: Tensor) -> Tensor:
        r"""Diagonal along directions ``(d, n)``, with shape :math:`(B, n)`, in float64.

        Each pixel follows its own patch, so ``dD_p/dx_q`` is their covariance given the patch
        of p, over ``sigma²``, for q in that patch, and 0 elsewhere: not a symmetric matrix. For
        the basis of pixels ask :meth:`posterior`, which answers at all levels at once.

        Raises:
            InputError: If the directions are no columns of this many coordinates.
        """
        if directions.ndim != 2 or len(directions) != math.prod(x.shape[1:]):
            raise InputError(
                f"`directions` has shape {tuple(directions.shape)}; pass columns of "
                f"{math.prod(x.shape[1:])} coordinates"
            )
        levels = level_rows(sigma.expand(len(x))[None], x)
        with exactly(x.device):
            queries = self._queries(x)
            C = queries.shape[1]
            found = queries.new_zeros(len(x), directions.shape[1])
            for k in torch.split(torch.arange(directions.shape[1]), _COLUMNS):
                fields = directions[:, k].T.to(queries).reshape(-1, *queries.shape[1:])
                features = partial(_products, fields=fields)
                for _, b, rows, sums in self._sums(queries, levels, features, torch.float64):
                    moments = sums[0, :, 1:] / sums[0, :, :1]
                    y, v = moments[:, :C], moments[:, C : C + len(k)]
                    both = moments[:, C + len(k) :].reshape(-1, C, len(k))
                    covariance = both - y[:, :, None] * v[:, None]
                    u = fields.flatten(2)[..., rows]
                    found[b, k] += torch.einsum("rcn,ncr->n", covariance, u)
        return found / levels[0, :, None] ** 2

    def _queries(self, x: Tensor) -> Tensor:
        H, W = self.source.item_shape[-2:]
        middle = self._middle.to(x.device)
        rows = checked_queries(x, self.source.item_shape) - middle
        return rows.reshape(len(x), rows.shape[1] // (H * W), H, W)

    def _sums(
        self,
        queries: Tensor,
        levels: Tensor,
        features: Callable[[SamePlace | AnyPlace], Tensor],
        dtype: torch.dtype,
    ) -> Iterator[tuple[Tensor, int, Tensor, Tensor]]:
        r"""Weighted sums of 1 and of features over all patches, relative to the nearest one.

        Yields the numbers of levels (t), of the query, of R positions, and the sums, with shape
        (t, R, 1 + f), in float64.
        """
        sides = self.sides(levels)
        for side in sorted(set(sides.flatten().tolist())):
            asked = [b for b in range(len(queries)) if bool((sides[:, b] == side).any())]
            at = {b: (sides[:, b] == side).nonzero()[:, 0].to(levels.device) for b in asked}
            middle = float(self._middle)
            for rows, parts in groups(self.source, middle, side, self.equivariant, queries.device):
                known: dict[int, tuple[Tensor, Tensor]] = {}
                for part in parts:
                    F = features(part).to(dtype)
                    for b in asked:
                        rates = 1 / (2 * levels[at[b], b] ** 2)
                        new = _weigh(part.distances(queries[b]), F, rates)
                        known[b] = _merge(known[b], new, rates) if b in known else new
                for b in asked:
                    yield at[b], b, rows, known[b][1]


def _moments(part: SamePlace | AnyPlace, order: int) -> Tensor:
    y = part.middles
    return y if order == 1 else torch.cat([y, y.square()])


def _products(part: SamePlace | AnyPlace, fields: Tensor) -> Tensor:
    along = torch.stack([part.along(u) for u in fields])
    y = part.middles.expand(-1, *along.shape[1:])
    return torch.cat([y, along, (y[:, None] * along).flatten(0, 1)])


def _weigh(distances: Tensor, F: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    r"""The least of distances (R, m) a row, and sums (T, R, 1 + f) of 1 and F with weights."""
    nearest = distances.detach().amin(1)
    excess = (distances - nearest[:, None]).to(F.dtype)
    largest, smallest = float(excess.detach().amax()), _SMALLEST[F.dtype]
    shared = F.shape[1] == 1  # by all rows
    rows = torch.cat([torch.ones_like(F[:1, 0]), F[:, 0]]).double() if shared else F
    slow = torch.is_grad_enabled()
    free, wide = None if slow else torch.empty_like(excess), torch.empty_like(distances)
    sums = []
    for rate in rates.to(F.dtype):
        w = torch.mul(excess, -rate, out=free)
        if float(rate) * largest > -smallest:
            w.clamp_(min=smallest)
        w.exp_()
        if shared:
            # In float32 a product of few rows is off by 4e-6; this way round it is four times
            # as fast as w @ rows.T.
            sums.append(rows @ (w.double() if slow else wide.copy_(w)).T)
        else:
            sums.append(torch.cat([w.sum(1)[None], torch.linalg.vecdot(w, F)]))
    return nearest, torch.stack(sums).mT.double()


def _merge(
    one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], rates: Tensor
) -> tuple[Tensor, Tensor]:
    nearest = torch.minimum(one[0], other[0])
    scales = [((nearest - low) * rates[:, None]).exp()[..., None] for low, _ in (one, other)]
    return nearest, scales[0] * one[1] + scales[1] * other[1]
