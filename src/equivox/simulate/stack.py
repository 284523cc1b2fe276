"""Whole simulated stacks of fetal heads: drawn from a seed, painted, scanned slice by slice, labelled.

The mother lies still; the fetus moves between slices. Nothing is a model of physics: the ranges cover what real stacks
show. The label is the mean pose over the slices that cut the brain; the masks show the brain where the image shows it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from equivox.geometry.rotations import geodesic_angle
from equivox.geometry.space import Volume
from equivox.simulate.dice import Dice
from equivox.simulate.fields import blend, ellipsoid, soft_inside, sphere, tube
from equivox.simulate.head_volume import HIGH_MM, LOW_MM, HeadVolume, paint_head
from equivox.simulate.scanner import Acquisition, Motion, brain_slices, draw_acquisition
from equivox.simulate.signal import degrade, distort, in_plane_blur
from equivox.simulate.smooth_fields import smooth_field
from equivox.simulate.stack_config import StackSimulation
from equivox.simulate.subject import NECK_START_MM, Subject, draw_subject
from equivox.simulate.templates import HeadTemplates
from equivox.simulate.womb import Surroundings, draw_surroundings, paint_womb

SIGMA_OF_FWHM = 1.0 / (2.0 * math.sqrt(2.0 * math.log(2.0)))
SHARED_BLUR = 0.6
"""The head is blurred once, in its own frame, by this share of the narrower of the two profiles; the rest follows."""
PROFILE_POINTS = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Where the slice profile is sampled, in slice thicknesses."""
BODY_EDGE_MM = 1.5
BODY_FOLLOWS = 0.4
"""Share of the head's motion that trunk and limbs take part in."""
FLESH_SIGMA_MM = 7.0
SCALP_SEMI_MM = (54.0, 62.0, 50.0)
"""Rough outline of the head for the surroundings, in mm of a 290 mL head."""
BRAIN, EYES = 1, 2


@dataclass(frozen=True, slots=True)
class Drawn:
    """Every parameter of one stack."""

    seed: int
    subject: Subject
    surroundings: Surroundings
    acquisition: Acquisition
    motion: Motion
    fields_seed: int

    def as_dict(self) -> dict[str, object]:
        """Plain values by group; motion as angles and shifts from the label's pose."""
        weight, _ = brain_slices(self.acquisition, self.motion, self.subject.scale)
        mean, center = self.motion.middle(weight)
        angle = torch.rad2deg(geodesic_angle(mean.expand_as(self.motion.rotation), self.motion.rotation))
        shift = (self.motion.center_mm - center).norm(dim=1)
        return {
            "seed": self.seed,
            "subject": asdict(self.subject),
            "surroundings": asdict(self.surroundings),
            "acquisition": asdict(self.acquisition),
            "motion": {
                "slice_time": self.motion.time.tolist(),
                "turn_from_label_deg": [round(value, 3) for value in angle.tolist()],
                "shift_from_label_mm": [round(value, 3) for value in shift.tolist()],
            },
        }


@dataclass(frozen=True, slots=True)
class SimulatedStack:
    """One stack with its truth.

    Parameters
    ----------
    image
        As a scanner would store it: whole numbers of 0 and above.
    labels
        0 background, 1 brain, 2 eyes; as imaged, slice by slice.
    world_from_head
        Rotation (frame A to world).
    center_mm
        The brain's centre in the world.
    drawn
        Every parameter.
    """

    image: Volume
    labels: UInt8[Tensor, "x y z"]
    world_from_head: Float[Tensor, "3 3"]
    center_mm: Float[Tensor, "3"]
    drawn: Drawn


def draw_stack(seed: int, config: StackSimulation, templates: HeadTemplates) -> Drawn:
    """Draw every parameter of one stack; the same seed gives the same stack, alone or in any batch."""
    if templates.epi is None:
        config = replace(config, mode_weights=(0.0, *config.mode_weights[1:]))
    dice = Dice(torch.Generator().manual_seed(seed))
    subject = draw_subject(config, dice)
    surroundings = draw_surroundings(config, dice)
    acquisition, motion = draw_acquisition(subject.scale, config, dice)
    return Drawn(seed, subject, surroundings, acquisition, motion, dice.seed())


def simulate_stacks(
    seeds: Sequence[int],
    *,
    templates: HeadTemplates,
    config: StackSimulation,
    device: torch.device | str = "cpu",
) -> list[SimulatedStack]:
    """Simulate a batch of stacks, one per seed, on a device.

    Stacks differ in shape and hold up to 1.6 million voxels, enough to fill a device one by one, so they are not put
    into one tensor. Parameters are drawn on the CPU and are the same on every device; noise fields are drawn on the
    device and are the same on devices of one kind.

    Parameters
    ----------
    seeds
        One per stack.
    templates
        Heads to draw from.
    config
        Ranges.
    device
        Where everything is painted; the results lie on the CPU.
    """
    place = torch.device(device)
    there = templates.to(place)
    return [render_stack(draw_stack(seed, config, templates), there, config, device=place) for seed in seeds]


