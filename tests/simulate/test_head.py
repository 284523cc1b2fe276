"""The head simulator: truth that fits the picture, no preferred direction, reproducible draws."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from equivox.simulate.acquisition import draw_slices, head_points
from equivox.simulate.anatomy import HeadAnatomy
from equivox.simulate.config import HeadSimulation
from equivox.simulate.fields import gaussian_fields, length, soft_inside, sphere, tube
from equivox.simulate.head import simulate_heads

PLAIN = HeadSimulation(
    brain_volume_ml=(290.0, 290.0), anisotropy_log_sd=0.0, warp_rms_mm=(0.0, 1e-6), pitch_sd_deg=0.0, wild_contrast=0.0,
    texture_sd=(0.0, 1e-6), still=1.0, slice_gain_sd=(1e-4, 2e-4), dropout=0.0, noise_sd=(0.0, 1e-6),
    field_of_view_cut=0.0, bias_ratio=(1.0, 1.001),
)  # fmt: skip


@pytest.fixture
def anatomy() -> HeadAnatomy:
    """One egg-shaped brain of 290 mL, longer in y, of one tissue and of another below."""
    axis = (torch.arange(49) - 24) * 3.0
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    distance = ((x / 38) ** 2 + (y / 48) ** 2 + (z / 38) ** 2).sqrt().sub(1).mul(41)
    names = ("white", "ventricles", "extra_axial")
    tissues = torch.zeros(3, 49, 49, 49)
    tissues[0] = 1.0
    return HeadAnatomy(distance[None], torch.ones_like(distance)[None], tissues[None], 3.0, torch.tensor([30.0]), names)


def test_the_same_seed_gives_the_same_heads_and_another_seed_others(anatomy: HeadAnatomy) -> None:
    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return simulate_heads(
            2, shape=(16, 18, 20), voxel_size_mm=6.0, anatomy=anatomy, config=HeadSimulation(), generator=generator
        ).image

    assert torch.equal(draw(1), draw(1))
    assert not torch.allclose(draw(1), draw(2))


def test_truth_fits_the_picture(anatomy: HeadAnatomy, generator: torch.Generator) -> None:
    config = replace(PLAIN, center_jitter_mm=12.0)
    heads = simulate_heads(
        6, shape=(40, 40, 40), voxel_size_mm=4.0, anatomy=anatomy, config=config, generator=generator
    )
    axis = (torch.arange(40) - 19.5) * 4.0
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    for index in range(6):
        brain = heads.labels[index] == 1
        centroid = grid[:, brain].mean(1)
        assert float((centroid - heads.center_mm[index]).norm()) < 8.0  # the posterior fossa pulls it back a little
        assert 240 < float(brain.sum()) * 0.064 < 360
        # the eyes lie in front of and below the brain's centre, left and right of the mid-plane alike
        eyes = heads.rotation[index].mT @ (grid[:, heads.labels[index] == 2] - heads.center_mm[index][:, None])
        assert abs(float(eyes[0].mean())) < 4.0  # one voxel
        assert 33.0 < float(eyes[1].mean()) < 47.0
        assert -29.0 < float(eyes[2].mean()) < -16.0
        assert float(eyes[0].abs().mean()) > 12.0
        # brain is about 1 by definition of the intensity scale
        assert 0.6 < float(heads.image[index, 0][brain].median()) < 1.5


def test_rotations_are_proper_and_uniform(anatomy: HeadAnatomy, generator: torch.Generator) -> None:
    heads = simulate_heads(
        400, shape=(4, 4, 4), voxel_size_mm=20.0, anatomy=anatomy, config=HeadSimulation(), generator=generator
    )
    torch.testing.assert_close(torch.linalg.det(heads.rotation), torch.ones(400), atol=1e-5, rtol=0)
    angle = torch.rad2deg(torch.acos(((heads.rotation.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)))
    # uniform on SO(3): mean 126.5 degrees, SD 36; 400 draws
    assert abs(float(angle.mean()) - 126.5) < 6.0
    assert float(heads.rotation.mean(0).abs().max()) < 0.12


def test_outside_the_field_of_view_is_zero_and_marked(anatomy: HeadAnatomy, generator: torch.Generator) -> None:
    config = replace(PLAIN, field_of_view_cut=1.0, cut_distance_mm=(30.0, 40.0))
    heads = simulate_heads(
        3, shape=(32, 32, 32), voxel_size_mm=4.0, anatomy=anatomy, config=config, generator=generator
    )
    share = heads.valid.mean((1, 2, 3, 4))
    assert bool(((share > 0.3) & (share < 0.9)).all())
    assert float(heads.image[heads.valid == 0].abs().max()) == 0.0


def test_motion_moves_the_two_passes_apart_and_keeps_their_middle(generator: torch.Generator) -> None:
    config = HeadSimulation(still=0.0, pass_jump_deg=12.0)
    slices = draw_slices(4, config=config, generator=generator)
    points = torch.randn(4, 3, 500, generator=generator) * 40
    rotation, center = torch.eye(3).repeat(4, 1, 1), torch.zeros(4, 3)
    moved, share = head_points(points, rotation, center, slices, config=config, generator=generator)
    assert float(share.min()) >= 0.0
    assert float(share.max()) <= 1.0
    middle = (share - 0.5).abs() < 0.02
    for index in range(4):
        far = length((moved - points)[index : index + 1])[0]
        ends = (share[index] < 0.05) | (share[index] > 0.95)
        assert float(far[middle[index]].mean()) < 0.3 * float(far[ends].mean()) + 1e-3


def test_random_fields_have_unit_variance_and_prefer_no_axis(generator: torch.Generator) -> None:
    field = gaussian_fields(8, 1, (32, 32, 32), torch.full((8, 1), 1.5), generator=generator).unflatten(2, (32, 32, 32))
    torch.testing.assert_close(field.var(dim=(2, 3, 4)), torch.ones(8, 1), atol=1e-3, rtol=0)
    steps = [(field - field.roll(2, dims=axis)).square().mean() for axis in (2, 3, 4)]
    # expected 2 (1 - exp(-d^2 / (4 sigma^2))) with d = 2, sigma = 1.5
    for step in steps:
        assert abs(float(step) - 2 * (1 - math.exp(-4 / 9))) < 0.06


def test_shapes_measure_distance() -> None:
    points = torch.tensor([[[0.0, 10.0], [0.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(sphere(points, torch.zeros(1, 3), torch.tensor([[4.0]])), torch.tensor([[-4.0, 6.0]]))
    one = torch.ones(1, 1)
    along = torch.tensor([[1.0, 0.0, 0.0]])
    capsule = tube(points, torch.zeros(1, 3), along, 8 * one, one, 2 * one)
    torch.testing.assert_close(capsule, torch.tensor([[-1.0, 0.0]]))
    torch.testing.assert_close(soft_inside(torch.tensor([[0.0]]), 1.0), torch.tensor([[0.5]]))
