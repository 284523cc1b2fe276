"""From files to samples: reading, checking, the shared preprocessing, and what is drawn for each place of an epoch.

A sample depends on the run's seed, the epoch and its position alone (:mod:`equivox.run.seeds`), so any process can
make it and a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.nifti import open_scan, read_volume
from equivox.geometry.rotations import rotation_from_euler_xyz
from equivox.geometry.space import Volume
from equivox.run.seeds import generator_for
from equivox.tasks.pose.augment import (
    augment_rotate_published,
    augment_segment_published,
    draw_warp_published,
    warp_published,
)
from equivox.tasks.pose.augment_intensity import rescale
from equivox.tasks.pose.augment_monai import augment_rotate, augment_segment
from equivox.tasks.pose.published_grid import (
    bounding_box,
    centered_cube,
    crop_or_pad,
    object_extent,
    resample_to_spacing,
    rescale_intensity,
    rotation_input,
)
from equivox.tasks.pose.train_config import RotateTraining, SegmentTraining
from equivox.tasks.pose.train_layout import Annotated, Pair

OBJECT = 1
"""Label of the object to pose."""
SAME_PLACE_MM = 0.1
"""How far a label's grid may lie from its volume's (headers hold float32)."""
CACHE_BYTES = 4 << 30
"""Prepared volumes are kept in memory up to this; beyond it they are read again when drawn."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A volume and its labels on one grid."""

    image: Volume
    labels: Integer[Tensor, "x y z"]
    label_name: str


def read_labelled(pair: Pair, *, voxel_size_mm: float) -> Labelled:
    """Read a volume and its label.

    Parameters
    ----------
    voxel_size_mm
        Of ``.npz`` files, which hold one 3D array and no place in the world.

    Raises
    ------
    InputError
        If a file cannot be used, or the two differ in shape or place.
    """
    image = _read_array(pair.image, voxel_size_mm) if pair.image.suffix == ".npz" else read_volume(pair.image)
    if pair.label.suffix == ".npz":
        other = _read_array(pair.label, voxel_size_mm)
        labels, affine = other.data[0].round().long(), other.affine
    else:
        scan = open_scan(pair.label)
        labels, affine = scan.labels(), scan.affine
    if tuple(labels.shape) != image.shape:
        raise InputError(
            f"{pair.label} has {_times(labels.shape)} voxels, its volume {pair.image.name} has {_times(image.shape)}; "
            "a label lies on the grid of its volume."
        )
    ends = torch.cat([torch.zeros(1, 3), torch.diag(torch.tensor(image.shape) - 1.0)]).double()
    apart = (image.world_from_voxel(ends) - replace(image, affine=affine).world_from_voxel(ends)).norm(dim=1)
    if float(apart.max()) > SAME_PLACE_MM and ".npz" not in (pair.image.suffix, pair.label.suffix):
        raise InputError(
            f"{pair.label} lies up to {float(apart.max()):.1f} mm from its volume {pair.image.name} by its header; "
            "write both with the same affine."
        )
    return Labelled(image, labels, str(pair.label))


def on_working_grid(labelled: Labelled, voxel_size_mm: float) -> Labelled:
    """Reorient to RAS, rescale to [0, 1] and resample to isotropic voxels, as inference does; labels to the nearest.

    Voxels of the new grid whose centre lies outside the field of view are left out.
    """
    upright = labelled.image.reorient("RAS")
    image = resample_to_spacing(replace(upright, data=rescale_intensity(upright.data.double())), voxel_size_mm)
    imaged = bounding_box(upright.valid_on(image.affine, image.shape))
    image = image.crop(imaged.start, imaged.stop)
    labels = replace(labelled.image, data=labelled.labels[None].float())
    moved = labels.resample(image.affine, image.shape, interpolation="nearest").data[0].round().long()
    return Labelled(replace(image, data=image.data.float()), moved, labelled.label_name)


def head_from_ras(head_from_array: Float[Tensor, "3 3"], volume: Volume) -> Float[Tensor, "3 3"]:
    """An annotated rotation for the volume reoriented to RAS.

    Array axes are permuted and flipped. Where the file is stored left-handed the annotation describes a mirror image of
    the head; its left-right axis, whose sense carries no information, changes sign, so that the result is a rotation.
    """
    direction = volume.reorient("RAS").direction
    ras_from_array = (direction.mT @ volume.direction).round()
    turned = head_from_array.double() @ ras_from_array.mT
    if float(torch.linalg.det(turned)) < 0:
        turned = turned * torch.tensor([[-1.0], [1.0], [1.0]], dtype=torch.float64)
    return turned


