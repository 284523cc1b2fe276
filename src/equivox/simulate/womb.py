"""What lies around a fetus in a whole field of view: parameters first, then paint.

Positions are world mm relative to the brain's centre. Every direction is drawn at random; nothing knows the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotations import random_rotations
from equivox.simulate.dice import Dice, Vector
from equivox.simulate.fields import blend, ellipsoid, length, soft_inside
from equivox.simulate.smooth_fields import smooth_field
from equivox.simulate.stack_config import StackSimulation

Rows = tuple[Vector, Vector, Vector]
QUANTILE_SAMPLE = 8192
HEAD_ROOM_MM = 75.0
"""The uterus reaches at least so far around the head's centre, as far as the fetus does."""
NEAR_MM = 40.0
"""Fluid's share is that of the space up to so far around the fetus."""


@dataclass(frozen=True, kw_only=True)
class Organ:
    """Bladder, bowel, vertebra: an ellipsoid of any brightness."""

    center_mm: Vector
    semi_mm: Vector
    intensity: float


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """One mother."""

    tissue: float
    """Median of the tissue outside the uterus."""
    uterus_turn: Rows
    uterus_semi_mm: Vector
    uterus_offset_mm: Vector
    wall_mm: float
    wall_intensity: float
    lining: float
    """Median of what fills the uterus besides fetus and fluid (folded wall, cord, membranes)."""
    placenta: bool
    placenta_side: Vector
    placenta_reach_mm: float
    placenta_mm: float
    placenta_intensity: float
    crescents: bool
    fluid_share: float
    fluid_side: Vector
    fluid_one_sided: float
    fluid_sigma_mm: float
    fluid_film_mm: float
    """0: no film of fluid around the fetus."""
    fluid_intensity: float
    organs: tuple[Organ, ...]
    skin_turn: Rows
    skin_semi_mm: tuple[float, float]
    skin_offset_mm: tuple[float, float]
    fat_mm: float
    fat_intensity: float
    coil: float
    """Brightness just below the skin, relative to deep fat."""


def draw_surroundings(config: StackSimulation, dice: Dice) -> Surroundings:
    """Draw one mother."""
    crescents = dice.chance(config.crescents)
    share = dice.uniform(*config.fluid_share)
    organs = []
    for _ in range(dice.integer(1, 6)):
        far = dice.uniform(65.0, 200.0)
        place = tuple(far * part for part in dice.direction())
        semi = (dice.uniform(8.0, 45.0), dice.uniform(8.0, 45.0), dice.uniform(8.0, 45.0))
        organs.append(Organ(center_mm=(place[0], place[1], place[2]), semi_mm=semi, intensity=dice.uniform(0.0, 1.5)))
    skin_semi = (dice.uniform(160.0, 220.0), dice.uniform(120.0, 180.0))
    # the nearest skin is 75 to 160 mm away: along one axis of the body's cross-section
    near = dice.integer(0, 1)
    away = min(dice.uniform(75.0, 160.0), skin_semi[near])
    offset = [0.0, 0.0]
    offset[near] = (skin_semi[near] - away) * (1.0 if dice.chance(0.5) else -1.0)
    offset[1 - near] = dice.uniform(-0.3, 0.3) * skin_semi[1 - near]
    return Surroundings(
        tissue=dice.uniform(0.10, 0.32),
        uterus_turn=_turn(dice),
        uterus_semi_mm=(dice.uniform(85.0, 130.0), dice.uniform(70.0, 100.0), dice.uniform(90.0, 140.0)),
        uterus_offset_mm=(dice.uniform(-40.0, 40.0), dice.uniform(-40.0, 40.0), dice.uniform(-40.0, 40.0)),
        wall_mm=dice.uniform(4.0, 8.0),
        wall_intensity=dice.uniform(0.3, 0.9),
        lining=dice.uniform(0.10, 0.42),
        placenta=dice.chance(0.7),
        placenta_side=dice.direction(),
        placenta_reach_mm=dice.uniform(20.0, 80.0),
        placenta_mm=dice.uniform(20.0, 40.0),
        placenta_intensity=dice.uniform(0.7, 1.3),
        crescents=crescents,
        fluid_share=min(share, 0.2) if crescents else share,
        fluid_side=dice.direction(),
        fluid_one_sided=dice.uniform(0.0, 1.6),
        fluid_sigma_mm=dice.uniform(12.0, 28.0),
        fluid_film_mm=dice.uniform(2.0, 9.0) if dice.chance(0.4) and not crescents else 0.0,
        fluid_intensity=dice.uniform(1.1, 2.0),
        organs=tuple(organs),
        skin_turn=_turn(dice),
        skin_semi_mm=skin_semi,
        skin_offset_mm=(offset[0], offset[1]),
        fat_mm=dice.uniform(10.0, 25.0),
        fat_intensity=dice.uniform(0.15, 0.8),
        coil=dice.log_uniform(0.8, 3.0),
    )


