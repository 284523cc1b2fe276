"""A table of particles, the same whether it came from RELION 3.0, 3.1, 5 or from cryoSPARC.

Conventions: coordinates are 0-based pixel centres of the (un-binned) micrograph; rotations are RELION's matrix, which
takes volume to image coordinates (the pose of the particle); an origin is the shift in Å to apply to the image to
centre it, so the true centre is at ``coordinate - origin / micrograph pixel size``; images are counted from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.archives import require_file
from equivox.formats.star import Star

Layout = Literal["relion-3.0", "relion-3.1", "relion-5", "cryosparc"]
Numbers = Float64[np.ndarray, " particle"]


@dataclass(frozen=True, slots=True, eq=False)
class Particles:
    """One row per particle. What a file does not say is None; numbers that single rows lack are NaN.

    Parameters
    ----------
    path, layout
        Where the table was read and what wrote it.
    count
        Number of particles.
    image_path, image_index
        File of each particle's image and its position there, counted from 0.
    micrograph
        Name of each particle's micrograph.
    x_px, y_px
        Centre on the micrograph.
    rotations
        (particle, 3, 3) float64.
    origin_angstrom
        (particle, 2): x and y.
    pixel_size_angstrom, micrograph_pixel_size_angstrom
        Of the particle's image and of its micrograph.
    voltage_kv, cs_mm, amplitude_contrast
        Of the microscope, from the optics table or the row.
    defocus_u_angstrom, defocus_v_angstrom, defocus_angle_deg, phase_shift_deg
        Of the contrast transfer function; positive is underfocus.
    optics_group, half_set, class_number
        As RELION counts them, from 1.
    score
        Figure of merit of the pick.
    image_size_px
        Edge of the particle's image.
    micrograph_shape
        Rows and columns of the particle's micrograph.
    star, table
        The file as it was read, with every column.
    """

    path: Path
    layout: Layout
    count: int
    image_path: tuple[str, ...] | None = None
    image_index: Int64[np.ndarray, " particle"] | None = None
    micrograph: tuple[str, ...] | None = None
    x_px: Numbers | None = None
    y_px: Numbers | None = None
    rotations: Float64[Tensor, "particle 3 3"] | None = None
    origin_angstrom: Float64[np.ndarray, "particle 2"] | None = None
    pixel_size_angstrom: Numbers | None = None
    micrograph_pixel_size_angstrom: Numbers | None = None
    voltage_kv: Numbers | None = None
    cs_mm: Numbers | None = None
    amplitude_contrast: Numbers | None = None
    defocus_u_angstrom: Numbers | None = None
    defocus_v_angstrom: Numbers | None = None
    defocus_angle_deg: Numbers | None = None
    phase_shift_deg: Numbers | None = None
    optics_group: Int64[np.ndarray, " particle"] | None = None
    half_set: Int64[np.ndarray, " particle"] | None = None
    class_number: Int64[np.ndarray, " particle"] | None = None
    score: Numbers | None = None
    image_size_px: Int64[np.ndarray, " particle"] | None = None
    micrograph_shape: Int64[np.ndarray, "particle 2"] | None = None
    star: Star | None = None
    table: np.ndarray[Any, np.dtype[Any]] | None = None
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def require_rotations(self) -> Float64[Tensor, "particle 3 3"]:
        """The poses; InputError that names the columns if the file has none."""
        if self.rotations is None:
            lacking = "alignments3D/pose" if self.layout == "cryosparc" else "_rlnAngleRot, _rlnAngleTilt, _rlnAnglePsi"
            raise InputError(f"{self.path} has no orientations ({lacking}); give the file of a refinement.")
        return self.rotations

    def require_images(self) -> tuple[tuple[str, ...], Int64[np.ndarray, " particle"]]:
        """File and position of every image; InputError if the table names none."""
        if self.image_path is None or self.image_index is None:
            lacking = "blob/path" if self.layout == "cryosparc" else "_rlnImageName"
            raise InputError(f"{self.path} names no images ({lacking}); give the file of an extraction.")
        return self.image_path, self.image_index

    def require_pixel_size(self) -> float:
        """The one pixel size [Å] of all images; InputError if it is unknown or images differ."""
        sizes = self.pixel_size_angstrom
        if sizes is None or not np.isfinite(sizes).all():
            raise InputError(f"{self.path} says no pixel size; give it in Å, for example --pixel-size-angstrom 1.5.")
        if self.count == 0:
            raise InputError(f"{self.path} holds no particle.")
        if float(sizes.max() - sizes.min()) > 1e-4 * float(sizes.max()):
            different = ", ".join(f"{size:g}" for size in np.unique(sizes)[:5])
            raise InputError(
                f"{self.path} mixes pixel sizes ({different} Å); scale the particles to one size or split the file."
            )
        return float(sizes[0])

    def select(self, indices: Sequence[int] | np.ndarray) -> Particles:
        """Particles by index, in the order given; the file's own rows too."""
        chosen = np.asarray(indices, dtype=np.int64)
        values: dict[str, Any] = {"count": len(chosen)}
        for name in PER_PARTICLE:
            column = getattr(self, name)
            if isinstance(column, tuple):
                values[name] = tuple(column[index] for index in chosen.tolist())
            elif isinstance(column, Tensor):
                values[name] = column[torch.from_numpy(chosen)]
            elif column is not None:
                values[name] = column[chosen]
        if self.star is not None:
            block = particle_block(self.star)
            values["star"] = self.star.with_block(block.select(chosen.tolist()))
        if self.table is not None:
            values["table"] = self.table[chosen]
        return replace(self, **values)

    def with_poses(
        self,
        rotations: Float64[Tensor, "particle 3 3"],
        origin_angstrom: Float64[np.ndarray, "particle 2"] | None = None,
    ) -> Particles:
        """The same particles in other poses (and at other origins, if given)."""
        origin = self.origin_angstrom if origin_angstrom is None else origin_angstrom
        return replace(self, rotations=rotations, origin_angstrom=origin)

    def with_coordinates(
        self, x_px: Numbers, y_px: Numbers, micrograph_shape: Int64[np.ndarray, "particle 2"] | None = None
    ) -> Particles:
        """The same particles at other places (on micrographs of another size, if given)."""
        shape = self.micrograph_shape if micrograph_shape is None else micrograph_shape
        return replace(self, x_px=x_px, y_px=y_px, micrograph_shape=shape)