def render_stack(
    drawn: Drawn, templates: HeadTemplates, config: StackSimulation, *, device: torch.device
) -> SimulatedStack:
    """Paint and scan what was drawn."""
    generator = torch.Generator(device=device).manual_seed(drawn.fields_seed)
    scan, subject = drawn.acquisition, drawn.subject
    weight, _ = brain_slices(scan, drawn.motion, subject.scale)
    rotation, center = drawn.motion.middle(weight)
    affine = torch.tensor(scan.affine, dtype=torch.float64)
    points = _voxel_points(affine, scan.shape, device)
    head = paint_head(subject, templates, voxel_mm=config.head_voxel_mm, generator=generator)
    plane_mm, slice_mm = scan.plane_fwhm_mm * SIGMA_OF_FWHM, scan.slice_fwhm_mm * SIGMA_OF_FWHM
    shared = SHARED_BLUR * min(plane_mm, slice_mm)
    # interpolation between voxels of the painted head blurs too (variance of the linear kernel: a sixth)
    sampled = (config.head_voxel_mm * subject.scale) ** 2 / 6.0
    head = head.blurred(math.sqrt(max(shared**2 - sampled, 0.0)) / subject.scale)
    seen, jacobian = distort(scan, points, rotation, center, subject.scale, generator=generator)
    in_head = _in_head_frame(seen, drawn.motion, subject.scale)
    # trunk and limbs follow the head's turns by less than half
    calm = drawn.motion.damped(BODY_FOLLOWS, rotation, center)
    fetus, body_image, body = _body(subject, _in_head_frame(seen, calm, subject.scale))
    about = seen - center.to(seen)[:, None, None, None]
    if config.surroundings:
        image, room = paint_womb(drawn.surroundings, about, fetus, scan.voxel_mm, generator=generator, air=config.air)
    else:
        image, room = torch.full_like(fetus, drawn.surroundings.lining), torch.ones_like(fetus)
    flesh = smooth_field(scan.shape, scan.voxel_mm, FLESH_SIGMA_MM, generator=generator)[0]
    body, body_image = body * room, body_image * torch.exp(0.3 * flesh)
    image = blend(image.flatten()[None], body.flatten()[None], body_image.flatten()[None])[0].reshape(scan.shape)
    through = math.sqrt(max(slice_mm**2 - shared**2, 1e-6))
    normal = affine[:3, 2] / affine[:3, 2].norm()
    layers, box = _scan_head(head, seen, drawn.motion, scan, subject.scale, normal, through)
    image[box] = image[box] * (1 - layers[1]) + layers[0]
    brain = torch.zeros_like(image)
    brain[box] = layers[2]
    image = in_plane_blur(image, math.sqrt(max(plane_mm**2 - shared**2, 1e-6)) / scan.voxel_mm[0])
    image = image * jacobian
    stored = degrade(image, brain, about, rotation, scan, drawn.motion, generator=generator)
    labels = _labels(subject, in_head, brain)
    volume = Volume(stored[None].cpu(), affine, name=f"seed {drawn.seed}")
    return SimulatedStack(volume, labels.cpu(), rotation, center, drawn)


def _voxel_points(affine: Tensor, shape: tuple[int, int, int], device: torch.device) -> Float[Tensor, "3 x y z"]:
    """World positions of the voxels, float32: axis by axis, so that no float64 grid is made."""
    total = affine[:3, 3].float().to(device)[:, None, None, None].expand(3, *shape).contiguous()
    for axis, size in enumerate(shape):
        steps = affine[:3, axis].float().to(device)[:, None] * torch.arange(size, device=device)
        view = [3, 1, 1, 1]
        view[axis + 1] = size
        total += steps.reshape(view)
    return total


def _in_head_frame(points: Float[Tensor, "3 x y z"], motion: Motion, scale: float) -> Float[Tensor, "3 x y z"]:
    """Positions in the head as it lay when each slice was taken, in mm of a 290 mL head."""
    rotation = motion.rotation.float().to(points.device) / scale
    center = motion.center_mm.float().to(points.device)
    offset = torch.einsum("kji,kj->ik", rotation, center)
    turned = torch.einsum("kji,jxyk->ixyk", rotation, points)
    return turned - offset[:, None, None, :]


