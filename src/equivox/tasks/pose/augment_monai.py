"""Our own recipe of augmentation: warps from the full volume, bands in space, intensities by MONAI.

MONAI is needed here and nowhere else, never in inference. Every transform of it gets its own seed from the generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from equivox.errors import MissingExtraError
from equivox.run.seeds import draw_chance
from equivox.tasks.pose.augment import AFFINE_CHANCE, add_band
from equivox.tasks.pose.augment_intensity import clip_percentiles, rescale
from equivox.tasks.pose.augment_space import draw_affine, draw_rotation_uniform, draw_shift, turned_crop, warp
from equivox.tasks.pose.train_config import RotateTraining, SegmentTraining

BIAS_CHANCE = 0.8
NOISE_CHANCE = 0.9
LOW_RESOLUTION_CHANCE = 0.5
GAMMA_CHANCE = 0.9
MAX_SEED = 2**31 - 1


def augment_segment(
    image: Float[Tensor, "1 x y z"],
    labels: Integer[Tensor, "x y z"],
    settings: SegmentTraining,
    *,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "1 x2 y2 z2"], Integer[Tensor, "x2 y2 z2"]]:
    """Scale, turn and shift the whole volume into the network's cube, mirror it, then change intensities.

    Parameters
    ----------
    image
        Whole volume in [0, 1] at the working voxel size; outside it is 0.
    labels
        Class of every voxel.
    """
    matrix = torch.eye(4, dtype=torch.float64)
    if draw_chance(AFFINE_CHANCE, generator=generator):
        matrix = draw_affine(
            scaling=(settings.scaling_lower_bound, settings.scaling_upper_bound),
            rotation=draw_rotation_uniform(settings.rotation_deg, generator=generator),
            translation_voxels=draw_shift(settings.translation_mm / settings.voxel_size_mm, generator=generator),
            generator=generator,
        )
    shape = [settings.crop_size_voxels] * 3
    image = warp(image, matrix, outside="zeros", shape=shape)
    labels = warp(labels[None], matrix, interpolation="nearest", outside="zeros", shape=shape)[0]
    if settings.flipping and draw_chance(0.5, generator=generator):
        image, labels = image.flip(1), labels.flip(0)
    chance = LOW_RESOLUTION_CHANCE if settings.randomise_res else 0.0
    return change_intensities(image, labels == 1, settings, settings.voxel_size_mm, chance, generator=generator), labels


def augment_rotate(
    image: Float[Tensor, "1 x y z"],
    mask: Bool[Tensor, "x y z"],
    head_from_image: Float[Tensor, "3 3"],
    settings: RotateTraining,
    *,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "1 size size size"], Float[Tensor, "3 3"]]:
    """Turn the object at random, cut its cube from the full volume, change intensities.

    Returns
    -------
    The crop in [0, 1], and the target ``R Q^-1``.
    """
    rotation = draw_rotation_uniform(settings.rotation_deg, generator=generator)
    shift = draw_shift(settings.shift_voxels, generator=generator)
    crop, inside, step = turned_crop(image, mask, rotation, size=settings.image_size_voxels, shift_voxels=shift)
    spacing = step * settings.voxel_size_mm
    crop = change_intensities(rescale(crop), inside, settings, spacing, LOW_RESOLUTION_CHANCE, generator=generator)
    return crop, head_from_image.double() @ rotation.mT


def change_intensities(
    image: Float[Tensor, "1 x y z"],
    mask: Bool[Tensor, "x y z"],
    settings: SegmentTraining | RotateTraining,
    voxel_size_mm: float,
    low_resolution_chance: float,
    *,
    generator: torch.Generator,
) -> Float[Tensor, "1 x y z"]:
    """Bias, clip, band, low resolution, noise, gamma; lengths in millimetres of the grid at hand.

    Raises
    ------
    MissingExtraError
        If MONAI is not installed.
    """
    monai = _monai()
    bias = settings.max_bias
    if bias > 0:
        image = _apply(monai.RandBiasField(prob=BIAS_CHANCE, degree=3, coeff_range=(-bias, bias)), image, generator)
    image = clip_percentiles(image, settings.norm_perc, 1.0 - settings.norm_perc)
    image = add_band(image, mask, settings, [voxel_size_mm] * 3, generator=generator)
    smallest = voxel_size_mm / settings.max_voxel_size_mm
    if low_resolution_chance > 0 and smallest < 1:
        coarser = monai.RandSimulateLowResolution(prob=low_resolution_chance, zoom_range=(smallest, 1.0))
        image = _apply(coarser, image, generator)
    if settings.noise_std > 0:
        noise = monai.RandGaussianNoise(prob=NOISE_CHANCE, std=settings.noise_std, sample_std=True)
        image = _apply(noise, image, generator)
    gamma = (math.exp(settings.gamma_min), math.exp(settings.gamma_max))
    return rescale(_apply(monai.RandAdjustContrast(prob=GAMMA_CHANCE, gamma=gamma), rescale(image), generator))


def _apply(transform: Any, image: Tensor, generator: torch.Generator) -> Tensor:
    """Run one of MONAI's random transforms with a seed of ours."""
    transform.set_random_state(seed=int(torch.randint(MAX_SEED, (), generator=generator)))
    changed: Tensor = transform(image)
    plain: Callable[[], Tensor] | None = getattr(changed, "as_tensor", None)
    return (changed if plain is None else plain()).to(image)


def _monai() -> Any:
    """MONAI's transforms, or the sentence that names the extra which brings them."""
    try:
        import monai.transforms
    except ImportError as error:
        raise MissingExtraError("monai", "train", "Training with --preset equivox") from error
    return monai.transforms