def paint_womb(
    drawn: Surroundings,
    points_mm: Float[Tensor, "3 x y z"],
    fetus_mm: Float[Tensor, "x y z"],
    spacing_mm: tuple[float, float, float],
    *,
    generator: torch.Generator,
    air: bool,
) -> tuple[Float[Tensor, "x y z"], Float[Tensor, "x y z"]]:
    """Image of everything but the fetus, and where the fetus's body has room (1 inside the uterus, 0 outside).

    Parameters
    ----------
    drawn
        What was drawn.
    points_mm
        World positions of the voxels relative to the brain's centre.
    fetus_mm
        Signed distance to the fetus; fluid lies outside it.
    spacing_mm
        Of the grid, for the random fields.
    generator
        Of the fields, on the device of the points.
    air
        Whether the body ends at the skin.
    """
    shape = (points_mm.shape[1], points_mm.shape[2], points_mm.shape[3])
    device = points_mm.device
    fine, middle, broad, level = (
        smooth_field(shape, spacing_mm, sigma, generator=generator).reshape(1, -1)
        for sigma in (4.0, 10.0, 30.0, drawn.fluid_sigma_mm)
    )
    about, fetus = points_mm.flatten(1)[None], fetus_mm.reshape(1, -1)
    image = drawn.tissue * torch.exp(0.25 * fine + 0.35 * middle + 0.30 * broad)
    for organ in drawn.organs:
        inside = soft_inside(ellipsoid(about, _row(organ.center_mm, device), _row(organ.semi_mm, device)), 1.5)
        image = blend(image, inside, organ.intensity * torch.exp(0.15 * fine))
    turned = torch.tensor(drawn.uterus_turn, device=device) @ about
    uterus = ellipsoid(turned, _row(drawn.uterus_offset_mm, device), _row(drawn.uterus_semi_mm, device)) + 3.0 * middle
    # a head that would poke through pushes the wall outwards; a trunk that would is cut short
    room = soft_inside(torch.minimum(uterus, length(about) - HEAD_ROOM_MM), 1.5)
    uterus = torch.minimum(uterus, torch.maximum(fetus - 3.0, length(about) - HEAD_ROOM_MM))
    cavity = soft_inside(uterus, 1.5)
    wall = soft_inside(uterus - drawn.wall_mm, 1.5)
    image = blend(image, wall, drawn.wall_intensity * torch.exp(0.1 * fine))
    image = blend(image, cavity, drawn.lining * torch.exp(0.25 * fine + 0.2 * middle))
    if drawn.placenta:
        side = _along(about, drawn.placenta_side)
        cap = soft_inside(drawn.placenta_reach_mm - side, 4.0)
        slab = cavity * soft_inside(-uterus - drawn.placenta_mm, 2.0)
        image = blend(image, cap * slab, drawn.placenta_intensity * torch.exp(0.12 * fine))
    level = level + drawn.fluid_one_sided * (_along(about, drawn.fluid_side) / 60.0).clamp(-2, 2)
    near = (fetus > 0) & (fetus < NEAR_MM)
    threshold = _upper_quantile(level, near, drawn.fluid_share)
    fluid = torch.sigmoid((level - threshold) * 6.0)
    if drawn.fluid_film_mm > 0:
        fluid = torch.maximum(fluid, soft_inside(fetus - drawn.fluid_film_mm, 1.0))
    if drawn.crescents:
        # the wall lies against the scalp where fluid does not push it away
        fluid = fluid * soft_inside(fetus - 14.0, 2.0)
    bright = drawn.fluid_intensity * torch.exp(0.10 * broad + 0.05 * fine)
    image = blend(image, fluid * cavity, bright)
    if air:
        image, body = _skin(drawn, image, about, middle, broad)
        room = room * body
    return image.reshape(shape), room.reshape(shape)


def _skin(drawn: Surroundings, image: Tensor, about: Tensor, middle: Tensor, broad: Tensor) -> tuple[Tensor, Tensor]:
    """The mother's body is an elliptic cylinder; fat brightens towards the skin (and the coil), beyond it is air."""
    device = about.device
    across = torch.tensor(drawn.skin_turn, device=device)[:2] @ about
    semi = torch.tensor(drawn.skin_semi_mm, device=device)[:, None]
    level = length((across + torch.tensor(drawn.skin_offset_mm, device=device)[:, None]) / semi)
    depth = (1 - level) * float(semi.mean()) + 2.0 * broad
    fat = soft_inside(depth - drawn.fat_mm + 4.0 * middle, 1.5)
    near = torch.exp(-depth.clamp_min(0.0) / 14.0)
    bright = drawn.fat_intensity * (1 + (drawn.coil / drawn.fat_intensity - 1) * near)
    bright = bright.clamp_min(0.0) * torch.exp(0.4 * middle)
    image = blend(image * (1 + 0.25 * (drawn.coil - 1) * near), fat, bright)
    body = soft_inside(-depth, 0.8)
    return image * body, body


def _upper_quantile(values: Tensor, chosen: Tensor, share: float) -> float:
    """Value that a share of the chosen points exceeds, from a regular sample of the points."""
    step = max(values.shape[1] // QUANTILE_SAMPLE, 1)
    found = values[:, ::step][chosen[:, ::step]]
    if found.numel() == 0:
        found = values[0, ::step]
    ordered = found.sort(descending=True).values
    return float(ordered[min(int(share * ordered.numel()), ordered.numel() - 1)])


def _along(about: Tensor, direction: Vector) -> Tensor:
    x, y, z = direction
    return x * about[:, 0] + y * about[:, 1] + z * about[:, 2]


def _turn(dice: Dice) -> Rows:
    rows = random_rotations(1, generator=dice.generator)[0].tolist()
    first, second, third = ((row[0], row[1], row[2]) for row in rows)
    return (first, second, third)


def _row(values: Vector, device: torch.device) -> Float[Tensor, "1 3"]:
    return torch.tensor([values], dtype=torch.float32, device=device)
