"""The published recipes of augmentation: which steps, in which order, how often, with what drawn.

Every function takes the generator that it draws from. Images are in [0, 1] when they come in and when they leave.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from equivox.run.seeds import draw_chance, draw_uniform
from equivox.tasks.pose.augment_band import apply_band, draw_band, published_spacing
from equivox.tasks.pose.augment_intensity import (
    add_noise,
    apply_bias,
    apply_gamma,
    clip_percentiles,
    draw_bias,
    lower_resolution,
    rescale,
)
from equivox.tasks.pose.augment_space import draw_affine, draw_rotation_published, draw_shift, rigid_matrix, warp
from equivox.tasks.pose.train_config import RotateTraining, SegmentTraining

AFFINE_CHANCE = 0.95
NOISE_CHANCE = 0.9
SEGMENT_LOW_RESOLUTION_CHANCE = 0.75
ROTATE_LOW_RESOLUTION_CHANCE = 0.9
WARP_EPSILON = 1e-9
CROP_VOXEL_FACTOR = 0.6
"""The published band takes this times the working voxel size for the voxel size of the crop, whatever the crop's is."""


def augment_segment_published(
    image: Float[Tensor, "1 x y z"],
    labels: Integer[Tensor, "x y z"],
    settings: SegmentTraining,
    *,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "1 x y z"], Integer[Tensor, "x y z"]]:
    """Affine, flip, bias, clip, band, low resolution, noise, gamma on a volume that was cropped to the network's cube.

    Shifts are in millimetres, as the voxel size says (edition B of the original divides them twice).
    """
    image = rescale(image)
    if draw_chance(AFFINE_CHANCE, generator=generator):
        matrix = draw_affine(
            scaling=(settings.scaling_lower_bound, settings.scaling_upper_bound),
            rotation=draw_rotation_published(settings.rotation_deg, generator=generator),
            translation_voxels=draw_shift(settings.translation_mm / settings.voxel_size_mm, generator=generator),
            generator=generator,
        )
        image = warp(image, matrix, outside="minimum")
        labels = warp(labels[None], matrix, interpolation="nearest", outside="zeros")[0]
    if settings.flipping and draw_chance(0.5, generator=generator):
        image, labels = image.flip(1), labels.flip(0)
    image = apply_bias(image, draw_bias(settings.max_bias, generator=generator))
    image = clip_percentiles(image, settings.norm_perc, 1.0 - settings.norm_perc)
    spacing = published_spacing(image.shape[1:], settings.voxel_size_mm)
    image = add_band(image, labels == 1, settings, spacing, generator=generator)
    if settings.randomise_res and draw_chance(SEGMENT_LOW_RESOLUTION_CHANCE, generator=generator):
        image = lower_resolution(image, _draw_factor(settings, generator=generator))
    if draw_chance(NOISE_CHANCE, generator=generator):
        image = add_noise(image, draw_uniform(0.0, settings.noise_std, generator=generator), generator=generator)
    image = rescale(image)
    return apply_gamma(image, draw_uniform(settings.gamma_min, settings.gamma_max, generator=generator)), labels


def draw_warp_published(settings: RotateTraining, *, generator: torch.Generator) -> Float[Tensor, "4 4"]:
    """A rigid warp of the crop: three Euler angles (not uniform on SO(3)) and a shift in voxels."""
    angles = draw_shift(settings.rotation_deg, generator=generator)
    return rigid_matrix(angles, draw_shift(settings.shift_voxels, generator=generator))


def warp_published(
    image: Float[Tensor, "1 x y z"],
    mask: Bool[Tensor, "x y z"],
    head_from_image: Float[Tensor, "3 3"],
    matrix: Float[Tensor, "4 4"],
) -> tuple[Float[Tensor, "1 x y z"], Bool[Tensor, "x y z"], Float[Tensor, "3 3"]]:
    """Warp a crop, border voxels repeated outwards, rescale it, and turn its target along: ``R W^-1`` (published)."""
    image = warp(image, matrix).clamp_min(0.0)
    low = image.amin()
    image = (image - low) / (image.amax() - low + WARP_EPSILON)
    mask = warp(mask[None], matrix, interpolation="nearest")[0]
    return image, mask, head_from_image.double() @ torch.linalg.inv(matrix[:3, :3].double())


def augment_rotate_published(
    image: Float[Tensor, "1 x y z"],
    mask: Bool[Tensor, "x y z"],
    settings: RotateTraining,
    *,
    generator: torch.Generator,
) -> Float[Tensor, "1 x y z"]:
    """Bias, band, low resolution, clip, gamma on a crop; noise only if asked for (the original has none)."""
    image = rescale(apply_bias(image, draw_bias(settings.max_bias, generator=generator)))
    spacing = published_spacing(image.shape[1:], CROP_VOXEL_FACTOR * settings.voxel_size_mm)
    image = add_band(image, mask, settings, spacing, generator=generator)
    if draw_chance(ROTATE_LOW_RESOLUTION_CHANCE, generator=generator):
        image = lower_resolution(image, _draw_factor(settings, generator=generator))
    if settings.noise_std > 0:
        image = add_noise(image, draw_uniform(0.0, settings.noise_std, generator=generator), generator=generator)
    image = clip_percentiles(image, settings.norm_perc, 1.0 - settings.norm_perc)
    return apply_gamma(image, draw_uniform(settings.gamma_min, settings.gamma_max, generator=generator))


def add_band(
    image: Float[Tensor, "1 x y z"],
    mask: Bool[Tensor, "x y z"],
    settings: SegmentTraining | RotateTraining,
    voxel_size_mm: Sequence[float],
    *,
    generator: torch.Generator,
) -> Float[Tensor, "1 x y z"]:
    """One spin-history band across the object; nothing where the object has no boundary."""
    band = draw_band(
        mask,
        strength=(settings.alpha_min, settings.alpha_max),
        sigma_mm=(settings.sigma_min_mm, settings.sigma_max_mm),
        boundary=settings.band_boundary,
        position=settings.band_position,
        generator=generator,
    )
    x, y, z = voxel_size_mm
    return image if band is None else apply_band(image, band, (x, y, z))


def _draw_factor(settings: SegmentTraining | RotateTraining, *, generator: torch.Generator) -> float:
    """How many times larger the simulated voxels are."""
    return draw_uniform(1.0, settings.max_voxel_size_mm / settings.voxel_size_mm, generator=generator)
