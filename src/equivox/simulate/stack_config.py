"""Ranges of the stack simulator. Lengths in mm, angles in degrees, intensities relative to the brain's median = 1.

Defaults: measured on 29 fetal EPI stacks (their spread widened a little), sizes by gestational age from the literature.
docs/experiments/simulation.md says where a range was moved so that simulated statistics fit the measured ones.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

from equivox.errors import ConfigError

Range = tuple[float, float]
Mode = Literal["epi", "atlas", "procedural", "random"]
MODES: tuple[Mode, ...] = ("epi", "atlas", "procedural", "random")
"""How a brain looks: a median EPI head, a T2 atlas with random tissue intensities, shapes, or everything at random."""


@dataclass(frozen=True, kw_only=True)
class StackSimulation:
    """What varies from one simulated stack to the next."""

    mode_weights: tuple[float, float, float, float] = (0.35, 0.25, 0.20, 0.20)
    """Shares of the modes epi, atlas, procedural, random."""
    gestational_age_weeks: Range = (25.0, 38.0)
    """Uniform; the brain's volume follows 15.6 GA - 199 mL, SD 35, within 120 to 520 mL."""
    shape_log_sd: float = 0.05
    """Log scales along the head's axes."""
    warp_rms_mm: Range = (0.5, 3.0)
    warp_sigma_mm: Range = (12.0, 25.0)
    pitch_sd_deg: float = 3.0
    """Play between a brain's own axes and the frame of the landmarks (SD 5.5 between real brains, noise included)."""
    texture_sd: Range = (0.08, 0.18)
    """Of the logarithm of a smooth random field (scale 3.5 mm), over the brain and the face."""
    sulci: Range = (0.30, 0.85)
    """How dark the thin winding lines of the cortex are, as a share of the signal."""
    one_eye_dim: float = 0.15
    """Share of subjects with one eye as dark as U(0.5, 1.0)."""
    surroundings: bool = True
    """False: the head lies in uniform tissue (an ablation)."""
    fluid_share: Range = (0.05, 0.45)
    """Share of the space around the fetus that amniotic fluid takes."""
    crescents: float = 0.30
    """Share of samples whose wall touches most of the scalp, so that fluid stays in crescents."""
    motion: bool = True
    """False: a still head (an ablation)."""
    still: float = 0.15
    """Share of samples without a jump between the passes."""
    pass_jump_deg: float = 9.0
    """Half-normal scale of the turn between the two passes."""
    pass_jump_mm: float = 4.0
    jerk: float = 0.2
    """Share of samples with a sudden turn of U(5, 25) degrees at a random time."""
    sequential: float = 0.10
    """Share of stacks whose slices are taken in order."""
    bias: bool = True
    """False: no coil shading (an ablation)."""
    bias_ratio: Range = (1.35, 2.0)
    """95th to 5th percentile of the shading inside the brain."""
    slice_gain_sd: Range = (0.005, 0.05)
    """Log-uniform."""
    second_pass: Range = (0.95, 1.03)
    """Signal of the second pass relative to the first (spin history)."""
    distortion_mm: Range = (0.0, 5.0)
    dropouts: int = 2
    """Most signal voids."""
    ghost: Range = (0.0, 0.05)
    noise_ratio: Range = (11.0, 24.0)
    """Brain over the standard deviation of the Rician noise (texture adds to what is measured as noise)."""
    noise_floor: Range = (0.05, 0.16)
    """What an image of several coils shows where there is no signal, added in squares."""
    thick_slices: float = 0.5
    """Share of stacks of 3 x 3 x 4.5 mm, 160 x 160; the others 3 x 3 x 3 mm, 100 to 120 a side."""
    cut_head: float = 0.10
    """Share of stacks whose field of view may cut the head."""
    air: bool = True
    """The mother's skin, and air beyond it."""
    head_voxel_mm: float = 1.7
    """Grid on which the head is painted (in millimetres of a 290 mL head)."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, tuple) and len(value) == 2 and not (value[0] <= value[1] and math.isfinite(value[1])):
                raise ConfigError(f"{name} is {value[0]:g} to {value[1]:g}; give two numbers, the lower first.")
        if min(self.mode_weights) < 0 or sum(self.mode_weights) <= 0:
            raise ConfigError(f"mode_weights are {self.mode_weights}; give four shares of 0 or more, not all 0.")

    def as_dict(self) -> dict[str, object]:
        """Plain values, for records."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
