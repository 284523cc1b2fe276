"""The matched family: shipped numbers, choices for any grid, exactness, and the error it is made to lower."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irrep
from equivox.geometry.rotations import cube_group
from equivox.geometry.wigner import irreps_matrix
from equivox.kernels import matched
from equivox.kernels.basis3d import TapGrid
from equivox.kernels.matched import MatchedShells, compute_functions
from equivox.kernels.matching import BandPenalty
from equivox.kernels.moments import moment_conditions
from equivox.kernels.radial import GaussianShells, SmoothFinite
from equivox.kernels.rings import RingShells
from equivox.kernels.sampled import TapFamily, unit_functions
from equivox.kernels.transfer import combine_errors, transfer_error

OFFERED = [(size, degree) for size, degree in itertools.product((3, 5, 7), range(4)) if (size, degree) != (3, 3)]
BANDS = [0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0]


@pytest.mark.parametrize(("size", "degree"), OFFERED)
def test_shipped_bases_are_what_the_recipe_gives(size: int, degree: int) -> None:
    family, grid = MatchedShells.for_kernel(size), TapGrid.for_size(size)
    shipped = matched._shipped(family, degree, grid)
    assert shipped is not None
    assert np.abs(shipped - compute_functions(family, degree, grid)).max() < 1e-10


@pytest.mark.parametrize(("size", "degree"), [case for case in OFFERED if case[0] > 3])
def test_recommended_bases_agree_with_the_reference(
    size: int, degree: int, fixture_path: Callable[[str], Path]
) -> None:
    family, grid = replace(MatchedShells.for_kernel(size), orthonormal=False), TapGrid.for_size(size)
    with np.load(fixture_path("steerable/matched_hybrid.npz")) as stored:
        case = f"k{size}_J{degree}"
        points = stored[f"{case}_points"].astype(int) + size // 2
        rows = np.ravel_multi_index(tuple(points.T), (size,) * 3)
        functions = family.functions(degree, grid)[list(family.shells[degree])]
        assert family.orders[degree] == int(stored[f"{case}_D"])
        assert np.abs(functions[:, :, rows].numpy() - stored[f"{case}_matched"].transpose(0, 2, 1)).max() < 1e-8
        assert int((functions != 0).any(0).any(0).sum()) <= len(points)
        assert np.abs(family.matching(degree, grid).keep - stored[f"{case}_keep"]).max() < 1e-8
        error = transfer_error(functions, grid.positions_mm(), stored["w"].tolist()).error.numpy()
        expected = stored[f"{case}_err"]
        assert np.abs(error / expected - 1)[expected > 1e-12].max() < 0.01


@pytest.mark.parametrize("degree", range(3))
def test_hybrid_at_size_three_agrees_with_the_reference(degree: int, fixture_path: Callable[[str], Path]) -> None:
    family = replace(MatchedShells.for_kernel(3), penalty=BandPenalty(), orthonormal=False)
    with np.load(fixture_path("steerable/matched_hybrid.npz")) as stored:
        points = stored[f"k3_J{degree}_points"].astype(int) + 1
        rows = np.ravel_multi_index(tuple(points.T), (3,) * 3)
        functions = family.functions(degree, TapGrid.for_size(3))[list(family.shells[degree])]
        expected = stored[f"k3_J{degree}_matched"].transpose(0, 2, 1)
        assert np.abs(functions[:, :, rows].numpy() - expected).max() < 1e-8


@pytest.mark.parametrize(("size", "degree"), OFFERED)
def test_functions_are_orthonormal_exact_on_the_cube_and_matched(size: int, degree: int) -> None:
    family, grid = MatchedShells.for_kernel(size), TapGrid.for_size(size)
    functions = family.functions(degree, grid)
    used = functions[list(family.shells[degree])]
    assert functions.shape == (family.count, 2 * degree + 1, size**3)
    gram = used.flatten(1) @ used.flatten(1).mT
    torch.testing.assert_close(gram, torch.eye(len(used), dtype=torch.float64), atol=1e-14, rtol=0)
    conditions, gains = moment_conditions(used.numpy(), grid.positions_mm().numpy(), family.orders[degree])
    assert np.abs(conditions).max() < 1e-13
    assert np.abs(gains).max(axis=0).min() > 1e-3  # each of them is seen by smooth fields
    positions = grid.positions_mm()
    for element in cube_group(improper=True):
        image = (positions @ element.mT + size // 2).round().long()
        rows = (image[:, 0] * size + image[:, 1]) * size + image[:, 2]
        expected = irreps_matrix(Irrep(degree, (-1) ** degree), element) @ used
        assert float((used[:, :, rows] - expected).abs().max()) <= 1e-13


@pytest.mark.parametrize(("size", "taps"), [(3, 27), (5, 81), (7, 251)])
def test_balls_have_the_recommended_taps(size: int, taps: int) -> None:
    assert MatchedShells.for_kernel(size).inside(TapGrid.for_size(size)).sum() == taps


def test_radial_functions_per_degree_are_the_recommended_ones() -> None:
    counts = {size: [len(s) for s in MatchedShells.for_kernel(size).shells] for size in (3, 5, 7)}
    assert counts == {3: [2, 1, 1, 0], 5: [3, 2, 2, 1], 7: [4, 3, 3, 2]}


def test_degree_three_on_three_taps_is_refused_with_the_reason() -> None:
    family = MatchedShells.for_kernel(3)
    assert not any(family.admits(shell, 3) for shell in range(family.count))
    with pytest.raises(ConfigError, match=r"27 taps carry no equivariant kernel of degree 3.*no moments.*size 5"):
        family.functions(3, TapGrid.for_size(3))
    with pytest.raises(ConfigError, match=r"degrees up to 3, not 4.*highest_degree=4"):
        family.functions(4, TapGrid.for_size(3))


def test_the_rule_refuses_by_itself_what_the_table_leaves_out() -> None:
    ruled = MatchedShells.by_rule(TapGrid.for_size(3), highest_degree=4)
    assert [len(s) for s in ruled.shells] == [2, 1, 1, 0, 0]
    assert ruled.orders[:3] == MatchedShells.for_kernel(3).orders[:3]


@pytest.mark.parametrize(
    ("steps", "size", "taps", "shells", "orders"),
    [
        ((1.0, 1.0, 2.0), 5, 39, ((0, 2), (2,), (2,), ()), (2, 1, 2)),
        ((2.0, 1.0, 1.0), 5, 39, ((0, 2), (2,), (2,), ()), (2, 1, 2)),
        ((1.0, 1.0, 1.5), 5, 47, ((0, 2), (2,), (2,), ()), (4, 3, 2)),
        ((1.0, 1.0, 3.0), 7, 55, ((0, 3), (3,), (3,), ()), (2, 1, 2)),
        ((1.0, 1.0, 3.0), 5, 21, ((0,), (), (), ()), (0,)),
    ],
)
def test_thick_slices_get_what_their_taps_carry(
    steps: tuple[float, float, float],
    size: int,
    taps: int,
    shells: tuple[tuple[int, ...], ...],
    orders: tuple[int, ...],
) -> None:
    family, grid = MatchedShells.for_kernel(size, voxel_size_mm=steps), TapGrid.for_size(size, steps)
    assert family.inside(grid).sum() == taps
    assert family.shells == shells
    assert family.orders[: len(orders)] == orders
    for degree, chosen in enumerate(shells):
        if chosen:
            used = family.functions(degree, grid)[list(chosen)].numpy()
            conditions, _ = moment_conditions(used, grid.positions_mm().numpy(), family.orders[degree])
            assert np.abs(conditions).max(initial=0.0) < 1e-13


def test_thick_slices_turn_where_plain_shells_do_not() -> None:
    steps = (1.0, 1.0, 2.0)
    grid, family = TapGrid.for_size(5, steps), MatchedShells.for_kernel(5, voxel_size_mm=steps)
    for degree, plain_at_least, matched_at_most in ((1, 0.19, 1e-3), (2, 0.9, 1e-3)):
        plain, ours = (
            float(transfer_error(unit_functions(f, degree, grid), grid.positions_mm(), [0.1]).error)
            for f in (GaussianShells.for_kernel(5), family)
        )
        assert plain > plain_at_least
        assert ours < matched_at_most


def test_three_sizes_and_even_sizes_are_grids_like_others() -> None:
    """Any taps get a family whose kernels turn with their grid."""
    for grid in (TapGrid((5, 5, 3)), TapGrid((4, 4, 4)), TapGrid((9, 9, 9))):
        family = MatchedShells.for_grid(grid, highest_degree=1)
        for degree in range(2):
            used = family.functions(degree, grid)[list(family.shells[degree])]
            assert len(used) >= 1
            error = transfer_error(used, grid.positions_mm(), [0.25]).error
            plain = transfer_error(
                unit_functions(GaussianShells.for_kernel(5), degree, grid), grid.positions_mm(), [0.25]
            )
            assert float(error) < 0.2 * float(plain.error)
    assert MatchedShells.for_grid(TapGrid((5, 5, 5))) == MatchedShells.for_kernel(5)


def test_only_ratios_of_the_voxel_size_matter() -> None:
    for unit in (1.0, 0.7, 3.0):
        steps = (unit, unit, 1.5 * unit)
        family = MatchedShells.for_kernel(5, voxel_size_mm=steps)
        assert family == MatchedShells.for_kernel(5, voxel_size_mm=(1.0, 1.0, 1.5))
        expected = family.functions(1, TapGrid.for_size(5, (1.0, 1.0, 1.5)))
        assert torch.equal(family.functions(1, TapGrid.for_size(5, steps)), expected)


def test_a_family_is_a_value_and_its_functions_are_cached() -> None:
    family, grid = MatchedShells.for_kernel(5), TapGrid.for_size(5)
    again = pickle.loads(pickle.dumps(family))
    assert again == family
    assert hash(again) == hash(family)
    assert isinstance(family, TapFamily)
    assert not isinstance(GaussianShells.for_kernel(5), TapFamily)
    assert again.functions(2, grid) is family.functions(2, grid)
    with torch.inference_mode():
        made_inside = MatchedShells.for_kernel(5, highest_degree=2).functions(1, TapGrid.for_size(5, 2.5))
    assert not made_inside.is_inference()
    assert torch.equal(made_inside, family.functions(1, grid))


def test_other_choices_are_not_answered_from_the_shipped_file() -> None:
    grid, usual = TapGrid.for_size(5), MatchedShells.for_kernel(5)
    for other in (
        replace(usual, sigma=0.7),
        replace(usual, penalty=None),
        replace(usual, orders=(4, 5, 4, 3)),
        replace(usual, ball_radius=5**0.5),
    ):
        assert matched._shipped(other, 1, grid) is None
        assert not torch.equal(other.functions(1, grid), usual.functions(1, grid))
    assert matched._shipped(usual, 1, TapGrid.for_size(5, (1.0, 1.0, 2.0))) is None


def test_a_file_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    matched._shipped_file.cache_clear()
    monkeypatch.setattr(matched, "VERSION", 999)
    assert matched._shipped_file() == {}
    matched._shipped_file.cache_clear()


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    code = (
        "from equivox.kernels import matched as m; from equivox.kernels.basis3d import TapGrid\n"
        "f = m.MatchedShells.for_kernel(5)\n"
        "assert m._shipped_file.cache_info().currsize == 0; f.functions(1, TapGrid.for_size(5))\n"
        "assert m._shipped_file.cache_info().currsize == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_impossible_families_are_refused() -> None:
    with pytest.raises(ConfigError, match="shells among the radii"):
        MatchedShells(radii=(0.0, 1.0), shells=((0, 2),), orders=(2,), ball_radius=1.75)
    with pytest.raises(ConfigError, match="radii"):
        MatchedShells(radii=(), shells=(), orders=(), ball_radius=1.75)


def test_a_layer_is_orders_of_magnitude_nearer_to_equivariance_than_peers() -> None:
    """Whole layers between degrees 0, 1 and 2, size 5: ours against the three published families."""
    grid = TapGrid.for_size(5)
    layers = {}
    for name, family in {
        "ours": MatchedShells.for_kernel(5),
        "overlapping": replace(MatchedShells.for_kernel(5), orthonormal=False),
        "se3cnn": GaussianShells.for_kernel(5, ball=False),
        "e3nn": SmoothFinite(5, 0.0, 2.5, cutoff=True),
        "escnn": RingShells.for_kernel(5),
    }.items():
        pairs = [(unit_functions(family, degree, grid), paths) for degree, paths in enumerate((3, 6, 6, 3))]
        parts = [(transfer_error(f, grid.positions_mm(), BANDS), paths) for f, paths in pairs if len(f)]
        layers[name] = combine_errors([p for p, _ in parts], [n for _, n in parts]).numpy()
    stated = {
        "overlapping": [3.2e-9, 3.1e-7, 9.3e-6, 6.6e-5, 2.7e-4, 2.4e-3, 1.6e-2],
        "se3cnn": [5.4e-3, 1.3e-2, 2.5e-2, 3.5e-2, 4.5e-2, 6.6e-2, 0.10],
        "e3nn": [2.5e-2, 6.2e-2, 0.12, 0.19, 0.25, 0.37, 0.50],
        "escnn": [6.5e-5, 4.2e-4, 1.9e-3, 4.8e-3, 9.7e-3, 2.8e-2, 6.3e-2],
    }
    for name, numbers in stated.items():
        assert np.abs(layers[name] / np.array(numbers) - 1).max() < 0.1, name
    for name, factor in {"se3cnn": 1000, "e3nn": 5000, "escnn": 100}.items():
        assert layers[name][2] > factor * layers["ours"][2], name
