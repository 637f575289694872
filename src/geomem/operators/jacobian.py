r"""The Jacobian of a denoiser as an operator: products by reverse mode, never formed unasked.

For an exact denoiser :math:`\nabla_x D = \mathrm{Cov}[x_0 \mid x] / \sigma^2` (a companion of
Tweedie's formula), so an eigenvalue near 1 is a direction in which the model still varies
and one near 0 a direction in which it does not. Reverse mode throughout: ``jvp`` does not
pass through attention or strided norms; the vjp of the vjp does, at two to three times the
price of a vjp. Attention computes by its plain formula during these products, and otherwise as
before. torch knows this choice for the whole process only: attention that another thread
computes meanwhile goes the plain way, too, slower and the same up to rounding.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from geomem.arguments import Number, Values, Whole, check, checked
from geomem.checks import admit, check_answer
from geomem.compute.products import float32_products
from geomem.denoiser import Denoiser, is_exact
from geomem.errors import InputError
from geomem.operators.linear import LinearOperator, median_seconds, random_signs
from geomem.stats import Estimate, torch_rng

Strategy = Literal["shared", "repeated"]
# More cotangents at a time gain nothing on U-Nets and cost memory; small networks, which spend
# their time in calls, are up to twice as fast with as many as this memory holds.
_COLUMNS, _SMALL = 98, 2**26


@contextmanager
def plain_formulas() -> Iterator[None]:
    r"""Attention by its plain formula, and products in full float32."""
    with sdpa_kernel(SDPBackend.MATH), float32_products():
        yield


def one_point(x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""A point and its level as tensors of floats, whatever numbers they were given as.

    Example:
        >>> one_point([1, 2], 0.5)
        (tensor([1., 2.]), tensor(0.5000))
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        x = check("x", x, Annotated[Tensor, Values()])
    if not isinstance(sigma, Tensor):
        level = check("sigma", sigma, Annotated[float, Number(above=0.0)])
        sigma = torch.tensor(level, dtype=x.dtype, device=x.device)
    return x, sigma if sigma.is_floating_point() else sigma.to(x)


@checked
class DenoiserJacobian(LinearOperator):
    r"""Jacobian of a denoiser at a point, never formed unless asked.

    For an exact denoiser it is the posterior covariance in units of the noise,

    .. math:: \nabla_x D(x, \sigma) = \frac{\mathrm{Cov}[x_0 \mid x]}{\sigma^2} \, ,

    hence symmetric, with eigenvalues close to 1 along the directions in which the model
    still varies and close to 0 along those that it has lost. A trained network need not be
    symmetric; how far it is from it is worth reporting.

    Arguments:
        denoiser: The denoiser :math:`D`, any callable that torch can differentiate.
        x: The point, with shape :math:`(*)`.
        sigma: The noise level, a number or a tensor of shape :math:`()`.
        chunk_size: How many columns are computed at a time; from ``max_bytes`` if not given.
            It bounds memory and changes the result by rounding only.
        max_bytes: Memory for the activations of one chunk. One column takes what a forward
            pass of one point is seen to keep.
        strategy: ``shared``: one forward pass, and a batch of cotangents pulled back through
            it. ``repeated``: the point repeated along the batch, one ordinary backward pass;
            it needs nothing of :mod:`torch.func`, and is what ``shared`` turns to for code
            that cannot be batched. Which is faster depends on the machine, by up to a factor of
            two: :meth:`tuned` measures.

    Raises:
        InputError: From the products: at the first, if the denoiser cannot be measured, see
            :func:`geomem.checks.admit`; at any, for NaN or infinity, or an answer that is
            detached from its input.

    Example:
        >>> keep_first = lambda x, sigma: x * torch.tensor([1.0, 0.0])
        >>> DenoiserJacobian(keep_first, torch.zeros(2), torch.tensor(2.0)).dense()
        tensor([[1., 0.],
                [0., 0.]])
    """

    def __init__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        sigma: Tensor | float,
        chunk_size: Annotated[int | None, Whole(least=1)] = None,
        *,
        max_bytes: Annotated[float, Number(above=0.0)] = 2**30,
        strategy: Strategy = "shared",
    ) -> None:
        x, sigma = one_point(x, sigma)
        self.denoiser, self.x, self.sigma = denoiser, x.detach(), sigma
        self.chunk_size, self.max_bytes, self.strategy = chunk_size, max_bytes, strategy
        self.size = x.numel()
        self.like = self.x.new_empty(0)
        self._admitted = False
        shared = [(True, self._shared), (False, self._shared)] if strategy == "shared" else []
        self._ways = [*shared, (False, self._repeated)]

    # ------------------------------------------------------------------- products

    def matmat(self, V: Tensor) -> Tensor:
        return self._columns(V, push=True)[0]

    def rmatmat(self, U: Tensor) -> Tensor:
        return self._columns(U, pull=True)[0]

    def both(self, V: Tensor) -> tuple[Tensor, Tensor]:
        pushed, pulled = self._columns(V, push=True, pull=True)
        return pushed, pulled

    def dense(self) -> Tensor:
        # One reverse pass a row, not two, and no identity matrix at once.
        return torch.cat([rows for _, rows in self.rows(8 * self._chunk)])

    def _columns(self, V: Tensor, push: bool = False, pull: bool = False) -> list[Tensor]:
        if V.ndim != 2 or len(V) != self.size:
            raise InputError(
                f"products are with {self.size} rows, one a coordinate, got {tuple(V.shape)}"
            )
        if V.shape[1] == 0:
            return [self.like.new_empty(self.size, 0)] * (push + pull)
        if not self._admitted:  # once an operator: looking for networks takes time
            admit(self.denoiser, self.x, self.sigma)
            self._admitted = True
        columns = V.detach().T.reshape(-1, *self.x.shape).to(self.x)
        # Attention's fast kernels have no second derivative and no rule for batches of them.
        with plain_formulas():
            products = [p.flatten(1).T for p in self._first_that_works(columns, push, pull)]
        if not all(bool(torch.isfinite(product).all()) for product in products):
            raise InputError(_NOT_FINITE)
        if not all(bool(product.any()) for product in products) and bool(V.any()):
            _check_attached(self.denoiser, self.x, self.sigma)
        return products

    def _first_that_works(self, columns: Tensor, push: bool, pull: bool) -> list[Tensor]:
        # Without gradient mode torch takes fused kernels for the derivatives of norms,
        # which do not all know batches; what is left knows everything.
        while True:
            fused, passes = self._ways[0]
            try:
                with torch.set_grad_enabled(not fused):
                    return passes(columns, push, pull)
            except RuntimeError:
                if len(self._ways) == 1:
                    raise
                del self._ways[0]

    def _shared(self, columns: Tensor, push: bool, pull: bool) -> list[Tensor]:
        y, back = _vjp(lambda x: self.denoiser(x[None], self.sigma)[0], self.x)
        check_answer(y[None], self.x[None], self.sigma)
        # The transpose of the pullback is the pushforward; it does not depend on where the
        # pullback is taken, so zero serves.
        ways = [_vjp(back, torch.zeros_like(y))[1]] if push else []
        ways += [back] if pull else []
        part = self._part(len(columns))
        return [vmap(way, chunk_size=part)(columns).detach() for way in ways]

    def _repeated(self, columns: Tensor, push: bool, pull: bool) -> list[Tensor]:
        found = []
        for chunk in torch.split(columns, self._part(len(columns))):
            x = self.x.expand(len(chunk), *self.x.shape).clone().requires_grad_()
            y = check_answer(self.denoiser(x, self.sigma), x, self.sigma)
            u = chunk.clone().requires_grad_(push)
            pulled = _pull(y, x, u, create_graph=push)
            pushed = [_pull(pulled, u, chunk)] if push else []
            found.append(pushed + ([pulled.detach()] if pull else []))
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    # --------------------------------------------------------------------- checks

    def check(self, products: int = 4, seed: int = 0) -> Estimate:
        r"""Relative error of a few products, against a float64 copy of the denoiser.

        .. math:: \|(J - J_{64})^\top v\| / \|J_{64}^\top v\| \, , \quad v_i = \pm 1

        For a float32 network a few 1e-7 is rounding; 1e-3 is a network that computes in half
        precision, and eigenvalues below that are noise.

        Arguments:
            products: How many columns are compared.
            seed: The seed of their signs.

        Raises:
            InputError: If there is no float64 copy: the denoiser is a plain function that
                holds its networks where they cannot be seen.
        """
        twin: Denoiser = _doubled(self.denoiser)
        try:
            with torch.no_grad():
                y = twin(self.x[None].double(), self.sigma.double())
        except RuntimeError:
            y = self.x
        if y.dtype != torch.float64:
            raise InputError(
                "this denoiser has no float64 copy; pass an nn.Module, or an object that holds "
                "its networks as attributes"
            )
        V = random_signs(self.size, products, torch_rng(seed, "check"))
        exact = DenoiserJacobian(
            twin, self.x.double(), self.sigma.double(), strategy=self.strategy
        ).rmatmat(V.to(self.x.device))
        errors = (self.rmatmat(V.to(self.like)).double() - exact).norm(dim=0)
        norms = exact.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
        return Estimate.of_mean((errors / norms).numpy(force=True))

    # ----------------------------------------------------------------------- cost

    @cached_property
    def _kept(self) -> float:
        # Weights are kept whatever the batch, so a second point shows what one point keeps.
        one, two = (_kept_bytes(self.denoiser, self.x, self.sigma, b) for b in (1, 2))
        return float(max(two - one, self.x.nbytes))

    def column_bytes(self) -> float:
        # The activations, their gradients, and both once more in the pass through the pass.
        return 4 * self._kept

    @cached_property
    def _chunk(self) -> int:
        if self.chunk_size is not None:
            return self.chunk_size
        most = max(_COLUMNS, int(_SMALL / self.column_bytes()))
        return max(1, min(most, int(self.max_bytes / self.column_bytes())))

    def _part(self, columns: int) -> int:
        # Parts of one size: 100 columns in chunks of 98 are two of 50, not 98 and 2.
        return -(-columns // -(-columns // self._chunk))

    def columns_at_a_time(self) -> float:
        return self._chunk

    def tuned(self) -> DenoiserJacobian:
        r"""The same operator with the strategy that is faster here, from a few products."""
        signs = random_signs(self.size, min(self.size, self._chunk), torch_rng(0, "timing"))
        V = signs.to(self.like)
        ways = [
            DenoiserJacobian(
                self.denoiser,
                self.x,
                self.sigma,
                self._chunk,
                max_bytes=self.max_bytes,
                strategy=strategy,
            )
            for strategy in get_args(Strategy)
        ]
        took = [math.inf, math.inf]
        for k in (0, 1, 0, 1, 0, 1):  # in turns: a busy moment of the machine hits both
            took[k] = min(took[k], median_seconds(functools.partial(ways[k].rmatmat, V), 1))
        return ways[took[1] < took[0]]


_NOT_FINITE = (
    "the denoiser's derivative is NaN or infinite at this point; look for a square "
    "root or a norm at 0, or pass another point"
)


def _check_attached(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> None:
    # Asked where all products are 0: the answer is constant, collapsed on a point, or detached.
    # A posterior that has collapsed may jump to another point a level away, hardly a tenth.
    if is_exact(denoiser):
        return
    signs = random_signs(x.numel(), 1, torch_rng(0, "constant")).to(x)
    shift = 0.1 * float(sigma) * signs.reshape(x.shape)
    with torch.no_grad():
        here, there = (denoiser(point[None], sigma) for point in (x, x + shift))
    if not torch.equal(here, there):
        raise InputError(
            "the denoiser's answer is detached from its input, so it has no derivative; "
            "remove its torch.no_grad() or .detach(), or use ForwardSoftCount"
        )


def _vjp(fn: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    y, pull = vjp(fn, x)  # type: ignore[misc]  # torch types it as if has_aux were set
    return y, lambda u: pull(u)[0]


def _pull(y: Tensor, x: Tensor, u: Tensor, **options: bool) -> Tensor:
    if not y.requires_grad:  # constant, or detached: the product decides
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(y, x, u, materialize_grads=True, **options)
    return found


def _kept_bytes(denoiser: Denoiser, x: Tensor, sigma: Tensor, batch: int) -> int:
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        # Without its history: a graph that holds its own output by a hook is never freed.
        kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor.detach()

    point = x.expand(batch, *x.shape).clone().requires_grad_()
    with plain_formulas(), torch.enable_grad():
        with saved_tensors_hooks(note, lambda tensor: tensor):
            y = denoiser(point, sigma)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) + y.nbytes


def _doubled(part: Any, depth: int = 6) -> Any:
    # Modules in float64, also those held by an object; everything else is left as it is.
    if isinstance(part, nn.Module):
        return copy.deepcopy(part).double()
    if depth == 0 or not hasattr(part, "__dict__") or isinstance(part, type):
        return part
    new = {name: _doubled(value, depth - 1) for name, value in vars(part).items()}
    if all(new[name] is value for name, value in vars(part).items()):
        return part
    twin = copy.copy(part)
    for name, value in new.items():
        object.__setattr__(twin, name, value)
    return twin


@checked
def jacobian_diagonal(
    denoiser: Denoiser, x: Tensor, sigma: Tensor | float, directions: Tensor
) -> Tensor:
    r"""Diagonal :math:`u^\top \nabla_x D(x, \sigma)\, u` along directions, for a batch.

    One forward pass for the whole batch, then one backward pass a direction. An exact
    denoiser that knows its posterior covariance answers without derivatives.

    Arguments:
        denoiser: The denoiser :math:`D`.
        x: The noisy points, with shape :math:`(B, *)`.
        sigma: The noise level, with shape :math:`()`.
        directions: The vectors :math:`u` as columns, with shape :math:`(d, n)`; shared by
            the batch, or one set a point with shape :math:`(B, d, n)`.

    Returns:
        The diagonal, with shape :math:`(B, n)`, in float64.

    Raises:
        InputError: If a denoiser without an answer of its own cannot be measured, see
            :func:`geomem.checks.admit`, is detached from its input, or has a derivative that
            is not finite.
    """
    if not isinstance(sigma, Tensor):
        sigma = one_point(x, sigma)[1]
    wanted = (len(x), math.prod(x.shape[1:])) if x.ndim > 1 else (0, 0)
    if directions.shape[:-1] not in ((wanted[1],), wanted):
        raise InputError(
            f"`directions` has shape {tuple(directions.shape)} and `x` {tuple(x.shape)}; pass "
            "points of shape (B, *) and directions as columns, (d, n) or (B, d, n)"
        )
    exact = getattr(denoiser, "jacobian_diagonal", None)
    if exact is not None and directions.ndim == 2:
        return exact(x, sigma, directions).double()  # type: ignore[no-any-return]
    U = directions.to(x).expand(len(x), *directions.shape[-2:])
    if U.numel() == 0:
        return torch.zeros(len(x), U.shape[-1], dtype=torch.float64, device=x.device)
    admit(denoiser, x[0].detach(), sigma)
    with plain_formulas(), torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        y = check_answer(denoiser(point, sigma), point, sigma)
        # Points of a batch do not see each other, so one backward pass serves them all.
        columns = [
            _pull(y, point, U[..., k].reshape(y.shape), retain_graph=True).flatten(1)
            for k in range(U.shape[-1])
        ]
    diagonal = [(c * U[..., k]).double().sum(1) for k, c in enumerate(columns)]
    if not all(bool(torch.isfinite(entry).all()) for entry in diagonal):
        raise InputError(_NOT_FINITE)
    if not any(bool(column.any()) for column in columns) and bool(U.any()):
        _check_attached(denoiser, x[0].detach(), sigma)
    return torch.stack(diagonal, dim=1)
