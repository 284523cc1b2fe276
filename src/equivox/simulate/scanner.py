"""How one stack is taken: grid, place of the head, order of slices, motion, and every imperfection, drawn first.

World positions are mm (RAS) relative to the field of view's centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.geometry.rotations import chordal_mean, random_rotations, rotation_from_vector, rotation_vector
from equivox.simulate.dice import Dice, Vector
from equivox.simulate.stack_config import StackSimulation

STORED = (("LIP", 12.0), ("LPS", 9.0), ("PIL", 8.0))
"""Storage orders of the measured stacks and how many had them; the last is left-handed."""
LETTERS = {"R": (0, 1.0), "L": (0, -1.0), "A": (1, 1.0), "P": (1, -1.0), "S": (2, 1.0), "I": (2, -1.0)}
BRAIN_REACH_MM = 44.0
"""Mean semi-axis of a brain of 290 mL: slices nearer to its centre than this cut it."""
BRAIN_SPAN_MM: Vector = (43.0, 50.0, 38.0)


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """What was drawn for one stack, but its motion."""

    shape: tuple[int, int, int]
    voxel_mm: Vector
    stored_as: str
    obliquity_deg: float
    affine: tuple[tuple[float, ...], ...]
    phase_axis: int
    """In-plane axis along which distortion and ghost act."""
    plane_fwhm_mm: float
    slice_fwhm_mm: float
    order: str
    """"even-odd", "odd-even" or "sequential"."""
    cut_allowed: bool
    pass_jump_deg: float
    pass_jump_mm: float
    jerk_deg: float
    jerk_mm: float
    bias_ratio: float
    bias_sigma_mm: float
    """0: a polynomial of degree 3."""
    slice_gain_sd: float
    second_pass: float
    distortion_mm: float
    distortion_sigma_mm: float
    dropouts: tuple[tuple[float, float, float, float, float], ...]
    """Place in the head (x, y, z), radius in mm, factor."""
    ghost: float
    noise_ratio: float
    noise_floor: float
    brain_level: float
    """Stored value of the brain's median."""


@dataclass(frozen=True, slots=True)
class Motion:
    """The pose of the head at every slice, by position in the stack.

    Parameters
    ----------
    rotation, center_mm
        World from head, per slice.
    time
        When a slice was taken: 0 for the first.
    second_pass
        Whether it belongs to the second pass.
    """

    rotation: Float[Tensor, "slice 3 3"]
    center_mm: Float[Tensor, "slice 3"]
    time: Int[Tensor, "slice"]
    second_pass: Float[Tensor, "slice"]

    def middle(self, weight: Float[Tensor, "slice"]) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
        """Weighted mean pose: what the label says (Karcher mean of the rotations, to rounding)."""
        mean = karcher_mean(self.rotation, weight)
        center = (weight.double()[:, None] * self.center_mm.double()).sum(0) / weight.double().sum()
        return mean, center

    def damped(self, share: float, rotation: Float[Tensor, "3 3"], center_mm: Float[Tensor, "3"]) -> Motion:
        """Only a share of the motion about a given pose."""
        turn = share * rotation_vector(rotation.mT @ self.rotation.double())
        return Motion(
            rotation @ rotation_from_vector(turn), center_mm + share * (self.center_mm - center_mm), self.time,
            self.second_pass,
        )  # fmt: skip


def karcher_mean(rotations: Float[Tensor, "count 3 3"], weight: Float[Tensor, "count"]) -> Float[Tensor, "3 3"]:
    """Mean on SO(3) (least squared geodesic distance), from the chordal mean by a few steps in the tangent space."""
    share = (weight / weight.sum()).double()
    mean = chordal_mean(rotations.double(), weights=share)
    for _ in range(6):
        step = (share[:, None] * rotation_vector(mean.mT @ rotations.double())).sum(0)
        mean = mean @ rotation_from_vector(step)
    return mean


