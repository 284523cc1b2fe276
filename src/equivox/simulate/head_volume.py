"""The head of one subject on a fine grid of its own frame: what is there, how bright, and where the brain is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from equivox.simulate.dice import Vector
from equivox.simulate.fields import blend, ellipsoid, soft_inside, sphere, tube
from equivox.simulate.smooth_fields import gaussian_blur, smooth_field
from equivox.simulate.subject import Subject
from equivox.simulate.templates import HeadTemplates, brain_at

LOW_MM: Vector = (-68.0, -74.0, -86.0)
HIGH_MM: Vector = (68.0, 78.0, 66.0)
"""What the grid covers, in mm of a 290 mL head: all of the head and the face."""
EDGE_MM = 0.7
"""Logistic scale of painted edges; the scanner blurs further."""
BRAIN_SEMI_MM: Vector = (43.0, 50.0, 38.0)
WARP_KNOT_MM = 5.0
RIM_SHARE = 0.6
TEXTURE_SIGMA_MM = 3.5
SULCI_DEPTH_MM = 15.0
SULCI_WIDTH = 0.20
"""In SD of the field: sheets of about 2 mm at a scale of 6 mm."""


@dataclass(frozen=True, slots=True)
class HeadVolume:
    """A painted head; axes of the grid are those of the head frame.

    Parameters
    ----------
    channels
        Intensity times opacity, opacity, brain (0 to 1).
    voxel_mm
        In mm of a 290 mL head.
    """

    channels: Float[Tensor, "channel x y z"]
    voxel_mm: float

    def sample(self, points_mm: Float[Tensor, "3 *grid"]) -> Float[Tensor, "channel *grid"]:
        """Channels at points of the head frame (mm of a 290 mL head); 0 outside the grid."""
        low = torch.tensor(LOW_MM).to(points_mm)[:, None]
        span = torch.tensor(self.channels.shape[1:]).to(points_mm)[:, None] - 1
        normal = (points_mm.flatten(1) - low) * (2.0 / self.voxel_mm) / span - 1.0
        found = functional.grid_sample(
            self.channels[None], normal.flip(0).T[None, None, None], align_corners=True, padding_mode="zeros"
        )
        return found[0, :, 0, 0].unflatten(1, points_mm.shape[1:])

    def blurred(self, sigma_mm: float) -> HeadVolume:
        """Under an isotropic Gaussian, ``sigma_mm`` in mm of a 290 mL head."""
        sigma = sigma_mm / self.voxel_mm
        radius = min(max(math.ceil(2.5 * sigma), 1), 6)
        return HeadVolume(gaussian_blur(self.channels[None], sigma, radius=radius)[0], self.voxel_mm)


def paint_head(
    subject: Subject, templates: HeadTemplates, *, voxel_mm: float, generator: torch.Generator
) -> HeadVolume:
    """Paint one head.

    Parameters
    ----------
    subject
        What was drawn.
    templates
        On the generator's device.
    voxel_mm
        Of the grid, in mm of a 290 mL head.
    generator
        Of the warp and the texture; its device is where this is computed.
    """
    device = generator.device
    axes = [torch.arange(low, high + 1e-3, voxel_mm, device=device) for low, high in zip(LOW_MM, HIGH_MM, strict=True)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    shape = (len(axes[0]), len(axes[1]), len(axes[2]))
    plain = grid.flatten(1)
    moved = (grid + _warp(subject, shape, voxel_mm, generator)).flatten(1)
    moved = moved / torch.tensor(subject.stretch, device=device)[:, None]
    distance, intensity = _brain(subject, templates, _pitched(moved, subject.pitch_deg))
    texture = smooth_field(shape, (voxel_mm,) * 3, texture_scale_mm(subject), generator=generator).flatten()
    grain = torch.exp(subject.texture_sd * texture)
    points, whole = moved[None], plain[None]
    skull, scalp = subject.gap_mm + subject.skull_mm, subject.gap_mm + subject.skull_mm + subject.scalp_mm
    face = ellipsoid(points, _row(subject.face_center_mm, device), _row(subject.face_semi_mm, device))
    edge = EDGE_MM
    in_face = soft_inside(face, edge)
    image = in_face * subject.face_intensity * grain
    opacity = in_face
    for blob in subject.face_blobs:
        ball = sphere(points, _row(blob.center_mm, device), _row((blob.radius_mm,), device))
        image = blend(image, soft_inside(ball, edge) * in_face, torch.full_like(image, blob.intensity))
    outer = soft_inside(distance[None] - scalp, edge)
    opacity = torch.maximum(opacity, outer)
    brain = soft_inside(distance[None], edge)
    grain = grain * _sulci(subject, distance, shape, voxel_mm, generator)
    if subject.geometry == "epi":
        image = blend(image, torch.maximum(outer, in_face), (intensity * grain)[None])
        # the median over heads has smeared the thin dark skull: paint most of it back
        rim = soft_inside(distance[None] - skull, edge) * (1 - brain)
        image = blend(image, RIM_SHARE * rim, torch.full_like(image, subject.skull_intensity))
    else:
        for level, value in (
            (scalp, subject.scalp_intensity), (skull, subject.skull_intensity), (subject.gap_mm, subject.gap_intensity),
        ):  # fmt: skip
            image = blend(image, soft_inside(distance[None] - level, edge), torch.full_like(image, value))
        image = blend(image, brain, (intensity * grain * subject.parenchyma)[None])
        image = _paint_falx(image, points, brain, subject)
    for place, value in (
        (subject.eye_left_mm, subject.eye_left_intensity), (subject.eye_right_mm, subject.eye_right_intensity),
    ):  # fmt: skip
        # the spread of the eyes was measured between heads, so they take no part in stretch and warp
        ball = sphere(whole, _row(place, device), _row((subject.eye_diameter_mm / 2 / subject.scale,), device))
        rim = soft_inside(ball - subject.orbit_mm, edge) * (1 - brain)
        image = blend(image, rim, torch.full_like(image, subject.orbit_intensity))
        inside = soft_inside(ball, edge)
        image = blend(image, inside, torch.full_like(image, value))
        opacity = torch.maximum(opacity, torch.maximum(rim, inside))
    channels = torch.cat([image, opacity, brain]).unflatten(1, shape)
    return HeadVolume(channels, voxel_mm)


def _sulci(
    subject: Subject, distance: Float[Tensor, "points"], shape: tuple[int, int, int], voxel_mm: float,
    generator: torch.Generator,
) -> Float[Tensor, "points"]:  # fmt: skip
    """Factor that darkens thin winding sheets near the brain's surface: where a random field passes through 0."""
    field = smooth_field(shape, (voxel_mm,) * 3, subject.sulci_sigma_mm / subject.scale, generator=generator).flatten()
    cortex = torch.sigmoid((distance + SULCI_DEPTH_MM) / 3.0) * soft_inside((distance - 1.0)[None], EDGE_MM)[0]
    return 1 - subject.sulci_depth * cortex * torch.exp(-((field / SULCI_WIDTH) ** 2))


