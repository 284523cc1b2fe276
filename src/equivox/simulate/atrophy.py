"""Synthetic atrophy: ventricles widen, hippocampi and the brain's outer shell shrink, by a smooth deformation.

Not a disease: what comes out is synthetic and must be called so. The deformation is the exponential of a velocity field
made from signed distances to labelled structures (data_mri.md 6.4); the intracranial volume stays as it is, and
brainstem and cerebellum hardly move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import ndimage
from torch import Tensor

from equivox.errors import InputError

SEVERITIES: tuple[tuple[float, float, float], ...] = (
    (0.0, 0.0, 0.0),
    (0.5, 0.25, 0.3),
    (1.0, 0.5, 0.6),
    (1.6, 0.8, 1.0),
    (2.4, 1.2, 1.5),
)
"""Displacements [mm] of ventricles, hippocampi and outer shell for severities 0 to 4."""
SMOOTHING_MM = 2.0
SHELL_SMOOTHING_MM = 3.0
SQUARINGS = 6
MARGIN_MM = 12.0
STRUCTURES = (
    "csf_sulcal", "ventricles", "cortical_gm", "cerebral_wm", "deep_gm", "hippocampus", "amygdala", "cerebellum_gm",
    "cerebellum_wm", "brainstem",
)  # fmt: skip
NEEDED = ("ventricles", "hippocampus", "cortical_gm", "cerebral_wm")
SHELL = ("ventricles", "cortical_gm", "cerebral_wm", "deep_gm", "hippocampus", "amygdala")
STILL = ("cerebellum_gm", "cerebellum_wm", "brainstem")
Field = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Mask = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Deformed:
    """One brain after synthetic atrophy.

    Parameters
    ----------
    image
        Intensities (x, y, z), 0 outside the brain.
    labels
        The label map, deformed the same way.
    volume_change
        Relative change of each structure's volume, partial voxels counted in part.
    smallest_jacobian, largest_displacement_mm
        Of the map; a Jacobian above 0 folds nothing.
    """

    image: Float[Tensor, "x y z"]
    labels: Int[Tensor, "x y z"]
    volume_change: Mapping[str, float]
    smallest_jacobian: float
    largest_displacement_mm: float


def deform_brain(
    image: Float[Tensor, "x y z"],
    labels: Int[Tensor, "x y z"],
    codes: Mapping[str, tuple[int, ...]],
    voxel_size_mm: tuple[float, float, float],
    *,
    amounts_mm: tuple[float, float, float],
    shift_voxels: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Deformed:
    """Apply synthetic atrophy to a brain-extracted image and its label map.

    Parameters
    ----------
    image, labels
        On one grid.
    codes
        Label values of every structure in :data:`STRUCTURES` (may be empty for those not in :data:`NEEDED`).
    voxel_size_mm
        Along the array's axes.
    amounts_mm
        How far the ventricles' wall moves outwards, the hippocampi's and the shell's inwards: see :data:`SEVERITIES`.
    shift_voxels
        Translation of everything, drawn below half a voxel: every severity must go through the same interpolation, or
        its blur gives the label away.

    Raises
    ------
    InputError
        If a needed structure is missing.
    """
    for name in NEEDED:
        if not bool(torch.isin(labels, torch.tensor(codes.get(name, ()), dtype=labels.dtype)).any()):
            raise InputError(f"the label map holds no {name} (labels {list(codes.get(name, ()))}); check its labels.")
    step = np.array(voxel_size_mm)
    whole = labels.numpy()
    inside = whole > 0
    places = np.argwhere(inside)
    margin = np.ceil(MARGIN_MM / step).astype(int)
    low, high = np.maximum(places.min(0) - margin, 0), np.minimum(places.max(0) + 1 + margin, whole.shape)
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    seg = whole[box]
    velocity = velocity_field(seg, codes, voxel_size_mm, amounts_mm)
    displacement = _exponential(-velocity / step[:, None, None, None])
    grid = np.stack(np.meshgrid(*[np.arange(size, dtype=np.float64) for size in seg.shape], indexing="ij"))
    where = grid + displacement + np.array(shift_voxels)[:, None, None, None]
    picture = np.zeros(whole.shape, dtype=np.float32)
    picture[box] = ndimage.map_coordinates(image.numpy()[box].astype(np.float64), where, order=1, mode="constant")
    moved = np.zeros_like(whole)
    moved[box], shares = _moved_labels(seg, where)
    picture[moved == 0] = 0.0
    changes = {}
    for name in STRUCTURES:
        before = int(np.isin(whole, codes.get(name, ())).sum())
        if before:
            changes[name] = sum(shares.get(code, 0.0) for code in codes[name]) / before - 1.0
    jacobian = _jacobian(displacement)[inside[box]]
    size = np.sqrt(((displacement * step[:, None, None, None]) ** 2).sum(0))
    return Deformed(
        torch.from_numpy(picture), torch.from_numpy(moved), changes, float(jacobian.min()), float(size.max())
    )


def velocity_field(
    seg: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    codes: Mapping[str, tuple[int, ...]],
    voxel_size_mm: tuple[float, float, float],
    amounts_mm: tuple[float, float, float],
) -> Field:
    """Velocity [mm] along the array's axes (3, x, y, z): the formulas of data_mri.md 6.4."""

    def members(names: tuple[str, ...]) -> Mask:
        return np.isin(seg, [code for name in names for code in codes.get(name, ())])

    widen, shrink, thin = amounts_mm
    step = np.array(voxel_size_mm)
    ventricles = signed_distance_mm(members(("ventricles",)), voxel_size_mm)
    hippocampus = signed_distance_mm(members(("hippocampus",)), voxel_size_mm)
    shell = signed_distance_mm(members(SHELL), voxel_size_mm)
    depth = -signed_distance_mm(seg > 0, voxel_size_mm)
    weight_v = np.where(ventricles < 0, np.clip(1 + ventricles / 3, 0, 1), np.exp(-((ventricles / 9) ** 2)))
    weight_h = np.exp(-((np.maximum(hippocampus, 0) / 3) ** 2)) * (hippocampus > -6)
    weight_o = np.exp(-((shell / 6) ** 2))
    velocity = (
        widen * _normals(ventricles, SMOOTHING_MM, step) * weight_v
        - shrink * _normals(hippocampus, SMOOTHING_MM, step) * weight_h
        - thin * _normals(shell, SHELL_SMOOTHING_MM, step) * weight_o
    )
    still = ndimage.gaussian_filter(members(STILL).astype(np.float64), SMOOTHING_MM / step)
    velocity = velocity * np.clip(depth / 6, 0, 1) * (1 - still)
    return np.stack([ndimage.gaussian_filter(one, SMOOTHING_MM / step) for one in velocity])