def rotation_of(angles_deg: Sequence[float]) -> Float[Tensor, "3 3"]:
    """Array axes to canonical frame, from angles about the fixed axes x, y, z: row ``i`` is canonical axis ``i``."""
    return rotation_from_euler_xyz(torch.deg2rad(torch.tensor(list(angles_deg), dtype=torch.float64)))


def published_crop(
    image: Float[Tensor, "x y z"], labels: Integer[Tensor, "x y z"], *, size: int, name: str
) -> tuple[Float[Tensor, "1 x2 y2 z2"], Bool[Tensor, "x2 y2 z2"]]:
    """The published input: clipped at 0, [0, 1], the object's box at ``size`` voxels, [0, 1].

    Raises
    ------
    InputError
        If nothing is above 0, or there is no object.
    """
    image = rescale_intensity(image.clamp_min(0.0))
    if float(image.amax()) <= 0.0:
        raise InputError(f"{name} has no value above 0; nothing can be seen in it.")
    crop, mask = rotation_input(image, require_object(labels, name), size=size)
    return rescale(crop[None]), mask


def require_object(labels: Integer[Tensor, "x y z"], name: str) -> Bool[Tensor, "x y z"]:
    """Where the label is the object's; an InputError where it is nowhere, or too small to crop around."""
    mask = labels == OBJECT
    if not bool(mask.any()):
        raise InputError(f"{name} has no voxel with the label {OBJECT}, the object to pose; mark it or leave it out.")
    if object_extent(mask) < 1:
        raise InputError(f"{name} has {int(mask.sum())} voxels of the object, too few to crop around; mark it whole.")
    return mask


