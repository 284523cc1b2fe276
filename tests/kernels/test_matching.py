"""Moment matching: known numbers, laws, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irrep
from equivox.geometry.wigner import irreps_matrix
from equivox.kernels.basis3d import TapGrid
from equivox.kernels.matching import BandPenalty, TapSpace, choose_order, match, orthonormal, tap_space
from equivox.kernels.moments import matched_space, moment_conditions
from equivox.kernels.symmetry import point_permutations
from equivox.kernels.transfer import transfer_error

CASES = [f"k{k}_R2_{r}_J{j}" for k, r, js in ((3, 3, 3), (5, 5, 4), (5, 6, 4), (7, 9, 4)) for j in range(js)]


def space_on(points: np.ndarray, degree: int) -> TapSpace:
    return tap_space(tuple((float(x), float(y), float(z)) for x, y, z in points), degree)


def ball_space(size: int, squared_radius: float, degree: int) -> TapSpace:
    positions = TapGrid.for_size(size).positions_mm().numpy()
    return space_on(positions[(positions**2).sum(axis=1) <= squared_radius], degree)


@pytest.mark.parametrize("case", CASES)
def test_matched_functions_agree_with_the_reference(case: str, fixture_path: Callable[[str], Path]) -> None:
    with np.load(fixture_path("steerable/matched_basis.npz")) as stored:
        points, sampled = stored[f"{case}_points"].astype(float), stored[f"{case}_sampled"].transpose(0, 2, 1)
        space = space_on(points, int(case[-1]))
        order = choose_order(sampled, space)
        found = match(sampled, space, order)
        assert [order, found.space.dimension, found.space.useful] == stored[f"{case}_D_dim_useful"].tolist()
        assert np.abs(found.functions - stored[f"{case}_matched"].transpose(0, 2, 1)).max() < 1e-9
        assert np.abs(found.keep - stored[f"{case}_keep"]).max() < 1e-9
        for name, functions in (("err", found.functions), ("err_sampled", sampled)):
            error = transfer_error(torch.from_numpy(functions), torch.from_numpy(points), stored["w"].tolist())
            expected = stored[f"{case}_{name}"]
            shown = expected > 1e-12  # below, it is rounding
            assert shown.sum() >= 6
            assert np.abs(error.error.numpy() / expected - 1)[shown].max() < 0.01
        error = transfer_error(torch.from_numpy(found.functions), torch.from_numpy(points), stored["w"].tolist())
        assert np.abs(error.amplitude_each.numpy() / stored[f"{case}_amp_each"] - 1).max() < 1e-9


@pytest.mark.parametrize(
    ("size", "squared_radius", "degree", "dimensions", "useful"),
    [
        (3, 3, 0, (4, 4, 3, 1, 1, 1), (1, 2, 2, 1, 1, 1)),
        (3, 3, 1, (3, 2, 0), (1, 1, 0)),
        (3, 3, 2, (4 - 1, 0), (1, 0)),
        (3, 3, 3, (1,), (0,)),
        (5, 4, 0, (5, 5, 4, 2, 1, 1), None),
        (5, 4, 3, (2, 0), (1, 0)),
        (5, 5, 1, (6, 5, 2, 0), None),
        (5, 5, 3, (6, 0), (1, 0)),
        (5, 6, 0, (7, 7, 6, 4, 1, 1), (1, 2, 3, 3, 1, 1)),
        (5, 6, 1, (8, 7, 4, 0), (1, 2, 2, 0)),
        (5, 6, 2, (10, 7, 1), (1, 2, 0)),
        (5, 6, 3, (10, 4, 0), (1, 1, 0)),
        (5, 12, 2, (16, 13, 7, 2), (1, 2, 1, 0)),
        (5, 12, 3, (18, 12, 5, 1), (1, 1, 0, 0)),
        (7, 9, 2, (16, 13, 7, 1), None),
        (7, 14, 0, (15, 15, 14, 12, 9, 5), None),
        (7, 14, 1, (22, 21, 18, 13, 6), None),
        (7, 14, 2, (31, 28, 22, 12, 2), None),
        (7, 14, 3, (38, 32, 21, 7), None),
        (7, 27, 3, (58 - 4, 48, 37, 23), None),
    ],
)
def test_dimensions_of_the_matched_space(
    size: int, squared_radius: float, degree: int, dimensions: tuple[int, ...], useful: tuple[int, ...] | None
) -> None:
    spaces = [ball_space(size, squared_radius, degree).matched(degree + 2 * i) for i in range(len(dimensions))]
    assert tuple(space.dimension for space in spaces) == dimensions
    if useful is not None:
        assert tuple(space.useful for space in spaces) == useful


def test_the_rank_is_absolute() -> None:
    """Where symmetry meets all conditions the matrix is rounding noise; no rank may be found in it."""
    space = ball_space(5, 6, 0)
    conditions, _ = moment_conditions(space.basis, space.positions, 2)
    assert 0 < np.abs(conditions).max() < 1e-14
    assert space.matched(2).dimension == len(space.basis)


@pytest.mark.parametrize("steps", [(1.0, 1.0, 1.0), (1.0, 1.0, 1.5)])
@pytest.mark.parametrize("degree", range(3))
def test_matched_functions_have_no_wrong_moment_and_turn_with_the_grid(
    steps: tuple[float, float, float], degree: int
) -> None:
    positions = TapGrid.for_size(5, steps).positions_mm().numpy()
    positions = positions[(positions**2).sum(axis=1) <= 6.25]
    space = space_on(positions, degree)
    draw = np.random.default_rng(degree)
    order = degree + 2 if degree < 2 or steps[2] == 1.0 else degree
    found = match(draw.normal(size=(1, 2 * degree + 1, len(positions))), space, order, BandPenalty())
    conditions, gains = moment_conditions(found.functions, positions, order)
    assert np.abs(conditions).max() < 1e-13
    assert np.abs(gains).max() > 1e-4
    matrices, permutations = point_permutations(positions)
    carried = irreps_matrix(Irrep(degree, (-1) ** degree), torch.from_numpy(matrices)).numpy()
    for matrix, permutation in zip(carried, permutations, strict=True):
        turned = found.functions[:, :, permutation] - np.einsum("mn,fnt->fmt", matrix, found.functions)
        assert np.abs(turned).max() < 1e-13


@pytest.mark.parametrize("penalty", [None, BandPenalty()])
def test_a_matched_function_is_its_own_match_only_without_a_penalty(penalty: BandPenalty | None) -> None:
    space = ball_space(5, 6, 1)
    draw = np.random.default_rng(1)
    once = match(draw.normal(size=(2, 3, 81)), space, 3, penalty)
    twice = match(once.functions, space, 3, penalty)
    moved = float(np.abs(twice.functions - once.functions).max())
    assert (moved < 1e-14) == (penalty is None)


def test_the_penalty_lowers_the_error_over_its_band() -> None:
    space = ball_space(5, 6, 2)
    positions = torch.from_numpy(space.positions)
    radius = np.linalg.norm(space.positions, axis=1)
    sampled = space.basis[:2] * np.exp(-0.5 * (radius - 2.0) ** 2 / 0.36)
    sampled = sampled + 0.1 * space.basis[2:4]
    plain, refined = (
        transfer_error(torch.from_numpy(match(sampled, space, 4, p).functions), positions, (0.5, 1.0, 1.5)).error
        for p in (None, BandPenalty())
    )
    assert (refined < 0.8 * plain).all()


def test_the_result_does_not_hang_on_a_linear_algebra_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another driver gives other null vectors and signs, and the same kernels."""
    space = ball_space(5, 6, 3)
    sampled = np.random.default_rng(3).normal(size=(2, 7, 81))
    first = match(sampled, space, 3, BandPenalty())
    plain_svd = np.linalg.svd

    def other_svd(matrix: np.ndarray, **options: bool) -> object:
        if not options.get("full_matrices", False):
            return plain_svd(matrix, **options)
        left, values, right = scipy.linalg.svd(matrix, lapack_driver="gesvd")
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0]
        return left, values, np.concatenate([right[:-10], turn @ right[-10:]])

    monkeypatch.setattr(np.linalg, "svd", other_svd)
    second = match(sampled, space, 3, BandPenalty())
    assert second.space.dimension == 10
    assert np.abs(first.space.combinations - second.space.combinations).max() > 0.1
    assert np.abs(first.functions - second.functions).max() < 1e-11  # the penalty's system has condition 1e3


