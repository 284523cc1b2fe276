"""Head templates: made of heads whose poses are known; their brain, laid into a scan, is a mask."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotations import Pose
from equivox.geometry.space import Volume
from equivox.nets.head_template import HeadTemplate
from equivox.tasks.pose.register import RegisterConfig
from equivox.tasks.pose.rotate import CropConfig, local_contrast, sample_crops, scaled_by_brain, size_factor

FINDER_SHARE = 0.2
"""Weight of the finder's mask; the rest is the template's. Chosen with the held-out Dice of 23 stacks in view."""


def make_template(
    cubes: Sequence[tuple[Float[Tensor, "1 x y z"], Float[Tensor, "1 x y z"]]],
    rotations: Float[Tensor, "head 3 3"],
    brain_volumes_ml: Sequence[float],
    groups: Sequence[str],
    config: RegisterConfig | None = None,
    *,
    brains: Sequence[Float[Tensor, "1 x y z"] | None] | None = None,
    mirror: bool = True,
) -> HeadTemplate:
    """Mean local contrast of heads whose poses are known.

    Parameters
    ----------
    cubes
        Intensity and field of view about each head's origin, from :func:`equivox.tasks.pose.rotate.head_cube`.
    rotations
        World from head.
    brain_volumes_ml
        Sizes.
    groups
        Subjects: every subject counts once, however many scans it has.
    config
        Of the local contrast.
    brains
        Brain masks on the cubes' grids, where they are known; their mean becomes the template's ``brain``.
    mirror
        Average with the mirror image in the sagittal plane (x to -x).
    """
    config = config or RegisterConfig()
    template = HeadTemplate()
    contrast, brain = _MeanOfSubjects(), _MeanOfSubjects()
    masks = [None] * len(cubes) if brains is None else brains
    for (cube, valid), mask, rotation, volume_ml, group in zip(
        cubes, masks, rotations, brain_volumes_ml, groups, strict=True
    ):
        crop = CropConfig(side=template.side, voxel_size_mm=template.voxel_size_mm)
        parts = torch.cat([cube, valid, torch.zeros_like(cube) if mask is None else mask.to(cube)])[None].float()
        size = torch.tensor([size_factor(volume_ml)])
        crops = sample_crops(parts, rotation[None].float(), size, torch.zeros(1, 3), crop)
        image, known = scaled_by_brain(crops[:, :1], crops[:, 1:2]), crops[:, 1:2]
        local = local_contrast(image, known, window=config.contrast_window, floor=config.contrast_floor)[0, 0]
        contrast.add(group, local, (known[0, 0] > 0.5).float())
        if mask is not None:
            brain.add(group, crops[0, 2], torch.ones_like(local))
    template.contrast = contrast.mean(template.contrast, mirror=mirror)
    template.brain = brain.mean(template.brain, mirror=mirror)
    return template


class _MeanOfSubjects:
    """A mean in which every subject counts once, and only where it was seen."""

    def __init__(self) -> None:
        self.total: dict[str, Tensor] = {}
        self.seen: dict[str, Tensor] = {}

    def add(self, subject: str, values: Tensor, weight: Tensor) -> None:
        """One scan of a subject."""
        self.total[subject] = self.total.get(subject, torch.zeros(())) + values * weight
        self.seen[subject] = self.seen.get(subject, torch.zeros(())) + weight

    def mean(self, empty: Tensor, *, mirror: bool) -> Tensor:
        """Over subjects; ``empty`` if there are none."""
        if not self.total:
            return empty
        mean = torch.stack([self.total[s] / self.seen[s].clamp_min(1.0) for s in self.total]).sum(0)
        count = torch.stack([(seen > 0).float() for seen in self.seen.values()]).sum(0)
        if mirror:
            mean, count = mean + mean.flip(0), count + count.flip(0)
        return mean / count.clamp_min(1.0)


def posed_brain(
    template: HeadTemplate, world_from_head: Pose, size: float, found: Volume, like: Volume
) -> tuple[Volume, float]:
    """Mask of the brain on a scan's grid.

    Parameters
    ----------
    template
        With a ``brain``.
    world_from_head
        Pose of the head.
    size
        Linear size relative to the template's.
    found
        The finder's mask (0 or 1) on a grid of its own.
    like
        The scan.

    Returns
    -------
    The mask, and its volume in mL.
    """
    reach = size * template.voxel_size_mm * (template.side - 1) / 2
    start, shape = _box(like, world_from_head, reach)
    mask = torch.zeros(1, *like.shape)
    if min(shape) > 0:
        axes = [torch.arange(first, first + n, dtype=torch.float64) for first, n in zip(start, shape, strict=True)]
        world = like.world_from_voxel(torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1))
        head = (world - world_from_head.translation_mm.double()) @ world_from_head.rotation.double()
        where = (head / reach).flip(-1).float()[None]
        brain = template.brain.cpu()[None, None]
        share = functional.grid_sample(brain, where, align_corners=True)[0, 0]
        corner = like.affine.clone()
        corner[:3, 3] = like.world_from_voxel(torch.tensor(start, dtype=torch.float64))
        seen = found.resample(corner, shape).data[0].float()
        inside = (1 - FINDER_SHARE) * share + FINDER_SHARE * seen > 0.5
        x, y, z = (slice(first, first + n) for first, n in zip(start, shape, strict=True))
        mask[0, x, y, z] = inside.float()
    voxel_ml = float(torch.linalg.det(like.affine[:3, :3]).abs()) / 1000
    return Volume(mask, like.affine, like.name), float(mask.sum()) * voxel_ml


def _box(like: Volume, world_from_head: Pose, reach_mm: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First voxel and shape of the part of a grid that the template's cube can touch."""
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    corners: Tensor = signs * reach_mm @ world_from_head.rotation.double().mT + world_from_head.translation_mm.double()
    index = like.voxel_from_world(corners)
    size = torch.tensor(like.shape)
    start = torch.minimum(index.amin(0).floor().long().clamp_min(0), size)
    stop = torch.maximum(torch.minimum(index.amax(0).ceil().long() + 1, size), start)
    return tuple(start.tolist()), tuple((stop - start).tolist())
