"""Who is simulated: a fetus's sizes, shapes and signal, drawn one number at a time.

Positions are in the head frame A (x right, y anterior, z superior, origin at the brain's centre), in millimetres of a
head whose brain has 290 mL; ``scale`` makes them the subject's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from equivox.simulate.anatomy import REFERENCE_VOLUME_ML
from equivox.simulate.dice import Dice, Vector
from equivox.simulate.stack_config import MODES, Mode, StackSimulation

EYE_CENTER_MM: Vector = (16.9, 38.8, -22.4)
EYE_CENTER_SD_MM: Vector = (0.8, 2.8, 1.6)
FACE_CENTER_MM: Vector = (0.0, 35.0, -40.0)
FACE_SEMI_MM: Vector = (28.0, 30.0, 30.0)
NECK_START_MM: Vector = (0.0, -12.0, -45.0)
NECK_DIRECTION: Vector = (0.0, -0.35, -0.94)


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A ball of one intensity."""

    center_mm: Vector
    radius_mm: float
    intensity: float


@dataclass(frozen=True, kw_only=True)
class Limb:
    """An arm or a leg near the head."""

    start_mm: Vector
    direction: Vector
    length_mm: float
    radius_mm: float
    intensity: float


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One fetus."""

    gestational_age_weeks: float
    brain_volume_ml: float
    scale: float
    """Edge of this head relative to one of 290 mL."""
    stretch: Vector
    warp_rms_mm: float
    warp_sigma_mm: float
    pitch_deg: float
    mode: Mode
    geometry: Mode
    """Where the outline comes from; differs from ``mode`` only where that is "random"."""
    template_age_weeks: float
    ventricle_shrink: float
    """Share of the atlas's ventricles that is taken away."""
    t2_share: float
    tissue_intensity: tuple[float, ...]
    """Of the atlas's labels 1 to 8."""
    parenchyma: float
    ventricle_radius_mm: float
    ventricle_intensity: float
    fossa_mm: Vector
    """Centre of a fuller posterior fossa (atlas only)."""
    texture_sd: float
    sulci_depth: float
    sulci_sigma_mm: float
    falx: float
    gap_mm: float
    gap_intensity: float
    skull_mm: float
    skull_intensity: float
    skull_base: float
    scalp_mm: float
    scalp_intensity: float
    eye_left_mm: Vector
    eye_right_mm: Vector
    eye_diameter_mm: float
    eye_left_intensity: float
    eye_right_intensity: float
    orbit_mm: float
    orbit_intensity: float
    face_center_mm: Vector
    face_semi_mm: Vector
    face_intensity: float
    face_blobs: tuple[Blob, ...]
    neck_direction: Vector
    neck_radius_mm: float
    trunk_radius_mm: float
    trunk_length_mm: float
    trunk_intensity: float
    spine_intensity: float
    limbs: tuple[Limb, ...]