def draw_acquisition(scale: float, config: StackSimulation, dice: Dice) -> tuple[Acquisition, Motion]:
    """Draw a stack's geometry, the head's place in it and its motion.

    Parameters
    ----------
    scale
        Edge of the head relative to one of 290 mL.
    """
    thick = dice.chance(config.thick_slices)
    side = 160 if thick else 2 * dice.integer(50, 60)
    spacing = (3.0, 3.0, 4.5 if thick else 3.0)
    direction, name, oblique = _direction(dice)
    rotation = random_rotations(1, generator=dice.generator)[0]
    # half-extents of the brain along the stack's axes
    span = [
        scale * float(((rotation.mT @ direction[:, axis]) * torch.tensor(BRAIN_SPAN_MM).double()).norm())
        for axis in range(3)
    ]
    cut = dice.chance(config.cut_head)
    slices = dice.integer(50, 64) if thick else dice.integer(30, 90)
    if not cut:
        slices = max(slices, math.ceil((2 * span[2] + 12.0) / spacing[2]))
    shape = (side, side, slices)
    place = [
        _fraction(low, high, span[axis] / (shape[axis] * spacing[axis]), cut and axis == 2, dice)
        for axis, (low, high) in enumerate(((0.25, 0.65), (0.25, 0.80), (0.10, 0.90)))
    ]
    size = torch.tensor(shape, dtype=torch.float64) * torch.tensor(spacing, dtype=torch.float64)
    center = direction @ ((torch.tensor(place, dtype=torch.float64) - 0.5) * size)
    linear = direction @ torch.diag(torch.tensor(spacing, dtype=torch.float64))
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = linear
    affine[:3, 3] = -linear @ ((torch.tensor(shape, dtype=torch.float64) - 1) / 2)
    order = "sequential" if dice.chance(config.sequential) else ("even-odd" if dice.chance(0.5) else "odd-even")
    moving = not dice.chance(config.still) and config.motion  # drawn either way: an ablation changes nothing else
    jump_deg, jump_mm = abs(dice.normal(config.pass_jump_deg)), abs(dice.normal(config.pass_jump_mm))
    jerks = dice.chance(config.jerk)
    jerk_deg, jerk_mm = dice.uniform(5.0, 25.0), dice.uniform(2.0, 8.0)
    holes = []
    for _ in range(dice.integer(0, config.dropouts)):
        # below and beside the brain: skull base, mastoid and nose
        x, y, z = (dice.uniform(-35.0, 35.0), dice.uniform(-25.0, 45.0), dice.uniform(-45.0, -15.0))
        holes.append((x * scale, y * scale, z * scale, dice.uniform(8.0, 20.0), dice.uniform(0.2, 0.8)))
    drawn = Acquisition(
        shape=shape,
        voxel_mm=spacing,
        stored_as=name,
        obliquity_deg=oblique,
        affine=tuple(tuple(row) for row in affine.tolist()),
        phase_axis=dice.integer(0, 1),
        plane_fwhm_mm=dice.uniform(0.85, 1.15) * spacing[0],
        slice_fwhm_mm=dice.uniform(0.9, 1.2) * spacing[2],
        order=order,
        cut_allowed=cut,
        pass_jump_deg=jump_deg if moving and order != "sequential" else 0.0,
        pass_jump_mm=jump_mm if moving and order != "sequential" else 0.0,
        jerk_deg=jerk_deg if moving and jerks else 0.0,
        jerk_mm=jerk_mm if moving and jerks else 0.0,
        bias_ratio=max(dice.uniform(*config.bias_ratio) * config.bias, 1.0),
        bias_sigma_mm=dice.uniform(60.0, 120.0) if dice.chance(0.5) else 0.0,
        slice_gain_sd=dice.log_uniform(*config.slice_gain_sd),
        second_pass=dice.uniform(*config.second_pass),
        distortion_mm=dice.uniform(*config.distortion_mm),
        distortion_sigma_mm=dice.uniform(15.0, 30.0),
        dropouts=tuple(holes),
        ghost=dice.uniform(*config.ghost),
        noise_ratio=dice.uniform(*config.noise_ratio),
        noise_floor=dice.uniform(*config.noise_floor),
        brain_level=dice.log_uniform(80.0, 500.0),
    )
    return drawn, draw_motion(drawn, rotation, center, walks=config.motion, dice=dice)


