"""Particles in RELION's STAR files: 3.0 in one block, 3.1 and later with a table of optics groups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from equivox.errors import InputError
from equivox.formats.particles import Layout, Numbers, Particles, particle_block
from equivox.formats.star import Star, StarBlock, read_star
from equivox.geometry.euler_relion import matrix_from_relion

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS_ANGSTROM, ORIGINS_PX = ("rlnOriginXAngst", "rlnOriginYAngst"), ("rlnOriginX", "rlnOriginY")
NUMBERS = (
    *ANGLES, *ORIGINS_ANGSTROM, *ORIGINS_PX, "rlnCoordinateX", "rlnCoordinateY", "rlnDefocusU", "rlnDefocusV",
    "rlnDefocusAngle", "rlnPhaseShift", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast",
    "rlnMagnification", "rlnDetectorPixelSize", "rlnPixelSize", "rlnImagePixelSize", "rlnImageSize",
    "rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize", "rlnAutopickFigureOfMerit", "rlnClassNumber",
    "rlnRandomSubset",
)  # fmt: skip
"""Columns of particles that are read as numbers, all in one pass."""
MICROGRAPH_PIXEL_LABELS = ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")


def read_relion_particles(path: Path, pixel_size_angstrom: float | None = None) -> Particles:
    """Read a particle STAR file; a value that stands in a row and in its optics group is taken from the row.

    Raises
    ------
    InputError
        See :func:`equivox.formats.particles.read_particles`.
    """
    star = read_star(path)
    block, optics = particle_block(star), star.find("optics")
    if block.has("rlnMicrographName") and not block.has("rlnImageName") and not block.has("rlnCoordinateX"):
        raise InputError(f"{path} lists micrographs, no particles; give a particle file.")
    groups, rows = _groups(block, optics, known=pixel_size_angstrom is not None)
    count = len(block)
    numbers = block.many_numbers(NUMBERS)

    def value(label: str) -> Numbers | None:
        if label in numbers:
            return numbers[label]
        if optics is not None and rows is not None and optics.has(label):
            return optics.numbers(label)[rows]
        return None

    pixel = value("rlnImagePixelSize")
    if pixel is None:
        pixel = value("rlnPixelSize")
    if pixel is None and block.has("rlnDetectorPixelSize", "rlnMagnification"):
        magnification = numbers["rlnMagnification"]
        zero = np.flatnonzero(magnification <= 0)
        if zero.size:
            raise InputError(f"{block.place(int(zero[0]))}: _rlnMagnification is {magnification[zero[0]]:g}.")
        pixel = numbers["rlnDetectorPixelSize"] * 1e4 / magnification
    if pixel_size_angstrom is not None:
        pixel = np.full(count, pixel_size_angstrom)
    if pixel is not None and bool((pixel <= 0).any()):
        raise InputError(f"{path}: a pixel size is {float(pixel.min()):g} Å; give it (--pixel-size-angstrom).")
    micrograph_pixel = next((found for found in map(value, MICROGRAPH_PIXEL_LABELS) if found is not None), None)
    images, indices = _images(block)
    half, classes = (
        None if label not in numbers else block.whole(label, numbers[label])
        for label in ("rlnRandomSubset", "rlnClassNumber")
    )
    size = value("rlnImageSize")
    return Particles(
        path, _layout(star, optics), count, images, indices,
        tuple(block.texts("rlnMicrographName")) if block.has("rlnMicrographName") else None,
        value("rlnCoordinateX"), value("rlnCoordinateY"), _rotations(numbers), _origins(numbers, pixel), pixel,
        micrograph_pixel, value("rlnVoltage"), value("rlnSphericalAberration"), value("rlnAmplitudeContrast"),
        value("rlnDefocusU"), value("rlnDefocusV"), value("rlnDefocusAngle"), value("rlnPhaseShift"), groups, half,
        classes, value("rlnAutopickFigureOfMerit"), None if size is None else size.astype(np.int64),
        None, star,
    )  # fmt: skip


def _layout(star: Star, optics: StarBlock | None) -> Layout:
    """3.0 without optics groups, else by the version that the comments tell."""
    if optics is None and star.find("particles") is None:
        return "relion-3.0"
    return "relion-5" if any("version 50" in block.head for block in star.blocks) else "relion-3.1"


def _groups(block: StarBlock, optics: StarBlock | None, *, known: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Optics group of each particle, and the row of the optics table that has it."""
    if not block.has("rlnOpticsGroup"):
        if optics is not None and len(optics) == 1:
            return np.ones(len(block), dtype=np.int64), np.zeros(len(block), dtype=np.int64)
        return None, None
    groups = block.integers("rlnOpticsGroup")
    if optics is None:
        if known or not len(block):
            return groups, None
        raise InputError(
            f"{block.where}, uses _rlnOpticsGroup, but there is no block data_optics: pixel size and voltage are "
            f"unknown; give --pixel-size-angstrom or the whole file."
        )
    numbers = optics.integers("rlnOpticsGroup").tolist()
    places = {number: place for place, number in enumerate(numbers)}
    if len(places) != len(numbers):
        raise InputError(f"{optics.where}, has an optics group twice ({sorted(numbers)}); number them apart.")
    for index, number in enumerate(groups.tolist()):
        if number not in places:
            raise InputError(
                f"{block.place(index)}: optics group {number} is not in data_optics, which has "
                f"{', '.join(map(str, sorted(places)))}."
            )
    return groups, np.array([places[number] for number in groups.tolist()], dtype=np.int64)


def _images(block: StarBlock) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    """File and position (from 0) of ``NNNNNN@file``, whose count begins at 1; a bare name is its first image."""
    if not block.has("rlnImageName"):
        return None, None
    paths, indices = [], []
    for row, text in enumerate(block.texts("rlnImageName")):
        number, at, path = text.partition("@")
        if not at:
            number, path = "1", text
        if not number.isdigit() or not path:
            raise InputError(f"{block.place(row)}: _rlnImageName is {text!r}; NUMBER@FILE is needed.")
        if int(number) < 1:
            raise InputError(f"{block.place(row)}: _rlnImageName is {text!r}; images are counted from 1.")
        paths.append(path)
        indices.append(int(number) - 1)
    return tuple(paths), np.array(indices, dtype=np.int64)


def _rotations(numbers: Mapping[str, Numbers]) -> torch.Tensor | None:
    if not set(ANGLES) <= set(numbers):
        return None
    return matrix_from_relion(*(torch.from_numpy(numbers[label]) for label in ANGLES))


def _origins(numbers: Mapping[str, Numbers], pixel: Numbers | None) -> np.ndarray | None:
    """Origins in Å; those in pixels (3.0) need the pixel size."""
    if set(ORIGINS_ANGSTROM) <= set(numbers):
        return np.stack([numbers[label] for label in ORIGINS_ANGSTROM], axis=1)
    if set(ORIGINS_PX) <= set(numbers) and pixel is not None:
        return np.stack([numbers[label] for label in ORIGINS_PX], axis=1) * pixel[:, None]
    return None