PER_PARTICLE = (
    "image_path", "image_index", "micrograph", "x_px", "y_px", "rotations", "origin_angstrom", "pixel_size_angstrom",
    "micrograph_pixel_size_angstrom", "voltage_kv", "cs_mm", "amplitude_contrast", "defocus_u_angstrom",
    "defocus_v_angstrom", "defocus_angle_deg", "phase_shift_deg", "optics_group", "half_set", "class_number", "score",
    "image_size_px", "micrograph_shape",
)  # fmt: skip


TRANSLATED = {
    "rlnImageName", "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAngleRot", "rlnAngleTilt",
    "rlnAnglePsi", "rlnOriginX", "rlnOriginY", "rlnOriginXAngst", "rlnOriginYAngst", "rlnDefocusU", "rlnDefocusV",
    "rlnDefocusAngle", "rlnPhaseShift", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast",
    "rlnMagnification", "rlnDetectorPixelSize", "rlnPixelSize", "rlnImagePixelSize", "rlnImageSize",
    "rlnImageDimensionality", "rlnOpticsGroup", "rlnOpticsGroupName", "rlnMicrographPixelSize",
    "rlnMicrographOriginalPixelSize", "rlnClassNumber", "rlnRandomSubset", "rlnAutopickFigureOfMerit",
}  # fmt: skip
"""Labels whose content is a field of :class:`Particles`."""


def read_particles(
    path: Path | str, *, passthrough: Sequence[Path | str] = (), pixel_size_angstrom: float | None = None
) -> Particles:
    """Read particles from a RELION STAR file (3.0, 3.1, 4, 5) or a cryoSPARC ``.cs`` table.

    Parameters
    ----------
    path
        The file.
    passthrough
        Passthrough files of a ``.cs``, joined over ``uid``.
    pixel_size_angstrom
        Of the particle images; overrides the file.

    Raises
    ------
    InputError
        If the file cannot be read, has no particles, a number in it is none, an image is counted from 0 in RELION's
        files, or rows refer to optics groups that are not there.
    """
    from equivox.formats.cryosparc import is_cs
    from equivox.formats.particles_cryosparc import read_cryosparc_particles
    from equivox.formats.particles_relion import read_relion_particles

    path = require_file(path)
    if is_cs(path) or path.suffix.lower() == ".cs":
        return read_cryosparc_particles(path, passthrough, pixel_size_angstrom)
    if passthrough:
        raise InputError(f"{path} is no .cs file; passthrough files belong to cryoSPARC's tables.")
    return read_relion_particles(path, pixel_size_angstrom)


def particle_block(star: Star) -> Any:
    """The block with the particles; InputError if there is none."""
    for name in ("particles", "images", "particles_3d", ""):
        block = star.find(name)
        if block is not None and block.labels:
            return block
    for block in star.blocks:
        if block.has("rlnImageName") or block.has("rlnCoordinateX", "rlnCoordinateY"):
            return block
    raise InputError(f"{star.path} has no table of particles (data_particles or data_); give another file.")
