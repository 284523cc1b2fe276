"""Every default of `equivox pose predict` and `equivox pose evaluate`, named once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from equivox.errors import ConfigError

DEFAULT_MODEL = "fetal-head-epi"
TransformFormat = Literal["itk", "lta", "fsl", "json"]
Frame = Literal["world", "voxel"]
Direction = Literal["canonical-to-input", "input-to-canonical"]
ViewerChoice = Literal["first", "all", "none"]
MotionReference = Literal["first", "median"]
FIRST_VIEWERS = 10
"""Interactive viewers cost 1.2 MB and 2 CPU seconds each: only so many unless all are asked for."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What `equivox pose predict` computes and writes for every input."""

    model: str = DEFAULT_MODEL
    """Name or folder of a model."""
    mask: str | None = None
    """Mask of the object (a file), or a folder with a mask per scan: replaces the localisation."""
    transform_format: TransformFormat = "itk"
    """File type of the transform."""
    reference: str | None = None
    """Grid in the head's frame (a NIfTI file) for ``lta``, ``fsl`` and the aligned volume; else one is made."""
    frame: Frame | None = None
    """Input side of the 4x4 in ``<stem>_pose.npy``; None: world mm, or voxel indices with ``published``."""
    direction: Direction = "canonical-to-input"
    """Which way the written 4x4 and transform map points."""
    published: bool = False
    """The original's behaviour, frame and matrix, for imported checkpoints (e3pose.md 2.1)."""
    write_mask: bool = False
    """Write the object's mask on the input's grid."""
    write_aligned: bool = False
    """Write every volume resliced into the head's frame."""
    report: bool = True
    """Write ``report.html``."""
    viewer: ViewerChoice = "first"
    """Interactive viewers: for the first ten inputs, for all, for none."""
    smooth: bool = False
    """Smooth the poses of a series over time, robustly, before anything is written."""
    smooth_frames: int = 3
    """Neighbours on either side that the smoothing looks at."""
    motion_reference: MotionReference = "first"
    """What the motion of a series is measured against: its first pose, or the median of all."""
    aligned_side_mm: float = 160.0
    """Side of the head-frame grid that is made where no reference is given [mm]: head and scalp of the oldest fetus."""
    aligned_voxel_mm: float = 1.0
    """Its voxel size [mm]."""

    def __post_init__(self) -> None:
        if self.smooth and self.published:
            raise ConfigError("--smooth changes poses and --published keeps the original's; choose one of them.")
        if self.smooth_frames < 1:
            raise ConfigError(
                f"--smooth-frames is {self.smooth_frames}; give the neighbours on either side, 1 or more."
            )

    @property
    def matrix_frame(self) -> Frame:
        """Frame of the 4x4's input side, with the default resolved."""
        return self.frame or ("voxel" if self.published else "world")

    def as_dict(self) -> dict[str, object]:
        """Plain values, for the run record and to compare two runs."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What `equivox pose evaluate` computes (protocol of data_mri.md section 3)."""

    predicted: Path
    """A ``poses.csv`` or the folder that holds one."""
    truth: Path
    """Table of true poses."""
    masks: Path | None = None
    """Folder with ``<stem>_mask.nii.gz``; None: the predicted folder."""
    resamples: int = 10_000
    """Draws of the bootstrap."""
    seed: int = 0
    """Seed of the bootstrap and of the consistency test's rotations."""
    consistency: bool = False
    """Also ask the model itself: turned, halved, cropped otherwise, mirrored."""
    model: str = DEFAULT_MODEL
    """Model that the consistency test asks."""
    scans: Path | None = None
    """Folder of the scans for the consistency test; None: the paths in the table."""
    random_rotations: int = 20
    """Of the consistency test."""
    symmetry: Literal["mirror", "c2", "none"] = "mirror"
    """Of the object: with ``c2`` poses that differ by a half turn about its z axis are the same."""
    exclude_flags: tuple[str, ...] = ("landmark_asymmetry", "eye_distance_outlier")
    """Stacks with one of these flags are not in the primary set: their landmarks are in doubt."""
    motion_limit: float = 1.0
    """Stratum: motion index at most, or above."""
    slice_limit_mm: float = 3.75
    """Stratum: slices of 3 mm, or of 4.5 mm."""
    age_limit_weeks: float = 30.0
    """Stratum: gestational age below, or from."""

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ConfigError(f"--resamples is {self.resamples}; the bootstrap needs at least 1, 10000 is usual.")
        if self.random_rotations < 0:
            raise ConfigError(f"--random-rotations is {self.random_rotations}; give 0 or more.")

    def as_dict(self) -> dict[str, object]:
        """Plain values, for the record."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}