def texture_scale_mm(subject: Subject) -> float:
    """Scale of the texture in mm of a 290 mL head: the same in every subject's own mm."""
    return TEXTURE_SIGMA_MM / subject.scale


def _brain(
    subject: Subject, templates: HeadTemplates, points: Float[Tensor, "3 points"]
) -> tuple[Float[Tensor, "points"], Float[Tensor, "points"]]:
    """Signed distance and intensity of the brain, by the way that was drawn."""
    if subject.geometry == "procedural":
        return _procedural(subject, points)
    if subject.geometry == "epi" and templates.epi is not None:
        return brain_at(templates.epi, points, tissue_intensity=(), t2_share=1.0, ventricle_shrink=0.0)
    distance, intensity = brain_at(
        templates.nearest(subject.template_age_weeks), points, tissue_intensity=subject.tissue_intensity,
        t2_share=subject.t2_share, ventricle_shrink=subject.ventricle_shrink,
    )  # fmt: skip
    fossa = ellipsoid(points[None], _row(subject.fossa_mm, points.device), _row((23.0, 15.0, 14.0), points.device))[0]
    cerebellum = subject.tissue_intensity[2]
    intensity = torch.where((fossa < 0) & (distance > -2.0), torch.full_like(intensity, cerebellum), intensity)
    return torch.minimum(distance, fossa), intensity


