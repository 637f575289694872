r"""The local machine against loops over patches, and where its answer is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, LocalDenoiser, open_npy
from geomem.exact.patches import classes
from geomem.operators import DenoiserJacobian, jacobian_diagonal
from tests.references import level, normal


def brute_force(
    images: Tensor, x: Tensor, sigma: float, side: int, equivariant: bool
) -> tuple[Tensor, Tensor]:
    r"""Mean and variance of each pixel of one image, by loops, in float64."""
    images, x = images.double(), x.double()
    _, _, H, W = images.shape
    r = side // 2

    def reach(i: int, j: int) -> tuple[int, int, int, int]:
        return min(i, r), min(H - 1 - i, r), min(j, r), min(W - 1 - j, r)

    def patch(image: Tensor, i: int, j: int) -> Tensor:
        up, down, left, right = reach(i, j)
        return image[..., i - up : i + down + 1, j - left : j + right + 1].flatten(-3)

    mean, variance = torch.zeros_like(x), torch.zeros_like(x)
    everywhere = [(a, b) for a in range(H) for b in range(W)]
    for i, j in everywhere:
        at = [p for p in everywhere if reach(*p) == reach(i, j)] if equivariant else [(i, j)]
        distances = [(patch(images, *p) - patch(x, i, j)).square().sum(1) for p in at]
        w = (-torch.cat(distances) / (2 * sigma**2)).softmax(0)
        y = torch.cat([images[:, :, a, b] for a, b in at])
        mean[:, i, j] = w @ y
        variance[:, i, j] = w @ (y - w @ y).square()
    return mean, variance


@pytest.mark.parametrize("equivariant", [False, True])
@pytest.mark.parametrize("side", [1, 3, 5, 13])
@pytest.mark.parametrize("shape", [(1, 6, 7), (2, 5, 5)])
def test_means_and_variances_are_those_of_the_loops(
    shape: tuple[int, ...], side: int, equivariant: bool
) -> None:
    images = normal(0, 30, *shape)
    for sigma in (0.02, 0.3, 3.0):
        x = images[0] + sigma * normal(1, *shape)
        mean, variance = brute_force(images, x, sigma, side, equivariant)
        local = LocalDenoiser(images, side, equivariant=equivariant)
        found = local.posterior(x[None], level(sigma)[None], variance=True)
        torch.testing.assert_close(found.mean[0, 0], mean, atol=1e-9, rtol=0)
        torch.testing.assert_close(found.variance[0, 0], variance, atol=1e-9, rtol=0)


@pytest.mark.parametrize("equivariant", [False, True])
def test_float32_is_right_to_a_millionth(equivariant: bool) -> None:
    images = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    local = LocalDenoiser(images, 3, equivariant=equivariant)
    for sigma in (0.01, 0.1, 1.0, 10.0):
        x = images[0] + sigma * normal(1, 1, 8, 8).float()
        mean, _ = brute_force(images, x, float(torch.tensor(sigma)), 3, equivariant)
        found = local(x[None], torch.tensor(sigma))[0]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), mean, atol=1e-6, rtol=0)


def test_float32_is_right_for_thousands_of_patches_of_one_background() -> None:
    # Sums of 18,000 weights in float32 were off by 4e-7 here, by 4e-6 among 160,000.
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(60, 1, 20, 20, generator=rng).gt(0.9).float() * 2 - 1
    x = images[:1] + 0.4 * torch.randn(1, 1, 20, 20, generator=rng)
    sigmas = torch.tensor([0.2, 0.4, 1.0])
    exact = LocalDenoiser(images.double(), 3, equivariant=True).posterior(x.double(), sigmas)
    found = LocalDenoiser(images, 3, equivariant=True).posterior(x, sigmas)
    torch.testing.assert_close(found.mean.double(), exact.mean, atol=2.5e-7, rtol=0)


def test_a_constant_added_to_all_images_is_added_to_the_answer() -> None:
    images = normal(0, 50, 1, 6, 6)
    x = images[:1] + 0.1 * normal(1, 1, 1, 6, 6)
    for equivariant in (False, True):
        near = LocalDenoiser(images, 3, equivariant=equivariant)(x, level(0.1))
        far = LocalDenoiser(images + 1e5, 3, equivariant=equivariant)(x + 1e5, level(0.1))
        torch.testing.assert_close(far - 1e5, near, atol=1e-6, rtol=0)


def test_patches_as_large_as_the_image_are_the_empirical_denoiser() -> None:
    images, x = normal(0, 40, 1, 5, 6), normal(1, 3, 1, 5, 6)
    sigmas = torch.logspace(-1, 1, 4).double()
    known = EmpiricalDenoiser(images).posterior(x, sigmas).mean
    for equivariant in (False, True):
        found = LocalDenoiser(images, 11, equivariant=equivariant).posterior(x, sigmas).mean
        torch.testing.assert_close(found, known, atol=1e-9, rtol=0)


def test_patches_of_one_pixel_are_scalars() -> None:
    images, x = normal(0, 40, 1, 4, 4), normal(1, 2, 1, 4, 4)
    sigma = level(0.4)
    everywhere = EmpiricalDenoiser(images.reshape(-1, 1))(x.reshape(-1, 1), sigma)
    found = LocalDenoiser(images, 1, equivariant=True)
    # The border cuts no patch of one pixel: all positions are one class.
    torch.testing.assert_close(found(x, sigma), everywhere.reshape(x.shape), atol=1e-9, rtol=0)
    here = EmpiricalDenoiser(images[:, 0, 1, 2, None])(x[:, 0, 1, 2, None], sigma)
    local = LocalDenoiser(images, 1)(x, sigma)[:, 0, 1, 2, None]
    torch.testing.assert_close(local, here, atol=1e-9, rtol=0)


def test_independent_halves_make_images_that_nobody_had() -> None:
    # Planted: left and right halves independent. A patch that sees one half alone denoises
    # an image of a new pair as well as if it had been there; the whole image cannot.
    left, right = normal(0, 12, 1, 6, 6), normal(1, 12, 1, 6, 6)
    images = torch.cat([left, right], 3)
    new = torch.cat([left[:1], right[5:6]], 3)
    x, sigma = new + 0.05 * normal(2, 1, 1, 6, 12), level(0.05)
    local = LocalDenoiser(images, 5)(x, sigma)
    inside = [0, 1, 2, 3, 8, 9, 10, 11]  # columns whose patches do not see both halves
    torch.testing.assert_close(local[..., inside], new[..., inside], atol=1e-6, rtol=0)
    assert (EmpiricalDenoiser(images)(x, sigma) - new).abs().max() > 1
    assert (LocalDenoiser(images, 23)(x, sigma) - new).abs().max() > 1


def test_what_was_seen_elsewhere_is_known_to_the_equivariant_one_alone() -> None:
    images = normal(0, 8, 1, 12, 12)
    moved = images[:1].roll((1, 2), (2, 3))
    x, sigma = moved + 0.05 * normal(1, 1, 1, 12, 12), level(0.05)
    middle = (..., slice(4, 10), slice(5, 10))  # the patch lies inside, before and after
    equivariant = LocalDenoiser(images, 3, equivariant=True)(x, sigma)
    torch.testing.assert_close(equivariant[middle], moved[middle], atol=1e-6, rtol=0)
    assert (LocalDenoiser(images, 3)(x, sigma)[middle] - moved[middle]).abs().max() > 0.5


def test_shifted_images_give_shifted_answers_inside() -> None:
    images, x = normal(0, 20, 1, 10, 10), normal(1, 1, 1, 10, 10)
    D, sigma = LocalDenoiser(images, 3, equivariant=True), level(0.5)
    found, moved = D(x, sigma), D(x.roll(1, 3), sigma)
    torch.testing.assert_close(moved[..., 1:9, 2:9], found[..., 1:9, 1:8])


def test_a_permutation_and_a_repetition_of_the_images_change_nothing() -> None:
    images, x = normal(0, 30, 1, 6, 6), normal(1, 2, 1, 6, 6)
    for equivariant in (False, True):
        one = LocalDenoiser(images, 3, equivariant=equivariant)(x, level(0.5))
        again = torch.cat([images.flip(0), images])
        other = LocalDenoiser(again, 3, equivariant=equivariant)(x, level(0.5))
        torch.testing.assert_close(one, other)


def test_the_classes_hold_each_position_once() -> None:
    for H, W, side in ((6, 7, 3), (5, 5, 1), (4, 9, 7), (5, 5, 21)):
        found = torch.cat([p.index(W, torch.device("cpu")) for p in classes(H, W, side)])
        assert sorted(found.tolist()) == list(range(H * W))
    assert len(classes(28, 28, 5)) == 25
    assert max(p.count for p in classes(28, 28, 5)) == 24**2


# ------------------------------------------------------------------------------ Jacobians


@pytest.mark.parametrize("equivariant", [False, True])
def test_the_jacobian_is_that_of_autograd_along_any_direction(equivariant: bool) -> None:
    images, x, sigma = normal(0, 25, 2, 5, 4), normal(1, 2, 2, 5, 4), level(0.7)
    D = LocalDenoiser(images, 3, equivariant=equivariant)
    U = normal(2, 40, 21)
    answered = jacobian_diagonal(D, x, sigma, U)
    pixels = D.posterior(x, sigma[None], variance=True).variance[0] / sigma**2
    for k in range(2):
        J = torch.autograd.functional.jacobian(lambda y: D(y[None], sigma)[0], x[k])
        J = J.reshape(40, 40)
        torch.testing.assert_close(answered[k], (U * (J @ U)).sum(0), atol=1e-9, rtol=0)
        torch.testing.assert_close(pixels[k].flatten(), J.diagonal(), atol=1e-9, rtol=0)
        operator = DenoiserJacobian(D, x[k], sigma)
        torch.testing.assert_close(operator.dense(), J, atol=1e-9, rtol=0)
    assert (J - J.T).abs().max() > 1e-3  # each pixel has a posterior of its own


def test_derivatives_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomem.compute.memory.available_memory", lambda: 1e4)
    D, x = LocalDenoiser(normal(0, 25, 1, 5, 5), 3), normal(1, 1, 1, 5, 5)
    D(x, level(0.5))
    with pytest.raises(InputError, match="jacobian_diagonal"):
        D(x.requires_grad_(), level(0.5))


# ------------------------------------------------------------------ levels, batches, files


def test_each_level_has_the_patch_of_its_nearest_level() -> None:
    images, x = normal(0, 30, 1, 6, 6), normal(1, 2, 1, 6, 6)
    D = LocalDenoiser(images, [(0.1, 1), (1.0, 5)])
    sigmas = torch.tensor([0.01, 0.3, 0.33, 4.0]).double()
    assert D.sides(sigmas).tolist() == [1, 1, 5, 5]
    together = D.posterior(x, sigmas).mean
    for sigma, mean, side in zip(sigmas, together, (1, 1, 5, 5), strict=True):
        torch.testing.assert_close(mean, LocalDenoiser(images, side)(x, sigma))
    per_image = torch.stack([sigmas, sigmas.flip(0)], 1)
    mixed = D.posterior(x, per_image).mean
    torch.testing.assert_close(mixed[:, 0], together[:, 0])
    torch.testing.assert_close(mixed[:, 1], together.flip(0)[:, 1])
    torch.testing.assert_close(D(x, sigmas[[0, 3]])[1], together[3, 1])


@pytest.mark.parametrize("equivariant", [False, True])
def test_neither_chunks_nor_files_change_the_answer(
    equivariant: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, x = normal(0, 60, 1, 6, 6), normal(1, 2, 1, 6, 6)
    sigmas = torch.tensor([0.05, 0.5, 5.0]).double()
    known = LocalDenoiser(images, 3, equivariant=equivariant).posterior(x, sigmas).mean
    monkeypatch.setattr("geomem.exact.patches.PAIRS", 300)
    np.save(tmp_path / "images.npy", images.numpy())
    source = open_npy(tmp_path / "images.npy")
    found = LocalDenoiser(source, 3, equivariant=equivariant).posterior(x, sigmas).mean
    torch.testing.assert_close(found, known, atol=1e-12, rtol=0)


def test_images_without_a_channel_axis_and_integers() -> None:
    images = torch.randint(256, (30, 6, 6), generator=torch.Generator().manual_seed(0))
    x = images[:2].float() + 3
    flat = LocalDenoiser(images.to(torch.uint8), 3)(x, torch.tensor(9.0))
    full = LocalDenoiser(images[:, None].double(), 3)(x[:, None], torch.tensor(9.0))
    assert flat.shape == (2, 6, 6)
    torch.testing.assert_close(flat, full[:, 0], atol=2e-4, rtol=0)


def test_the_patch_is_chosen_where_the_data_are_local() -> None:
    # Independent pixels: a neighbour tells nothing, and a patch that has it fits worse.
    pixels, held_out = normal(0, 200, 1, 5, 5).sign(), normal(1, 20, 1, 5, 5).sign()
    sigmas = torch.tensor([0.5, 1.0]).double()
    local = LocalDenoiser.fit(pixels, held_out, sigmas, patches=(1, 3, 5))
    assert local.patch == [(0.5, 1), (1.0, 1)]
    assert local.held_out_errors is not None
    assert local.held_out_errors.shape == (2, 3)
    z = local.held_out_errors
    assert (z[:, 0] < z[:, 1]).all()
    # One number for a whole image: the larger the patch the better.
    flat = normal(0, 200, 1, 1, 1).sign().expand(-1, 1, 5, 5).contiguous()
    others = normal(1, 20, 1, 1, 1).expand(-1, 1, 5, 5) * 1e-6 + flat[:20]
    local = LocalDenoiser.fit(flat, others, sigmas)
    assert [side for _, side in local.patch] == [9, 9]  # type: ignore[union-attr]


def test_bad_input_is_told_what_to_do() -> None:
    images, x = normal(0, 10, 1, 5, 5), normal(1, 2, 1, 5, 5)
    for patch in (0, 2, -3, 3.0, "3", [], [(0.1, 2)], [(0.0, 3)], [3], [("a", 3)]):
        with pytest.raises(InputError, match=r"`patch` is "):
            LocalDenoiser(images, patch)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"pass images, with shape \(N, \*, H, W\)"):
        LocalDenoiser(normal(0, 10, 25), 3)
    with pytest.raises(InputError, match="a query has shape"):
        LocalDenoiser(images, 3)(x[..., :4], level(1.0))
    with pytest.raises(InputError, match="columns of 25 coordinates"):
        LocalDenoiser(images, 3).jacobian_diagonal(x, level(1.0), normal(0, 24, 2))
    assert LocalDenoiser(images, 3)(x[:0], level(1.0)).shape == (0, 1, 5, 5)
    with pytest.raises(InputError, match="NaN"):
        LocalDenoiser(images, 3)(x * math.nan, level(1.0))
    with pytest.raises(InputError, match="levels"):
        LocalDenoiser(images, 3)(x, level(0.0))
    with pytest.raises(InputError, match="1 of the 2 images of `held_out` are among"):
        LocalDenoiser.fit(images, torch.cat([x[:1], images[:1]]), torch.ones(1))
    with pytest.raises(InputError, match="`sigmas`"):
        LocalDenoiser.fit(images, x, torch.tensor([-1.0]))
