"""Settings of both trainings: every default once, as published, and as we would have it.

This file loads no torch, so that the command line can read it before anything runs. Fields carry our names with their
units; the published option names are those of the command line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

from equivox.errors import ConfigError
from equivox.run.settings import require_positive

Preset = Literal["published", "equivox"]
"""``"published"``: order, ranges and sampling of the original. ``"equivox"``: rotations uniform on SO(3), warps from
the full volume, bands in space that never turn the signal negative, millimetres everywhere, MONAI's augmentations."""

_T = TypeVar("_T", bound="_Training")


@dataclass(frozen=True, kw_only=True)
class _Training:
    """What both trainings have in common."""

    preset: Preset
    """Which recipe of augmentation runs."""
    n_epochs: int
    """Epochs."""
    batch_size: int
    """Volumes per step; any number gives the same validation."""
    lr: float
    """Learning rate."""
    weight_decay: float
    """L2 penalty (published), or decoupled weight decay (equivox)."""
    rotation_deg: float
    """Published: each of three Euler angles, uniform between plus and minus this. Equivox: largest angle of a rotation
    uniform on SO(3); 180 is all of them."""
    voxel_size_mm: float
    """Published: assumed voxel size, nothing is resampled. Equivox: volumes are resampled to it."""
    max_voxel_size_mm: float
    """Largest voxel simulated by the low-resolution step."""
    max_bias: float
    """Bias-field coefficients are uniform between 0 and this."""
    noise_std: float
    """Largest standard deviation of the noise, image in [0, 1]."""
    norm_perc: float
    """Fraction clipped at either end of the intensities."""
    gamma_min: float
    """Smallest logarithm of gamma."""
    gamma_max: float
    """Largest logarithm of gamma."""
    sigma_min_mm: float
    """Smallest standard deviation across a spin-history band."""
    sigma_max_mm: float
    """Largest standard deviation across a spin-history band."""
    alpha_min: float
    """Smallest strength of a band."""
    alpha_max: float
    """Largest strength of a band; above 1 the image turns negative (published: 1.5)."""
    band_boundary: Literal["in_plane", "3d"]
    """Where a band may end: at edges within array axes 1 and 2 (published), or in space."""
    band_position: Literal["edge_heavy", "uniform"]
    """Where between the ends it lies: mostly near them (published, there called uniform), or anywhere."""
    validate_every_n_epoch: int
    """Epochs between validations."""

    def __post_init__(self) -> None:
        require_positive(
            self,
            "n_epochs",
            "batch_size",
            "lr",
            "voxel_size_mm",
            "max_voxel_size_mm",
            "sigma_min_mm",
            "validate_every_n_epoch",
        )
        self._require_not_negative("weight_decay", "rotation_deg", "max_bias", "noise_std", "alpha_min")
        for name in ("gamma", "alpha"):
            self._require_ordered(f"{name}_min", f"{name}_max")
        self._require_ordered("sigma_min_mm", "sigma_max_mm")
        if not 0.0 <= self.norm_perc < 0.5:
            raise ConfigError(f"norm_perc is {self.norm_perc}; give a fraction of at least 0 and below 0.5.")
        if self.rotation_deg > 180.0:
            raise ConfigError(f"rotation is {self.rotation_deg} degrees; no rotation turns by more than 180.")
        if self.max_voxel_size_mm < self.voxel_size_mm:
            raise ConfigError(
                f"max_res_iso is {self.max_voxel_size_mm} mm, below img_res {self.voxel_size_mm} mm; "
                "give the size of the largest voxel to simulate."
            )
        if self.preset == "equivox" and self.alpha_max > 1.0:
            raise ConfigError(
                f"alpha_max is {self.alpha_max}; above 1 a band makes the image negative: give at most 1, "
                "or use --preset published, which does so."
            )

    def _require_not_negative(self, *names: str) -> None:
        for name in names:
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"{name} is {getattr(self, name)}; give 0 or more.")

    def _require_ordered(self, low: str, high: str) -> None:
        below, above = getattr(self, low), getattr(self, high)
        if not (math.isfinite(below) and math.isfinite(above) and below <= above):
            raise ConfigError(f"{low} is {below} and {high} is {above}; give two numbers, the lower first.")

    def with_values(self: _T, **values: Any) -> _T:
        """These settings with some values replaced; None leaves a value as it is."""
        known = {field.name for field in fields(self)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}.")
        return replace(self, **{name: value for name, value in values.items() if value is not None})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the run record and to compare with an earlier run."""
        return {
            field.name: list(value) if isinstance(value := getattr(self, field.name), tuple) else value
            for field in fields(self)
        }


@dataclass(frozen=True, kw_only=True)
class SegmentTraining(_Training):
    """Training of the segmentation U-Net; defaults of :func:`segment_preset`."""

    flipping: bool
    """Mirror along array axis 0 with probability 0.5."""
    crop_size_voxels: int
    """Side of the cube the network sees."""
    scaling_lower_bound: float
    """Smallest scale, drawn per axis."""
    scaling_upper_bound: float
    """Largest scale."""
    translation_mm: float
    """Largest shift per axis."""
    randomise_res: bool
    """Simulate low resolution with probability 0.75."""
    n_levels: int
    """Resolution levels: one more than poolings."""
    unet_feat: int
    """Channels of the finest level."""
    feat_mult: int
    """Factor of the channels from level to level."""
    activation: Literal["elu", "relu"]
    """Activation."""
    norm: Literal["batch", "instance", "group"]
    """Norm; batch (published) depends on the batch size, group does not."""
    n_output_channels: int
    """Classes, background included; label 1 is the object."""
    class_weights: tuple[float, ...] | None
    """One weight per class, background first; None: all 1."""
    dice_weight: float
    """Weight of the Dice loss beside the cross-entropy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(
            self, "crop_size_voxels", "scaling_lower_bound", "n_levels", "unet_feat", "feat_mult", "n_output_channels"
        )
        self._require_not_negative("translation_mm", "dice_weight")
        self._require_ordered("scaling_lower_bound", "scaling_upper_bound")
        if self.n_output_channels < 2:
            raise ConfigError(f"n_output_channels is {self.n_output_channels}; background and object are two.")
        if self.class_weights is not None and len(self.class_weights) != self.n_output_channels:
            raise ConfigError(
                f"class_weights has {len(self.class_weights)} numbers for {self.n_output_channels} classes; "
                "give one per class, background first."
            )
        divisor = 2 ** (self.n_levels - 1)
        if self.crop_size_voxels % divisor:
            raise ConfigError(
                f"crop_size is {self.crop_size_voxels} voxels; {self.n_levels} levels need a multiple of {divisor}."
            )

    @property
    def weights(self) -> tuple[float, ...]:
        """One weight per class."""
        return self.class_weights or (1.0,) * self.n_output_channels


