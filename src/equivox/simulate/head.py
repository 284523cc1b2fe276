"""Simulated echo-planar stacks of fetal heads, in batches, on any isotropic grid.

A head is painted in its own frame (frame A: x right, y anterior, z superior, origin at the brain's centre) at the
grid's points, so one evaluation of the scene at every voxel makes the image: nothing is rotated by interpolation. Not a
model of physics: the ranges cover what real stacks show, and more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from jaxtyping import Float, UInt8
from torch import Tensor

from equivox.geometry.rotations import random_rotations, rotation_from_vector
from equivox.simulate.acquisition import acquire, draw_slices, head_points
from equivox.simulate.anatomy import REFERENCE_VOLUME_ML, HeadAnatomy
from equivox.simulate.config import HeadSimulation
from equivox.simulate.fields import blend, chance, gaussian_fields, length, normal, soft_inside, sphere, uniform
from equivox.simulate.head_parts import face, limbs, skull_base, trunk
from equivox.simulate.surroundings import paint_surroundings

_Painter = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""Paints the fetus over its surroundings: image to (image, brain, eyes)."""


@dataclass(frozen=True, slots=True)
class SimulatedHeads:
    """A batch of simulated stacks with their truth."""

    image: Float[Tensor, "count 1 x y z"]
    """Intensity relative to the brain (about 1 there); 0 outside the field of view."""
    labels: UInt8[Tensor, "count x y z"]
    """0 background, 1 brain, 2 eyes."""
    valid: Float[Tensor, "count 1 x y z"]
    """1 inside the field of view."""
    rotation: Float[Tensor, "count 3 3"]
    """Head frame A to grid axes."""
    center_mm: Float[Tensor, "count 3"]
    """Centre of the brain relative to the grid's centre, along the grid's axes."""
    brain_volume_ml: Float[Tensor, "count"]


def simulate_heads(
    count: int,
    *,
    shape: tuple[int, int, int],
    voxel_size_mm: float,
    anatomy: HeadAnatomy,
    config: HeadSimulation,
    generator: torch.Generator,
) -> SimulatedHeads:
    """Draw heads of random shape, contrast, pose, surroundings and acquisition.

    Rotations are uniform on SO(3); no direction of the grid is preferred by anything.

    Parameters
    ----------
    count
        Batch size.
    shape, voxel_size_mm
        Grid on which the stack is seen (isotropic; an anisotropic stack's slices are part of the simulation).
    anatomy
        Brains to draw from.
    config
        Ranges of everything else.
    generator
        Source of all randomness (CPU).
    """
    axes = [(torch.arange(n, dtype=torch.float32) - (n - 1) / 2) * voxel_size_mm for n in shape]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    points = grid[None].expand(count, -1, -1)
    rotation = random_rotations(count, generator=generator, dtype=torch.float32)
    center = config.center_jitter_mm * (2 * torch.rand(count, 3, generator=generator) - 1)
    volume = _brain_volume(count, config, generator)
    size = (volume / REFERENCE_VOLUME_ML) ** (1 / 3) * normal(
        count, config.crop_scale_log_sd, generator=generator
    ).exp()
    slices = draw_slices(count, config=config, generator=generator)
    head, second_pass = head_points(points, rotation, center, slices, config=config, generator=generator)
    edge = uniform(count, *config.edge_mm, generator=generator)
    scene = _Scene(head / size[:, :, None], size, edge, shape, voxel_size_mm, anatomy, config, generator)
    fetus, painted = scene.head_surface()
    around = paint_surroundings(
        points, center, fetus, edge, shape=shape, voxel_mm=voxel_size_mm, config=config, generator=generator
    )
    image, brain, eyes = painted(around)
    image, valid = acquire(
        image, brain, points, center, second_pass, slices,
        shape=shape, voxel_mm=voxel_size_mm, config=config, generator=generator,
    )  # fmt: skip
    labels = (brain > 0.5).to(torch.uint8)
    labels[eyes > 0.5] = 2
    return SimulatedHeads(
        image=image.reshape(count, 1, *shape),
        labels=labels.reshape(count, *shape),
        valid=valid.reshape(count, 1, *shape),
        rotation=rotation,
        center_mm=center,
        brain_volume_ml=(REFERENCE_VOLUME_ML * size**3)[:, 0],
    )