def signed_distance_mm(inside: Mask, voxel_size_mm: tuple[float, float, float]) -> Field:
    """Distance to a structure's surface, negative inside; half a voxel at the first voxels on either side."""
    half = float(np.mean(voxel_size_mm)) / 2
    if not inside.any():
        return np.full(inside.shape, 1e6)
    if inside.all():
        return np.full(inside.shape, -1e6)
    outer = ndimage.distance_transform_edt(~inside, sampling=voxel_size_mm)
    inner = ndimage.distance_transform_edt(inside, sampling=voxel_size_mm)
    distance: Field = np.where(inside, half - inner, outer - half)
    return distance


def _normals(distance: Field, smoothing_mm: float, step: Field) -> Field:
    """Unit gradient of a smoothed distance."""
    smooth = ndimage.gaussian_filter(distance, smoothing_mm / step)
    gradient = np.stack(np.gradient(smooth, *step.tolist()))
    length = np.sqrt((gradient**2).sum(0))
    unit: Field = gradient / np.maximum(length, 1e-3)
    return unit


def _exponential(velocity: Field) -> Field:
    """Displacement [voxels] of the flow of a stationary velocity [voxels] after unit time, by scaling and squaring."""
    grid = np.stack(np.meshgrid(*[np.arange(size, dtype=np.float64) for size in velocity.shape[1:]], indexing="ij"))
    moved = velocity / 2**SQUARINGS
    if not moved.any():
        return moved
    for _ in range(SQUARINGS):
        where = grid + moved
        moved = moved + np.stack([ndimage.map_coordinates(one, where, order=1, mode="nearest") for one in moved])
    return moved


def _moved_labels(
    seg: np.ndarray[tuple[int, ...], np.dtype[np.int64]], where: Field
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], dict[int, float]]:
    """The label with the largest share after linear interpolation of each label, and the shares' sums [voxels]."""
    sums = {}
    best = np.zeros(seg.shape)
    found = np.zeros_like(seg)
    for value in np.unique(seg):
        share = ndimage.map_coordinates(
            (seg == value).astype(np.float64), where, order=1, mode="constant", cval=float(value == 0)
        )
        sums[int(value)] = float(share.sum())
        better = share > best
        best[better], found[better] = share[better], value
    return found, sums


def _jacobian(displacement: Field) -> Field:
    """Determinant of the map's derivative."""
    rows = [np.stack(np.gradient(one)) for one in displacement]
    matrix = np.stack(rows) + np.eye(3)[:, :, None, None, None]
    determinant: Field = np.linalg.det(matrix.transpose(2, 3, 4, 0, 1))
    return determinant
