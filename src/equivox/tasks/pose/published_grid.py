"""The grids of the published pipeline: rescale, resample, crop or pad, and the crop that the E(3)-CNN sees.

Every function keeps the array axes as they are. Numbers follow the original to rounding, its odd places included; each
of these is named where it happens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from equivox.errors import InputError
from equivox.geometry.space import Volume

MARGIN = 0.6
"""The object's mean box extent is this fraction of the crop's side."""
LARGEST_SIDE = 256
"""Voxels per axis that a working grid may have."""


def rescale_intensity(image: Float[Tensor, "*grid"]) -> Float[Tensor, "*grid"]:
    """``(v - min) / (max - min)``; a constant image comes back unchanged, as in the original's inference."""
    low, high = image.amin(), image.amax()
    return image if bool(low == high) else (image - low) / (high - low)


def resample_axes(
    image: Shaped[Tensor, "channel x y z"],
    step: Sequence[float],
    *,
    interpolation: Literal["linear", "nearest"] = "linear",
    shape: Sequence[int] | None = None,
) -> Shaped[Tensor, "channel x2 y2 z2"]:
    """Resample along each axis so that a new voxel is ``step`` old ones long; the first voxel's outer edge stays.

    Samples sit at ``(step - 1) / 2 + q * step`` old voxels. Inside the outer edges of the grid the index is clamped to
    the outermost centres; beyond them the value is 0.

    Parameters
    ----------
    image
        Channels over a grid.
    step
        New voxel size over old one, per axis.
    interpolation
        ``"nearest"`` for labels: halves round up.
    shape
        New voxel counts; by default ``ceil(n / step)``.
    """
    counts = [math.ceil(size / ratio) for size, ratio in zip(image.shape[1:], step, strict=True)]
    for axis, (ratio, count) in enumerate(zip(step, shape or counts, strict=True), start=1):
        image = _resample_axis(image, axis, ratio, count, interpolation)
    return image


def resample_to_spacing(volume: Volume, voxel_size_mm: float) -> Volume:
    """Resample linearly to isotropic voxels along the file's own axes; the affine follows."""
    sizes = volume.voxel_size_mm
    shape = [math.ceil(count * size / voxel_size_mm) for count, size in zip(volume.shape, sizes, strict=True)]
    step = [voxel_size_mm / size for size in sizes]
    affine = volume.affine.clone()
    affine[:3, :3] = volume.direction * voxel_size_mm
    affine[:3, 3] = volume.world_from_voxel(torch.tensor([0.5 * (ratio - 1) for ratio in step], dtype=torch.float64))
    return replace(volume, data=resample_axes(volume.data, step, shape=shape), affine=affine)


def crop_or_pad(volume: Volume, shape: Sequence[int]) -> Volume:
    """Bring the grid to ``shape`` about its centre: zeros outside, the odd voxel added or cut at the front."""
    start, stop = [], []
    for size, wanted in zip(volume.shape, shape, strict=True):
        missing = wanted - size
        before = math.ceil(missing / 2) if missing > 0 else -math.ceil(-missing / 2)
        start.append(-before)
        stop.append(wanted - before)
    return volume.crop(start, stop)


def segmentation_input(volume: Volume, *, voxel_size_mm: float = 3.0, size: int = 128) -> Volume:
    """What the published U-Net sees: [0, 1], isotropic, a cube of ``size`` voxels, [0, 1] again, float32.

    Raises
    ------
    InputError
        If the volume has more than one channel.
    """
    if volume.data.shape[0] != 1:
        raise InputError(f"{volume.name} has {volume.data.shape[0]} channels; give a volume with one.")
    image = replace(volume, data=rescale_intensity(volume.data.double()))
    image = crop_or_pad(resample_to_spacing(image, voxel_size_mm), [size] * 3)
    return replace(image, data=rescale_intensity(image.data).float())


def covering_input(volume: Volume, *, voxel_size_mm: float, size: int, divisor: int) -> Volume:
    """What the U-Net sees with nothing cut off: as :func:`segmentation_input`, but an axis longer than ``size`` voxels
    gets the next multiple of ``divisor``.

    Raises
    ------
    InputError
        If an axis is longer than 256 voxels of the working grid.
    """
    image = resample_to_spacing(replace(volume, data=rescale_intensity(volume.data.double())), voxel_size_mm)
    if max(image.shape) > LARGEST_SIDE:
        longest = max(image.shape) * voxel_size_mm
        raise InputError(
            f"{volume.name} covers {longest:.0f} mm along one axis, more than {LARGEST_SIDE * voxel_size_mm:.0f} mm; "
            f"crop it around the object, or check the voxel size in its header."
        )
    shape = [max(size, math.ceil(count / divisor) * divisor) for count in image.shape]
    image = crop_or_pad(image, shape)
    return replace(image, data=rescale_intensity(image.data).float())


@dataclass(frozen=True, slots=True)
class Box:
    """Voxel ranges of a part of a grid: ``start <= index < stop`` per axis."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """To index an array (X, Y, Z) with."""
        return (
            slice(self.start[0], self.stop[0]),
            slice(self.start[1], self.stop[1]),
            slice(self.start[2], self.stop[2]),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels per axis."""
        return (self.stop[0] - self.start[0], self.stop[1] - self.start[1], self.stop[2] - self.start[2])


