"""Head anatomies as tensors: what the head simulator draws from.

The tensors come from outside (see ``tasks/pose/anatomy.py``); this room knows no files.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class HeadAnatomy:
    """Fetal brains on one common grid in the head frame.

    Frame A: x right, y anterior, z superior; the origin is the brain's centre.

    Every brain is scaled to ``REFERENCE_VOLUME_ML``; the simulator rescales.

    Parameters
    ----------
    signed_distance_mm
        Distance to the brain's surface in mm, negative inside.
    intensity
        Template intensity divided by its median inside the brain; 1 outside.
    tissues
        Soft tissue maps (they sum to 1 inside the brain), one channel per tissue.
    voxel_size_mm
        Edge of the grid's voxels; the grid's centre is the origin of the head frame.
    gestational_age_weeks
        One per brain.
    tissue_names
        Names of the channels of ``tissues``.
    """

    signed_distance_mm: Float[Tensor, "brain x y z"]
    intensity: Float[Tensor, "brain x y z"]
    tissues: Float[Tensor, "brain tissue x y z"]
    voxel_size_mm: float
    gestational_age_weeks: Float[Tensor, "brain"]
    tissue_names: tuple[str, ...]

    def __len__(self) -> int:
        return self.signed_distance_mm.shape[0]


REFERENCE_VOLUME_ML = 290.0
"""Brain volume to which anatomies, and crops of the rotation network, are scaled (the median near 31 weeks)."""
