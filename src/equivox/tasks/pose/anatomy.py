"""Brain templates read from disk for the head simulator.

The templates are those of Fidon et al. 2021 (CC0): T2 images and tissue labels of fetuses with spina bifida, 21 to 34
weeks, RAS, 1.6 mm. They lend the simulator their outline and folding; they are not normal anatomy.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel
import numpy
import torch
from scipy import ndimage

from equivox.errors import InputError
from equivox.simulate.anatomy import REFERENCE_VOLUME_ML, HeadAnatomy

TISSUES = (
    "white",
    "ventricles",
    "cerebellum",
    "extra_axial",
    "cortex",
    "deep_grey",
    "brainstem",
    "corpus_callosum",
)
"""Names of the templates' labels 1 to 8."""


def load_head_anatomy(
    folder: Path | str, *, voxel_size_mm: float = 3.0, size: int = 49, youngest_weeks: int = 24
) -> HeadAnatomy:
    """Read ``sba_ga*_t2.nii.gz`` and their label maps, scaled to 290 mL and centred on the brain's centroid.

    Raises
    ------
    InputError
        If the folder holds no such template.
    """
    paths = sorted(Path(folder).glob("sba_ga*_seg.nii.gz"))
    ages = [int(match.group(1)) for path in paths if (match := re.search(r"_ga(\d+)_", path.name))]
    chosen = [(age, path) for age, path in zip(ages, paths, strict=True) if age >= youngest_weeks]
    if not chosen:
        raise InputError(
            f"{folder} holds no template named sba_ga<week>_…_seg.nii.gz of {youngest_weeks} weeks or more."
        )
    brains = [_on_grid(path, voxel_size_mm, size) for _, path in chosen]
    distance, intensity, tissues = (torch.from_numpy(numpy.stack(part)) for part in zip(*brains, strict=True))
    return HeadAnatomy(
        signed_distance_mm=distance,
        intensity=intensity,
        tissues=tissues,
        voxel_size_mm=voxel_size_mm,
        gestational_age_weeks=torch.tensor([float(age) for age, _ in chosen]),
        tissue_names=TISSUES,
    )


def _on_grid(path: Path, voxel_size_mm: float, size: int) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Signed distance, relative intensity, tissue maps of one template on the head frame's grid (x, y, z)."""
    label_image: Any = nibabel.load(path)
    labels = numpy.asarray(label_image.dataobj).astype(numpy.int16)
    t2_image: Any = nibabel.load(str(path).replace("_seg.", "_t2."))
    t2 = numpy.asarray(t2_image.dataobj).astype(numpy.float32)
    affine = label_image.affine
    template_mm = float(abs(numpy.linalg.det(affine[:3, :3])) ** (1 / 3))
    brain = ndimage.binary_fill_holes(labels > 0)
    distance = ndimage.distance_transform_edt(~brain) - ndimage.distance_transform_edt(brain)
    distance = ndimage.gaussian_filter((distance * template_mm).astype(numpy.float32), 0.7)
    relative = numpy.where(brain, t2 / numpy.median(t2[brain]), 1.0)
    scale = (REFERENCE_VOLUME_ML / (brain.sum() * template_mm**3 / 1000.0)) ** (1 / 3)
    center = affine[:3, :3] @ numpy.argwhere(brain).mean(0) + affine[:3, 3]
    axis = (numpy.arange(size) - (size - 1) / 2) * voxel_size_mm
    head_mm = numpy.stack(numpy.meshgrid(axis, axis, axis, indexing="ij"))
    world = head_mm.reshape(3, -1) / scale + center[:, None]
    index = numpy.linalg.inv(affine[:3, :3]) @ (world - affine[:3, 3:4])
    width = voxel_size_mm / scale / template_mm * 0.45

    def sampled(image: numpy.ndarray, blur: float, mode: str = "nearest") -> numpy.ndarray:
        smooth = ndimage.gaussian_filter(image.astype(numpy.float32), blur)
        return (
            ndimage.map_coordinates(smooth, index, order=1, mode=mode).reshape(size, size, size).astype(numpy.float32)
        )

    bound = numpy.asarray(labels.shape)[:, None] - 1
    outside_mm = numpy.linalg.norm(index - numpy.clip(index, 0, bound), axis=0).reshape(size, size, size) * template_mm
    tissues = numpy.stack([sampled(labels == number, width) for number in range(1, len(TISSUES) + 1)])
    tissues /= numpy.maximum(tissues.sum(0), 1e-3)
    # far outside every tissue the maps are empty; there white matter stands in, so that the sum stays 1
    tissues[0] += 1.0 - tissues.sum(0)
    depth = ((sampled(distance, 0.0) + outside_mm) * scale).astype(numpy.float32)
    return depth, sampled(relative, width), tissues.astype(numpy.float32)
