"""Whole simulated stacks: truth that fits the picture, motion that the label stands in the middle of, seeds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from equivox.errors import ConfigError
from equivox.geometry.rotations import geodesic_angle, rotation_from_vector
from equivox.geometry.space import grid_points_mm
from equivox.simulate.dice import Dice
from equivox.simulate.scanner import Acquisition, brain_slices, draw_acquisition, karcher_mean, slice_times
from equivox.simulate.smooth_fields import gaussian_blur, smooth_field
from equivox.simulate.stack import BRAIN, EYES, SimulatedStack, draw_stack, simulate_stacks
from equivox.simulate.stack_config import MODES, StackSimulation
from equivox.simulate.templates import HeadTemplates, brain_at

SMALL = StackSimulation(thick_slices=0.0, head_voxel_mm=3.0, cut_head=0.0)


@pytest.fixture(scope="module")
def stacks(templates: HeadTemplates) -> list[SimulatedStack]:
    """One stack of each of the four modes."""
    shares = [tuple(float(mode == other) for other in MODES) for mode in MODES]
    return [
        simulate_stacks([11 + number], templates=templates, config=replace(SMALL, mode_weights=share))[0]  # type: ignore[arg-type]
        for number, share in enumerate(shares)
    ]


def test_the_label_lies_where_the_brain_and_the_eyes_are(stacks: list[SimulatedStack]) -> None:
    for stack in stacks:
        world = grid_points_mm(stack.image.affine, stack.image.shape)
        head = (world - stack.center_mm) @ stack.world_from_head / stack.drawn.subject.scale
        brain = head[stack.labels == BRAIN]
        assert float(brain.mean(0).norm()) < 7.0  # the posterior fossa pulls it back a little
        eyes = head[stack.labels == EYES]
        assert abs(float(eyes[:, 0].mean())) < 3.0
        assert 10.0 < float(eyes[:, 0].abs().mean()) < 24.0
        assert 30.0 < float(eyes[:, 1].mean()) < 48.0
        assert -32.0 < float(eyes[:, 2].mean()) < -14.0


def test_the_brain_has_the_drawn_volume_and_stored_level(stacks: list[SimulatedStack]) -> None:
    for stack in stacks:
        voxel_ml = float(torch.linalg.det(stack.image.affine[:3, :3]).abs()) / 1000
        seen = float((stack.labels == BRAIN).sum()) * voxel_ml
        assert 0.8 < seen / stack.drawn.subject.brain_volume_ml < 1.2
        level = float(stack.image.data[0][stack.labels == BRAIN].median())
        assert level == pytest.approx(stack.drawn.acquisition.brain_level, rel=0.06)  # Rician noise adds a little
        assert float(stack.image.data.min()) >= 0.0
        assert torch.equal(stack.image.data, stack.image.data.round())


def test_a_seed_means_one_stack_alone_or_in_a_batch(templates: HeadTemplates) -> None:
    first, second = simulate_stacks([3, 4], templates=templates, config=SMALL)
    alone = simulate_stacks([4], templates=templates, config=SMALL)[0]
    assert torch.equal(alone.image.data, second.image.data)
    assert torch.equal(alone.world_from_head, second.world_from_head)
    assert first.image.shape != second.image.shape or not torch.equal(first.image.data, second.image.data)


def test_poses_are_uniform_and_storage_is_as_measured(templates: HeadTemplates) -> None:
    drawn = [draw_stack(seed, StackSimulation(), templates) for seed in range(150)]
    mean = torch.stack([one.motion.rotation[0] for one in drawn]).mean(0)
    assert float(mean.abs().max()) < 0.2  # SD of an entry's mean: 0.047
    left_handed = [float(torch.linalg.det(torch.tensor(one.acquisition.affine))) < 0 for one in drawn]
    assert 0.16 < sum(left_handed) / 150 < 0.40  # 8 of the 29 measured stacks
    oblique = sorted(one.acquisition.obliquity_deg for one in drawn)
    assert oblique[-1] < 43.0
    assert 0.31 < sum(angle > 15 for angle in oblique) / 150 < 0.59
    modes = [sum(one.subject.mode == mode for one in drawn) / 150 for mode in MODES]
    for share, wanted in zip(modes, StackSimulation().mode_weights, strict=True):
        assert abs(share - wanted) < 0.13


def test_without_motion_every_slice_sees_the_label(templates: HeadTemplates) -> None:
    drawn = draw_stack(5, replace(SMALL, motion=False), templates)
    weight, _ = brain_slices(drawn.acquisition, drawn.motion, drawn.subject.scale)
    rotation, center = drawn.motion.middle(weight)
    assert float(geodesic_angle(rotation.expand_as(drawn.motion.rotation), drawn.motion.rotation).max()) < 1e-6
    assert float((drawn.motion.center_mm - center).abs().max()) < 1e-6


def test_the_label_is_the_middle_of_the_motion() -> None:
    config = replace(SMALL, still=0.0, sequential=0.0, jerk=0.0, pass_jump_deg=20.0)
    dice = Dice(torch.Generator().manual_seed(1))
    scan, motion = draw_acquisition(1.0, config, dice)
    weight, _ = brain_slices(scan, motion, 1.0)
    rotation, _ = motion.middle(weight)
    cut = weight > 0
    turns = torch.rad2deg(geodesic_angle(rotation.expand_as(motion.rotation), motion.rotation))
    for second in (0.0, 1.0):
        half = float(turns[cut & (motion.second_pass == second)].mean())
        assert half == pytest.approx(scan.pass_jump_deg / 2, abs=3.0)  # both passes about equally far from the label
    calm = motion.damped(0.5, *motion.middle(weight))
    small = torch.rad2deg(geodesic_angle(rotation.expand_as(calm.rotation), calm.rotation))
    torch.testing.assert_close(small, 0.5 * turns, atol=1e-4, rtol=0)


def test_slices_are_interleaved() -> None:
    assert slice_times(5, "even-odd").tolist() == [0, 3, 1, 4, 2]
    assert slice_times(5, "odd-even").tolist() == [2, 0, 3, 1, 4]
    assert slice_times(4, "sequential").tolist() == [0, 1, 2, 3]


def test_karcher_mean_of_two_rotations_lies_halfway() -> None:
    half = torch.tensor([0.3, -0.5, 0.2], dtype=torch.float64)
    pair = torch.stack([torch.eye(3, dtype=torch.float64), rotation_from_vector(2 * half)])
    torch.testing.assert_close(karcher_mean(pair, torch.ones(2)), rotation_from_vector(half), atol=1e-12, rtol=0)


def test_the_head_is_inside_unless_it_may_be_cut() -> None:
    dice = Dice(torch.Generator().manual_seed(2))
    for _ in range(60):
        scan, motion = draw_acquisition(1.1, StackSimulation(cut_head=0.0), dice)
        _, depth = brain_slices(scan, motion, 1.1)
        assert float(depth.min()) < scan.voxel_mm[2]
        assert _inside(scan, motion.center_mm[0])


def _inside(scan: Acquisition, point: torch.Tensor) -> bool:
    affine = torch.tensor(scan.affine, dtype=torch.float64)
    index = torch.linalg.inv(affine[:3, :3]) @ (point - affine[:3, 3])
    return bool(((index > 3) & (index < torch.tensor(scan.shape) - 4)).all())


def test_smooth_fields_have_unit_variance_and_the_wanted_scale(generator: torch.Generator) -> None:
    field = smooth_field((40, 40, 30), (3.0, 3.0, 4.0), 9.0, generator=generator, channels=6)
    assert 0.7 < float(field.var()) < 1.05  # interpolation between knots takes a little
    steps = [(field - field.roll(2, dims=axis))[..., 2:, 2:, 2:].square().mean() for axis in (1, 2, 3)]
    for step, distance in zip(steps, (6.0, 6.0, 8.0), strict=True):
        wanted = 2 * float(field.var()) * (1 - torch.exp(torch.tensor(-(distance**2) / (4 * 81.0))))
        assert float(step) == pytest.approx(float(wanted), rel=0.35)


def test_blur_keeps_the_sum_of_what_lies_inside() -> None:
    image = torch.zeros(1, 1, 11, 11, 11)
    image[..., 5, 5, 5] = 1.0
    blurred = gaussian_blur(image, 1.0)
    assert float(blurred.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(blurred.max()) < 0.13


def test_shrinking_ventricles_takes_the_wanted_share(templates: HeadTemplates) -> None:
    atlas = templates.atlases[0]
    axis = torch.arange(-60.0, 61.0, 2.0)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).flatten(1)
    only = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    sizes = []
    for share in (0.0, 0.5):
        distance, value = brain_at(atlas, points, tissue_intensity=only, t2_share=0.0, ventricle_shrink=share)
        sizes.append(float(value[distance < -2].sum()))
    assert sizes[1] / sizes[0] == pytest.approx(0.5, abs=0.15)


def test_ranges_are_checked() -> None:
    with pytest.raises(ConfigError, match="noise_ratio is 9 to 3; give two numbers, the lower first"):
        StackSimulation(noise_ratio=(9.0, 3.0))
    with pytest.raises(ConfigError, match="mode_weights"):
        StackSimulation(mode_weights=(0.0, 0.0, 0.0, 0.0))
