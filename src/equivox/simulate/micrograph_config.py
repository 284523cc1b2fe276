"""Ranges of the micrograph simulator."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Literal

from equivox.errors import ConfigError
from equivox.simulate.orientations import Orientations

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class MicrographSimulation:
    """What varies between micrographs. Sources: research notes on cryo-EM simulation; ranges of common practice."""

    size_px: tuple[int, int] = (512, 512)
    """Rows and columns."""
    pixel_size_angstrom: float = 8.0
    particles: int = 60
    """On each micrograph, as far as there is room."""
    spacing: float = 0.9
    """Least distance of two centres, in diameters of the particle."""
    touching: float = 0.1
    """Share of particles put beside another at 0.9 to 1.1 diameters."""
    snr: float = 0.1
    """Variance of the noise-free image in squares of 1.5 diameters about the particles, over that of the noise."""
    defocus_angstrom: Range = (10000.0, 25000.0)
    """One value per micrograph, uniform; positive is underfocus."""
    astigmatism_angstrom: float = 500.0
    """Largest difference of the two defocus values."""
    phase_shift_deg: float = 0.0
    b_factor: float = 0.0
    """Of the envelope, in Å²."""
    noise: Literal["white", "coloured"] = "coloured"
    """White, or with an amplitude that falls as 1 / sqrt(1 + (s s0)²)."""
    noise_scale_angstrom: float = 60.0
    """s0 of the coloured noise."""
    structural_noise: float = 0.15
    """Standard deviation of the ice's own structure, over that of the particles' projections, before the CTF."""
    ice_gradient: float = 0.3
    """Standard deviation of a smooth change of brightness, over that of the noise."""
    decoys: float = 0.15
    """Clouds of blobs of the particle's size and mass, for each particle."""
    broken: float = 0.1
    """Parts of particles, for each particle."""
    contaminants: float = 1.5
    """Mean number of dark, ragged patches of ice or dirt."""
    carbon: float = 0.2
    """Share of micrographs that a carbon film covers in part."""
    gold: float = 0.1
    """Share of micrographs with gold beads."""
    orientations: Orientations = "uniform"
    view_spread_deg: float = 20.0
    preferred_view: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("pixel_size_angstrom", "spacing", "snr", "noise_scale_angstrom"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}; give a positive number.")
        for name in ("touching", "carbon", "gold"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name):g}; it is a share from 0 to 1.")
        for name in ("particles", "astigmatism_angstrom", "b_factor", "structural_noise", "ice_gradient", "decoys",
                     "broken", "contaminants", "view_spread_deg"):  # fmt: skip
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"{name} is {getattr(self, name)}; it cannot be negative.")
        low, high = self.defocus_angstrom
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ConfigError(f"The defocus runs from {low:g} to {high:g} Å; give the smaller value first.")
        if min(self.size_px) < 32 or max(self.size_px) > 16384:
            raise ConfigError(f"Micrographs of {self.size_px[1]} x {self.size_px[0]} pixels; sides are 32 to 16384.")

    def as_dict(self) -> dict[str, object]:
        """JSON values by name."""
        values = asdict(self)
        return {field.name: list(v) if isinstance(v := values[field.name], tuple) else v for field in fields(self)}
