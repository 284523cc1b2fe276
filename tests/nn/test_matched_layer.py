"""Layers with the matched family: exact on the cube, and nearly so at every other turn."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.rotations import random_rotations
from equivox.geometry.wigner import irreps_matrix
from equivox.nn import GaussianShells, MatchedShells, SteerableConv3d
from equivox.testing import assert_equivariant

IN, OUT = "2x0e + 1x1o + 1x2e", "2x0e + 2x1o + 1x2e"


def matched_layer(
    size: int = 5, voxel_size_mm: float | tuple[float, float, float] = 1.0, **options: str
) -> SteerableConv3d:
    family = MatchedShells.for_kernel(size, voxel_size_mm=voxel_size_mm)
    draw = torch.Generator().manual_seed(0)
    return SteerableConv3d(
        options.get("irreps_in", IN),
        options.get("irreps_out", OUT),
        size,
        voxel_size_mm=voxel_size_mm,
        radial=family,
        generator=draw,
        dtype=torch.float64,
    )


@pytest.mark.parametrize("size", [3, 5, 7])
def test_the_cube_is_exact(size: int) -> None:
    assert_equivariant(matched_layer(size), IN, OUT)


def plane_wave_error(layer: SteerableConv3d, frequency: float, generator: torch.Generator) -> float:
    """Relative error of turned responses to plane waves in every channel, by the kernel's own transfer function."""
    kernel = layer.kernel().detach().flatten(2)
    taps = layer.grid.positions_mm()
    waves = torch.randn(100, 3, generator=generator, dtype=torch.float64)
    waves = frequency * waves / waves.norm(dim=-1, keepdim=True)

    def transfer(at: Tensor) -> Tensor:
        return torch.einsum("oit,pt->poi", kernel.to(torch.complex128), torch.exp(1j * (at @ taps.mT)))

    wrong = power = 0.0
    for rotation in random_rotations(8, generator=generator, dtype=torch.float64):
        out, into = (
            irreps_matrix(irreps, rotation).to(torch.complex128) for irreps in (layer.irreps_out, layer.irreps_in)
        )
        expected = out @ transfer(waves) @ into.mT
        wrong += float((transfer(waves @ rotation.mT) - expected).abs().square().sum())
        power += float(expected.abs().square().sum())
    return (wrong / power) ** 0.5


@pytest.mark.parametrize(("frequency", "gain"), [(0.25, 3000.0), (0.5, 500.0), (1.0, 30.0)])
def test_a_layer_is_far_nearer_to_equivariance_than_with_plain_shells(
    frequency: float, gain: float, generator: torch.Generator
) -> None:
    plain = SteerableConv3d(
        IN, OUT, 5, radial=GaussianShells.for_kernel(5, ball=False), lmax=3, generator=generator, dtype=torch.float64
    )
    ours = plane_wave_error(matched_layer(), frequency, generator)
    assert plane_wave_error(plain, frequency, generator) > gain * ours > 0


def test_weights_are_block_by_block_and_white_input_keeps_its_variance(generator: torch.Generator) -> None:
    layer = matched_layer(irreps_in="4x0e", irreps_out="4x0e + 4x1o")
    assert layer.weight.shape == (4 * 4 * (3 + 2),)
    assert layer.self_connection is None
    variances = []
    for _ in range(20):
        layer.reset_parameters(generator)
        variances.append(layer.kernel().detach().square().sum(dim=(1, 2, 3, 4)))
    mean = torch.stack(variances).mean(0)
    assert 0.8 < float(mean[:4].mean()) < 1.25
    assert 0.8 < float(mean[4:].mean()) < 1.25


def test_thick_slices(generator: torch.Generator) -> None:
    layer = matched_layer(5, (1.0, 1.0, 2.0))
    assert plane_wave_error(layer, 0.1, generator) < 3e-3


def test_a_degree_that_does_not_exist_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"27 taps carry no equivariant kernel of degree 3, because"):
        matched_layer(3, irreps_in="1x3", irreps_out="1x0")


def test_gradients_reach_every_weight_and_copies_agree(generator: torch.Generator) -> None:
    layer = matched_layer()
    field = torch.randn(1, 10, 8, 8, 8, generator=generator, dtype=torch.float64)
    layer(field).square().sum().backward()
    assert layer.weight.grad is not None
    assert bool((layer.weight.grad != 0).all())
    copy = pickle.loads(pickle.dumps(layer)).eval()
    torch.testing.assert_close(copy(field), layer.eval()(field))