def _brain_volume(count: int, config: HeadSimulation, generator: torch.Generator) -> Float[Tensor, "count 1"]:
    """Volumes in mL by the growth curve, or from the given range."""
    weeks = uniform(count, *config.gestational_age_weeks, generator=generator)
    grown = (15.6 * weeks - 199.0 + normal(count, 35.0, generator=generator)).clamp(120.0, 520.0)
    return grown if config.brain_volume_ml is None else uniform(count, *config.brain_volume_ml, generator=generator)


class _Scene:
    """One batch of heads: distances first (the surroundings need them), then paint over the surroundings."""

    def __init__(
        self, points: Tensor, size: Tensor, edge: Tensor, shape: tuple[int, int, int], voxel_mm: float,
        anatomy: HeadAnatomy, config: HeadSimulation, generator: torch.Generator,
    ) -> None:  # fmt: skip
        """``points`` are head-frame points scaled to a brain of 290 mL; all distances below are in that scale."""
        self.count, self.generator, self.config, self.anatomy = len(points), generator, config, anatomy
        self.edge, self.size = edge / size, size
        draw = generator
        sigma = uniform(self.count, *config.warp_sigma_mm, generator=draw).expand(-1, 3)
        warp = gaussian_fields(self.count, 3, shape, sigma / voxel_mm, generator=draw)
        points = points + warp * uniform(self.count, *config.warp_rms_mm, generator=draw)[:, :, None] / math.sqrt(3)
        stretch = config.anisotropy_log_sd * torch.randn(self.count, 3, generator=draw)
        self.points = points * torch.exp(stretch.mean(1, keepdim=True) - stretch)[:, :, None]
        texture = gaussian_fields(
            self.count, 2, shape, (torch.tensor([[3.0, 6.0]]) / voxel_mm).expand(self.count, -1), generator=draw
        )
        self.texture = texture * uniform(self.count, *config.texture_sd, generator=draw)[:, :, None]
        self.wild = chance(self.count, config.wild_contrast, generator=draw)

    def _value(self, low: float, high: float) -> Tensor:
        """Intensity from its realistic range, or from (0, 2) in wild samples."""
        likely = uniform(self.count, low, high, generator=self.generator)
        return likely + self.wild * (uniform(self.count, 0.0, 2.0, generator=self.generator) - likely)

    def _brain_maps(self) -> tuple[Tensor, Tensor]:
        """Signed distance and intensity of a drawn template at the points."""
        draw, config, anatomy = self.generator, self.config, self.anatomy
        chosen = torch.randint(len(anatomy), (self.count,), generator=draw)
        tissue_count = len(anatomy.tissue_names)
        spread = torch.exp(0.12 * torch.randn(self.count, tissue_count, generator=draw))
        for name, low, high in (("ventricles", 0.8, 1.5), ("extra_axial", 0.6, 1.5)):
            spread[:, anatomy.tissue_names.index(name)] = uniform(self.count, low, high, generator=draw)[:, 0]
        wild = 0.2 + 1.8 * torch.rand(spread.shape, generator=draw)
        spread = spread + self.wild * (wild - spread)
        plain = chance(self.count, 0.2, generator=draw) * (1 - self.wild)
        spread = spread + plain * (1 - spread)
        tissues = [anatomy.tissues[brain].flatten(1) for brain in chosen.tolist()]
        intensity = torch.stack([part @ maps for part, maps in zip(spread, tissues, strict=True)])
        intensity = intensity.unflatten(1, anatomy.tissues.shape[-3:])
        share = (chance(self.count, config.template_contrast, generator=draw) * (1 - self.wild) * (1 - plain))[
            :, :, None, None
        ]
        share = share * uniform(self.count, 0.2, 0.8, generator=draw)[:, :, None, None]
        intensity = intensity + share * (anatomy.intensity[chosen] * 0.9 + 0.1 - intensity)
        pitch = torch.zeros(self.count, 3)
        pitch[:, :1] = normal(self.count, math.radians(config.pitch_sd_deg), generator=draw)
        turned = rotation_from_vector(pitch) @ self.points
        half = (anatomy.signed_distance_mm.shape[-1] - 1) / 2 * anatomy.voxel_size_mm
        where = (turned / half).permute(0, 2, 1).flip(-1)[:, :, None, None]
        maps = torch.stack([anatomy.signed_distance_mm[chosen], intensity], 1)
        sampled = functional.grid_sample(maps, where, align_corners=True, padding_mode="border")[:, :, :, 0, 0]
        beyond = length(turned - turned.clamp(-half, half))
        return sampled[:, 0] + beyond, sampled[:, 1]

    def head_surface(self) -> tuple[Tensor, _Painter]:
        """Distance to the whole fetus in mm, and the function that paints it."""
        draw, config, points = self.generator, self.config, self.points
        distance, intensity = self._brain_maps()
        # templates of this cohort have a small, low cerebellum: most heads get a fuller posterior fossa
        fossa = torch.tensor([0.0, -27.0, -22.0]) + 2.0 * torch.randn(self.count, 3, generator=draw)
        bulge = length((points - fossa[:, :, None]) / torch.tensor([23.0, 15.0, 14.0])[:, None])
        bulge = (bulge - 1.0) * 15.0 + 100.0 * (1 - chance(self.count, 0.7, generator=draw))
        distance = torch.minimum(distance, bulge)
        gap = uniform(self.count, 0.0, 1.8, generator=draw)
        skull = gap + uniform(self.count, *config.skull_mm, generator=draw)
        scalp = skull + uniform(self.count, *config.scalp_mm, generator=draw)
        face_parts = face(points, config, draw)
        ridges = skull_base(points, config, draw)
        body, spine = trunk(points, config, draw)
        arms = limbs(points, self.size, config, draw)
        surface = torch.minimum(distance - scalp, torch.minimum(face_parts.distance, body))
        fetus = torch.minimum(surface, arms.amin(0)) if len(arms) else surface

        def paint(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            edge, grain = self.edge, torch.exp(self.texture[:, 1])
            for arm in arms:
                image = blend(image, soft_inside(arm, edge), self._value(0.3, 0.9) * grain)
            image = blend(image, soft_inside(body, edge), self._value(0.3, 0.9) * grain * torch.exp(self.texture[:, 0]))
            image = blend(image, soft_inside(spine, edge), self._value(0.5, 1.5))
            image = blend(image, soft_inside(face_parts.distance, edge), self._value(0.2, 0.55) * grain)
            for blob in face_parts.blobs:
                image = blend(
                    image, soft_inside(blob, edge) * soft_inside(face_parts.distance, edge), self._value(0.05, 1.0)
                )
            image = blend(image, soft_inside(distance - scalp, edge), self._value(0.3, 0.7))
            image = blend(image, soft_inside(distance - skull, edge), self._value(0.1, 0.4))
            image = blend(image, soft_inside(distance - gap, edge), self._value(0.5, 0.9))
            brain = soft_inside(distance, edge)
            image = blend(image, brain, intensity * torch.exp(self.texture.sum(1) / math.sqrt(2)))
            groove = uniform(self.count, 0.8, 2.0, generator=draw)
            falx = chance(self.count, config.falx, generator=draw) * uniform(self.count, 0.1, 0.6, generator=draw)
            line = soft_inside(points[:, 0].abs() - groove, edge) * soft_inside(8.0 - points[:, 2], 3.0) * brain
            image = image * (1 - falx * line)
            image = blend(image, soft_inside(ridges, edge) * soft_inside(distance - skull, edge), self._value(0.1, 0.5))
            eyes = torch.zeros_like(image)
            one_dark = chance(self.count, 0.15, generator=draw)
            left_dark = chance(self.count, 0.5, generator=draw)
            rim = uniform(self.count, 2.0, 3.5, generator=draw)
            socket = self._value(0.15, 0.5)
            bright = self._value(0.9, 2.0)
            for side in range(2):
                center = face_parts.eyes[:, side]
                radius = face_parts.eye_radius[:, side : side + 1]
                ball = sphere(points, center, radius)
                image = blend(image, soft_inside(ball - rim, edge) * (1 - brain), socket)
                dim = one_dark * (left_dark if side == 0 else 1 - left_dark)
                value = bright * torch.exp(normal(self.count, 0.12, generator=draw)) * (1 - 0.5 * dim)
                inside = soft_inside(ball, edge)
                image = blend(image, inside, value)
                eyes = torch.maximum(eyes, inside)
            return image, brain, eyes

        return fetus * self.size, paint
