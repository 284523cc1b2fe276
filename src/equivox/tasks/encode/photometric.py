"""What scanners, protocols and preparation do to the same head: gamma, shading, noise, thick slices, other contrast.

Each is a function of one scan on its own grid, (x, y, z) with the background at 0, intensities about 1 (95th
percentile of the brain); they are drawn together as one :class:`Degradation`. This is what an encoder must not hear:
shading and a wrong centre move vectors far more than interpolation does (soe 4.7).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from equivox.run.seeds import draw_chance, draw_uniform


@dataclass(frozen=True, slots=True)
class Degradation:
    """One drawing; the default changes nothing.

    Parameters
    ----------
    gamma
        Exponent of the intensities.
    bias
        Coefficients of a shading field: three of degree 1 and, if given, six of degree 2 (xx, xy, xz, yy, yz, zz).
        The field is ``1 + sum`` with coordinates that are +-1 at ``bias_reach_mm``; below 0.2 it is cut.
    contrast
        ``x + contrast * sin(pi x) / pi``: lifts or lowers the middle of the scale, monotone below 1.
    noise
        Standard deviation of Rician noise.
    thickness_mm
        Slices along ``thick_axis`` are averaged over this length; 0 for none.
    thick_axis
        0, 1 or 2.
    centroid_mm
        By how much the centre is set wrong.
    """

    gamma: float = 1.0
    bias: tuple[float, ...] = (0.0, 0.0, 0.0)
    contrast: float = 0.0
    noise: float = 0.0
    thickness_mm: float = 0.0
    thick_axis: int = 2
    centroid_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def touches_intensities(self) -> bool:
        """Whether anything but the centre changes."""
        return bool(self.gamma != 1.0 or any(self.bias) or self.contrast or self.noise > 0.0 or self.thickness_mm > 0.0)


@dataclass(frozen=True, slots=True)
class DegradationRange:
    """How far drawings go; each number is the largest.

    Parameters
    ----------
    log_gamma
        Of ``|log(gamma)|``.
    bias_linear, bias_quadratic
        Largest relative change by the parts of degree 1 and 2 at ``bias_reach_mm``.
    contrast, noise, thickness_mm, centroid_mm
        As in :class:`Degradation`.
    chance
        Of each kind to take part at all.
    """

    log_gamma: float = 0.45
    bias_linear: float = 0.3
    bias_quadratic: float = 0.15
    contrast: float = 0.3
    noise: float = 0.07
    thickness_mm: float = 6.0
    centroid_mm: float = 4.0
    chance: float = 0.8

    def draw(self, *, generator: torch.Generator) -> Degradation:
        """One drawing, each kind on its own."""

        def part(value: float) -> float:
            return value if draw_chance(self.chance, generator=generator) else 0.0

        def signed(limit: float) -> float:
            return part(draw_uniform(-limit, limit, generator=generator))

        log_gamma = signed(self.log_gamma)
        linear = part(draw_uniform(0.0, self.bias_linear, generator=generator))
        direction = _direction(generator)
        quadratic = part(self.bias_quadratic)
        curved = tuple(quadratic * draw_uniform(-1.0, 1.0, generator=generator) / 2 for _ in range(6))
        offset = part(self.centroid_mm * draw_uniform(0.0, 1.0, generator=generator) ** (1 / 3))
        away = _direction(generator)
        return Degradation(
            gamma=math.exp(log_gamma),
            bias=(*(linear * one for one in direction), *curved),
            contrast=signed(self.contrast),
            noise=part(draw_uniform(0.0, self.noise, generator=generator)),
            thickness_mm=part(draw_uniform(0.0, self.thickness_mm, generator=generator)),
            thick_axis=int(torch.randint(3, (), generator=generator)),
            centroid_mm=(offset * away[0], offset * away[1], offset * away[2]),
        )

    def scaled(self, factor: float) -> DegradationRange:
        """All limits times a factor; the chances stay."""
        names = (
            "log_gamma", "bias_linear", "bias_quadratic", "contrast", "noise", "thickness_mm", "centroid_mm",
        )  # fmt: skip
        return replace(self, **{name: factor * getattr(self, name) for name in names})


def degrade(
    intensities: Float[Tensor, "x y z"],
    inside: Bool[Tensor, "x y z"],
    degradation: Degradation,
    *,
    voxel_size_mm: tuple[float, float, float],
    bias_reach_mm: float = 90.0,
    generator: torch.Generator,
) -> Float[Tensor, "x y z"]:
    """Apply everything but the wrong centre, in the order of nature: tissue, coil, slices, noise. 0 outside the brain.

    Coordinates of the shading are measured from the brain's centroid along the voxel axes.
    """
    values = intensities.clamp_min(0.0)
    if degradation.contrast:
        values = values + degradation.contrast * torch.sin(math.pi * values.clamp(max=1.0)) / math.pi
    if degradation.gamma != 1.0:
        values = values.clamp_min(0.0) ** degradation.gamma
    if any(degradation.bias):
        values = values * shading(inside, degradation.bias, voxel_size_mm=voxel_size_mm, reach_mm=bias_reach_mm)
    if degradation.thickness_mm > 0:
        axis = degradation.thick_axis
        values = thick_slices(values, axis, degradation.thickness_mm / voxel_size_mm[axis])
    if degradation.noise > 0:
        values = rician(values, degradation.noise, generator=generator)
    return torch.where(inside, values, values.new_zeros(()))


def shading(
    inside: Bool[Tensor, "x y z"],
    coefficients: tuple[float, ...],
    *,
    voxel_size_mm: tuple[float, float, float],
    reach_mm: float = 90.0,
) -> Float[Tensor, "x y z"]:
    """A smooth factor, 1 at the brain's centroid: see :class:`Degradation`."""
    axes = []
    for axis, step in enumerate(voxel_size_mm):
        place = torch.arange(inside.shape[axis], dtype=torch.float32)
        weight = inside.sum(dim=[other for other in range(3) if other != axis]).float()
        center = (place * weight).sum() / weight.sum().clamp_min(1.0)
        shape = [1, 1, 1]
        shape[axis] = -1
        axes.append(((place - center) * (step / reach_mm)).view(shape))
    terms = [*axes, *(a * b for a, b in itertools.combinations_with_replacement(axes, 2))]
    field = torch.ones(inside.shape)
    for coefficient, term in zip(coefficients, terms, strict=False):
        if coefficient:
            field = field + coefficient * term
    return field.clamp_min(0.2)


