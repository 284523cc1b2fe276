"""Heads to draw from, prepared as tensors: outline, intensity and tissues in the head frame.

The files are read elsewhere (``formats/fetal_templates.py``); this room knows no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional
from jaxtyping import Float, UInt8
from scipy import ndimage
from torch import Tensor

from equivox.geometry.space import Volume
from equivox.simulate.anatomy import REFERENCE_VOLUME_ML

VENTRICLES = 2


@dataclass(frozen=True, slots=True)
class Template:
    """One head on its own grid, whose voxel axes are those of the head frame.

    Parameters
    ----------
    intensity
        Relative to the brain's median.
    distance_mm
        Signed distance to the brain's surface, negative inside, in mm of a 290 mL brain.
    labels
        Tissues 1 to 8, or None where there are none.
    ventricle_mm
        Signed distance to the ventricles' surface, or None.
    voxel_mm
        Voxel edge in mm of a 290 mL brain.
    origin
        Voxel index of the head frame's origin.
    weeks
        Gestational age; 0 where it has no meaning.
    """

    intensity: Float[Tensor, "x y z"]
    distance_mm: Float[Tensor, "x y z"]
    labels: UInt8[Tensor, "x y z"] | None
    ventricle_mm: Float[Tensor, "x y z"] | None
    voxel_mm: float
    origin: Float[Tensor, "3"]
    weeks: float

    def to(self, device: torch.device) -> Template:
        """The same on another device; the origin stays on the CPU."""
        return replace(
            self,
            intensity=self.intensity.to(device),
            distance_mm=self.distance_mm.to(device),
            labels=None if self.labels is None else self.labels.to(device),
            ventricle_mm=None if self.ventricle_mm is None else self.ventricle_mm.to(device),
        )

    def grid(self, points_mm: Float[Tensor, "3 points"]) -> Float[Tensor, "1 1 1 points 3"]:
        """Coordinates for ``grid_sample`` (align_corners) of points in the head frame."""
        half = (torch.tensor(self.distance_mm.shape, dtype=torch.float32) - 1) / 2
        shift = (self.origin - half)[:, None].to(points_mm)
        normal = (points_mm / self.voxel_mm + shift) / half[:, None].to(points_mm)
        return normal.flip(0).T[None, None, None]


@dataclass(frozen=True, slots=True)
class HeadTemplates:
    """What the stack simulator draws heads from."""

    atlases: tuple[Template, ...]
    epi: Template | None

    def nearest(self, weeks: float) -> Template:
        """The atlas closest in age."""
        return min(self.atlases, key=lambda one: abs(one.weeks - weeks))

    def to(self, device: torch.device) -> HeadTemplates:
        """The same on another device."""
        return HeadTemplates(
            tuple(one.to(device) for one in self.atlases), None if self.epi is None else self.epi.to(device)
        )


def prepare_templates(
    atlases: Sequence[tuple[Volume, Volume, float]], epi: tuple[Volume, Volume] | None
) -> HeadTemplates:
    """Prepare every head once: T2, labels and weeks of each atlas; image and brain (percent) of the median EPI head."""
    return HeadTemplates(
        tuple(atlas_template(t2, labels, weeks) for t2, labels, weeks in atlases),
        None if epi is None else epi_template(*epi),
    )


def atlas_template(t2: Volume, labels: Volume, weeks: float) -> Template:
    """Prepare a T2 atlas; every label above 0 is brain, and the brain's centroid is the head frame's origin."""
    tissue = labels.data[0].round().to(torch.uint8)
    brain = torch.from_numpy(ndimage.binary_fill_holes(tissue.numpy() > 0))
    voxel = float(torch.tensor(t2.voxel_size_mm).log().mean().exp())
    volume_ml = float(brain.sum()) * voxel**3 / 1000.0
    scaled = voxel * (REFERENCE_VOLUME_ML / volume_ml) ** (1 / 3)
    values = t2.data[0] / t2.data[0][brain].median()
    return Template(
        intensity=torch.where(brain, values, torch.full_like(values, 0.9)),
        distance_mm=signed_distance(brain, scaled, smooth=0.7),
        labels=tissue,
        ventricle_mm=signed_distance(tissue == VENTRICLES, scaled, smooth=1.0),
        voxel_mm=scaled,
        origin=brain.nonzero().float().mean(0),
        weeks=weeks,
    )


def epi_template(head: Volume, brain: Volume) -> Template:
    """Prepare a median head whose affine maps voxels to frame A in mm, and whose brain is marked in percent."""
    inside = brain.data[0] > 50.0
    voxel = float(head.voxel_size_mm[0])
    origin = head.voxel_from_world(torch.zeros(3, dtype=torch.float64)).float()
    return Template(
        intensity=head.data[0] / head.data[0][inside].median(),
        distance_mm=signed_distance(inside, voxel, smooth=0.7),
        labels=None,
        ventricle_mm=None,
        voxel_mm=voxel,
        origin=origin,
        weeks=0.0,
    )


def signed_distance(inside: Tensor, voxel_mm: float, *, smooth: float) -> Float[Tensor, "x y z"]:
    """Distance in mm to a region's surface, negative inside, a little smoothed (``smooth`` voxels)."""
    region = inside.numpy().astype(bool)
    distance = ndimage.distance_transform_edt(~region) - ndimage.distance_transform_edt(region)
    return torch.from_numpy(ndimage.gaussian_filter(distance.astype("float32"), smooth) * voxel_mm)