def test_refusals_say_why() -> None:
    space = ball_space(3, 3, 3)
    sampled = np.random.default_rng(0).normal(size=(1, 7, 27))
    with pytest.raises(ConfigError, match=r"27 taps carry .* degree 3, because .* no moments at all.*more taps"):
        match(sampled, space, 3)
    with pytest.raises(ConfigError, match="27 taps carry no equivariant kernel of degree 3"):
        choose_order(sampled, space)
    with pytest.raises(ConfigError, match="no function on them meets"):
        match(sampled[:, :3], ball_space(3, 3, 1), 5)
    with pytest.raises(ConfigError, match="matched up to order 1, 3"):
        match(sampled[:, :3], ball_space(3, 3, 1), 2)
    with pytest.raises(ConfigError, match="positive weight"):
        BandPenalty(weight=0.0)


def test_no_order_below_the_degree_has_gains() -> None:
    space = ball_space(5, 6, 2)
    assert matched_space(space.basis, space.positions, 0).useful == 0


def test_orthonormal_keeps_the_span_and_the_first_direction() -> None:
    functions = np.random.default_rng(0).normal(size=(3, 5, 20))
    rows = orthonormal(functions).reshape(3, -1)
    assert np.abs(rows @ rows.T - np.eye(3)).max() < 1e-15
    triangle = functions.reshape(3, -1) @ rows.T
    assert np.abs(np.triu(triangle, 1)).max() < 1e-13
    assert (np.diag(triangle) > 0).all()
    assert np.abs(triangle @ rows - functions.reshape(3, -1)).max() < 1e-13