def draw_subject(config: StackSimulation, dice: Dice) -> Subject:
    """Draw one fetus; left and right differ by noise alone."""
    weeks = dice.uniform(*config.gestational_age_weeks)
    volume = min(max(15.6 * weeks - 199.0 + dice.normal(35.0), 120.0), 520.0)
    scale = (volume / REFERENCE_VOLUME_ML) ** (1 / 3)
    mode = MODES[dice.choice(config.mode_weights)]
    geometry: Mode = mode if mode != "random" else ("atlas" if dice.chance(0.5) else "procedural")
    wild = mode == "random"

    def value(low: float, high: float) -> float:
        likely = dice.uniform(low, high)
        anything = dice.uniform(0.0, 2.0)
        return anything if wild else likely

    logs = dice.normals(*[config.shape_log_sd] * 3)
    stretch = tuple(math.exp(one - sum(logs) / 3) for one in logs)
    left, right = _eyes(dice)
    bright = value(1.0, 2.0)
    eyes = [bright * math.exp(dice.normal(0.12)) for _ in range(2)]
    if dice.chance(config.one_eye_dim):
        eyes[dice.integer(0, 1)] = dice.uniform(0.5, 1.0)
    center = _add(FACE_CENTER_MM, dice.normals(0.5, 3.0, 3.0))
    semi = tuple(edge * math.exp(dice.normal(0.1)) for edge in FACE_SEMI_MM)
    face_intensity = value(0.1, 0.4)
    blobs = []
    for number in range(dice.integer(4, 8)):
        # the first two lie on the mid-line (nose, palate), the others anywhere
        spread = (0.075 if number < 2 else 0.75, 0.75, 0.75)
        place = _add(center, tuple(s * e * dice.uniform(-1.0, 1.0) for s, e in zip(spread, semi, strict=True)))
        blobs.append(Blob(center_mm=place, radius_mm=dice.uniform(3.0, 8.0), intensity=value(0.1, 0.9)))
    tissues = [math.exp(dice.normal(0.12)) for _ in range(8)]
    tissues[1], tissues[3] = dice.uniform(0.8, 1.5), dice.uniform(0.6, 1.4)
    if wild:
        tissues = [dice.uniform(0.0, 2.0) for _ in range(8)]
    limbs = []
    for _ in range(dice.integer(0, 3)):
        length, along = dice.uniform(30.0, 70.0), dice.direction()
        reach = tuple(dice.uniform(62.0, 97.0) * part for part in dice.direction())
        start = _add(reach, tuple(-0.5 * length * part for part in along))
        limb = Limb(
            start_mm=start, direction=along, length_mm=length, radius_mm=dice.uniform(5.0, 10.0),
            intensity=value(0.3, 0.8),
        )  # fmt: skip
        limbs.append(limb)
    return Subject(
        gestational_age_weeks=weeks,
        brain_volume_ml=volume,
        scale=scale,
        stretch=(stretch[0], stretch[1], stretch[2]),
        warp_rms_mm=dice.uniform(*config.warp_rms_mm),
        warp_sigma_mm=dice.uniform(*config.warp_sigma_mm),
        pitch_deg=dice.normal(config.pitch_sd_deg),
        mode=mode,
        geometry=geometry,
        template_age_weeks=weeks + dice.uniform(-3.0, 3.0),
        ventricle_shrink=dice.uniform(0.3, 0.6),
        t2_share=0.5 if dice.chance(0.5) and not wild else 0.0,
        tissue_intensity=tuple(tissues),
        parenchyma=max(value(0.95, 1.05), 0.25),
        ventricle_radius_mm=dice.uniform(3.0, 8.0),
        ventricle_intensity=value(0.6, 1.5),
        fossa_mm=_add((0.0, -27.0, -22.0), dice.normals(0.5, 2.0, 2.0)),
        texture_sd=dice.uniform(*config.texture_sd),
        sulci_depth=dice.uniform(*config.sulci),
        sulci_sigma_mm=dice.uniform(4.5, 7.0),
        falx=value(0.35, 0.8),
        gap_mm=dice.uniform(0.0, 1.5),
        gap_intensity=value(0.5, 0.7),
        skull_mm=dice.uniform(3.0, 5.0),
        skull_intensity=value(0.03, 0.22),
        skull_base=value(0.15, 0.5),
        scalp_mm=dice.uniform(2.0, 5.0),
        scalp_intensity=value(0.20, 0.50),
        eye_left_mm=left,
        eye_right_mm=right,
        eye_diameter_mm=(0.47 * weeks - 0.7) * dice.uniform(0.9, 1.1),
        eye_left_intensity=eyes[0],
        eye_right_intensity=eyes[1],
        orbit_mm=dice.uniform(2.0, 3.0),
        orbit_intensity=value(0.2, 0.45),
        face_center_mm=center,
        face_semi_mm=(semi[0], semi[1], semi[2]),
        face_intensity=face_intensity,
        face_blobs=tuple(blobs),
        neck_direction=_tilted(NECK_DIRECTION, dice.normals(15.0, 15.0, 15.0)),
        neck_radius_mm=dice.uniform(18.0, 25.0),
        trunk_radius_mm=dice.uniform(30.0, 45.0),
        trunk_length_mm=dice.uniform(60.0, 140.0),
        trunk_intensity=value(0.15, 0.65),
        spine_intensity=value(0.5, 1.5),
        limbs=tuple(limbs),
    )


def _eyes(dice: Dice) -> tuple[Vector, Vector]:
    """Left and right: most of the spread is shared, as distances between eyes vary less than their place."""
    apart, *shared = dice.normals(*EYE_CENTER_SD_MM)
    x, y, z = EYE_CENTER_MM
    left = _add((-x - apart, y + shared[0], z + shared[1]), dice.normals(0.6, 0.6, 0.6))
    right = _add((x + apart, y + shared[0], z + shared[1]), dice.normals(0.6, 0.6, 0.6))
    return left, right


def _add(first: Vector | tuple[float, ...], second: Vector | tuple[float, ...]) -> Vector:
    return (first[0] + second[0], first[1] + second[1], first[2] + second[2])


def _tilted(direction: Vector, vector_deg: Vector) -> Vector:
    """Rodrigues' turn of a direction by a rotation vector."""
    angle = math.radians(math.sqrt(sum(part * part for part in vector_deg)))
    if angle == 0.0:
        return direction
    x, y, z = (math.radians(part) / angle for part in vector_deg)
    a, b, c = direction
    cross = (y * c - z * b, z * a - x * c, x * b - y * a)
    along = (x * a + y * b + z * c) * (1 - math.cos(angle))
    turned = tuple(
        part * math.cos(angle) + side * math.sin(angle) + axis * along
        for part, side, axis in zip(direction, cross, (x, y, z), strict=True)
    )
    size = math.sqrt(sum(part * part for part in turned))
    return (turned[0] / size, turned[1] / size, turned[2] / size)
