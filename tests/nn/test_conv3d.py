"""Laws of the steerable convolution: equivariance, structure, units, variance."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from equivox.errors import ConfigError
from equivox.geometry.rotations import random_rotations
from equivox.kernels.families import BasisName
from equivox.kernels.radial import GaussianShells, RadialFamily, SmoothFinite
from equivox.nn import RingShells, SoftOneHot, SteerableConv3d
from equivox.testing import assert_equivariant, equivariance_error, plain_control

LAYOUTS = [
    ("2x0e+1x1o", "1x0e+1x0o+2x1o+1x1e+1x2e"),
    ("1x0e+1x0o+1x1e+1x1o+1x2e+1x2o", "1x0o+2x0e+1x1o+1x1e+1x2o+1x2e"),
    ("2x0+1x1+1x2", "1x0+2x1+1x3"),
]
FAMILIES: list[RadialFamily | None] = [
    None,
    SmoothFinite(5, 0.0, 2.5),
    GaussianShells.for_kernel(5, ball=False),
    SoftOneHot("bessel", 3),
    RingShells.for_kernel(5),
]


@pytest.mark.parametrize(
    ("layouts", "family", "dtype"),
    [(layouts, family, torch.float64) for layouts in LAYOUTS for family in FAMILIES[:2]]
    + [(LAYOUTS[0], family, torch.float64) for family in FAMILIES[2:]]
    + [(LAYOUTS[1], None, torch.float32), (LAYOUTS[2], None, torch.float32)],
)
def test_convolution_is_exact_on_the_cube(
    layouts: tuple[str, str], family: RadialFamily | None, dtype: torch.dtype, generator: torch.Generator
) -> None:
    layer = SteerableConv3d(*layouts, 5, radial=family, lmax=4, generator=generator, dtype=dtype)
    assert_equivariant(layer.eval(), *layouts, dtype=dtype, generator=generator, side=6, batch=1)


@settings(max_examples=8)
@given(
    seed=st.integers(0, 2**31),
    size=st.sampled_from([1, 3, 4, 5]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    padding=st.integers(0, 3),
)
def test_any_size_stride_dilation_and_padding_is_exact_where_the_grid_is_symmetric(
    seed: int, size: int, stride: int, dilation: int, padding: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    layouts = ("1x0e+1x1o", "1x0e+1x1o+1x2e")
    reach = dilation * (size - 1)
    side = 9
    while (side + 2 * padding - reach - 1) % stride:
        side += 1
    layer = SteerableConv3d(
        *layouts, size, stride=stride, dilation=dilation, padding=padding, generator=draw, dtype=torch.float64,
        radial=GaussianShells.for_kernel(max(size, 2), ball=False),
    )  # fmt: skip
    assert_equivariant(layer.eval(), *layouts, generator=draw, side=side, batch=1)


def test_a_plain_convolution_fails_where_the_layer_passes(generator: torch.Generator) -> None:
    control = plain_control("2x0e+1x1o", "2x0e+1x1o", generator=generator)
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(control, "2x0e+1x1o", "2x0e+1x1o", generator=generator)


def test_generic_angles_are_far_better_than_a_plain_convolution(generator: torch.Generator) -> None:
    layouts = ("1x0e+1x1o", "2x0e+2x1o")
    rotations = random_rotations(6, generator=generator)
    layer = SteerableConv3d(*layouts, 5, basis="se3cnn", lmax=1, generator=generator, dtype=torch.float64)
    error = equivariance_error(layer, *layouts, rotations, generator=generator, width_mm=2.0)
    control = equivariance_error(plain_control(*layouts, generator=generator), *layouts, rotations, generator=generator)
    assert float(error.max()) < 0.02  # the sampled basis, fields of width 2 voxels; measured 0.006
    assert float(control.min()) > 0.3
    wide = equivariance_error(layer, *layouts, rotations, generator=generator, width_mm=4.0, spread_mm=6.0)
    assert float(wide.max()) < float(error.max())


def test_so3_mode_drops_parity_everywhere(generator: torch.Generator) -> None:
    """F15: with even features only, odd filters were built and never used; here every degree reaches every other."""
    layer = SteerableConv3d("2x0", "2x0+4x1+2x2", 5, lmax=4, generator=generator)
    assert {degree for term in layer.plan.pairs for degree in term.degrees} == {0, 1, 2}
    result = layer(torch.randn(1, 2, 6, 6, 6, generator=generator)).detach()
    assert float(result.std(dim=(0, 2, 3, 4)).min()) > 0.05
    second = SteerableConv3d("1x1", "1x1", 5, lmax=4, generator=generator)
    assert second.plan.pairs[0].degrees == (0, 1, 2)
    with pytest.raises(ConfigError, match="mixes SO"):
        SteerableConv3d("1x0", "1x1o")


def test_channels_without_a_path_are_zero_and_cost_nothing(generator: torch.Generator) -> None:
    layer = SteerableConv3d("1x0e", "8x0o+20x0e+4x1o+4x1e+2x2o+2x2e", 5, radial=SmoothFinite(5), lmax=4)
    result = layer(torch.randn(1, 1, 6, 6, 6, generator=generator))
    alive = result.detach().abs().amax(dim=(0, 2, 3, 4)) > 0
    assert alive.tolist() == [False] * 8 + [True] * 20 + [True] * 12 + [False] * 12 + [False] * 10 + [True] * 10
    assert layer.plan.kernel_shapes() == ((42, 1, 125),)
    unread = SteerableConv3d("3x0o+2x0e", "4x0e+1x1o", 3)
    assert unread.plan.kernel_shapes() == ((7, 2, 27),)
    field = torch.randn(1, 5, 6, 6, 6, generator=generator)
    changed = field.clone()
    changed[:, :3] += 1.0
    assert torch.equal(unread(field), unread(changed))
    assert_close(unread.to_conv3d()(field), unread(field), atol=1e-6, rtol=1e-5)


def test_a_layer_that_nothing_connects_is_refused() -> None:
    with pytest.raises(ConfigError, match="no path leads"):
        SteerableConv3d("1x0e", "1x1e")
    with pytest.raises(ConfigError, match="even"):
        SteerableConv3d("1x0e", "1x0e", 4)
    with pytest.raises(ConfigError, match="centre tap"):
        SteerableConv3d("1x0e", "1x0e", 4, padding=0, self_connection=True)


def test_wrong_channels_are_named() -> None:
    layer = SteerableConv3d("2x0e", "1x0e", 3)
    with pytest.raises(ValueError, match=r"expects a field \(batch, 2, x, y, z\), got \(1, 3, 4, 4, 4\)"):
        layer(torch.zeros(1, 3, 4, 4, 4))
    with pytest.raises((ValueError, TypeError)):
        layer(torch.zeros(2, 4, 4, 4))


@pytest.mark.parametrize("voxel", [(1.0, 1.0, 2.0), (0.7, 1.1, 1.3)])
def test_anisotropic_voxels_keep_the_symmetries_of_the_box(
    voxel: tuple[float, float, float], generator: torch.Generator
) -> None:
    layouts = ("1x0e+1x1o", "1x0e+1x1o+1x2e")
    layer = SteerableConv3d(*layouts, (5, 5, 3), voxel_size_mm=voxel, generator=generator, dtype=torch.float64)
    flips = torch.diag_embed(torch.tensor([[1.0, -1, -1], [-1, -1, 1], [-1, 1, 1], [-1, -1, -1]], dtype=torch.float64))
    errors = equivariance_error(layer, *layouts, flips, generator=generator, method="grid", side=7, voxel_size_mm=voxel)
    assert float(errors.max()) <= 1e-10
    quarter = torch.tensor([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]], dtype=torch.float64)
    turned = float(equivariance_error(layer, *layouts, quarter, generator=generator, method="grid", side=7))
    assert turned <= 1e-10 if voxel[0] == voxel[1] else turned > 1e-3


def test_kernels_are_defined_in_millimetres() -> None:
    for name in get_args(BasisName):
        fine, coarse = (
            SteerableConv3d(
                "1x0e", "1x1o", 5, basis=name, voxel_size_mm=edge, generator=torch.Generator().manual_seed(1)
            )
            for edge in (1.0, 3.0)
        )
        assert_close(fine.kernel(), coarse.kernel())
    family = SteerableConv3d("1x0e", "1x1o", 5, basis="se3cnn", voxel_size_mm=3.0).radial
    assert isinstance(family, GaussianShells)
    assert family.radii == (0.0, 3.0, 6.0)


@pytest.mark.parametrize("family", [None, SmoothFinite(5, cutoff=True), SoftOneHot("bessel", 4)])
def test_unit_normalisation_gives_unit_variance(family: RadialFamily | None, generator: torch.Generator) -> None:
    layer = SteerableConv3d(
        "8x0e+8x0o+4x1o", "16x0e+16x0o+8x1o+8x1e", 5, radial=family, normalization="unit", self_connection=False,
        padding=0, generator=generator,
    )  # fmt: skip
    spread = layer(torch.randn(2, 28, 12, 12, 12, generator=generator)).detach()
    for part in layer.irreps_out.slices():
        assert 0.7 < float(spread[:, part].std()) < 1.3


def test_a_gradient_kernel_finds_the_gradient() -> None:
    """Correlation, not convolution: the degree-1 filter of f = x points towards +x."""
    layer = SteerableConv3d("1x0e", "1x1o", 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.weight.fill_(1.0)
    ramp = torch.arange(5.0).view(1, 1, 5, 1, 1).expand(1, 1, 5, 5, 5).contiguous()
    middle = layer(ramp)[0, :, 2, 2, 2].detach()
    assert float(middle[0]) > 0.1
    assert float(middle[1:].abs().max()) < 1e-5