def bounding_box(mask: Bool[Tensor, "x y z"]) -> Box:
    """Smallest box that holds every true voxel.

    Raises
    ------
    InputError
        If no voxel is true.
    """
    index = mask.nonzero()
    if index.numel() == 0:
        raise InputError("the mask is empty; there is nothing to put a box around.")
    low, high = index.amin(0).tolist(), (index.amax(0) + 1).tolist()
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def object_box(mask: Bool[Tensor, "x y z"]) -> Box:
    """The published crop around a mask: a cube of side ``mean extent / 0.6`` clipped to the grid.

    The extent of an axis is last index minus first (not plus one) and halves round to even, so sides may differ by one;
    where the grid ends, the crop is cut and no longer centred on the object.
    """
    box = bounding_box(mask)
    low = torch.tensor(box.start, dtype=torch.float64)
    high = torch.tensor(box.stop, dtype=torch.float64) - 1
    center, side = (low + high) / 2, object_extent(mask) / MARGIN
    limit = torch.tensor(mask.shape, dtype=torch.float64)
    first = (center - side / 2).round().clamp_min(0).long().tolist()
    last = torch.minimum((center + side / 2).round(), limit).long().tolist()
    return Box((first[0], first[1], first[2]), (last[0], last[1], last[2]))


def object_extent(mask: Bool[Tensor, "x y z"]) -> float:
    """Mean over the axes of last index minus first, in voxels."""
    box = bounding_box(mask)
    return sum(box.shape) / 3 - 1


def centered_cube(
    image: Float[Tensor, "x y z"], mask: Bool[Tensor, "x y z"], imaged: Bool[Tensor, "x y z"], *, size: int
) -> Float[Tensor, "size size size"]:
    """What the E(3)-CNN sees, mended: always a cube, always centred on the object's box, [0, 1].

    The scale is that of :func:`object_box`. Where the cube reaches beyond the box of what was ``imaged``, the outermost
    plane is continued.
    """
    inside = bounding_box(imaged)
    box = bounding_box(mask)
    side = object_extent(mask) / MARGIN
    step = side / size
    offset = torch.tensor([(low + high - 1) / 2 for low, high in zip(box.start, box.stop, strict=True)])
    affine = torch.diag(torch.tensor([step, step, step, 1.0], dtype=torch.float64))
    affine[:3, 3] = offset.double() - step * (size - 1) / 2 - torch.tensor(inside.start, dtype=torch.float64)
    part = Volume(image[inside.slices][None], torch.eye(4, dtype=torch.float64))
    return rescale_intensity(part.resample(affine, [size] * 3, padding="border").data[0])


def rotation_input(
    image: Float[Tensor, "x y z"], mask: Bool[Tensor, "x y z"], *, size: int = 64
) -> tuple[Float[Tensor, "x2 y2 z2"], Bool[Tensor, "x2 y2 z2"]]:
    """What the published E(3)-CNN sees: padding cut off, the object's box, ``size`` voxels at its longest side, [0, 1].

    Parameters
    ----------
    image
        The U-Net's input; zeros around it count as padding.
    mask
        The object on the same grid.
    size
        Longest side of the result.

    Returns
    -------
    Image and mask (nearest neighbour) of the crop.

    Raises
    ------
    InputError
        If image or mask are empty.
    """
    inside = bounding_box(image != 0).slices
    image, mask = image[inside], mask[inside]
    part = object_box(mask).slices
    image, mask = image[part], mask[part]
    shape = torch.tensor(image.shape, dtype=torch.float32)
    wanted = (shape * size / shape.max()).round()
    step = (shape / wanted).tolist()
    target = [int(count) for count in wanted.tolist()]
    image = _center_crop(resample_axes(image[None], step), target)[0]
    mask = _center_crop(resample_axes(mask[None], step, interpolation="nearest"), target)[0]
    return rescale_intensity(image), mask


def _center_crop(image: Shaped[Tensor, "channel x y z"], shape: Sequence[int]) -> Shaped[Tensor, "channel x2 y2 z2"]:
    """Crop or pad as :func:`crop_or_pad`, without an affine."""
    volume = crop_or_pad(Volume(image.float(), torch.eye(4, dtype=torch.float64)), shape)
    return volume.data.to(image.dtype)


def _resample_axis(image: Tensor, axis: int, step: float, count: int, interpolation: str) -> Tensor:
    """One axis of :func:`resample_axes`."""
    size = image.shape[axis]
    if step == 1.0 and count == size:
        return image
    position = 0.5 * (step - 1) + torch.arange(count, dtype=torch.float64, device=image.device) * step
    inside = (position >= -0.5) & (position <= size - 0.5)
    position = position.clamp(0, size - 1)
    along = [1] * image.dim()
    along[axis] = count
    if interpolation == "nearest":
        return image.index_select(axis, (position + 0.5).floor().long().clamp_max(size - 1)) * inside.view(along)
    low = position.floor().long()
    weight = ((position - low) * inside).to(image.dtype).view(along)
    keep = inside.to(image.dtype).view(along) - weight
    high = (low + 1).clamp_max(size - 1)
    return image.index_select(axis, low) * keep + image.index_select(axis, high) * weight
