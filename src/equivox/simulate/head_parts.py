"""Face, eyes, trunk and limbs of a simulated fetus, in the head frame scaled to a brain of 290 mL."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotations import rotation_from_vector
from equivox.simulate.config import HeadSimulation
from equivox.simulate.fields import chance, ellipsoid, sphere, tube, uniform, unit_vectors

FACE_CENTER_MM = (0.0, 35.0, -40.0)
FACE_SEMI_MM = (28.0, 30.0, 30.0)


@dataclass(frozen=True, slots=True)
class Face:
    """Signed distances and positions of a batch of faces."""

    distance: Float[Tensor, "count points"]
    blobs: tuple[Float[Tensor, "count points"], ...]
    """Nose, palate, tongue, jaw and their like: balls of random size inside the face."""
    eyes: Float[Tensor, "count side 3"]
    """Left (x < 0), right."""
    eye_radius: Float[Tensor, "count side"]


def face(points: Float[Tensor, "count 3 points"], config: HeadSimulation, generator: torch.Generator) -> Face:
    """Draw faces. Sizes vary with the fetus; the left-right symmetry is broken by noise only."""
    count = points.shape[0]
    mean = torch.tensor(config.eye_center_mm).repeat(count, 2, 1)
    mean[:, 0, 0] *= -1
    shared = torch.randn(count, 1, 3, generator=generator) * torch.tensor([0.0, *config.eye_center_sd_mm[1:]])
    wide = torch.randn(count, 1, generator=generator) * config.eye_center_sd_mm[0]
    mean[:, 0, :1] -= wide
    mean[:, 1, :1] += wide
    eyes = mean + shared + 0.7 * torch.randn(count, 2, 3, generator=generator)
    radius = uniform(count, 5.6, 8.2, generator=generator) * torch.exp(
        0.04 * torch.randn(count, 2, generator=generator)
    )
    semi = torch.tensor(FACE_SEMI_MM) * torch.exp(0.1 * torch.randn(count, 3, generator=generator))
    center = torch.tensor(FACE_CENTER_MM) + torch.randn(count, 3, generator=generator) * torch.tensor([0.5, 3.0, 3.0])
    distance = ellipsoid(points, center, semi)
    blobs = []
    for number in range(5):
        # two mid-line structures, then three anywhere
        place = center + (2 * torch.rand(count, 3, generator=generator) - 1) * semi * 0.75
        if number < 2:
            place[:, 0] *= 0.1
        blobs.append(sphere(points, place, uniform(count, 3.0, 8.5, generator=generator)))
    return Face(distance, tuple(blobs), eyes, radius)


def skull_base(
    points: Float[Tensor, "count 3 points"], config: HeadSimulation, generator: torch.Generator
) -> Float[Tensor, "count points"]:
    """Signed distance to the dark cross that parts frontal lobes, temporal lobes and cerebellum from below.

    Four ridges run from the middle of the skull base: the sphenoid wings forwards and outwards, the petrous bones
    backwards and outwards.
    """
    count = points.shape[0]
    middle = torch.tensor([0.0, 6.0, -25.0]) + torch.randn(count, 3, generator=generator) * torch.tensor(
        [0.5, 2.5, 2.0]
    )
    ends = ((34.0, 24.0, -17.0), (36.0, -17.0, -22.0))
    ridges = []
    for end in ends:
        tip = torch.tensor(end) + 2.5 * torch.randn(count, 3, generator=generator)
        thick = uniform(count, 2.5, 5.0, generator=generator)
        for side in (-1.0, 1.0):
            reach = tip * torch.tensor([side, 1.0, 1.0]) - middle
            span = reach.norm(dim=1, keepdim=True)
            ridges.append(tube(points, middle, reach / span, span, thick, 0.6 * thick))
    nearest = torch.stack(ridges).amin(0)
    return nearest + 100.0 * (1 - chance(count, config.skull_base, generator=generator))


def trunk(
    points: Float[Tensor, "count 3 points"], config: HeadSimulation, generator: torch.Generator
) -> tuple[Float[Tensor, "count points"], Float[Tensor, "count points"]]:
    """Signed distances to neck with trunk, and to the spinal canal within."""
    count = points.shape[0]
    tilt = unit_vectors(count, generator=generator) * (
        math.radians(config.neck_tilt_sd_deg) * torch.randn(count, 1, generator=generator)
    )
    down = torch.nn.functional.normalize(torch.tensor([0.0, -0.35, -0.94]), dim=0)
    direction = rotation_from_vector(tilt) @ down
    start = torch.tensor([0.0, -12.0, -45.0]).repeat(count, 1)
    slim, wide = uniform(count, 17.0, 24.0, generator=generator), uniform(count, 30.0, 45.0, generator=generator)
    bend = uniform(count, 30.0, 50.0, generator=generator)
    neck = tube(points, start, direction, bend, slim, wide)
    chest = tube(
        points, start + bend * direction, direction, uniform(count, 60.0, 140.0, generator=generator), wide, wide
    )
    behind = start + torch.tensor([0.0, -9.0, 6.0])
    canal = tube(
        points,
        behind,
        direction,
        torch.full((count, 1), 150.0),
        uniform(count, 3.0, 5.5, generator=generator),
        uniform(count, 3.0, 5.0, generator=generator),
    )
    return torch.minimum(neck, chest), canal


def limbs(
    points: Float[Tensor, "count 3 points"],
    size: Float[Tensor, "count 1"],
    config: HeadSimulation,
    generator: torch.Generator,
) -> Float[Tensor, "limb count points"]:
    """Signed distances to arms and legs that lie near the head, anywhere around it."""
    count = points.shape[0]
    found = []
    for _ in range(config.limbs):
        reach = unit_vectors(count, generator=generator) * uniform(count, 60.0, 95.0, generator=generator)
        along = unit_vectors(count, generator=generator)
        length, radius = uniform(count, 30.0, 70.0, generator=generator), uniform(count, 5.0, 10.0, generator=generator)
        arm = tube(points, reach - 0.5 * length * along, along, length, radius, radius)
        found.append(arm + 1e3 * (1 - chance(count, 0.5, generator=generator)))
    return torch.stack(found) if found else points.new_empty(0, count, points.shape[-1])
