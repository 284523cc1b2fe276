"""What lies around a fetal head: maternal tissue, uterus, fluid, placenta, decoys, fat and air.

Nothing here knows the grid's axes: every direction is drawn at random.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotations import random_rotations
from equivox.simulate.config import HeadSimulation
from equivox.simulate.fields import (
    blend,
    chance,
    ellipsoid,
    gaussian_fields,
    length,
    soft_inside,
    uniform,
    unit_vectors,
)


def paint_surroundings(
    points_mm: Float[Tensor, "count 3 points"],
    center_mm: Float[Tensor, "count 3"],
    fetus_mm: Float[Tensor, "count points"],
    edge_mm: Float[Tensor, "count 1"],
    *,
    shape: tuple[int, int, int],
    voxel_mm: float,
    config: HeadSimulation,
    generator: torch.Generator,
) -> Float[Tensor, "count points"]:
    """Image of everything but the fetus, relative to brain = 1.

    Parameters
    ----------
    points_mm
        Grid points relative to the grid's centre.
    center_mm
        Centre of the brain in the same coordinates.
    fetus_mm
        Signed distance to the fetus (head, trunk and limbs); fluid lies outside it.
    edge_mm
        Blur of edges, one per sample.
    shape, voxel_mm
        Grid of the points, for the random fields.
    config, generator
        Ranges, and the source of randomness.
    """
    count = points_mm.shape[0]
    about = points_mm - center_mm[:, :, None]
    sigma = torch.tensor([4.0, 10.0, 30.0, 0.0]).repeat(count, 1)
    sigma[:, 3:] = uniform(count, 12.0, 28.0, generator=generator)
    fields = gaussian_fields(count, 4, shape, sigma / voxel_mm, generator=generator)
    image = uniform(count, 0.15, 0.45, generator=generator) * torch.exp(
        0.25 * fields[:, 0] + 0.35 * fields[:, 1] + 0.30 * fields[:, 2]
    )
    image = _paint_decoys(image, about, edge_mm, generator=generator)
    uterus = _uterus(about, fields[:, 1], generator=generator)
    wall = uniform(count, 4.0, 8.0, generator=generator)
    image = blend(image, soft_inside(uterus - wall, 2.0), uniform(count, 0.35, 0.9, generator=generator))
    tissue = uniform(count, 0.25, 0.7, generator=generator) * torch.exp(0.25 * fields[:, 0] + 0.2 * fields[:, 1])
    image = blend(image, soft_inside(uterus, 2.0), tissue)
    image = _paint_placenta(image, about, uterus, fields[:, 0], generator=generator)
    side = (about * unit_vectors(count, generator=generator)[:, :, None]).sum(1) / 60.0
    level = fields[:, 3] + uniform(count, *config.fluid_one_sided, generator=generator) * side.clamp(-2, 2)
    share = uniform(count, *config.fluid_share, generator=generator)
    near = (fetus_mm > 0) & (fetus_mm < 40)
    threshold = _upper_quantile(level, near, share)
    pocket = torch.sigmoid((level - threshold) * 6.0)
    # some fluid shows a thin film around the whole fetus
    film = chance(count, 0.4, generator=generator) * soft_inside(
        fetus_mm - uniform(count, 2.0, 10.0, generator=generator), 1.5
    )
    fluid = torch.maximum(pocket, film) * soft_inside(uterus, 2.0)
    bright = uniform(count, 1.0, 2.2, generator=generator) * torch.exp(0.1 * fields[:, 2] + 0.06 * fields[:, 0])
    image = blend(image, fluid, bright)
    return _paint_fat_and_air(image, about, config=config, generator=generator)


def _uterus(
    about: Float[Tensor, "count 3 points"], rough: Float[Tensor, "count points"], *, generator: torch.Generator
) -> Float[Tensor, "count points"]:
    """Signed distance to the uterine cavity: a rough, randomly turned ellipsoid that holds the head."""
    count = about.shape[0]
    turn = random_rotations(count, generator=generator, dtype=torch.float32)
    semi = torch.cat(
        [uniform(count, *r, generator=generator) for r in ((85.0, 130.0), (70.0, 100.0), (90.0, 140.0))], 1
    )
    offset = 40 * (2 * torch.rand(count, 3, generator=generator) - 1)
    return ellipsoid(turn @ about, offset, semi) + 4.0 * rough


def _paint_decoys(
    image: Float[Tensor, "count points"],
    about: Float[Tensor, "count 3 points"],
    edge: Tensor,
    *,
    generator: torch.Generator,
) -> Float[Tensor, "count points"]:
    """Bladder, bowel, vertebrae: ellipsoids of any brightness, 60 to 190 mm from the head."""
    count = about.shape[0]
    for _ in range(4):
        center = unit_vectors(count, generator=generator) * uniform(count, 60.0, 190.0, generator=generator)
        semi = torch.cat([uniform(count, 8.0, 45.0, generator=generator) for _ in range(3)], 1)
        inside = soft_inside(ellipsoid(about, center, semi), 2.0) * chance(count, 0.6, generator=generator)
        image = blend(image, inside, uniform(count, 0.0, 2.3, generator=generator))
    return image


def _paint_placenta(
    image: Float[Tensor, "count points"],
    about: Float[Tensor, "count 3 points"],
    uterus: Float[Tensor, "count points"],
    rough: Float[Tensor, "count points"],
    *,
    generator: torch.Generator,
) -> Float[Tensor, "count points"]:
    """A slab on one side of the uterine wall."""
    count = about.shape[0]
    side = (about * unit_vectors(count, generator=generator)[:, :, None]).sum(1)
    cap = soft_inside(uniform(count, 20.0, 80.0, generator=generator) - side, 4.0)
    slab = soft_inside(uterus, 2.0) * soft_inside(-uterus - uniform(count, 15.0, 40.0, generator=generator), 2.0)
    value = uniform(count, 0.6, 1.4, generator=generator) * torch.exp(0.12 * rough)
    return blend(image, cap * slab * chance(count, 0.7, generator=generator), value)


def _paint_fat_and_air(
    image: Float[Tensor, "count points"],
    about: Float[Tensor, "count 3 points"],
    *,
    config: HeadSimulation,
    generator: torch.Generator,
) -> Float[Tensor, "count points"]:
    """The mother's body is an elliptic cylinder of random direction; fat brightens towards the skin, air is dark."""
    count = about.shape[0]
    turn = random_rotations(count, generator=generator, dtype=torch.float32)[:, :2]
    semi = torch.cat(
        [uniform(count, 150.0, 210.0, generator=generator), uniform(count, 105.0, 160.0, generator=generator)], 1
    )
    angle = uniform(count, 0.0, 6.2832, generator=generator)
    reach = uniform(count, 0.0, 0.42, generator=generator).sqrt()
    offset = semi * reach * torch.cat([angle.cos(), angle.sin()], 1)
    level = length((turn @ about + offset[:, :, None]) / semi[:, :, None])
    body = (level - 1) * semi.mean(1, keepdim=True)
    fat_mm = uniform(count, 8.0, 25.0, generator=generator)
    depth = (-body / 40.0).clamp_min(0.0)
    bright = uniform(count, 0.4, 2.0, generator=generator).exp() * torch.exp(-depth * 1.5)
    present = chance(count, config.air, generator=generator)
    image = blend(
        image, present * soft_inside(-body - fat_mm, 2.0), bright * uniform(count, 0.3, 1.2, generator=generator)
    )
    return image * (1 - present * soft_inside(-body, 1.5))


def _upper_quantile(
    values: Float[Tensor, "count points"], chosen: Tensor, share: Float[Tensor, "count 1"]
) -> Float[Tensor, "count 1"]:
    """Value that a given share of the chosen points exceeds, from a fixed coarse sample of the points."""
    step = max(values.shape[1] // 4096, 1)
    coarse, weight = values[:, ::step], chosen[:, ::step].float() + 1e-6
    order = coarse.argsort(1, descending=True)
    mass = weight.gather(1, order).cumsum(1)
    index = (mass < share * mass[:, -1:]).sum(1, keepdim=True).clamp_max(coarse.shape[1] - 1)
    return coarse.gather(1, order.gather(1, index))