def _body(subject: Subject, in_head: Float[Tensor, "3 x y z"]) -> tuple[Tensor, Tensor, Tensor]:
    """Signed distance (mm) to the whole fetus, and image and opacity of its neck, trunk and limbs."""
    shape, device = in_head.shape[1:], in_head.device
    points = in_head.flatten(1)[None]
    edge = BODY_EDGE_MM / subject.scale

    def row(*values: float) -> Tensor:
        return torch.tensor([values], dtype=torch.float32, device=device)

    start, direction = row(*NECK_START_MM), row(*subject.neck_direction)
    slim, wide = row(subject.neck_radius_mm), row(subject.trunk_radius_mm)
    neck = tube(points, start, direction, row(40.0), slim, wide)
    trunk = tube(points, start + 40.0 * direction, direction, row(subject.trunk_length_mm), wide, wide)
    body = torch.minimum(neck, trunk)
    opacity = soft_inside(body, edge)
    image = torch.full_like(body, subject.trunk_intensity)
    canal = tube(points, start + row(0.0, -9.0, 6.0), direction, row(150.0), row(4.0), row(4.0))
    image = blend(image, soft_inside(canal, edge), torch.full_like(image, subject.spine_intensity))
    outline = torch.minimum(
        ellipsoid(points, row(0.0, 0.0, 0.0), row(*SCALP_SEMI_MM)),
        ellipsoid(points, row(*subject.face_center_mm), row(*subject.face_semi_mm)),
    )
    fetus = torch.minimum(outline, body)
    for limb in subject.limbs:
        arm = tube(
            points, row(*limb.start_mm), row(*limb.direction), row(limb.length_mm), row(limb.radius_mm),
            row(limb.radius_mm),
        )  # fmt: skip
        inside = soft_inside(arm, edge)
        image = blend(image, inside * (1 - opacity), torch.full_like(image, limb.intensity))
        opacity, fetus = torch.maximum(opacity, inside), torch.minimum(fetus, arm)
    return (fetus * subject.scale).reshape(shape), image.reshape(shape), opacity.reshape(shape)


def _scan_head(
    head: HeadVolume,
    seen: Float[Tensor, "3 x y z"],
    motion: Motion,
    scan: Acquisition,
    scale: float,
    normal: Float[Tensor, "3"],
    sigma_mm: float,
) -> tuple[Float[Tensor, "channel a b c"], tuple[slice, slice, slice]]:
    """The head's channels in the part of the stack that can show it, averaged over the slice profile."""
    box = _head_box(scan, motion, scale)
    part = (slice(None), *box)
    moved = Motion(motion.rotation[box[2]], motion.center_mm[box[2]], motion.time[box[2]], motion.second_pass[box[2]])
    offsets = [point * scan.voxel_mm[2] for point in PROFILE_POINTS]
    weights = [math.exp(-0.5 * (offset / sigma_mm) ** 2) for offset in offsets]
    points = _in_head_frame(seen[part], moved, scale)
    step = torch.einsum("kji,j->ik", moved.rotation.float() / scale, normal.float()).to(points)[:, None, None, :]
    total = None
    for offset, weight in zip(offsets, weights, strict=True):
        if weight < 1e-3 * max(weights):
            continue
        layer = head.sample(points + offset * step) * (weight / sum(weights))
        total = layer if total is None else total + layer
    if total is None:
        raise AssertionError("the middle of the slice profile always counts")
    return total, box


def _head_box(scan: Acquisition, motion: Motion, scale: float) -> tuple[slice, slice, slice]:
    """Voxels between which the head's grid lies, in whatever pose, with room for distortion."""
    corners = torch.tensor(
        [[x, y, z] for x in (LOW_MM[0], HIGH_MM[0]) for y in (LOW_MM[1], HIGH_MM[1]) for z in (LOW_MM[2], HIGH_MM[2])]
    ).double()
    world = scale * corners @ motion.rotation.mT + motion.center_mm[:, None]
    affine = torch.tensor(scan.affine, dtype=torch.float64)
    index = (world.reshape(-1, 3) - affine[:3, 3]) @ torch.linalg.inv(affine[:3, :3]).mT
    margin = scan.distortion_mm / scan.voxel_mm[0] + 2.0
    low, high = (index.amin(0) - margin).floor(), (index.amax(0) + margin).ceil()
    cut = []
    for axis in range(3):
        start = int(min(max(float(low[axis]), 0), scan.shape[axis] - 1))
        stop = int(min(max(float(high[axis]) + 1, start + 1), scan.shape[axis]))
        cut.append(slice(start, stop))
    return (cut[0], cut[1], cut[2])


def _labels(
    subject: Subject, in_head: Float[Tensor, "3 x y z"], brain: Float[Tensor, "x y z"]
) -> UInt8[Tensor, "x y z"]:
    """1 brain, 2 eyes."""
    labels = (brain > 0.5).to(torch.uint8)
    points = in_head.flatten(1)[None]
    radius = torch.tensor([[subject.eye_diameter_mm / 2 / subject.scale]], device=points.device)
    for place in (subject.eye_left_mm, subject.eye_right_mm):
        ball = sphere(points, torch.tensor([place], device=points.device), radius).reshape(brain.shape)
        labels[ball < 0] = EYES
    return labels
