"""A table of particles together with the stacks that hold their images: found, checked, and read in portions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.mrc import MrcImage, is_mrc_name, read_mrc
from equivox.formats.particles import Particles, read_particles
from equivox.formats.star import Star, make_block

PIXEL_TOLERANCE = 0.01
"""Relative difference between the table's pixel size and the stack's that is refused."""
UNKNOWN_PIXELS = (0.0, 1.0)
"""Header values that mean nobody wrote one."""


@dataclass(frozen=True, slots=True, eq=False)
class ParticleStack:
    """Particles whose images can be read.

    Parameters
    ----------
    particles
        The table.
    files
        The stack of each distinct path in it.
    box_px, pixel_size_angstrom
        Of every image.
    warnings
        What a user should know.
    """

    particles: Particles
    files: dict[str, MrcImage]
    box_px: int
    pixel_size_angstrom: float
    warnings: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return self.particles.count

    def images(self, chosen: Sequence[int]) -> Float[Tensor, "picture y x"]:
        """Images as float32; samples that are no finite numbers are left in them."""
        paths, indices = self.particles.require_images()
        found = np.empty((len(chosen), self.box_px, self.box_px), dtype=np.float32)
        for place, row in enumerate(chosen):
            data = self.files[paths[row]].data
            found[place] = data if data.ndim == 2 else data[int(indices[row])]
        return torch.from_numpy(found)


def open_stack(
    path: Path | str,
    *,
    project: Path | None = None,
    pixel_size_angstrom: float | None = None,
    passthrough: Sequence[str] = (),
) -> ParticleStack:
    """Open a particle table (STAR of RELION 3.0, 3.1, 5; ``.cs``) with its stacks, or a stack alone.

    Parameters
    ----------
    path
        The table, or a ``.mrcs`` file.
    project
        Folder that image paths are relative to; by default the working directory, the table's folder and those above.
    pixel_size_angstrom
        Overrides what table and stacks say.
    passthrough
        Of a ``.cs`` table.

    Raises
    ------
    InputError
        If the table or a stack cannot be read, an image is not in its stack, stacks differ in box size, or table and
        stack disagree about the pixel size.
    """
    path = Path(path)
    if is_mrc_name(path):
        particles = _table_of_stack(path, pixel_size_angstrom)
        project = path.parent if project is None else project
    else:
        particles = read_particles(
            path, passthrough=[Path(one) for one in passthrough], pixel_size_angstrom=pixel_size_angstrom
        )
    if particles.count == 0:
        raise InputError(f"{path} holds no particle.")
    paths, indices = particles.require_images()
    files: dict[str, MrcImage] = {}
    for name in dict.fromkeys(paths):
        files[name] = read_mrc(find_stack(name, path, project), check_finite=False)
    box = _common_box(files)
    warnings = [*particles.warnings, *_check_indices(path, paths, indices, files)]
    pixel, said = _pixel_size(particles, files, forced=pixel_size_angstrom)
    return ParticleStack(particles, files, box, pixel, tuple(warnings + said))


def find_stack(name: str, table: Path, project: Path | None) -> Path:
    """Where a stack that a table names lies.

    Raises
    ------
    InputError
        If it is nowhere, with the places looked at.
    """
    wanted = Path(name)
    places = [project] if project is not None else [Path.cwd(), *table.resolve().parents]
    candidates = [wanted] if wanted.is_absolute() else [place / wanted for place in places]
    candidates.append(table.parent / wanted.name)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    shown = ", ".join(str(place) for place in places[:3])
    raise InputError(
        f"{table} names the stack {name}, which is not there (looked in {shown}); give the folder that it is relative "
        f"to with --project."
    )


def _table_of_stack(path: Path, pixel_size_angstrom: float | None) -> Particles:
    """A table for a stack without one, with the columns that RELION needs."""
    image = read_mrc(path, check_finite=False)
    count = 1 if image.data.ndim == 2 else len(image.data)
    pixel = pixel_size_angstrom or image.pixel_size_angstrom
    optics: dict[str, Any] = {"rlnOpticsGroupName": ["opticsGroup1"], "rlnOpticsGroup": [1]}
    if pixel is not None:
        optics |= {"rlnImagePixelSize": [float(pixel)]}
    optics |= {"rlnImageSize": [int(image.data.shape[-1])], "rlnImageDimensionality": [2]}
    names = [f"{index + 1:06d}@{path.name}" for index in range(count)]
    rows: dict[str, Any] = {"rlnImageName": names, "rlnOpticsGroup": [1] * count}
    star = Star(path, (make_block("optics", optics, version=30001), make_block("particles", rows, version=30001)))
    return Particles(
        path, "relion-3.1", count, image_path=(path.name,) * count, image_index=np.arange(count),
        pixel_size_angstrom=None if pixel is None else np.full(count, float(pixel)), star=star,
    )  # fmt: skip


def _common_box(files: dict[str, MrcImage]) -> int:
    first_name, first = next(iter(files.items()))
    for name, image in files.items():
        rows, columns = image.data.shape[-2:]
        if image.kind == "volume":
            raise InputError(f"{image.path} holds a volume, no particles; give a stack (.mrcs).")
        if rows != columns:
            raise InputError(f"{image.path} has images of {columns} x {rows} px; particles must be square.")
        if columns != first.data.shape[-1]:
            raise InputError(
                f"{name} has boxes of {columns} px and {first_name} of {first.data.shape[-1]} px; extract all "
                f"particles in one box size, or run them apart."
            )
    box = int(first.data.shape[-1])
    if box < 16:
        raise InputError(f"{first.path} has boxes of {box} px; at least 16 are needed.")
    return box


def _check_indices(table: Path, paths: Sequence[str], indices: np.ndarray, files: dict[str, MrcImage]) -> list[str]:
    """Every image is in its stack; images that are left out or named twice are said."""
    used: dict[str, list[int]] = {}
    for row, (name, index) in enumerate(zip(paths, indices.tolist(), strict=True)):
        count = 1 if files[name].data.ndim == 2 else len(files[name].data)
        if not 0 <= index < count:
            raise InputError(
                f"{table}, row {row + 1}, names image {index + 1} of {name}, which holds {count}; give the stack that "
                f"belongs to the table."
            )
        used.setdefault(name, []).append(index)
    warnings = []
    for name, taken in used.items():
        count = 1 if files[name].data.ndim == 2 else len(files[name].data)
        distinct = len(set(taken))
        if distinct < len(taken):
            warnings.append(
                f"{table} names {len(taken) - distinct} images of {name} twice; each row gets its own answer."
            )
        if distinct < count:
            warnings.append(f"{table} names {distinct} of the {count} images of {name}; the others are left out.")
    return warnings


def _pixel_size(particles: Particles, files: dict[str, MrcImage], *, forced: float | None) -> tuple[float, list[str]]:
    """The table's pixel size, checked against the stacks'."""
    if forced is not None:
        return forced, []
    headers = {name: image.pixel_size_angstrom for name, image in files.items()}
    known = {name: size for name, size in headers.items() if size is not None and size not in UNKNOWN_PIXELS}
    if particles.pixel_size_angstrom is None:
        sizes = sorted({round(size, 4) for size in known.values()})
        if len(sizes) != 1 or len(known) < len(files):
            raise InputError(
                f"{particles.path} says no pixel size, nor do its stacks; give it in Å: --pixel-size-angstrom 1.5."
            )
        return sizes[0], [f"{particles.path} says no pixel size; the stack's {sizes[0]:g} Å is used."]
    pixel = particles.require_pixel_size()
    for name, size in known.items():
        if abs(size - pixel) > PIXEL_TOLERANCE * pixel:
            raise InputError(
                f"{particles.path} says {pixel:g} Å per pixel, the header of {name} {size:g} Å; find out which is "
                f"right and give it with --pixel-size-angstrom."
            )
    return pixel, []