def _procedural(
    subject: Subject, points: Float[Tensor, "3 points"]
) -> tuple[Float[Tensor, "points"], Float[Tensor, "points"]]:
    """Ellipsoid cut along the skull base, ventricles, cerebellum, brainstem."""
    device, batch = points.device, points[None]
    origin = _row((0.0, 0.0, 0.0), device)
    outer = ellipsoid(batch, origin, _row(BRAIN_SEMI_MM, device))[0]
    base = 0.45 * points[1] - 0.89 * points[2] - 28.0
    # smooth maximum over about 4 mm
    brain = torch.maximum(outer, base) + 4.0 * torch.log1p(torch.exp(-(outer - base).abs() / 4.0))
    cerebellum = ellipsoid(batch, _row((0.0, -28.0, -24.0), device), _row((22.0, 14.0, 13.0), device))[0]
    stem = _capsule(batch, (0.0, -10.0, -18.0), (0.0, -18.0, -48.0), 8.0)
    mask = torch.minimum(torch.minimum(brain, cerebellum), stem)
    value = torch.full_like(mask, 1.0)
    radius = subject.ventricle_radius_mm
    for side in (-1.0, 1.0):
        horn = torch.minimum(
            _capsule(batch, (5.0 * side, 22.0, 4.0), (13.0 * side, -16.0, 10.0), radius),
            _capsule(batch, (13.0 * side, -16.0, 10.0), (25.0 * side, -8.0, -10.0), 0.6 * radius),
        )
        weight = soft_inside(horn[None], EDGE_MM)[0]
        value = value + weight * (subject.ventricle_intensity - value)
    for region, intensity in ((cerebellum, subject.tissue_intensity[2]), (stem, subject.tissue_intensity[6])):
        weight = soft_inside(region[None], EDGE_MM)[0] * (brain > 0)
        value = value + weight * (intensity - value)
    return mask, value


def _paint_falx(image: Tensor, points: Tensor, brain: Tensor, subject: Subject) -> Tensor:
    """The dark line between the hemispheres, above and in front of the brain's centre."""
    above = torch.sigmoid((points[:, 2] + 0.5 * points[:, 1] - 8.0) / 3.0)
    line = soft_inside(points[:, 0].abs() - 0.75, EDGE_MM) * above * brain
    return image * (1 - line * (1 - subject.falx))


def _capsule(points: Tensor, start: Vector, end: Vector, radius: float) -> Tensor:
    device = points.device
    reach = torch.tensor(end, device=device) - torch.tensor(start, device=device)
    span = reach.norm()
    size = _row((radius,), device)
    return tube(points, _row(start, device), (reach / span)[None], span.reshape(1, 1), size, size)[0]


def _warp(
    subject: Subject, shape: tuple[int, int, int], voxel_mm: float, generator: torch.Generator
) -> Float[Tensor, "3 x y z"]:
    """Smooth displacement in mm: a stationary velocity field, integrated by six squarings on a coarse grid."""
    coarse = tuple(max(round(n * voxel_mm / WARP_KNOT_MM), 4) for n in shape)
    knot = tuple(n * voxel_mm / c for n, c in zip(shape, coarse, strict=True))
    field = smooth_field(
        (coarse[0], coarse[1], coarse[2]), (knot[0], knot[1], knot[2]), subject.warp_sigma_mm, generator=generator,
        channels=3,
    )  # fmt: skip
    shift = field * (subject.warp_rms_mm / math.sqrt(3) / 2**6)
    span = torch.tensor([(n - 1) * k / 2 for n, k in zip(coarse, knot, strict=True)], device=field.device)
    axes = [torch.linspace(-1.0, 1.0, n, device=field.device) for n in coarse]
    identity = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    for _ in range(6):
        where = (identity + shift / span[:, None, None, None]).flip(0).permute(1, 2, 3, 0)[None]
        shift = shift + functional.grid_sample(shift[None], where, align_corners=True, padding_mode="border")[0]
    return functional.interpolate(shift[None], size=shape, mode="trilinear", align_corners=True)[0]


def _pitched(points: Float[Tensor, "3 points"], angle_deg: float) -> Float[Tensor, "3 points"]:
    """Turn about the x axis."""
    angle = math.radians(angle_deg)
    y = math.cos(angle) * points[1] - math.sin(angle) * points[2]
    z = math.sin(angle) * points[1] + math.cos(angle) * points[2]
    return torch.stack([points[0], y, z])


def _row(values: tuple[float, ...], device: torch.device) -> Float[Tensor, "1 value"]:
    return torch.tensor([values], dtype=torch.float32, device=device)
