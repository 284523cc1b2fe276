"""Frames of amino-acid residues, and the atoms about them: the boxes that a residue is guessed from ("box v1").

Positions in ångström. The frame of a residue stands on its backbone, so that the side chain that is to be guessed has
no part in it; the origin is where the first side-chain atom (C-beta) would be, for glycine too.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from equivox.errors import GeometryError
from equivox.geometry.density import PADDING

VIRTUAL_CB = (-0.58273431, 0.56802827, -0.54067466)
"""Coefficients of (CA - N) x (C - CA), CA - N and C - CA in the step from C-alpha to the virtual C-beta."""
REACH_SIGMA = 6.0
"""An atom farther than this beyond the border of a box leaves less than 1e-8 of its peak inside."""


def residue_frames(
    n: Float[Tensor, "*batch 3"], ca: Float[Tensor, "*batch 3"], c: Float[Tensor, "*batch 3"]
) -> tuple[Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3"]]:
    """Frame and origin of residues from their backbone atoms N, CA and C.

    Returns
    -------
    tuple
        Rows (e_x, e_y, e_z) with e_x along CA to N and e_z across N, CA, C; and the virtual C-beta. A position x has
        the local coordinates ``frame @ (x - origin)``.

    Raises
    ------
    GeometryError
        If the three atoms of a residue lie on one line or on one point: then there is no frame.

    Examples
    --------
    >>> n, ca, c = torch.tensor([[1.46, 0.0, 0.0], [0.0, 0.0, 0.0], [-0.55, 1.42, 0.0]])
    >>> frame, origin = residue_frames(n, ca, c)
    >>> bool(torch.allclose(frame, torch.eye(3)))
    True
    """
    e_x = n - ca
    e_z = torch.linalg.cross(e_x, c - ca)
    across, along = e_z.norm(dim=-1, keepdim=True), e_x.norm(dim=-1, keepdim=True)
    if not bool((across > 1e-3).all()):  # also where a coordinate is NaN
        raise GeometryError("the atoms N, CA and C of a residue lie on one line, so it has no frame; leave it out")
    e_x, e_z = e_x / along, e_z / across
    frame = torch.stack([e_x, torch.linalg.cross(e_z, e_x), e_z], dim=-2)
    b, bond = ca - n, c - ca
    a = torch.linalg.cross(b, bond)
    return frame, VIRTUAL_CB[0] * a + VIRTUAL_CB[1] * b + VIRTUAL_CB[2] * bond + ca


def box_atoms(
    positions: Float[Tensor, "atom 3"],
    channel: Int[Tensor, " atom"],
    backbone: Bool[Tensor, " atom"],
    *,
    own: Int[Tensor, "residue 2"],
    chain: Int[Tensor, "residue 2"],
    origin: Float[Tensor, "residue 3"],
    rotation: Float[Tensor, "residue 3 3"] | None = None,
    side: int = 20,
    spacing: float = 1.0,
    sigma: float = 0.6,
) -> tuple[Float[Tensor, "residue point 3"], Int[Tensor, "residue point"]]:
    """Local coordinates and channels of the atoms that reach into the box about each residue.

    All heavy atoms of the residue's chain count, except those of the residue itself other than N, CA, C and O.

    Parameters
    ----------
    positions, channel, backbone
        All atoms, of one chain or of many: position, channel of the field (-1: in none), and whether it is N, CA, C
        or O.
    own, chain
        First and one past the last atom of each residue, and of the chain it belongs to.
    origin
        Centre of each box.
    rotation
        Local from laboratory: ``u = rotation @ (x - origin)``. The frames of :func:`residue_frames` give boxes that
        do not depend on how the protein lies; None leaves the laboratory orientation.
    side, spacing, sigma
        Of the grid that :func:`equivox.geometry.density.gaussian_density` will fill.

    Returns
    -------
    tuple
        Positions and channels, padded with channel -1 to the largest number of atoms in the batch.
    """
    count = int((chain[:, 1] - chain[:, 0]).max()) if len(chain) else 0
    step = torch.arange(count, device=positions.device)
    index = chain[:, :1] + step
    inside = index < chain[:, 1:]
    index = torch.where(inside, index, 0)
    local = positions[index] - origin[:, None]
    half = side * spacing / 2 + REACH_SIGMA * sigma
    if rotation is not None:
        # what cannot reach the box in any orientation is dropped before it is turned
        near = inside & (local.square().sum(dim=-1) < 3 * half**2)
        index, inside, local = _compact(near, index, local)
        local = local @ rotation.mT
    mine = (index >= own[:, :1]) & (index < own[:, 1:])
    kept = inside & ~(mine & ~backbone[index]) & (channel[index] != PADDING) & (local.abs() < half).all(dim=-1)
    index, kept, local = _compact(kept, index, local)
    return local, torch.where(kept, channel[index], PADDING)


def box_half_angstrom(side: int, spacing: float) -> float:
    """Distance from the centre of a box to its farthest corner [Å].

    >>> round(box_half_angstrom(20, 1.0), 2)
    17.32
    """
    return math.sqrt(3) * side * spacing / 2


def _compact(kept: Tensor, index: Tensor, local: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move what is kept to the front of each row, in its order, and cut the rows to the longest."""
    width = int(kept.sum(dim=1).max()) if kept.numel() else 0
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
    return (
        index.gather(1, order),
        kept.gather(1, order),
        local.gather(1, order[..., None].expand(-1, -1, 3)),
    )
