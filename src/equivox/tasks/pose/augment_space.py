"""Spatial augmentations: what moves, about which centre, and what comes in from outside.

A warp ``M`` moves the content at ``q`` to ``M q``, in voxels from the centre ``(n - 1) / 2`` of the grid; the new image
at ``p`` is the old one at ``M^-1 p``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as functional
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from equivox.geometry.rotations import random_rotations, rotation_about
from equivox.run.seeds import draw_uniform
from equivox.tasks.pose.published_grid import MARGIN, bounding_box

Outside = Literal["border", "minimum", "zeros"]
"""What lies beyond the outer voxel edges: the nearest voxel, the image's minimum, or 0."""


def rigid_matrix(angles_deg: Float[Tensor, "3"], shift: Float[Tensor, "3"]) -> Float[Tensor, "4 4"]:
    """``T Rx Ry Rz``: the published order of the augmentation, which is not the order of the annotation's angles."""
    rx, ry, rz = (rotation_about(axis, float(angle)) for axis, angle in zip("xyz", angles_deg, strict=True))
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = rx @ ry @ rz
    matrix[:3, 3] = shift.double()
    return matrix


def draw_rotation_published(limit_deg: float, *, generator: torch.Generator) -> Float[Tensor, "3 3"]:
    """Three Euler angles uniform between plus and minus the limit: **not** uniform on SO(3).

    At 90 degrees the mean angle is 83.4 (uniform: 126.5), and no draw turns the z axis downwards.
    """
    angles = (2.0 * torch.rand(3, generator=generator, dtype=torch.float64) - 1.0) * limit_deg
    return rigid_matrix(angles, torch.zeros(3))[:3, :3]


def draw_rotation_uniform(limit_deg: float, *, generator: torch.Generator) -> Float[Tensor, "3 3"]:
    """A rotation uniform on SO(3), or on the ball of rotations up to ``limit_deg`` below 180."""
    return random_rotations(1, generator=generator, max_angle_deg=limit_deg)[0]


def draw_shift(limit: float, *, generator: torch.Generator) -> Float[Tensor, "3"]:
    """Three numbers uniform between plus and minus ``limit``, in its unit."""
    return (2.0 * torch.rand(3, generator=generator, dtype=torch.float64) - 1.0) * limit


def draw_affine(
    *,
    scaling: tuple[float, float],
    rotation: Float[Tensor, "3 3"],
    translation_voxels: Float[Tensor, "3"],
    generator: torch.Generator,
) -> Float[Tensor, "4 4"]:
    """``T R S`` with an independent scale per axis, uniform between the bounds."""
    scales = torch.tensor([draw_uniform(*scaling, generator=generator) for _ in range(3)], dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = rotation.double() @ torch.diag(scales)
    matrix[:3, 3] = translation_voxels.double()
    return matrix


def warp(
    image: Shaped[Tensor, "channel x y z"],
    matrix: Float[Tensor, "4 4"],
    *,
    interpolation: Literal["linear", "nearest"] = "linear",
    outside: Outside = "border",
    shape: Sequence[int] | None = None,
) -> Shaped[Tensor, "channel x2 y2 z2"]:
    """Move the content by ``matrix``, in voxels about the grid's centre.

    Parameters
    ----------
    image
        Channels over a grid; labels with ``"nearest"``.
    matrix
        Content at ``q`` moves to ``matrix q``.
    interpolation
        ``"nearest"``: halves round to the even index.
    outside
        See :data:`Outside`. ``"border"`` smears the outermost plane of a tight crop: warp before cropping instead
        (:func:`turned_crop`).
    shape
        Grid of the result, about the same centre; by default that of ``image``. What was outside comes in.
    """
    center = (torch.tensor(image.shape[1:], dtype=torch.float64) - 1) / 2
    back = torch.linalg.inv(matrix.double())
    index = _centered_grid(shape or image.shape[1:]) @ back[:3, :3].mT + (back[:3, 3] + center)
    return interpolate(image, index, interpolation=interpolation, outside=outside)


def turned_crop(
    image: Float[Tensor, "channel x y z"],
    mask: Bool[Tensor, "x y z"],
    rotation: Float[Tensor, "3 3"],
    *,
    size: int,
    shift_voxels: Float[Tensor, "3"] | None = None,
) -> tuple[Float[Tensor, "channel size size size"], Bool[Tensor, "size size size"], float]:
    """Turn the object, then cut the cube around it, in one interpolation from the full volume.

    The same as turning the whole volume about the object and cropping it as inference does
    (:func:`equivox.tasks.pose.published_grid.centered_cube`, the case without rotation): a cube always, centred
    on the box of the turned mask, whose mean extent (last index minus first) is 0.6 of the cube's side. Around the
    object it shows what the volume holds; only where the volume itself ends is its outermost plane continued, as at
    inference, and never that of the crop.

    Parameters
    ----------
    image
        The whole volume, and nothing but what was imaged.
    mask
        The object; not empty.
    rotation
        Content at ``q`` (from the object's centre) moves to ``rotation q``.
    size
        Voxels along each side of the cube.
    shift_voxels
        Move the content by so many voxels of the cube.

    Returns
    -------
    Image (linear), mask (nearest), and the size of a voxel of the cube in voxels of ``image``.

    Raises
    ------
    InputError
        If the mask is empty.
    """
    box = bounding_box(mask)
    center = torch.tensor([(low + high - 1) / 2 for low, high in zip(box.start, box.stop, strict=True)]).double()
    turned = (mask.nonzero().double() - center) @ rotation.double().mT
    low, high = turned.amin(0), turned.amax(0)
    step = max(float((high - low).mean()), 1.0) / MARGIN / size
    place = _centered_grid([size] * 3) * step + (low + high) / 2
    if shift_voxels is not None:
        place = place - shift_voxels.double() * step
    index = place @ rotation.double() + center  # rows: R^T p
    crop = interpolate(image, index, outside="border")
    inside = interpolate(mask[None], index, interpolation="nearest", outside="zeros")
    return crop, inside[0], step


def interpolate(
    image: Shaped[Tensor, "channel x y z"],
    index: Float[Tensor, "x2 y2 z2 3"],
    *,
    interpolation: Literal["linear", "nearest"] = "linear",
    outside: Outside = "border",
) -> Shaped[Tensor, "channel x2 y2 z2"]:
    """Values at fractional voxel indices; the voxel's own half inside the outer edges counts as inside."""
    size = torch.tensor(image.shape[1:], dtype=torch.float64)
    if interpolation == "nearest":
        i, j, k = torch.minimum(index.round().clamp_min(0), size - 1).long().unbind(-1)
        values = image[:, i, j, k]
    else:
        normal = torch.where(size > 1, 2 * index / (size - 1).clamp_min(1) - 1, torch.zeros_like(index))
        grid = normal.flip(-1).to(image)[None]
        values = functional.grid_sample(image[None], grid, "bilinear", "border", align_corners=True)[0]
    if outside == "border":
        return values
    inside = ((index >= -0.5) & (index <= size - 0.5)).all(-1)
    fill = image.amin() if outside == "minimum" else torch.zeros((), dtype=image.dtype)
    return torch.where(inside, values, fill)


def _centered_grid(shape: Sequence[int]) -> Float[Tensor, "x y z 3"]:
    """Voxel positions of a grid from its centre, in voxels."""
    axes = [torch.arange(size, dtype=torch.float64) - (size - 1) / 2 for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
