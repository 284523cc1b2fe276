"""From what a user names (a structure, a map, a sample of the package) to a particle that projects itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError, InputError
from equivox.formats.archives import read_arrays
from equivox.formats.atoms import read_atoms
from equivox.formats.mrc import is_mrc_name, read_mrc
from equivox.formats.structure_files import STRUCTURE_ENDINGS
from equivox.samples import particle_maps_folder
from equivox.simulate.specimen import Specimen, specimen_from_atoms, specimen_from_map

FINEST_PER_PIXEL = 2.0
"""Resolution of atoms over the pixel where none is given."""
LARGEST_SIDE = 512


@dataclass(frozen=True, slots=True)
class SpecimenChoice:
    """A source and how it is read; picklable, so that every worker can open it."""

    source: str
    pixel_size_angstrom: float
    resolution_angstrom: float | None = None
    chains: tuple[str, ...] = ()
    assembly: str | None = None
    voxel_size_angstrom: float | None = None


def sample_names() -> list[str]:
    """Names of the maps that come with the package."""
    return sorted(path.name.split("_")[0] for path in particle_maps_folder().glob("*.mrc.gz"))


def source_path(source: str) -> Path:
    """The file behind a source: itself, or the sample of that name."""
    path = Path(source).expanduser()
    if not path.exists() and source.lower() in sample_names():
        return next(particle_maps_folder().glob(f"{source.lower()}_*.mrc.gz"))
    return path


def open_specimen(choice: SpecimenChoice) -> tuple[Specimen, tuple[str, ...]]:
    """Read the particle, and what had to be assumed.

    Raises
    ------
    InputError
        If the file cannot be used, or is neither a structure nor a map.
    ConfigError
        If an option does not fit the source.
    MissingExtraError
        If gemmi is not installed and a structure is given.
    """
    path = source_path(choice.source)
    if not path.exists():
        raise InputError(
            f"{choice.source} does not exist; give a structure, a map, or a sample: {', '.join(sample_names())}."
        )
    if is_mrc_name(path):
        if choice.chains or choice.assembly is not None:
            raise ConfigError(f"{path} is a map; --chains and --assembly belong to structures.")
        return _from_map(path, choice)
    if not path.name.lower().endswith(STRUCTURE_ENDINGS):
        raise InputError(f"{path} is neither a structure (.pdb, .cif) nor a map (.mrc) by its name.")
    if choice.voxel_size_angstrom is not None:
        raise ConfigError(f"{path} is a structure; --voxel-size-angstrom belongs to maps.")
    atoms = read_atoms(path, chains=choice.chains, assembly=choice.assembly)
    resolution = choice.resolution_angstrom or FINEST_PER_PIXEL * choice.pixel_size_angstrom
    specimen = specimen_from_atoms(path.name, atoms.centred(), atoms.electrons, resolution_angstrom=resolution)
    return specimen, atoms.warnings


def shipped_histogram() -> Float[Tensor, "theta phi"]:
    """Counts of views of a real data set that come with the package."""
    return read_histogram(particle_maps_folder() / "view_histogram_12x24.npz")


def read_histogram(path: Path) -> Float[Tensor, "theta phi"]:
    """Counts over cos(theta) and phi from the array ``counts`` of an ``.npz`` file.

    Raises
    ------
    InputError
        If there is no such array of two axes, or a count is negative.
    """
    counts = read_arrays(path, {"counts": 2}, what="a histogram of views")["counts"]
    if (counts < 0).any() or counts.sum() <= 0:
        raise InputError(f"{path}, array counts: counts are not negative and not all 0.")
    return torch.from_numpy(counts.astype(np.float64))


def _from_map(path: Path, choice: SpecimenChoice) -> tuple[Specimen, tuple[str, ...]]:
    """A cubic map with its origin in the middle; others are padded with zeros."""
    image = read_mrc(path)
    if image.kind != "volume":
        raise InputError(f"{path} holds {'an image' if image.kind == 'image' else 'a stack of images'}; give a map.")
    warnings = list(image.warnings)
    voxel = choice.voxel_size_angstrom
    if voxel is None:
        sizes = image.voxel_size_angstrom
        if sizes is None or max(sizes) - min(sizes) > 0.01 * max(sizes):
            raise InputError(f"{path} has voxels of {sizes} Å; give the size of cubic ones (--voxel-size-angstrom).")
        voxel = sizes[0]
    else:
        warnings = [text for text in warnings if "pixel" not in text]
    side = max(image.data.shape)
    if side > LARGEST_SIDE:
        raise InputError(f"{path} has {side} voxels along an axis; bin it to at most {LARGEST_SIDE}.")
    volume = torch.zeros(side, side, side)
    first = [side // 2 - count // 2 for count in image.data.shape]
    z, y, x = (slice(start, start + count) for start, count in zip(first, image.data.shape, strict=True))
    volume[z, y, x] = torch.from_numpy(np.array(image.data, dtype=np.float32))
    if choice.resolution_angstrom is not None:
        volume = _low_passed(volume, voxel, choice.resolution_angstrom)
    specimen = specimen_from_map(path.name, volume, voxel_size_angstrom=voxel)
    if voxel > 1.01 * choice.pixel_size_angstrom:
        warnings.append(
            f"{path} has voxels of {voxel:g} Å; images of {choice.pixel_size_angstrom:g} Å hold nothing finer."
        )
    return specimen, tuple(warnings)


def _low_passed(volume: Tensor, voxel: float, resolution: float) -> Tensor:
    """Blurred by a Gaussian of 0.225 times the resolution, as atoms are drawn."""
    side = volume.shape[0]
    axis = torch.fft.fftfreq(side, voxel)
    square = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + torch.fft.rfftfreq(side, voxel)[None, None] ** 2
    envelope = torch.exp(-2.0 * (math.pi * 0.225 * resolution) ** 2 * square)
    return torch.fft.irfftn(torch.fft.rfftn(volume) * envelope, s=volume.shape)
