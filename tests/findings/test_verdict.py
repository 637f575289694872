r"""The verdict on denoisers whose truth is known, and what is said where nothing can be."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import geomem
from geomem.denoiser import Denoiser, ProductDenoiser
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.exact.gaussian import GaussianDenoiser
from geomem.findings.numbers import numbers
from geomem.findings.verdict import Verdict, verdict
from geomem.subspaces import principal_angles
from tests.runs.planted import draw, gaussian, planted_audit

# Strong and weak directions in a rotated basis: no axis is a direction of anything.
VARIANCES = torch.tensor([1.0] * 6 + [0.25] * 14, dtype=torch.float64)
DIM = len(VARIANCES)
BASIS = torch.linalg.qr(
    torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
).Q
POPULATION = GaussianDenoiser(
    torch.zeros(DIM, dtype=torch.float64), BASIS @ torch.diag(VARIANCES) @ BASIS.T
)


def points(count: int, seed: int) -> Tensor:
    found: Tensor = draw(VARIANCES, count, seed) @ BASIS.T
    return found


def memorizing(training: Tensor, block: list[int]) -> ProductDenoiser:
    r"""The population everywhere but along a block of directions, where it is the training set."""
    rest = [k for k in range(DIM) if k not in block]
    inside = EmpiricalDenoiser((training @ BASIS)[:, block])
    return ProductDenoiser([(block, inside), (rest, gaussian(VARIANCES[rest]))], BASIS)


def audited(
    model: Denoiser | None = None, *, count: int = 64, seed: int = 0, **more: object
) -> xr.Dataset:
    training, held_out = points(count, 10 * seed + 1), points(count, 10 * seed + 2)
    return planted_audit(
        model=POPULATION if model is None else model,
        controls={},
        training=training,
        held_out=held_out,
        reserved=points(400, 10 * seed + 3),
        seed=seed,
        **more,  # type: ignore[arg-type]
    )


def judged(dataset: xr.Dataset) -> Verdict:
    return verdict(numbers(dataset, permutations=999))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_population_generalizes(seed: int) -> None:
    found = judged(audited(seed=seed))
    assert found.word == "generalization", found.reasons
    assert found.severity == 0
    assert abs(found.information.value) < 4 * found.information.stderr
    assert all(math.isfinite(e.stderr) for e in (found.lost_share, found.worst_share))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_block_of_the_dimension_is_geometric_and_the_block_is_found(seed: int) -> None:
    block = [0, 1, 2, 3]
    dataset = audited(memorizing(points(64, 10 * seed + 1), block), seed=seed)
    known = numbers(dataset, permutations=999)
    found = verdict(known)
    assert found.word == "geometric memorization", found.reasons
    assert not found.of_some_images
    assert found.p_value <= 0.05
    axes = known.lost_direction.isel(subject=found.subject).values
    axes = axes[np.isfinite(axes).any(1)]
    assert len(axes) == len(block)
    # Directions are along the principal ones of the reserved images: back into the space.
    reserved = points(400, 10 * seed + 3)
    vectors = geomem.PrincipalDirections.of(GaussianDenoiser.fit(reserved)).vectors
    lost = vectors @ torch.from_numpy(axes[:, :DIM].T)
    assert float(principal_angles(lost, BASIS[:, block]).max().rad2deg()) < 15


def test_three_strong_directions_are_found_by_the_worst_subspace() -> None:
    found = judged(audited(memorizing(points(64, 1), [0, 1, 2])))
    assert found.word == "geometric memorization"
    assert found.worst_share.value > 0.7


@pytest.mark.parametrize("seed", [0, 1])
def test_the_exact_denoiser_is_full_memorization(seed: int) -> None:
    found = judged(audited(EmpiricalDenoiser(points(64, 10 * seed + 1)), seed=seed))
    assert found.word == "full memorization", found.reasons
    assert found.severity == 2


def test_few_images_of_a_population_are_no_evidence() -> None:
    found = judged(audited(count=9))
    assert found.word == "inconclusive"
    assert "fewer" not in found.reasons[0]
    assert found.units_needed is not None
    assert found.units_needed > 9
    assert "would decide" in found.reasons[-1]


def test_fewer_than_8_groups_a_side_are_no_test() -> None:
    # 16 images, four copies of each: four units, however many images there are.
    groups = {at: [k // 4 for k in range(16)] for at in ("training", "held_out")}
    found = judged(audited(count=16, groups=groups))
    assert found.word == "inconclusive"
    assert found.units == (4, 4)
    assert "at least 8 a side" in found.reasons[0]


def test_overlap_comes_first() -> None:
    model = EmpiricalDenoiser(points(64, 1))
    found = judged(audited(model, declared={"overlap": ["a.png", "b.png"]}))
    assert found.word == "inconclusive"
    assert "a.png, b.png" in found.reasons[0]


def test_what_was_declared_is_a_limit() -> None:
    found = judged(audited(declared={"declared": ["Images were cropped."]}))
    assert found.limits[0] == "Images were cropped."
    assert "no proof" in found.limits[-1]


def test_without_held_out_images_there_is_no_control() -> None:
    dataset = audited().sel(at=["training"])
    found = judged(dataset)
    assert found.word == "inconclusive"
    assert found.reasons[0].startswith("Inconclusive: no control.")
    assert "held-out images" in found.reasons[0]


def test_an_untrained_model_is_underfit_and_not_clean() -> None:
    found = judged(audited(lambda x, sigma: 0.0 * x))
    assert found.word == "inconclusive"
    assert "underfit" in found.reasons[0]


def altered(known: xr.Dataset, **values: object) -> xr.Dataset:
    r"""Numbers with some of them replaced in every row."""
    return known.assign({k: (known[k].dims, np.full(known[k].shape, v)) for k, v in values.items()})


@pytest.fixture(scope="module")
def clean() -> xr.Dataset:
    return numbers(audited(seed=1), permutations=999)


def with_copies(known: xr.Dataset, copies: int, unseen: int) -> xr.Dataset:
    rows = known.sizes["subject"]
    values = {"copies": copies, "copies_of": 256, "unseen_copies": unseen, "unseen_copies_of": 256}
    return known.assign({k: ("subject", np.full(rows, float(v))) for k, v in values.items()})


def test_half_of_the_samples_are_copies_is_full(clean: xr.Dataset) -> None:
    assert verdict(with_copies(clean, 200, 2)).word == "full memorization"


def test_more_copies_than_of_unseen_images_is_not_clean(clean: xr.Dataset) -> None:
    found = verdict(with_copies(clean, 30, 2))
    assert found.word == "inconclusive"
    assert "30 of 256" in found.reasons[0]
    assert verdict(with_copies(clean, 2, 3)).word == "generalization"


def test_no_copies_do_not_clear_a_model(clean: xr.Dataset) -> None:
    known = altered(with_copies(clean, 0, 0), p_value=0.001, p_level=0.001)
    known = altered(known, lost_share=0.5, lost_share_stderr=0.01)
    assert verdict(known).word == "geometric memorization"


def test_single_images_are_counted(clean: xr.Dataset) -> None:
    found = verdict(altered(clean, memorized_images=3.0))
    assert (found.word, found.of_some_images) == ("geometric memorization", True)
    assert str(found) == "geometric memorization of some images (3 of 64)"


def test_few_jacobians_are_no_check_and_are_said_to_be_few(clean: xr.Dataset) -> None:
    unchecked = "The identity of error and Jacobian was not checked"
    limits = verdict(altered(clean, jacobian_images=4.0)).limits
    assert (
        f"{unchecked}: the Jacobian was measured at 4 images of a kind, and it takes 8." in limits
    )
    assert f"{unchecked}: no Jacobian was measured." in verdict(clean).limits


def test_sets_that_are_not_alike_come_before_everything(clean: xr.Dataset) -> None:
    known = altered(clean, p_value=0.001, p_level=0.001, lost_share=0.99)
    found = verdict(known.assign(alike_p_value=((), 0.001)))
    assert found.word == "inconclusive"
    assert "not drawn alike" in found.reasons[0]


def test_bounds_count_only_at_levels_that_are_significant(clean: xr.Dataset) -> None:
    known = altered(clean, p_value=0.001, p_level=0.5, lost_share=0.99, lost_share_stderr=0.01)
    assert verdict(known).word == "inconclusive"
    assert verdict(altered(known, p_level=0.01)).word == "full memorization"


def test_a_verdict_is_about_one_network(clean: xr.Dataset) -> None:
    with pytest.raises(InputError, match="`subject`"):
        verdict(clean, subject=99)
    sweep = clean.assign_coords(kind=("subject", np.array(["learned", "learned"], dtype=object)))
    with pytest.raises(InputError, match="one network"):
        verdict(sweep)


def test_the_same_numbers_give_the_same_verdict_as_json(clean: xr.Dataset) -> None:
    dataset = audited(seed=1)
    texts = {json.dumps(judged(dataset).to_json(), allow_nan=False) for _ in range(2)}
    assert len(texts) == 1
    content = json.loads(texts.pop())
    assert {f.name for f in dataclasses.fields(Verdict)} <= set(content)
    assert content["word"] == "generalization"
    assert content["text"] == "generalization"
    assert geomem.verdict(clean) == verdict(clean)
