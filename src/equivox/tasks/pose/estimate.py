"""What a pose estimator gives back, and what it has to offer to be used by `equivox pose`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, Protocol, get_args, runtime_checkable

from equivox.geometry.rotations import Pose
from equivox.geometry.space import Volume

Status = Literal["ok", "low_confidence", "no_object", "failed"]
"""``ok``; ``low_confidence``: a pose is there, but is not to be trusted unseen; ``no_object``: nothing that looks like
the object was found; ``failed``: the input could not be used. The last two carry no pose."""

STATUSES: tuple[Status, ...] = get_args(Status)
NO_DETAILS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PoseEstimate:
    """Pose of one object in one volume.

    Parameters
    ----------
    status
        See :data:`Status`.
    reason
        One sentence for every status but ``ok``; empty for ``ok``.
    world_from_head
        ``p_world = R p_head + t`` in RAS mm, frames ``"head"`` and ``"world"``; None without an object.
    confidence
        In [0, 1]: 0 without a pose.
    mask
        Where the object was found (one channel, 0 or 1), on the grid of the input volume.
    mask_volume_ml
        Volume of the mask.
    singular_values
        Of the 3x3 matrix the rotation was read from, largest first, where the estimator has them.
    spread_deg
        Angular spread of the answers that were averaged, where several were.
    warnings
        Sentences about fallbacks that a reader of the result should know.
    seconds
        Wall time of the estimate.
    details
        Further numbers of one estimator, by name with unit.
    """

    status: Status
    reason: str = ""
    world_from_head: Pose | None = None
    confidence: float = 0.0
    mask: Volume | None = None
    mask_volume_ml: float = 0.0
    singular_values: tuple[float, float, float] | None = None
    spread_deg: float | None = None
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    details: Mapping[str, float] = field(default_factory=lambda: NO_DETAILS)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status is {self.status!r}; expected one of {', '.join(STATUSES)}")
        if (self.world_from_head is not None) != (self.status in ("ok", "low_confidence")):
            raise ValueError(
                f"status {self.status!r} and world_from_head={self.world_from_head!r} contradict each other"
            )
        if self.world_from_head is not None and (self.world_from_head.source, self.world_from_head.target) != (
            "head",
            "world",
        ):
            raise ValueError(
                f"the pose is {self.world_from_head.target}_from_{self.world_from_head.source}, "
                "expected world_from_head"
            )
        if not 0.0 <= self.confidence <= 1.0:  # NaN fails too
            raise ValueError(f"confidence is {self.confidence}; expected a number in [0, 1]")
        if self.status != "ok" and not self.reason:
            raise ValueError(f"status {self.status!r} needs a reason")

    @property
    def has_pose(self) -> bool:
        """Whether there is a pose to write."""
        return self.world_from_head is not None

    def require_pose(self) -> Pose:
        """The pose, or a ValueError that repeats the reason why there is none."""
        if self.world_from_head is None:
            raise ValueError(f"there is no pose: {self.reason}")
        return self.world_from_head

    def with_seconds(self, seconds: float) -> PoseEstimate:
        """The same estimate with its wall time filled in."""
        return replace(self, seconds=seconds)

    def as_dict(self) -> dict[str, object]:
        """Everything but the mask's voxels as plain JSON values; numbers rounded to 1e-9, angles in degrees.

        Keys: ``status, reason, world_from_head`` (4x4 or None), ``quaternion_xyzw, translation_mm, euler_xyz_deg``
        (None without a pose), ``confidence, mask_volume_ml, singular_values, spread_deg, warnings, seconds, details``.
        """
        pose = self.world_from_head
        matrix = quaternion = translation = euler = None
        if pose is not None:
            matrix = [[_rounded(v) for v in row] for row in pose.matrix().double().tolist()]
            quaternion = [_rounded(v) for v in pose.quaternion_xyzw().double().tolist()]
            translation = [_rounded(v) for v in pose.translation_mm.double().tolist()]
            euler = [_rounded(v) for v in pose.euler_xyz_deg().double().tolist()]
        return {
            "status": self.status,
            "reason": self.reason,
            "world_from_head": matrix,
            "quaternion_xyzw": quaternion,
            "translation_mm": translation,
            "euler_xyz_deg": euler,
            "confidence": _rounded(self.confidence),
            "mask_volume_ml": _rounded(self.mask_volume_ml),
            "singular_values": None if self.singular_values is None else [_rounded(v) for v in self.singular_values],
            "spread_deg": None if self.spread_deg is None else _rounded(self.spread_deg),
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
            "details": {name: _rounded(value) for name, value in sorted(self.details.items())},
        }


@runtime_checkable
class Estimator(Protocol):
    """Anything that finds the object's pose in a volume."""

    def estimate(self, volume: Volume, *, mask: Volume | None = None) -> PoseEstimate:
        """Estimate the pose of the object in ``volume``.

        Parameters
        ----------
        volume
            One channel, any voxel size, orientation and handedness; values as in the file.
        mask
            The object, if it is known already: one channel on ``volume``'s grid, not 0 inside. Replaces the
            estimator's own localisation.

        Returns
        -------
        An estimate whose pose is ``world_from_head`` in the same world as ``volume.affine``. Nothing found is an
        answer (status ``no_object``), not an exception.

        Raises
        ------
        EquivoxError
            If the input itself cannot be used; the caller reports it as ``failed``.
        """
        ...


def _rounded(value: float) -> float | None:
    """Round at the door; JSON has no NaN."""
    return round(float(value), 9) + 0.0 if math.isfinite(value) else None
