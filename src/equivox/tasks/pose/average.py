"""``pose average``: one pose from many, and how far they lie apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError, GeometryError, InputError
from equivox.formats.atomic import require_absent
from equivox.formats.transforms.files import TransformSet, output_format, read_transforms, write_transforms
from equivox.geometry.rotations import Pose, chordal_mean, geodesic_angle
from equivox.tasks.pose.convert import grid_of

AMBIGUOUS = 1e-6
"""Below this the mean of the matrices does not single out one nearest rotation."""


@dataclass(frozen=True, slots=True)
class PoseAverage:
    """A mean pose and the distance of every pose from it.

    Parameters
    ----------
    mean
        Chordal mean of the rotations, arithmetic mean of the translations.
    angles_deg, distances_mm
        Of each pose from the mean, in the order of ``sources``.
    sources
        File, and frame where the file holds several.
    skipped
        Frames without a pose.
    """

    mean: Pose
    angles_deg: Float[Tensor, "pose"]
    distances_mm: Float[Tensor, "pose"]
    sources: tuple[str, ...]
    skipped: tuple[str, ...]

    def spread(self) -> dict[str, float]:
        """Root mean square, median and maximum of the distances from the mean."""
        found = {}
        for name, values in (("angle_deg", self.angles_deg), ("distance_mm", self.distances_mm)):
            found[f"rms_{name}"] = float(values.square().mean().sqrt())
            found[f"median_{name}"] = float(values.quantile(0.5))
            found[f"max_{name}"] = float(values.max())
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "source": self.mean.source,
            "target": self.mean.target,
            "matrix": self.mean.matrix().tolist(),
            "quaternion_xyzw": self.mean.quaternion_xyzw().tolist(),
            "count": len(self.sources),
            "spread": self.spread(),
            "poses": [
                {"pose": name, "angle_deg": angle, "distance_mm": distance}
                for name, angle, distance in zip(
                    self.sources, self.angles_deg.tolist(), self.distances_mm.tolist(), strict=True
                )
            ],
            "skipped": list(self.skipped),
        }


def mean_pose(poses: Sequence[Pose], sources: Sequence[str], skipped: Sequence[str] = ()) -> PoseAverage:
    """Average rigid poses between the same two frames.

    The rotation minimises the sum of squared Frobenius distances (the chordal mean: the mean of the matrices, brought
    to the nearest rotation), the translation the sum of squared distances.

    Raises
    ------
    GeometryError
        If the frames differ, or the rotations lie so far apart that no single one is nearest to all.
    ValueError
        If there is no pose.
    """
    if not poses:
        raise ValueError("a mean needs at least one pose")
    first = poses[0]
    for pose, name in zip(poses, sources, strict=True):
        if (pose.source, pose.target) != (first.source, first.target):
            raise GeometryError(
                f"{name} maps {pose.source} to {pose.target}, but {sources[0]} maps {first.source} to {first.target}; "
                f"poses of one average lie between the same two frames (pose convert --invert turns one round)."
            )
    rotations = torch.stack([pose.rotation.double() for pose in poses])
    translations = torch.stack([pose.translation_mm.double() for pose in poses])
    total = rotations.mean(0)
    singular = torch.linalg.svdvals(total)
    if float(singular[1] + torch.linalg.det(total).sign() * singular[2]) < AMBIGUOUS:
        raise GeometryError(
            f"the {len(poses)} rotations lie so far apart that they have no single mean; average fewer, alike ones."
        )
    mean = Pose(chordal_mean(rotations), translations.mean(0), source=first.source, target=first.target)
    angles = geodesic_angle(rotations, mean.rotation.expand_as(rotations)) * (180.0 / math.pi)
    distances = (translations - mean.translation_mm).norm(dim=-1)
    return PoseAverage(mean, angles, distances, tuple(sources), tuple(skipped))


def average_poses(
    inputs: Sequence[Path | str],
    out: Path | str,
    *,
    to: str | None = None,
    reference: Path | str | None = None,
    moving: Path | str | None = None,
    row: str | None = None,
    overwrite: bool = False,
) -> PoseAverage:
    """Read poses (every frame of a series counts as one), average them and write the mean.

    Parameters
    ----------
    inputs
        Any files that ``read_transforms`` knows. All are taken to lie between the same two frames: head and world,
        where a file does not name its own.
    out, to
        The file to write, and its format where the ending does not say.
    reference, moving
        The two images, for FSL and LTA.
    row
        The input whose rows of a ``poses.csv`` are meant.
    overwrite
        Replace an existing file.

    Raises
    ------
    ConfigError
        If there are fewer than two poses, or the format is not clear.
    GeometryError
        If frames are mixed or the mean is not defined.
    InputError
        If a file cannot be read or holds no rigid pose.
    OutputError
        If ``out`` exists already, or cannot be written.
    """
    out = Path(out)
    kind = output_format(out, to)
    require_absent([out], overwrite=overwrite)
    fixed_grid, moving_grid = grid_of(reference), grid_of(moving)
    if kind in ("lta", "fsl") and (fixed_grid is None or moving_grid is None):
        raise ConfigError(f"{out}: a {kind} file describes its two images; give them by --reference and --moving.")
    poses, sources, skipped = [], [], []
    for path in inputs:
        read = read_transforms(path, moving=moving_grid, fixed=fixed_grid, row=row)
        for index, pose in enumerate(read.poses()):
            name = f"{path}, frame {index}" if len(read.matrices) > 1 else f"{path}"
            if pose is None:
                skipped.append(name)
            else:
                poses.append(pose)
                sources.append(name)
    if not poses:
        raise InputError(f"none of the {len(skipped)} frames has a pose; there is nothing to average.")
    if len(poses) < 2:
        raise ConfigError(f"only {sources[0]} has a pose; an average needs at least two.")
    average = mean_pose(poses, sources, skipped)
    mean = average.mean
    whole = TransformSet(out, kind, (mean.matrix(),), fixed=mean.source, moving=mean.target, named=True)
    write_transforms(out, whole, kind, moving=moving_grid, fixed=fixed_grid)
    return average