class SegmentSamples:
    """Volumes and labels for the U-Net; see :class:`equivox.run.sampling.Samples`.

    Parameters
    ----------
    pairs
        The files.
    settings
        What to do with them.
    training
        Augmented and in random order, or as they are.
    seed
        Of everything random.
    """

    def __init__(self, pairs: Sequence[Pair], settings: SegmentTraining, *, training: bool, seed: int) -> None:
        self.pairs, self.settings, self.training, self.seed = list(pairs), settings, training, seed
        self._kept = _Kept(self._prepare)

    def __len__(self) -> int:
        return len(self.pairs)

    def sample(self, epoch: int, position: int) -> dict[str, Tensor]:
        """``image`` (1, X, Y, Z) and ``labels`` (X, Y, Z), a cube of ``crop_size_voxels``."""
        if not self.training:
            image, labels = self._cube(*self._kept(position))
            return {"image": rescale(image), "labels": labels}
        index = epoch_order(self.seed, epoch, len(self))[position]
        generator = generator_for(self.seed, "augment", epoch, position)
        image, labels = self._kept(index)
        if self.settings.preset == "published":
            image, labels = self._cube(image, labels)
            image, labels = augment_segment_published(image, labels, self.settings, generator=generator)
        else:
            image, labels = augment_segment(image, labels, self.settings, generator=generator)
        return {"image": image.contiguous(), "labels": labels.contiguous()}

    def _prepare(self, index: int) -> tuple[Tensor, Tensor]:
        labelled = read_labelled(self.pairs[index], voxel_size_mm=self.settings.voxel_size_mm)
        if self.settings.preset == "equivox":
            labelled = on_working_grid(labelled, self.settings.voxel_size_mm)
            highest = int(labelled.labels.max())
            if highest >= self.settings.n_output_channels:
                raise InputError(
                    f"{labelled.label_name} has the label {highest}, the network {self.settings.n_output_channels} "
                    f"classes; pass --n-output-channels {highest + 1} or relabel."
                )
        return labelled.image.data, labelled.labels.to(torch.int16)

    def _cube(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Central crop or padding to the network's cube."""
        shape = [self.settings.crop_size_voxels] * 3
        place = torch.eye(4, dtype=torch.float64)
        cut = crop_or_pad(Volume(image, place), shape).data
        return cut, crop_or_pad(Volume(labels[None].float(), place), shape).data[0].to(torch.int16)


class RotateSamples:
    """Crops and rotations for the E(3)-CNN; see :class:`equivox.run.sampling.Samples`.

    Parameters
    ----------
    examples
        The files and their angles.
    settings
        What to do with them.
    training
        Augmented and drawn at random, or as they are.
    seed
        Of everything random.
    """

    def __init__(self, examples: Sequence[Annotated], settings: RotateTraining, *, training: bool, seed: int) -> None:
        self.examples, self.settings, self.training, self.seed = list(examples), settings, training, seed
        self._kept = _Kept(self._prepare)

    def __len__(self) -> int:
        return len(self.examples)

    def sample(self, epoch: int, position: int) -> dict[str, Tensor]:
        """``image`` (1, X, Y, Z) in [0, 1] and ``head_from_image`` (3, 3), both float32."""
        published = self.settings.preset == "published"
        if not self.training:
            image, mask, rotation = self._kept(position)
            if not published:
                imaged = torch.ones_like(mask)
                image = centered_cube(image[0], mask, imaged, size=self.settings.image_size_voxels)[None]
            return {"image": image, "head_from_image": rotation.float()}
        generator = generator_for(self.seed, "augment", epoch, position)
        if published:  # as many draws with replacement as there are volumes
            image, mask, rotation = self._kept(int(torch.randint(len(self), (), generator=generator)))
            matrix = draw_warp_published(self.settings, generator=generator)
            image, mask, rotation = warp_published(image, mask, rotation, matrix)
            image = augment_rotate_published(image, mask, self.settings, generator=generator)
        else:
            image, mask, rotation = self._kept(epoch_order(self.seed, epoch, len(self))[position])
            image, rotation = augment_rotate(image, mask, rotation, self.settings, generator=generator)
        return {"image": image.contiguous(), "head_from_image": rotation.float()}

    def _prepare(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        example = self.examples[index]
        labelled = read_labelled(example.pair, voxel_size_mm=self.settings.voxel_size_mm)
        rotation = rotation_of(example.angles_deg)
        if self.settings.preset == "published":
            size = self.settings.image_size_voxels
            crop, mask = published_crop(labelled.image.data[0], labelled.labels, size=size, name=labelled.label_name)
            return crop, mask, rotation
        rotation = head_from_ras(rotation, labelled.image)
        labelled = on_working_grid(labelled, self.settings.voxel_size_mm)
        return labelled.image.data, require_object(labelled.labels, labelled.label_name), rotation


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    """Every index once, in the random order of an epoch."""
    return tuple(torch.randperm(count, generator=generator_for(seed, "order", epoch)).tolist())


class _Kept:
    """Prepared volumes in memory, as many as fit."""

    def __init__(self, prepare: Callable[[int], tuple[Tensor, ...]]) -> None:
        self.prepare = prepare
        self.volumes: dict[int, tuple[Tensor, ...]] = {}
        self.bytes = 0

    def __call__(self, index: int) -> tuple[Tensor, ...]:
        if index in self.volumes:
            return self.volumes[index]
        prepared = self.prepare(index)
        size = sum(tensor.nbytes for tensor in prepared)
        if self.bytes + size <= CACHE_BYTES:
            self.volumes[index] = prepared
            self.bytes += size
        return prepared


def _read_array(path: Path, voxel_size_mm: float) -> Volume:
    """The one 3D array of an ``.npz`` file; nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            every = [file[name] for name in file.files]
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no .npz file of plain arrays ({error}); write it with numpy.savez.") from error
    arrays = [array for array in every if array.ndim == 3 and array.dtype.kind in "iufb"]
    if len(arrays) != 1:
        raise InputError(f"{path} holds {len(arrays)} 3D arrays of numbers; keep exactly one.")
    data = torch.from_numpy(arrays[0].astype(np.float32))
    if not bool(torch.isfinite(data).all()):
        raise InputError(f"{path} holds NaN or infinite values; replace them by numbers first.")
    affine = torch.diag(torch.tensor([voxel_size_mm] * 3 + [1.0], dtype=torch.float64))
    return Volume(data[None], affine, name=path.name)


def _times(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)
