"""Images of single particles, as an extraction from micrographs gives them: CTF, noise, normalised background."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.simulate.ctf import Microscope, apply_transfer, ctf, delocalisation_angstrom
from equivox.simulate.orientations import Orientations, draw_rotations
from equivox.simulate.scenery import coloured_noise
from equivox.simulate.specimen import Specimen

Range = tuple[float, float]
CALIBRATION = 48
"""Projections whose mean variance sets the noise."""
BACKGROUND_RADIUS = 0.75
"""Of half the box: RELION's default at extraction."""


@dataclass(frozen=True, kw_only=True)
class ParticleSimulation:
    """What varies between the images of particles."""

    per_micrograph: int = 100
    """Images that share a defocus, a micrograph's name and a stack."""
    box_px: int = 64
    """Edge of the images, even; the particle's origin is at ``box_px // 2`` plus its shift."""
    pixel_size_angstrom: float = 3.0
    snr: float = 0.1
    """Variance of the noise-free images over the whole box, over that of the noise."""
    shift_px: float = 2.0
    """The centre is uniform within so many pixels along x and y."""
    with_ctf: bool = True
    defocus_angstrom: Range = (8000.0, 25000.0)
    """One value per micrograph."""
    astigmatism_angstrom: float = 500.0
    phase_shift_deg: float = 0.0
    b_factor: float = 0.0
    contrast: Literal["white", "dark"] = "white"
    """White protein, as extracted particles have after RELION's inversion, or dark as recorded."""
    noise: Literal["white", "coloured"] = "white"
    noise_scale_angstrom: float = 20.0
    orientations: Orientations = "uniform"
    view_spread_deg: float = 20.0
    preferred_view: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if self.box_px % 2 or not 16 <= self.box_px <= 2048:
            raise ConfigError(f"--box-px is {self.box_px}; boxes are even, 16 to 2048 pixels.")
        if not 1 <= self.per_micrograph <= 100_000:
            raise ConfigError(f"--per-micrograph is {self.per_micrograph}; it must be 1 to 100000.")
        for name in ("pixel_size_angstrom", "snr", "noise_scale_angstrom"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name} is {getattr(self, name)}; give a positive number.")
        for name in ("shift_px", "astigmatism_angstrom", "b_factor", "view_spread_deg"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"{name} is {getattr(self, name)}; it cannot be negative.")
        if self.shift_px > self.box_px / 4:
            raise ConfigError(f"Shifts of {self.shift_px:g} pixels are more than a quarter of the box ({self.box_px}).")
        low, high = self.defocus_angstrom
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ConfigError(f"The defocus runs from {low:g} to {high:g} Å; give the smaller value first.")

    def as_dict(self) -> dict[str, object]:
        """JSON values by name."""
        values = asdict(self)
        return {field.name: list(v) if isinstance(v := values[field.name], tuple) else v for field in fields(self)}


@dataclass(frozen=True, slots=True, eq=False)
class ParticleStack:
    """Images and their truth. ``shifts_px`` is the particle's centre (x, y) from the pixel ``box_px // 2``."""

    images: Float[Tensor, "particle y x"]
    rotations: Float[Tensor, "particle 3 3"]
    shifts_px: Float[Tensor, "particle 2"]
    defocus_u_angstrom: float
    defocus_v_angstrom: float
    defocus_angle_deg: float


def simulate_stack(
    count: int,
    specimen: Specimen,
    config: ParticleSimulation,
    microscope: Microscope,
    *,
    noise_deviation: float,
    generator: torch.Generator,
    view_histogram: Float[Tensor, "theta phi"] | None = None,
) -> ParticleStack:
    """Particles of one micrograph: one defocus, each with its own pose, shift and noise.

    Every image's background (beyond 75 % of half the box) has mean 0 and standard deviation 1.

    Raises
    ------
    ConfigError
        If measured views are asked for without a histogram.
    """
    rotations = draw_rotations(
        count, config.orientations, generator=generator, view_spread_deg=config.view_spread_deg,
        preferred_view=config.preferred_view, view_histogram=view_histogram,
    )  # fmt: skip
    shifts = config.shift_px * (2.0 * torch.rand(count, 2, generator=generator) - 1.0)
    draw = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    low, high = config.defocus_angstrom
    mean, difference = low + (high - low) * draw[0], config.astigmatism_angstrom * draw[1]
    u, v, angle = mean + 0.5 * difference, mean - 0.5 * difference, 180.0 * draw[2] - 90.0
    images = noise_free(specimen, config, microscope, rotations, shifts, (u, v, angle))
    scale = config.noise_scale_angstrom if config.noise == "coloured" else 0.0
    side = config.box_px
    for image in images:
        image += noise_deviation * coloured_noise(
            (side, side), pixel_size_angstrom=config.pixel_size_angstrom, scale_angstrom=scale, generator=generator
        )
    if config.contrast == "dark":
        images = -images
    return ParticleStack(normalised(images), rotations, shifts, u, v, angle)


def noise_free(
    specimen: Specimen,
    config: ParticleSimulation,
    microscope: Microscope,
    rotations: Float[Tensor, "particle 3 3"],
    shifts_px: Float[Tensor, "particle 2"],
    defocus: tuple[float, float, float],
) -> Float[Tensor, "particle y x"]:
    """Projections through the microscope, protein white; drawn wider than the box by what the CTF spreads."""
    pixel, side = config.pixel_size_angstrom, config.box_px
    pad = 0
    if config.with_ctf:
        spread = delocalisation_angstrom(max(map(abs, defocus[:2])), microscope, resolution_angstrom=2.0 * pixel)
        pad = min(math.ceil(spread / pixel), side // 2)
    images = specimen.images(
        rotations, side=side + 2 * pad, pixel_size_angstrom=pixel, shifts_px=shifts_px.float()
    ).float()
    if not config.with_ctf:
        return images
    numbers = torch.tensor([*defocus, config.phase_shift_deg], dtype=torch.float64)
    transfer = ctf(
        (side + 2 * pad, side + 2 * pad), pixel, microscope, defocus_u_angstrom=numbers[0],
        defocus_v_angstrom=numbers[1], defocus_angle_deg=numbers[2], phase_shift_deg=numbers[3],
        b_factor=config.b_factor,
    )  # fmt: skip
    return apply_transfer(images, transfer.float())[:, pad : pad + side, pad : pad + side].clone()


def noise_for(
    specimen: Specimen, config: ParticleSimulation, microscope: Microscope, *, generator: torch.Generator
) -> float:
    """Standard deviation of the noise that gives the signal-to-noise ratio, from 48 particles at the middle defocus."""
    rotations = draw_rotations(CALIBRATION, "uniform", generator=generator)
    middle = sum(config.defocus_angstrom) / 2.0
    images = noise_free(specimen, config, microscope, rotations, torch.zeros(CALIBRATION, 2), (middle, middle, 0.0))
    return math.sqrt(float(images.var(dim=(1, 2)).mean()) / config.snr)


def normalised(images: Float[Tensor, "particle y x"]) -> Float[Tensor, "particle y x"]:
    """Background of mean 0 and standard deviation 1 in every image, as RELION's extraction makes it."""
    side = images.shape[-1]
    axis = torch.arange(side) - side // 2
    outside = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt() > BACKGROUND_RADIUS * side / 2
    background = images[:, outside]
    mean, deviation = background.mean(dim=1), background.std(dim=1).clamp_min(1e-12)
    return (images - mean[:, None, None]) / deviation[:, None, None]
