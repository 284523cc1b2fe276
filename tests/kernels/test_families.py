"""Families by name, and what is refused with which words."""

from __future__ import annotations

import pytest
import torch

from equivox.errors import ConfigError
from equivox.kernels.families import BASIS_NAMES, make_family
from equivox.kernels.matched import MatchedShells
from equivox.kernels.radial import GaussianShells, SmoothFinite
from equivox.kernels.rings import RingShells
from equivox.kernels.taps import TapGrid
from equivox.nn import SteerableConv3d


@pytest.mark.parametrize(("size", "taps"), [(3, 27), (5, 81), (7, 251)])
def test_new_networks_get_the_matched_family_on_a_ball(size: int, taps: int) -> None:
    layer = SteerableConv3d("2x0+1x1+1x2", "2x0+1x1+1x2", size, dtype=torch.float64)
    assert layer.radial == MatchedShells.for_kernel(size)
    assert layer.normalization == "unit"
    alive = (layer.kernel().detach().abs().amax(dim=(0, 1)) > 0).flatten()
    assert int(alive.sum()) == taps


def test_every_name_gives_its_library_s_family() -> None:
    grid = TapGrid.for_size(5, 2.0)
    assert [make_family(name, grid) for name in BASIS_NAMES] == [
        MatchedShells.for_grid(grid),
        GaussianShells.for_kernel(5, voxel_size_mm=2.0, ball=False),
        SmoothFinite(5, 0.0, 5.0, True),
        RingShells.for_kernel(5, voxel_size_mm=2.0),
    ]
    layer = SteerableConv3d("1x0e", "1x1o", 5, basis="e3nn")
    assert layer.self_connection is not None
    assert layer.normalization == "published"


def test_thick_slices_get_a_matched_family_of_their_own() -> None:
    layer = SteerableConv3d("1x0e", "1x0e+1x1o", 5, voxel_size_mm=(1.0, 1.0, 2.0))
    assert isinstance(layer.radial, MatchedShells)
    assert layer.grid.taps == (5, 5, 3)
    assert layer.radial.orders[:3] == (2, 1, 2)  # steerable.md 2.7


@pytest.mark.parametrize(
    ("out", "size", "voxel", "options", "message"),
    [
        (
            "1x0+1x3",
            3,
            1.0,
            {},
            r"1x3 cannot be reached from 1x0 by a kernel of 3x3x3 taps.*degree 3",
        ),
        ("1x4", 5, 1.0, {}, r"highest_degree=4"),
        ("1x1", 5, (1.0, 1.0, 3.0), {}, r"21 taps carry no equivariant kernel of degree 1"),
        ("1x2", 2, 1.0, {"padding": 0}, r"8 taps carry no equivariant kernel of degree 2"),
        ("1x1", 1, 1.0, {}, r"1 taps carry no equivariant kernel of degree 1, because no function"),
        ("1x0", 4, 1.0, {}, r"even, so padding 'same' cannot be; take an odd size"),
        ("1x0", 4, 1.0, {"basis": "escnn", "padding": 0}, r"odd kernel sizes"),
        ("1x3", 5, 1.0, {"basis": "escnn"}, r"RingShells carries none of them at this size; take a larger"),
        ("1x0", 5, 1.0, {"basis": "escnn", "radial": SmoothFinite(5)}, r"not both"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(
    out: str, size: int, voxel: float | tuple[float, float, float], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        SteerableConv3d("1x0", out, size, voxel_size_mm=voxel, **options)  # type: ignore[arg-type]


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="no basis 'matcht'; take one of matched, se3cnn, e3nn, escnn"):
        make_family("matcht", TapGrid.for_size(5))


def test_even_sizes_and_single_taps_have_what_exists() -> None:
    even = SteerableConv3d("1x0", "1x0+1x1+1x2", 4, padding=2)
    assert even(torch.zeros(1, 1, 6, 6, 6)).shape == (1, 9, 7, 7, 7)
    assert SteerableConv3d("2x0", "3x0", 1).weight.shape == (6,)


def test_parity_and_lmax_leave_blocks_zero_on_purpose() -> None:
    SteerableConv3d("1x0e", "1x0e+1x1e+1x1o", 5)
    SteerableConv3d("1x0", "1x0+1x3", 3, lmax=2)
