"""What a C-alpha trace says about itself: which residues wind, which are stretched, and where the chain goes.

Only distances and the signed torsion of four consecutive C-alpha atoms are used, so that the result turns with the
coordinates and knows left from right. Positions in ångström.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BROKEN_ANGSTROM = 4.5
"""Consecutive C-alpha atoms farther apart than this are not neighbours in the chain (normally 3.8, cis 2.9)."""
AHEAD_ANGSTROM = 2.5
"""How far ahead of a residue its direction is marked."""
CHANNELS = ("helix", "strand", "other", "helix, ahead", "strand, ahead")
"""Meaning of the channels of :func:`chain_points`."""
HELIX_TORSION_DEG, HELIX_PLAY_DEG, HELIX_ANGSTROM, HELIX_PLAY_ANGSTROM = 50.0, 30.0, 5.3, 1.0
STRAND_TORSION_DEG, STRAND_PLAY_DEG, STRAND_ANGSTROM = -170.0, 55.0, 8.7
"""Torsion of four C-alpha atoms and distance of the first from the last: helix about, strand at least."""


def chain_points(
    positions: Float[Tensor, "residue 3"],
) -> tuple[Float[Tensor, "point 3"], Int[Tensor, "point"]]:
    """Points in five kinds, see :data:`CHANNELS`: every C-alpha atom once, and a mark ahead of ordered ones.

    A residue is helix or strand if more than a third of the windows of four residues that hold it say so, more of them
    than say the other. Helix and strand residues are repeated 2.5 Å along the local direction of the chain, in channels
    of their own: the difference of the two channels tells parallel strands from antiparallel ones.

    Examples
    --------
    >>> turn = torch.deg2rad(torch.arange(8) * 100.0)
    >>> helix = torch.stack([2.3 * turn.cos(), 2.3 * turn.sin(), 1.5 * torch.arange(8)], dim=1)
    >>> chain_points(helix)[1].tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 3, 3, 3, 3]
    """
    helix, strand = chain_windows(positions)
    helical, stretched = _share(helix, len(positions)), _share(strand, len(positions))
    kind = torch.full((len(positions),), 2, dtype=torch.int64, device=positions.device)
    kind[(helical > 1 / 3) & (helical >= stretched)] = 0
    kind[(stretched > 1 / 3) & (stretched > helical)] = 1
    ordered = kind < 2
    ahead = positions + AHEAD_ANGSTROM * chain_directions(positions)
    return torch.cat([positions, ahead[ordered]]), torch.cat([kind, kind[ordered] + 3])


def chain_windows(positions: Float[Tensor, "residue 3"]) -> tuple[Bool[Tensor, " window"], Bool[Tensor, " window"]]:
    """Whether four consecutive residues wind as an alpha helix does, and whether they are stretched as in a strand.

    Windows across a break of the chain are neither.
    """
    if len(positions) < 4:
        none = torch.zeros(0, dtype=torch.bool, device=positions.device)
        return none, none
    steps = positions[1:] - positions[:-1]
    joined = steps.norm(dim=1) < BROKEN_ANGSTROM
    whole = joined[:-2] & joined[1:-1] & joined[2:]
    first, second = torch.linalg.cross(steps[:-2], steps[1:-1]), torch.linalg.cross(steps[1:-1], steps[2:])
    sine = (torch.linalg.cross(first, second) * torch.nn.functional.normalize(steps[1:-1], dim=1)).sum(1)
    torsion = torch.rad2deg(torch.atan2(sine, (first * second).sum(1)))
    span = (positions[3:] - positions[:-3]).norm(dim=1)
    helix = (_apart(torsion, HELIX_TORSION_DEG) < HELIX_PLAY_DEG) & (
        (span - HELIX_ANGSTROM).abs() < HELIX_PLAY_ANGSTROM
    )
    strand = (_apart(torsion, STRAND_TORSION_DEG) < STRAND_PLAY_DEG) & (span > STRAND_ANGSTROM)
    return whole & helix, whole & strand


def chain_directions(positions: Float[Tensor, "residue 3"]) -> Float[Tensor, "residue 3"]:
    """Unit vectors from the residue before to the residue after; zero for a single residue."""
    if len(positions) < 2:
        return torch.zeros_like(positions)
    before = torch.cat([positions[:1], positions[:-1]])
    after = torch.cat([positions[1:], positions[-1:]])
    return torch.nn.functional.normalize(after - before, dim=1)


def _apart(angle: Tensor, centre: float) -> Tensor:
    """Distance on the circle, degrees."""
    return torch.rad2deg(torch.deg2rad(angle - centre + math.degrees(math.pi)).remainder(2 * math.pi) - math.pi).abs()


def _share(windows: Tensor, residues: int) -> Tensor:
    """Of the windows of four that hold a residue, the share that is true."""
    if not len(windows):
        return windows.new_zeros(residues, dtype=torch.float32)
    ones = torch.ones(1, 1, 4, device=windows.device)
    counts = torch.nn.functional.conv1d(
        torch.stack([windows.float(), torch.ones_like(windows, dtype=torch.float32)])[:, None], ones, padding=3
    )
    return (counts[0] / counts[1])[0]
