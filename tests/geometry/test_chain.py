"""Helices, strands and directions are read from C-alpha traces, turn with them, and know left from right."""

from __future__ import annotations

import math

import torch

from equivox.geometry.chain import AHEAD_ANGSTROM, chain_directions, chain_points, chain_windows
from equivox.geometry.rotations import random_rotations


def helix(count: int, hand: float = 1.0) -> torch.Tensor:
    """Ideal alpha helix: 1.5 Å rise, 100 degrees, radius 2.3 Å."""
    turn = torch.deg2rad(torch.arange(count, dtype=torch.float64) * 100.0)
    return torch.stack([2.3 * turn.cos(), hand * 2.3 * turn.sin(), 1.5 * torch.arange(count).double()], dim=1)


def strand(count: int) -> torch.Tensor:
    """Ideal zigzag: 3.3 Å rise, 3.8 Å between neighbours."""
    step = torch.arange(count, dtype=torch.float64)
    return torch.stack([0.95 * (-1.0) ** step, torch.zeros(count).double(), 3.3 * step], dim=1)


def test_a_right_handed_helix_is_a_helix_and_its_mirror_image_is_not() -> None:
    assert chain_points(helix(9))[1].tolist() == [0] * 9 + [3] * 9
    assert chain_points(helix(9, hand=-1.0))[1].tolist() == [2] * 9


def test_a_zigzag_is_a_strand_marked_ahead_along_its_axis() -> None:
    points, kinds = chain_points(strand(8))
    assert kinds.tolist() == [1] * 8 + [4] * 8
    moved = points[8:] - strand(8)
    torch.testing.assert_close(moved.norm(dim=1), torch.full((8,), AHEAD_ANGSTROM, dtype=torch.float64))
    torch.testing.assert_close(moved[1:-1, 2], torch.full((6,), AHEAD_ANGSTROM, dtype=torch.float64))


def test_points_turn_with_the_coordinates_and_kinds_stay(generator: torch.Generator) -> None:
    chain = torch.cat([helix(10), helix(10)[-1] + torch.tensor([3.0, 2.0, 1.0]) + strand(9)])
    rotation = random_rotations(1, generator=generator)[0].double()
    before, kinds = chain_points(chain)
    after, turned_kinds = chain_points(chain @ rotation.mT)
    assert torch.equal(kinds, turned_kinds)
    torch.testing.assert_close(after, before @ rotation.mT, atol=1e-9, rtol=0)


def test_windows_do_not_reach_over_a_break() -> None:
    broken = torch.cat([helix(5), helix(10)[5:] + torch.tensor([0.0, 0.0, 6.0])])
    found = chain_windows(broken)[0].tolist()
    assert found == [True, True, False, False, False, True, True]


def test_chains_too_short_for_a_window_are_neither() -> None:
    for count in (1, 2, 3):
        points, kinds = chain_points(helix(count))
        assert kinds.tolist() == [2] * count
        assert bool(torch.isfinite(points).all())
    assert math.isclose(float(chain_directions(helix(2)).norm(dim=1).min()), 1.0, rel_tol=1e-9)
    assert float(chain_directions(helix(1)).norm()) == 0.0
