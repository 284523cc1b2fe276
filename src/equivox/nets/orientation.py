"""Orientation of a particle in one picture: a coarse look at a grid of poses, then a fine one near the best of them.

Both looks ask a network of projected filters the same question about a pose ``R``: how well does it explain the
picture, and where is the truth from there, in the body's frame? The coarse one asks at the 24 rotations of the cube (or
another grid), the fine one at members of a grid of 4608 near the best answers. For every symmetry ``g`` of the pixel
grid (quarter turns and mirrors, which are rotations ``g`` in space), the answers to the turned picture are the turned
answers, exactly.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.so3_grids import RotationGrid, rotation_grid
from equivox.nn.pose_heads import Offset, PoseHead, PoseHypotheses, UnimodalHead
from equivox.nn.projected_at import LiftingConvAt, ProjectedConvAt, ProjectedReadAt

LIFT, STRIDE, HIDDEN = 9, 2, 5
"""Filters of the first and the hidden layers, and the first layer's stride (projection2d.md 6.5)."""


class PoseTrunk(nn.Module):
    """Picture and rotations to one feature vector per rotation.

    Parameters
    ----------
    side
        Pixels of the picture, odd: 25, 29, 33, 37 ... (9 plus twice an odd map).
    channels_in
        Of the picture.
    channels
        Of the first layer and of each hidden one.
    features
        Entries of the vector.
    """

    def __init__(
        self, side: int, *, channels_in: int = 1, channels: tuple[int, ...] = (8, 16), features: int = 64
    ) -> None:
        super().__init__()
        map_side = (side - LIFT) // STRIDE + 1 - (HIDDEN - 1) * (len(channels) - 1)
        if (side - LIFT) % STRIDE or map_side < 3 or map_side % 2 == 0:
            raise ConfigError(
                f"pictures of {side} px do not lead to a map with a centre; take {LIFT} px plus a multiple of 4, "
                f"at least {LIFT + 2 * (2 + (HIDDEN - 1) * (len(channels) - 1))}."
            )
        self.lift = LiftingConvAt(channels_in, channels[0], LIFT, stride=STRIDE)
        self.norms = nn.ModuleList(nn.BatchNorm2d(count) for count in channels)
        pairs = itertools.pairwise(channels)
        self.hidden = nn.ModuleList(ProjectedConvAt(before, after, HIDDEN, richness="rich") for before, after in pairs)
        self.read = ProjectedReadAt(channels[-1], features, map_side)
        self.last_norm = nn.BatchNorm1d(features)

    def forward(
        self, pictures: Float[Tensor, "batch channel y x"], rotations: Float[Tensor, "*any rotation 3 3"]
    ) -> Float[Tensor, "batch rotation feature"]:
        """Features at ``rotations``, the same for all pictures or (batch, rotation, 3, 3)."""
        maps = self._normed(self.lift(pictures, rotations), 0)
        for index, layer in enumerate(self.hidden, start=1):
            maps = self._normed(layer(maps, rotations), index)
        vectors = self.read(maps, rotations)
        return self.last_norm(vectors.flatten(0, 1)).unflatten(0, vectors.shape[:2]).relu()

    def _normed(self, maps: Tensor, index: int) -> Tensor:
        """Statistics and parameters shared by all rotations, then ReLU."""
        norm = self.norms[index]
        return norm(maps.flatten(0, 1)).relu().unflatten(0, maps.shape[:2])


class OrientationNet(nn.Module):
    """Poses of particles with their probabilities.

    Parameters
    ----------
    side
        Pixels of a picture, odd.
    channels_in
        1, or 2 if the second channel tells the microscope's transfer.
    coarse_grid, fine_grid
        Names for :func:`equivox.geometry.so3_grids.rotation_grid`; both should be closed under D4.
    coarse_channels, fine_channels
        Of the two trunks.
    features, hidden
        Entries of a rotation's vector, width of the heads' hidden layer.
    head
        ``"mixture"``, or ``"unimodal"``: one pose from all features (the paper's comparison, no fine look).
    offset
        How a hypothesis is corrected: see :class:`equivox.nn.pose_heads.PoseHead`.
    fine
        Whether there is a fine look at all.
    candidates
        Hypotheses of the coarse look that the fine one follows.
    shift
        Also estimate where the particle's centre lies.
    """

    def __init__(
        self,
        side: int = 33,
        *,
        channels_in: int = 1,
        coarse_grid: str = "O",
        fine_grid: str = "healpix-4",
        coarse_channels: tuple[int, ...] | list[int] = (8, 16),
        fine_channels: tuple[int, ...] | list[int] = (16, 32),
        features: int = 64,
        hidden: int = 64,
        head: Literal["mixture", "unimodal"] = "mixture",
        offset: Offset = "body",
        fine: bool = True,
        candidates: int = 8,
        shift: bool = False,
    ) -> None:
        super().__init__()
        self.side, self.channels_in, self.candidates, self.has_shift = side, channels_in, candidates, shift
        self.grid: RotationGrid = rotation_grid(coarse_grid)
        self.fine_grid_name = fine_grid
        self.coarse = PoseTrunk(side, channels_in=channels_in, channels=tuple(coarse_channels), features=features)
        reach = 1.5 * math.radians(self.grid.covering_radius_deg())
        self.coarse_head: PoseHead | UnimodalHead
        if head == "unimodal":
            self.coarse_head = UnimodalHead(len(self.grid) * features)
        else:
            self.coarse_head = PoseHead(features, offset=offset, hidden=hidden, max_angle_rad=reach, shift=shift)
        self.fine: PoseTrunk | None = None
        self.fine_head: PoseHead | None = None
        if fine and head == "mixture":
            self.fine = PoseTrunk(side, channels_in=channels_in, channels=tuple(fine_channels), features=features)
            self.fine_head = PoseHead(features, hidden=hidden, max_angle_rad=1.0, kappa="each", shift=shift)

    def look_coarse(
        self, pictures: Float[Tensor, "batch channel y x"], frame: Float[Tensor, "3 3"] | None = None
    ) -> PoseHypotheses:
        """Hypotheses at the coarse grid, or at the grid times ``frame`` from the right (training draws one a step).

        Turning the grid from the right keeps it closed under the symmetries of the picture, and teaches the network
        about all poses instead of the grid's.
        """
        rotations = (
            self.grid.matrices.to(pictures) if frame is None else self.grid.matrices.to(pictures) @ frame.to(pictures)
        )
        found = self.coarse(pictures, rotations)
        if isinstance(self.coarse_head, UnimodalHead):
            return self.coarse_head(found)
        return self.coarse_head(found, rotations)

    def look_fine(
        self, pictures: Float[Tensor, "batch channel y x"], rotations: Float[Tensor, "batch candidate 3 3"]
    ) -> PoseHypotheses:
        """Hypotheses at some rotations of each picture."""
        if self.fine is None or self.fine_head is None:
            raise ConfigError("this network has no fine look; build it with fine=True and the mixture head.")
        return self.fine_head(self.fine(pictures, rotations), rotations)

    def fine_grid(self) -> RotationGrid:
        """The grid of the fine look."""
        return rotation_grid(self.fine_grid_name)

    def forward(self, pictures: Float[Tensor, "batch channel y x"]) -> PoseHypotheses:
        """The coarse answer; for the whole search see :func:`equivox.nets.orientation_search.search_poses`."""
        return self.look_coarse(pictures)