def brain_at(
    template: Template,
    points_mm: Float[Tensor, "3 points"],
    *,
    tissue_intensity: Sequence[float],
    t2_share: float,
    ventricle_shrink: float,
) -> tuple[Float[Tensor, "points"], Float[Tensor, "points"]]:
    """Signed distance and intensity of a template at points of the head frame.

    Atlases: labels take the given intensities, blended with the T2 image; the ventricles shrink by the given share of
    their volume, by a displacement that fades away from their walls (they are enlarged in this atlas's cohort).
    """
    intensity, shape = template.intensity, template.distance_mm.shape
    if template.labels is not None and template.ventricle_mm is not None:
        table = torch.tensor([0.85, *tissue_intensity]).to(intensity)
        painted = table[template.labels.long()]
        intensity = painted + t2_share * (intensity - painted)
        intensity = _shrunk(intensity, template.ventricle_mm, ventricle_shrink, template.voxel_mm)
    where = template.grid(points_mm)
    maps = torch.stack([template.distance_mm, intensity])[None]
    found = functional.grid_sample(maps, where, align_corners=True, padding_mode="border")[0, :, 0, 0]
    size = torch.tensor(shape).to(points_mm)[:, None] - 1
    index = points_mm / template.voxel_mm + template.origin.to(points_mm)[:, None]
    beyond = (index - torch.minimum(index.clamp_min(0.0), size)).norm(dim=0) * template.voxel_mm
    return found[0] + beyond, found[1]


def _shrunk(
    image: Float[Tensor, "x y z"], wall_mm: Float[Tensor, "x y z"], share: float, voxel_mm: float
) -> Float[Tensor, "x y z"]:
    """Pull the tissue around the ventricles inwards, so that they lose ``share`` of their volume."""
    depth = -wall_mm[wall_mm < 0]
    if depth.numel() == 0 or share <= 0.0:
        return image
    by = float(depth.sort().values[min(int(share * depth.numel()), depth.numel() - 1)])
    gradient = torch.stack(torch.gradient(wall_mm, spacing=voxel_mm))
    normal = gradient / gradient.norm(dim=0, keepdim=True).clamp_min(0.3)
    new_wall = wall_mm + by
    weight = torch.where(new_wall < 0, (1 + new_wall / 3.0).clamp_min(0.0), torch.exp(-((new_wall / 9.0) ** 2)))
    shift = by * weight * normal / voxel_mm  # in voxels: the new image at x is the old one at x + shift
    axes = [torch.arange(size, device=image.device, dtype=image.dtype) for size in image.shape]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij")) + shift
    half = (torch.tensor(image.shape).to(image) - 1) / 2
    grid = (index / half[:, None, None, None] - 1).flip(0).permute(1, 2, 3, 0)[None]
    return functional.grid_sample(image[None, None], grid, align_corners=True, padding_mode="border")[0, 0]
