"""Where the brain is in a scan: a mask that the user gives, or the background of a scan that is brain-extracted.

Brain extraction itself is another program's work (SynthStrip, HD-BET, ...). What comes in with its skull on is refused:
scalp, neck and eyes would decide about directions and ages, and nothing would look wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from scipy import ndimage
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.nifti import read_mask
from equivox.geometry.space import Volume

LARGEST_SHARE = 0.6
"""More of a volume than this is never brain alone: a ball fills 0.52 of its box."""
LARGEST_ML = 2400.0
"""No intracranial space is larger; a head with its scalp is 3000 mL and more."""
USUAL_ML = (600.0, 2100.0)
"""Outside of this a volume is used, with a warning (children, other species, wrong units)."""
SEPARATE_SHARE = 0.02
"""More of a mask than this off its largest piece gets a warning."""
TOOLS = "SynthStrip (mri_synthstrip) or HD-BET"


@dataclass(frozen=True, slots=True)
class BrainMask:
    """Which voxels are brain, on the scan's own grid, and what had to be assumed."""

    inside: Bool[Tensor, "x y z"]
    background: float
    """The value outside, where it was told apart by its value; 0 with a mask of the user's."""
    warnings: tuple[str, ...]


def find_brain(volume: Volume, *, mask: Path | str | None = None, brain_extracted: bool = False) -> BrainMask:
    """The brain's voxels: those of ``mask``, else those that differ from the constant background.

    Parameters
    ----------
    volume
        The scan as it is stored, one channel.
    mask
        Mask file on the same grid, by any tool.
    brain_extracted
        The user's word that nothing but brain is left: what looks like a skull is then a warning. A constant
        background is still needed.

    Raises
    ------
    InputError
        If the mask does not fit, the skull is there, or there is no constant background to tell the brain from.
    """
    voxel_ml = abs(float(torch.linalg.det(volume.affine[:3, :3]))) / 1000.0
    if mask is not None:
        inside = read_mask(mask, volume).data[0] > 0
        found = BrainMask(inside, 0.0, ())
    else:
        found = _by_background(volume, voxel_ml, brain_extracted=brain_extracted)
    warnings = [*found.warnings, *_unusual(found.inside, volume, voxel_ml)]
    return BrainMask(found.inside, found.background, tuple(warnings))


def _by_background(volume: Volume, voxel_ml: float, *, brain_extracted: bool) -> BrainMask:
    """Everything that is not the constant around the brain: its largest piece, with holes filled."""
    data = volume.data[0]
    background = _commonest_at_border(data)
    other = data != background
    count = int(torch.count_nonzero(other))
    share, size_ml = count / other.numel(), count * voxel_ml
    name = volume.name
    if share > LARGEST_SHARE and not brain_extracted:
        raise InputError(
            f"{name} has its skull on: {100 * share:.0f} % of its voxels are not background (a brain alone leaves more "
            f"than {100 - 100 * LARGEST_SHARE:.0f} % empty). Extract the brain first with {TOOLS}, or give --mask."
        )
    if size_ml > LARGEST_ML and not brain_extracted:
        raise InputError(
            f"{name} has its skull on: {size_ml:.0f} mL are not background, and no brain is above {LARGEST_ML:.0f} mL. "
            f"Extract the brain first with {TOOLS}, give --mask, or pass --brain-extracted if you know better."
        )
    if share > 0.99:
        raise InputError(
            f"{name} has no constant background, so its brain cannot be told from the rest; give --mask "
            f"(made for example with {TOOLS})."
        )
    warnings = []
    if share > LARGEST_SHARE or size_ml > LARGEST_ML:
        warnings.append(
            f"{name} looks as if its skull were on ({size_ml:.0f} mL, {100 * share:.0f} % of its voxels); it is used "
            f"as --brain-extracted says."
        )
    if background != 0.0:
        warnings.append(f"{name} has the background value {background:g}, not 0; that value counts as outside.")
    inside, lost = _largest_piece(other)
    if lost > SEPARATE_SHARE:
        warnings.append(
            f"{name} has {100 * lost:.0f} % of what is not background off its largest piece; only that piece is used."
        )
    return BrainMask(inside, background, tuple(warnings))


def _commonest_at_border(data: Tensor) -> float:
    """The value that most voxels on the six faces of the volume have."""
    faces = torch.cat([face.flatten() for axis in range(3) for face in (data.select(axis, 0), data.select(axis, -1))])
    values, counts = faces.unique(return_counts=True)
    return float(values[counts.argmax()])


def _largest_piece(other: Bool[Tensor, "x y z"]) -> tuple[Bool[Tensor, "x y z"], float]:
    """The largest connected piece without its holes, and the share of voxels that lie off it."""
    box = bounding_box(other)
    labels, count = ndimage.label(other.numpy()[box])
    sizes = np.bincount(labels.ravel())[1:]
    kept = labels == 1 + int(sizes.argmax()) if count > 1 else labels > 0
    lost = 1.0 - float(sizes.max()) / float(sizes.sum())
    inside = np.zeros(tuple(other.shape), dtype=bool)
    outside, _ = ndimage.label(np.pad(~kept, 1, constant_values=True))
    inside[box] = (outside != outside[0, 0, 0])[1:-1, 1:-1, 1:-1]  # holes are what the outside does not reach
    return torch.from_numpy(inside), lost


def bounding_box(inside: Bool[Tensor, "x y z"]) -> tuple[slice, slice, slice]:
    """The smallest box that holds every voxel that is inside; one must be."""
    flat = inside.any(dim=2)
    x, y = flat.any(dim=1).nonzero()[:, 0], flat.any(dim=0).nonzero()[:, 0]
    slab = inside[int(x[0]) : int(x[-1]) + 1, int(y[0]) : int(y[-1]) + 1]
    z = slab.flatten(0, 1).any(dim=0).nonzero()[:, 0]
    return (
        slice(int(x[0]), int(x[-1]) + 1), slice(int(y[0]), int(y[-1]) + 1), slice(int(z[0]), int(z[-1]) + 1),
    )  # fmt: skip


def _unusual(inside: Bool[Tensor, "x y z"], volume: Volume, voxel_ml: float) -> list[str]:
    """Sentences about a strange size and about a brain that the field of view cuts."""
    size_ml = int(torch.count_nonzero(inside)) * voxel_ml
    found = []
    low, high = USUAL_ML
    if not low <= size_ml <= high:
        found.append(f"{volume.name} has a brain of {size_ml:.0f} mL (usual are {low:.0f} to {high:.0f}); check it.")
    cut = []
    for axis, letters in enumerate(_face_letters(volume)):
        step = volume.voxel_size_mm[axis]
        area = abs(voxel_ml) * 1000.0 / step
        limit = 300.0 + 2.0 * math.pi * 80.0 * 1.5 * step  # a whole brain touches a face with a cap at most
        for place, letter in ((0, letters[0]), (-1, letters[1])):
            if float(inside.select(axis, place).sum()) * area > limit:
                cut.append(letter)
    if cut:
        found.append(
            f"{volume.name} shows a brain that is cut off at its {' and '.join(cut)} side; vectors and invariants of a "
            f"part differ from those of the whole."
        )
    return found


def _face_letters(volume: Volume) -> list[tuple[str, str]]:
    """For each voxel axis the names of its first and last face."""
    names = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "upper", "I": "lower"}
    opposite = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
    return [(names[opposite[code]], names[code]) for code in volume.axis_codes]