def thick_slices(volume: Float[Tensor, "x y z"], axis: int, steps: float) -> Float[Tensor, "x y z"]:
    """The volume as slices of ``steps`` voxels along an axis would show it, interpolated back to its own grid."""
    if steps <= 1.0:
        return volume
    side = volume.shape[axis]
    count = max(1, round(side / steps))
    width = side / count
    edges = torch.arange(count, dtype=torch.float64) * width
    voxel = torch.arange(side, dtype=torch.float64)
    overlap = (torch.minimum(edges[:, None] + width, voxel + 1) - torch.maximum(edges[:, None], voxel)).clamp_min(0)
    mean = overlap / width  # (slice, voxel)
    place = ((voxel + 0.5) / width - 0.5).clamp(0, count - 1)
    back = (1.0 - (place[:, None] - torch.arange(count, dtype=torch.float64)[None, :]).abs()).clamp_min(0)
    return torch.tensordot((back @ mean).to(volume), volume, dims=([1], [axis])).movedim(0, axis)


def rician(volume: Float[Tensor, "x y z"], sd: float, *, generator: torch.Generator) -> Float[Tensor, "x y z"]:
    """Magnitude of the volume with Gaussian noise in both channels."""
    real = volume + sd * torch.randn(volume.shape, generator=generator)
    return (real.square() + (sd * torch.randn(volume.shape, generator=generator)).square()).sqrt()


def _direction(generator: torch.Generator) -> tuple[float, float, float]:
    """Uniform on the sphere."""
    vector = torch.randn(3, generator=generator, dtype=torch.float64)
    x, y, z = (vector / vector.norm().clamp_min(1e-12)).tolist()
    return x, y, z
