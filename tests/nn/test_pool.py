"""Pooling: published numbers, any batch size, mirrors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.nn import (
    AveragePool3d,
    BlurPool3d,
    CenteredPool3d,
    CenteredUpsample3d,
    GlobalPool,
    LowPass3d,
    NormMaxPool3d,
    SteerableUpConv3d,
    Upsample3d,
)
from equivox.testing import assert_equivariant

FixturePath = Callable[[str], Path]
LAYOUT = "2x0e+2x0o+1x1e+1x1o+1x2e"


def test_the_published_pooling_item_by_item(fixture_path: FixturePath) -> None:
    data = np.load(fixture_path("e3pose/06_pooling.npz"))
    layout = json.loads(str(data["meta"]))["irreps"]
    field = torch.from_numpy(data["x"])
    signed = NormMaxPool3d(layout, 2, odd_scalars="signed", grid="any")(field).numpy()
    np.testing.assert_array_equal(signed, data["max_each_item_separately"])
    np.testing.assert_array_equal(
        NormMaxPool3d(layout, 2, grid="any")(field).numpy(), data["max_corrected_odd_scalars_abs"]
    )
    assert np.abs(signed - data["max_reference_batched_WRONG_for_item1"]).max() > 0.1
    np.testing.assert_allclose(AveragePool3d(2, grid="any")(field).numpy(), data["avg"], atol=1e-6, rtol=0)
    readout = torch.from_numpy(data["readout_map"])
    axes = [GlobalPool("1x1e", "max")(readout[:, :3]), GlobalPool("2x1o", "direction")(readout[:, 3:])]
    pooled = torch.cat(axes, dim=1).numpy()
    np.testing.assert_allclose(pooled, data["readout_pooled_per_item"][..., 0, 0, 0], atol=1e-6, rtol=0)


def test_low_pass_and_pools_of_other_libraries(fixture_path: FixturePath) -> None:
    data = np.load(fixture_path("steerable/pooling.npz"))
    field = torch.from_numpy(data["x"])
    for scale, stride in [("2", 1), ("2", 2), ("4", 2), ("1.5", 1)]:
        own = LowPass3d(float(scale), stride=stride)(field).numpy()
        for library in ("se3cnn", "e3nn"):
            np.testing.assert_allclose(own, data[f"{library}_scale{scale}_stride{stride}"], atol=1e-12, rtol=0)
    field = torch.from_numpy(data["normmaxpool_x"])
    np.testing.assert_array_equal(NormMaxPool3d("2x0+2x1+1x2", 2)(field).numpy(), data["normmaxpool_y"])
    np.testing.assert_allclose(AveragePool3d(2)(field).numpy(), data["avgpool_y"], atol=1e-12, rtol=0)


def test_anisotropic_and_transposed_filters_of_e3nn(fixture_path: FixturePath) -> None:
    data = np.load(fixture_path("steerable/pooling.npz"))
    for scale in (2.0, 4.0):
        x, y, z = (np.array(taps) for taps in LowPass3d(scale, voxel_size_mm=(1, 1, 2)).taps)
        kernel = np.einsum("x,y,z->xyz", x, y, z)
        np.testing.assert_allclose(
            kernel, data[f"e3nn_aniso_kernel_scale{scale:.0f}_steps112"][0, 0], atol=1e-12, rtol=0
        )
    own = Upsample3d(2, normalization="published")(torch.from_numpy(data["x"])).numpy()
    np.testing.assert_allclose(own, data["e3nn_transposed_scale2_stride2"], atol=1e-12, rtol=0)


def test_an_anisotropic_low_pass_keeps_the_size() -> None:
    """e3nn pads all axes alike: the z size grows by 2 there (trap 13)."""
    assert LowPass3d(2.0, voxel_size_mm=(1, 1, 2))(torch.zeros(1, 1, 7, 7, 7)).shape == (1, 1, 7, 7, 7)


def test_upsampling_keeps_a_constant_and_the_centre_and_published_upsampling_is_a_checkerboard() -> None:
    constant = torch.ones(1, 1, 5, 5, 5, dtype=torch.float64)
    assert float((Upsample3d(2)(constant) - 1).abs().max()) < 1e-12
    published = Upsample3d(2, normalization="published")(constant)[..., 2:-2, 2:-2, 2:-2]
    assert float(published.max() - published.min()) > 0.25
    line = torch.arange(5, dtype=torch.float64)[None, None, :, None, None].expand(1, 1, 5, 5, 5)
    fine = Upsample3d(2)(line)[0, 0, 2:-2, 4, 4]
    torch.testing.assert_close(fine, torch.arange(2, 7, dtype=torch.float64) / 2)  # no stretching
    assert Upsample3d((2, 2, 1))(constant).shape == (1, 1, 9, 9, 5)


@pytest.mark.parametrize("side", [4, 5])
def test_upsampling_is_exact_on_the_cube_for_every_side(side: int) -> None:
    assert_equivariant(Upsample3d(2), LAYOUT, LAYOUT, side=side, batch=1)
    up = SteerableUpConv3d(LAYOUT, LAYOUT, 3, dtype=torch.float64)
    assert_equivariant(up, LAYOUT, LAYOUT, side=side, batch=1)


def test_f1_a_batch_gives_what_its_items_give(generator: torch.Generator) -> None:
    field = torch.randn(3, 15, 6, 4, 5, generator=generator)
    pool = NormMaxPool3d(LAYOUT, 2, grid="any")
    assert torch.equal(pool(field), torch.cat([pool(item[None]) for item in field]))


def test_f2_odd_scalars_survive_mirrors_by_default_and_not_in_the_published_way() -> None:
    assert_equivariant(NormMaxPool3d(LAYOUT, 2), LAYOUT, LAYOUT, side=6)
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(NormMaxPool3d(LAYOUT, 2, odd_scalars="signed"), LAYOUT, LAYOUT, side=6)


@pytest.mark.parametrize("pool", [AveragePool3d(2), LowPass3d(2.0), GlobalPool(LAYOUT), GlobalPool(LAYOUT, "max")])
def test_pools_are_exact_on_the_cube(pool: torch.nn.Module) -> None:
    assert_equivariant(pool, LAYOUT, LAYOUT, side=6, batch=1)


def test_blur_pool_is_exact_on_odd_sides_and_keeps_a_constant() -> None:
    assert_equivariant(BlurPool3d(2), LAYOUT, LAYOUT, side=7, batch=1)
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(BlurPool3d(2, grid="any"), LAYOUT, LAYOUT, side=6, batch=1)
    constant = BlurPool3d(2)(torch.full((1, 1, 9, 9, 9), 3.0))
    assert float((constant - 3.0).abs().max()) < 1e-5


def test_blur_pool_shifts_less_than_plain_subsampling(generator: torch.Generator) -> None:
    """Anti-aliasing: moving the input by one voxel changes a smoothed subsample less than a plain one."""
    field = torch.randn(1, 1, 17, 17, 17, generator=generator)
    moved = field.roll(1, dims=2)
    inner = (slice(None), slice(None), slice(2, 7), slice(2, 7), slice(2, 7))
    blurred = BlurPool3d(2)
    change = (blurred(field)[inner] - blurred(moved)[inner]).std() / blurred(field)[inner].std()
    plain = (field[..., ::2, ::2, ::2][inner] - moved[..., ::2, ::2, ::2][inner]).std() / field[..., ::2, ::2, ::2][
        inner
    ].std()
    assert float(change) < 0.9 * float(plain)


def test_masked_average_counts_only_what_the_mask_holds() -> None:
    field = torch.zeros(2, 1, 2, 2, 2)
    field[:, :, 0] = 4.0
    mask = torch.zeros(2, 1, 2, 2, 2)
    mask[:, :, 0] = 1.0
    assert GlobalPool("1x0e")(field, mask).tolist() == [[4.0], [4.0]]
    assert GlobalPool("1x0e")(field).tolist() == [[2.0], [2.0]]


def test_the_gradient_goes_to_the_chosen_voxel() -> None:
    field = torch.zeros(1, 3, 2, 2, 2)
    field[0, :, 1, 0, 1] = torch.tensor([1.0, -2.0, 2.0])
    field.requires_grad_()
    NormMaxPool3d("1x1o", 2)(field).sum().backward()
    assert field.grad is not None
    assert field.grad[0, :, 1, 0, 1].tolist() == [1.0, 1.0, 1.0]
    assert float(field.grad.sum()) == 3.0


@pytest.mark.parametrize("side", [4, 5, 6, 7])
def test_centered_pooling_and_its_way_back_are_exact_for_every_side(side: int) -> None:
    assert_equivariant(CenteredPool3d(2), LAYOUT, LAYOUT, side=side, batch=1)
    up = CenteredUpsample3d(2)
    assert_equivariant(lambda field: up(field, (2 * side,) * 3), LAYOUT, LAYOUT, side=side, batch=1)
    assert_equivariant(lambda field: up(field, (2 * side - 1,) * 3), LAYOUT, LAYOUT, side=side, batch=1)
