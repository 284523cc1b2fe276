from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from equivox.errors import ConfigError
from equivox.geometry.point_groups import point_group
from equivox.geometry.rotations import geodesic_angle, random_rotations, rotation_about
from equivox.nets.orientation import OrientationNet, PoseTrunk
from equivox.nets.orientation_search import best_answers, fine_cells, hypotheses_of, search_poses
from equivox.nn.pose_heads import PoseHypotheses

TURNS = (
    (rotation_about("z", 90.0), lambda p: p.rot90(-1, dims=(-2, -1))),
    (rotation_about("y", 180.0), lambda p: p.flip(-1)),
)


def small(generator: torch.Generator, **options: object) -> OrientationNet:
    """A little network whose heads say something."""
    network = OrientationNet(25, coarse_channels=(3, 4), fine_channels=(3, 4), features=8, hidden=8, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            if float(parameter.abs().max()) == 0.0:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.float64, 1e-10)])
def test_the_whole_search_turns_with_the_picture(
    dtype: torch.dtype, tolerance: float, generator: torch.Generator
) -> None:
    """Coarse look, fine grid, fine look, merging: the answer to ``g I`` is ``g`` times the answer to ``I``."""
    network = small(generator, shift=True).to(dtype)
    pictures = torch.randn(6, 1, 25, 25, generator=generator).to(dtype)
    before = search_poses(network, pictures, answers=2)
    for element, move in TURNS:
        after = search_poses(network, move(pictures), answers=2)
        turned = element.to(dtype) @ before.rotations
        assert float((after.rotations - turned).abs().max()) < tolerance
        assert_close(after.confidence, before.confidence, atol=tolerance, rtol=tolerance)
        assert_close(after.entropy, before.entropy, atol=tolerance * 10, rtol=tolerance)
        shifts = before.shifts_px @ element[:2, :2].mT.to(dtype)
        assert_close(after.shifts_px, shifts, atol=tolerance * 10, rtol=tolerance)
        assert float((after.rotations - before.rotations).abs().amax((-2, -1)).min()) > 0.1  # it did turn


@torch.no_grad()
def test_the_coarse_grid_is_permuted(generator: torch.Generator) -> None:
    network = small(generator, fine=False, coarse_grid="d4opt-64")
    pictures = torch.randn(2, 1, 25, 25, generator=generator)
    frame = random_rotations(1, generator=generator)[0]
    before = network.look_coarse(pictures, frame)
    for element, move in TURNS:
        order = network.grid.permutation(element)
        after = network.look_coarse(move(pictures), frame)
        assert_close(after.logits[:, order], before.logits, atol=1e-4, rtol=1e-4)
        assert_close(after.rotations[:, order], element.float() @ before.rotations, atol=1e-4, rtol=0)


@torch.no_grad()
def test_quaternion_addition_and_a_unimodal_head_do_not_turn(generator: torch.Generator) -> None:
    pictures = torch.randn(2, 1, 25, 25, generator=generator)
    element, move = TURNS[0]
    for options in ({"offset": "quaternion_add", "fine": False}, {"head": "unimodal", "fine": False}):
        network = small(generator, **options)
        before, after = network.look_coarse(pictures), network.look_coarse(move(pictures))
        order = network.grid.permutation(element) if before.logits.shape[1] == 24 else torch.tensor([0])
        assert float((after.rotations[:, order] - element.float() @ before.rotations).abs().max()) > 1e-2


def test_the_fine_grid_is_closed_and_repeated_cells_are_marked(generator: torch.Generator) -> None:
    network = OrientationNet(25, coarse_channels=(2, 2), fine_channels=(2, 2))
    assert len(network.fine_grid()) == 4608
    assert network.fine_grid().is_closed(torch.stack([element for element, _ in TURNS]))
    poses = random_rotations(3, generator=generator)
    cells, repeated = fine_cells(network, torch.stack([poses[0], poses[1], poses[0], poses[2]])[None])
    assert repeated.tolist() == [[False, False, True, False]]
    assert float(torch.rad2deg(geodesic_angle(cells[0], poses[[0, 1, 0, 2]])).max()) < 14.0


def test_answers_are_different_poses_best_first() -> None:
    modes = torch.stack([rotation_about("x", angle) for angle in (0.0, 5.0, 90.0, 180.0)])[None].float()
    found = PoseHypotheses(torch.tensor([[0.0, 0.5, 0.4, -3.0]]), modes, torch.full((1, 4), 60.0))
    answers = best_answers(found, answers=3)
    angles = [round(math.degrees(float(geodesic_angle(torch.eye(3), one)))) for one in answers.rotations[0]]
    assert angles[1:] == [90, 180]
    assert 1 <= angles[0] <= 4
    assert answers.confidence[0].tolist() == sorted(answers.confidence[0].tolist(), reverse=True)
    assert float(answers.confidence.sum()) <= 1.0 + 1e-5
    few = best_answers(found, answers=5)
    assert few.confidence[0, 3:].tolist() == [0.0, 0.0]


def test_poses_that_the_symmetry_makes_equal_are_one_answer() -> None:
    modes = torch.stack([rotation_about("z", angle) for angle in (0.0, 180.0, 90.0)])[None].float()
    found = PoseHypotheses(torch.tensor([[0.0, 0.0, -1.0]]), modes, torch.full((1, 3), 60.0))
    plain = best_answers(found, answers=2)
    reduced = best_answers(found, answers=2, group=point_group("C2").float())
    assert float(plain.confidence[0, 0]) < 0.35
    assert float(reduced.confidence[0, 0]) > 0.55
    assert math.degrees(float(geodesic_angle(reduced.rotations[0, 1], modes[0, 2]))) < 1.0


def test_sizes_without_a_centre_and_wrong_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 4"):
        PoseTrunk(31)
    with pytest.raises(ConfigError, match="no fine look"):
        OrientationNet(25, fine=False).look_fine(torch.zeros(1, 1, 25, 25), torch.eye(3).expand(1, 1, 3, 3))


def test_a_network_learns_the_pose_of_a_particle(generator: torch.Generator) -> None:
    """Fixed pictures, few steps: the likelihood rises far above that of the uniform distribution, both looks."""
    from equivox.nn.pose_losses import mixture_loss
    from equivox.simulate.point_particle import PointParticle, project_points

    points = torch.randn(12, 3, generator=generator) * torch.tensor([14.0, 9.0, 6.0])
    particle = PointParticle(points, torch.rand(12, generator=generator) + 0.5, 4.0)
    rotations = random_rotations(48, generator=generator)
    pictures = project_points(particle, rotations, side=25, pixel_size_angstrom=3.0)
    pictures = (pictures - pictures.mean()) / pictures.std()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = OrientationNet(25, coarse_channels=(4, 8), fine_channels=(4, 8), features=32, hidden=32)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    truth, first = rotations.float(), 0.0
    for step in range(25):
        coarse = network.look_coarse(pictures[:, None])
        fine = network.look_fine(pictures[:, None], truth[:, None] @ rotation_about("x", 8.0).float())
        loss = (mixture_loss(coarse, truth) + mixture_loss(fine, truth)).mean()
        first = float(loss.detach()) if step == 0 else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < first - 3.0
    assert len(hypotheses_of(network.eval(), pictures[:2, None]).logits) == 2