@dataclass(frozen=True, kw_only=True)
class RotateTraining(_Training):
    """Training of the E(3)-CNN; defaults of :func:`rotate_preset`."""

    image_size_voxels: int
    """Longest side of the crop around the object."""
    shift_voxels: float
    """Largest shift per axis, in voxels of the crop."""
    momentum: float
    """Momentum of SGD (published), or Adam's first decay rate (equivox)."""
    n_levels: int
    """Poolings by two (there is one more resolution level)."""
    kernel_size: int
    """Kernel diameter and number of radial functions."""
    multiplier: int
    """Copies of each field at the finest level (published: 2)."""
    object_symmetry: Literal["mirror", "c2", "none"] = "mirror"
    """Of the object: mirror (in the plane across its x axis, as a head), c2 (half turn about its z axis), none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "image_size_voxels", "kernel_size", "multiplier")
        self._require_not_negative("shift_voxels", "n_levels", "momentum")
        if self.momentum >= 1.0:
            raise ConfigError(f"momentum is {self.momentum}; give a number below 1.")
        if self.object_symmetry not in ("mirror", "c2", "none"):
            raise ConfigError(f"symmetry is {self.object_symmetry!r}; give mirror, c2 or none.")
        if self.kernel_size < 2:
            raise ConfigError(f"kernel_size is {self.kernel_size}; give at least 2.")
        if self.image_size_voxels < 2**self.n_levels:
            raise ConfigError(
                f"image_size is {self.image_size_voxels} voxels; {self.n_levels} poolings need at least "
                f"{2**self.n_levels}."
            )


def segment_preset(preset: Preset) -> SegmentTraining:
    """Defaults of a preset; the published ones are those of the original's command line (edition A)."""
    published = SegmentTraining(
        preset="published",
        n_epochs=1000,
        batch_size=4,
        lr=1e-4,
        weight_decay=0.0,
        rotation_deg=180.0,
        voxel_size_mm=3.0,
        max_voxel_size_mm=8.0,
        max_bias=0.5,
        noise_std=0.03,
        norm_perc=0.005,
        gamma_min=-0.8,
        gamma_max=0.0,
        sigma_min_mm=1.5,
        sigma_max_mm=2.3,
        alpha_min=0.5,
        alpha_max=1.5,
        band_boundary="in_plane",
        band_position="edge_heavy",
        validate_every_n_epoch=1,
        flipping=False,
        crop_size_voxels=128,
        scaling_lower_bound=0.5,
        scaling_upper_bound=1.3,
        translation_mm=10.0,
        randomise_res=False,
        n_levels=4,
        unet_feat=16,
        feat_mult=2,
        activation="elu",
        norm="batch",
        n_output_channels=3,
        class_weights=None,
        dice_weight=1.0,
    )
    if preset == "published":
        return published
    return replace(
        published,
        preset="equivox",
        alpha_max=1.0,
        band_boundary="3d",
        band_position="uniform",
        flipping=True,
        translation_mm=30.0,
        randomise_res=True,
        gamma_max=0.5,
        norm="group",
        lr=1e-3,
    )


def rotate_preset(preset: Preset) -> RotateTraining:
    """Defaults of a preset; the published ones are those of the original's command line."""
    published = RotateTraining(
        preset="published",
        n_epochs=100_000,
        batch_size=1,
        lr=0.01,
        weight_decay=3e-5,
        rotation_deg=90.0,
        voxel_size_mm=3.0,
        max_voxel_size_mm=7.5,
        max_bias=0.5,
        noise_std=0.0,
        norm_perc=0.005,
        gamma_min=-2.0,
        gamma_max=0.1,
        sigma_min_mm=2.3,
        sigma_max_mm=4.6,
        alpha_min=0.5,
        alpha_max=1.5,
        band_boundary="in_plane",
        band_position="edge_heavy",
        validate_every_n_epoch=1,
        image_size_voxels=64,
        shift_voxels=0.0,
        momentum=0.99,
        n_levels=4,
        kernel_size=5,
        multiplier=2,
    )
    if preset == "published":
        return published
    return replace(
        published,
        preset="equivox",
        n_epochs=1000,
        batch_size=4,
        lr=1e-3,
        rotation_deg=180.0,
        shift_voxels=2.0,
        noise_std=0.03,
        gamma_min=-0.8,
        gamma_max=0.5,
        alpha_max=1.0,
        band_boundary="3d",
        band_position="uniform",
        momentum=0.9,
    )
