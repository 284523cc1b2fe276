"""The equivariant U-Net, each flaw of its predecessor as a test."""

from __future__ import annotations

import importlib.metadata
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from equivox.errors import ConfigError
from equivox.nets.equivariant_unet import EquivariantUNet, pooling_strides
from equivox.nn import BlurPool3d, CenteredPool3d, CenteredUpsample3d, SteerableConv3d, fold
from equivox.testing import assert_equivariant, band_limited_field

SMALL = {"poolings": 1, "copies": 1, "kernel_size": 3}


def randomise(network: nn.Module, generator: torch.Generator) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return network.eval()


@pytest.fixture(scope="module")
def small() -> EquivariantUNet:
    draw = torch.Generator().manual_seed(3)
    return EquivariantUNet("1x0e+1x1o", "1x0e+1x0o+1x1o", generator=draw, **SMALL).double().eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [6, 7])
def test_it_is_exact_on_the_cube_for_even_and_odd_sides(side: int, small: EquivariantUNet) -> None:
    assert_equivariant(small, small.irreps_in, small.irreps_out, side=side, batch=1)


def test_rotations_only_has_no_mirrors() -> None:
    network = EquivariantUNet("1x0", "1x0+1x1", symmetry="SO3", norm="group", **SMALL).double().eval()  # type: ignore[arg-type]
    assert_equivariant(network, "1x0", "1x0+1x1", side=5, batch=1)


def test_flaw_a_every_sample_of_a_batch_is_pooled_by_itself(small: EquivariantUNet, generator: torch.Generator) -> None:
    field = torch.randn(3, 4, 6, 5, 7, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        together = small(field)
        alone = torch.cat([small(item[None]) for item in field])
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=1e-10)


class Calls(TorchFunctionMode):
    """How many operations are called."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_flaw_b_more_copies_take_no_more_operations() -> None:
    counts = []
    for copies in (1, 3):
        network = EquivariantUNet(poolings=1, copies=copies, kernel_size=3).eval()
        volume = torch.zeros(1, 1, 5, 5, 5)
        with torch.no_grad():
            network(volume)  # makes and keeps the kernels
            with Calls() as calls:
                network(volume)
        counts.append(calls.count)
    assert counts[1] < 1.1 * counts[0]  # a loop over copies would take nearly three times as many


def test_flaw_c_the_low_pass_is_there_and_works(generator: torch.Generator) -> None:
    """White noise loses what a coarse grid cannot hold before it is subsampled."""
    noise = torch.randn(1, 1, 32, 32, 32, generator=generator)
    assert float(CenteredPool3d(2)(noise).std()) < 0.35
    assert float(noise[..., ::2, ::2, ::2].std()) > 0.9


@pytest.mark.parametrize("side", [8, 9])
def test_flaw_d_coarse_features_meet_the_skip_where_they_belong(side: int) -> None:
    """A ramp comes back unshifted and unstretched, also where corners cannot be aligned."""
    ramp = torch.arange(side, dtype=torch.float64)[None, None, :, None, None].expand(1, 1, side, side, side)
    coarse = CenteredPool3d(2)(ramp)
    back = CenteredUpsample3d(2)(coarse, ramp.shape[2:])
    inner = slice(4, side - 4)
    torch.testing.assert_close(back[:, :, inner], ramp[:, :, inner], atol=0.04, rtol=0)
    assert float((back + back.flip(2) - (side - 1)).abs().max()) < 1e-12
    assert coarse.shape[2] == (side + 1) // 2
    constant = torch.ones(1, 1, side, side, side, dtype=torch.float64)
    assert float((CenteredUpsample3d(2)(CenteredPool3d(2)(constant), (side,) * 3) - 1).abs().max()) < 1e-12


def test_pooling_of_odd_sides_is_the_blur_pool(generator: torch.Generator) -> None:
    field = torch.randn(1, 2, 9, 7, 5, generator=generator, dtype=torch.float64)
    steps = (1.0, 1.0, 2.0)
    own = CenteredPool3d((2, 2, 1), voxel_size_mm=steps)(field)
    torch.testing.assert_close(own, BlurPool3d((2, 2, 1), voxel_size_mm=steps)(field))


def test_flaw_e_no_side_is_padded_at_one_end_only(small: EquivariantUNet, generator: torch.Generator) -> None:
    """Mirroring an axis whose side is no multiple of anything mirrors the output."""
    field = torch.randn(1, 4, 6, 7, 5, generator=generator, dtype=torch.float64)
    field[:, 1:] = 0  # scalars: a mirror moves voxels only
    with torch.no_grad():
        plain, mirrored = small(field), small(field.flip(2))
    torch.testing.assert_close(mirrored.flip(2)[:, 0], plain[:, 0], atol=1e-10, rtol=1e-9)
    torch.testing.assert_close(mirrored.flip(2)[:, 1], -plain[:, 1], atol=1e-10, rtol=1e-9)
    assert plain.shape[2:] == field.shape[2:]


def test_flaw_f_channels_are_never_moved_last(small: EquivariantUNet) -> None:
    shapes: list[tuple[int, ...]] = []
    handles = [
        module.register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape)))
        for module in small.modules()
        if not list(module.children())
    ]
    small(torch.zeros(1, 4, 7, 7, 7, dtype=torch.float64))
    for handle in handles:
        handle.remove()
    assert {shape[-3:] for shape in shapes} == {(7, 7, 7), (4, 4, 4)}


def test_flaw_g_neighbours_carry_most_of_a_kernel(small: EquivariantUNet) -> None:
    """e3nn's neighbours carry 5 per cent of the output at the start."""
    convolution = next(module for module in small.modules() if isinstance(module, SteerableConv3d))
    kernel = convolution.kernel().detach()
    centre = kernel[:, :, 1, 1, 1].square().sum()
    assert float(centre / kernel.square().sum()) < 0.5


