from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from equivox.geometry.so3_grids import rotation_grid, square_group
from equivox.nets.projected import ProjectedClassifier
from equivox.nets.projected_baselines import PlainClassifier
from equivox.tasks.pick.certificate import certify_picker
from equivox.tasks.pick.judge import judged
from equivox.tasks.pick.scoring import (
    Candidates,
    dense_scores,
    find_candidates,
    neighbours,
    score_grid,
    values_per_output,
)


def network(grid: str = "O", **options: Any) -> ProjectedClassifier:
    draw = torch.Generator().manual_seed(0)
    made = ProjectedClassifier(channels=(2, 3), kernel_sizes=(7, 5, 5), grid=grid, generator=draw, **options)
    for parameter in made.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    with torch.no_grad():
        made.head.weight.mul_(20.0)
    return made.eval()


def image(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_small_tiles_find_the_same_candidates_as_one_large_one() -> None:
    net = network()
    first = find_candidates(net, image(101, 90), distance_px=6.0)
    second = find_candidates(net, image(101, 90), distance_px=6.0, memory_mb=0.05)
    assert len(first) > 20
    assert torch.allclose(first.yx_px, second.yx_px, atol=1e-3)
    assert torch.allclose(first.score, second.score, atol=1e-4)
    assert torch.equal(first.rotation, second.rotation)
    assert torch.allclose(first.confidence, second.confidence, atol=1e-4)
    apart = torch.cdist(first.yx_px, first.yx_px) + 1e9 * torch.eye(len(first))
    assert float(apart.min()) >= 6.0


def test_a_quarter_turn_moves_candidates_and_permutes_their_rotations() -> None:
    net = network("d4opt-16")
    side = 81
    before = find_candidates(net, image(side, side), distance_px=5.0)
    after = find_candidates(net, torch.rot90(image(side, side), 1, (0, 1)), distance_px=5.0)
    assert len(before) == len(after)
    # rot90 moves (y, x) to (side - 1 - x, y): x towards -y
    moved = torch.stack([side - 1 - before.yx_px[:, 1], before.yx_px[:, 0]], dim=1)
    nearest = torch.cdist(moved, after.yx_px).min(dim=1)
    assert float(nearest.values.max()) < 0.1
    assert torch.allclose(before.score, after.score[nearest.indices], atol=1e-3)
    turn = next(g for g in square_group() if float(g[0, 1]) == 1.0 and float(g[1, 0]) == -1.0)
    order = net.grid.permutation(turn)
    assert torch.equal(order[before.rotation], after.rotation[nearest.indices])
    assert torch.allclose(before.confidence, after.confidence[nearest.indices], atol=1e-4)


def test_edges_masks_and_floors() -> None:
    net = network()
    pixels = image(90, 90)
    found = find_candidates(net, pixels, distance_px=4.0, margin_px=15.0)
    assert float(found.yx_px.min()) >= 15.0
    assert float(found.yx_px.max()) <= 74.0
    keep = torch.ones(90, 90)
    keep[:, :45] = 0.0
    assert float(find_candidates(net, pixels, distance_px=4.0, keep=keep).yx_px[:, 1].min()) >= 44.5
    high = float(found.score.median())
    assert float(find_candidates(net, pixels, distance_px=4.0, floor=high).score.min()) > high
    nothing = find_candidates(net, pixels, distance_px=4.0, floor=1e6)
    assert len(nothing) == 0


def test_a_network_without_rotations_has_no_poses() -> None:
    plain = PlainClassifier(channels=(2, 3), kernel_sizes=(7, 5, 5)).eval()
    found = find_candidates(plain, image(60, 60), distance_px=4.0)
    assert set(found.rotation.tolist()) <= {-1}
    assert all(math.isnan(value) for value in found.confidence.tolist())
    assert score_grid(plain).stride_px == 2
    assert values_per_output(plain) >= 3
    assert certify_picker(plain)["rotations_hold"] is False
    assert certify_picker(network())["rotations_hold"] is True


def test_training_sees_the_scores_that_picking_sees() -> None:
    net = network()
    grid = score_grid(net)
    pixels = image(71, 71)
    scores = dense_scores(net, grid.pad(pixels)[None, None])[0].detach()
    found = find_candidates(net, pixels, distance_px=0.0)
    nearest = (found.yx_px / grid.stride_px).round().long()
    peak = scores[nearest[:, 0].clamp(max=len(scores) - 1), nearest[:, 1].clamp(max=scores.shape[1] - 1)]
    assert float((found.score - peak).abs().max()) < 0.35 * float(scores.std()) * 4
    assert bool((found.score >= peak - 1e-4).all())


def test_neighbours_are_the_rotation_itself_and_those_within_30_degrees() -> None:
    assert torch.equal(neighbours(rotation_grid("d4opt-64")), torch.eye(64, dtype=torch.bool))
    near = neighbours(rotation_grid("healpix-2"))
    assert bool(near.diagonal().all())
    assert torch.equal(near, near.T)
    assert 1.0 < float(near.double().sum(1).mean()) < 12.0


def test_labels_in_the_margin_count_neither_for_nor_against() -> None:
    picks = Candidates(
        torch.tensor([[2.0, 50.0], [50.0, 50.0], [70.0, 20.0]]), torch.tensor([3.0, 2.0, 1.0]),
        torch.zeros(3, dtype=torch.int64), torch.zeros(3),
    )  # fmt: skip
    labels = torch.tensor([[3.0, 50.0], [51.0, 50.0]])
    plain = judged(picks, labels, 8.0)
    assert (plain.right.tolist(), plain.labels) == ([True, True, False], 2)
    inner = judged(picks, labels, 8.0, size=(100, 100), margin_px=10.0)
    assert (inner.right.tolist(), inner.labels) == ([True, False], 1)
    assert judged(picks, labels, 8.0, tolerance_px=0.5).right.tolist() == [False, False, False]
    with pytest.raises(IndexError):
        picks.select(torch.tensor([7]))