def slice_times(count: int, order: str) -> Int[Tensor, "slice"]:
    """When each slice is taken, in steps of one slice."""
    numbers = list(range(count))
    first = {"even-odd": numbers[0::2] + numbers[1::2], "odd-even": numbers[1::2] + numbers[0::2]}.get(order, numbers)
    times = torch.empty(count, dtype=torch.int64)
    times[torch.tensor(first)] = torch.arange(count)
    return times


def draw_motion(
    acquisition: Acquisition,
    rotation: Float[Tensor, "3 3"],
    center_mm: Float[Tensor, "3"],
    *,
    walks: bool,
    dice: Dice,
) -> Motion:
    """Random walk in rotation and place, a jump between the passes, sometimes a jerk.

    Turns are rotation vectors in the head's own frame, added up; they are small but for jump and jerk.
    """
    count = acquisition.shape[2]
    generator = dice.generator
    turn = math.radians(0.15) * torch.randn(count, 3, generator=generator, dtype=torch.float64).cumsum(0)
    shift = 0.1 * torch.randn(count, 3, generator=generator, dtype=torch.float64).cumsum(0)
    if not walks:
        turn, shift = torch.zeros_like(turn), torch.zeros_like(shift)
    first_pass = (count + 1) // 2 if acquisition.order == "even-odd" else count // 2
    for start, degrees, millimetres in (
        (first_pass, acquisition.pass_jump_deg, acquisition.pass_jump_mm),
        (dice.integer(1, count - 1), acquisition.jerk_deg, acquisition.jerk_mm),
    ):
        axis, way = torch.tensor(dice.direction()).double(), torch.tensor(dice.direction()).double()
        turn[start:] += math.radians(degrees) * axis
        shift[start:] += millimetres * way
    times = slice_times(count, acquisition.order)
    second = (times >= first_pass).float() if acquisition.order != "sequential" else torch.zeros(count)
    return Motion(
        rotation=(rotation.double() @ rotation_from_vector(turn))[times],
        center_mm=(center_mm.double() + shift)[times],
        time=times,
        second_pass=second,
    )


def brain_slices(
    acquisition: Acquisition, motion: Motion, scale: float
) -> tuple[Float[Tensor, "slice"], Float[Tensor, "slice"]]:
    """Weight 1 for every slice that cuts the brain, and how far (mm) each lies from its centre."""
    affine = torch.tensor(acquisition.affine, dtype=torch.float64)
    normal = affine[:3, 2] / affine[:3, 2].norm()
    index = torch.arange(acquisition.shape[2], dtype=torch.float64)
    middle = affine[:3, :3] @ torch.tensor([(n - 1) / 2 for n in acquisition.shape], dtype=torch.float64)
    origin = affine[:3, 3] + middle - affine[:3, 2] * (acquisition.shape[2] - 1) / 2
    planes = origin + index[:, None] * affine[:3, 2]
    depth = ((planes - motion.center_mm) @ normal).abs()
    local = torch.einsum("sji,j->si", motion.rotation, normal) * torch.tensor(BRAIN_SPAN_MM).double() * scale
    inside = (depth < local.norm(dim=1)).float()
    if float(inside.sum()) == 0.0:
        inside[depth.argmin()] = 1.0
    return inside, depth.float()


def _direction(dice: Dice) -> tuple[Float[Tensor, "3 3"], str, float]:
    """Voxel axes in the world: a measured storage order, tilted; half of the stacks clearly oblique."""
    name = STORED[dice.choice([weight for _, weight in STORED])][0]
    axes = torch.zeros(3, 3, dtype=torch.float64)
    for column, letter in enumerate(name):
        row, sign = LETTERS[letter]
        axes[row, column] = sign
    angle = dice.uniform(15.0, 43.0) if dice.chance(0.45) else dice.uniform(0.0, 6.0)
    tilt = rotation_from_vector(torch.tensor(dice.direction(), dtype=torch.float64) * math.radians(angle))
    return tilt @ axes, name, angle


def _fraction(low: float, high: float, half: float, cut: bool, dice: Dice) -> float:
    """Where the brain's centre lies along an axis, as a fraction of the field of view; inside unless it may be cut."""
    if cut:
        return dice.uniform(low, high)
    margin = min(half + 0.01, 0.5)
    low, high = max(low, margin), min(high, 1.0 - margin)
    return dice.uniform(low, high) if low < high else 0.5 * (low + high)