def test_flaw_h_nothing_is_pinned_to_old_versions() -> None:
    needed = importlib.metadata.requires("equivox") or []
    plain = [line for line in needed if "extra ==" not in line]
    assert not any(name in line for line in plain for name in ("e3nn", "nnunet"))
    assert not any("==" in line.partition(";")[0] for line in plain)


def test_flaw_i_it_learns(generator: torch.Generator) -> None:
    """It had no test at all; here it learns to draw the gradient of a blob, a vector field."""
    network = EquivariantUNet("1x0e", "1x1o", poolings=1, copies=1, kernel_size=3, generator=generator)
    axes = torch.arange(9.0) - 4
    x, y, z = torch.meshgrid(axes, axes, axes, indexing="ij")
    blob = torch.exp(-(x * x + y * y + z * z) / 8)
    target = torch.stack([-x * blob, -y * blob, -z * blob])[None]
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        loss = (network(blob[None, None]) - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * float(target.square().mean())


def test_a_thick_axis_is_not_pooled_until_the_others_catch_up() -> None:
    assert pooling_strides((1.0, 1.0, 1.0), 2) == ((2, 2, 2), (2, 2, 2))
    assert pooling_strides((1.0, 1.0, 2.0), 2) == ((2, 2, 1), (2, 2, 2))
    assert pooling_strides((0.5, 0.5, 2.0), 3) == ((2, 2, 1), (2, 2, 1), (2, 2, 2))
    assert pooling_strides((1.0, 1.1, 0.9), 1) == ((2, 2, 2),)
    network = EquivariantUNet(voxel_size_mm=(1.0, 1.0, 2.0), poolings=1, copies=1)
    assert network.voxel_sizes_mm == ((1.0, 1.0, 2.0), (2.0, 2.0, 2.0))
    assert network(torch.zeros(1, 1, 8, 9, 6)).shape == (1, 2, 8, 9, 6)
    kernels = [module.grid.taps for module in network.modules() if isinstance(module, SteerableConv3d)]
    assert kernels[0] == (5, 5, 3)
    assert (5, 5, 5) in kernels


def test_thick_slices_turn_in_physical_space() -> None:
    """A turn that tips the thick axis: the error is far below a plain network's."""
    draw = torch.Generator().manual_seed(0)
    steps = (1.0, 1.0, 2.0)
    network = EquivariantUNet("1x0e", "1x0e", voxel_size_mm=steps, copies=1, poolings=0, generator=draw).double().eval()
    plain = nn.Sequential(
        nn.Conv3d(1, 4, (5, 5, 3), padding=(2, 2, 1)), nn.SiLU(), nn.Conv3d(4, 1, 3, padding=1)
    ).double()
    field = band_limited_field("1x0e", generator=draw, batch=4, width_mm=3.5, spread_mm=3.0)
    c, s = math.cos(0.5), math.sin(0.5)
    tip = torch.tensor([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]], dtype=torch.float64)

    def error(function: nn.Module) -> float:
        with torch.no_grad():
            outputs = [function(field.sample((21, 21, 15), voxel_size_mm=steps, rotation=r)) for r in (None, tip)]
        still, turned = (output[:, 0, 10, 10, 7] for output in outputs)
        spread = (outputs[0][:, 0] - outputs[0][:, 0].mean(dim=(1, 2, 3), keepdim=True)).std()
        return float((still - turned).square().mean().sqrt() / spread)

    assert error(network) < 0.2 * error(plain)


def test_it_folds_into_the_same_numbers(generator: torch.Generator) -> None:
    network = randomise(EquivariantUNet("1x0e", "2x0e", norm="batch", dropout=0.1, **SMALL).double(), generator)  # type: ignore[arg-type]
    field: Tensor = torch.randn(2, 1, 7, 6, 8, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected, result = network(field), fold(network)(field)
    assert float((result - expected).abs().max()) < 1e-10 * float(expected.abs().max())


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ConfigError, match="odd kernel_size"):
        EquivariantUNet(kernel_size=4)
    with pytest.raises(ConfigError, match="without letters"):
        EquivariantUNet(symmetry="SO3")
    with pytest.raises(ConfigError, match="not one or three positive"):
        EquivariantUNet(voxel_size_mm=(1.0, 0.0, 1.0))
