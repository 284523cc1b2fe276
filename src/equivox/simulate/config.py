"""Ranges of the head simulator. Sources: research notes on the fetal EPI stacks (measured ranges), literature sizes."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class HeadSimulation:
    """What varies between simulated stacks; lengths in mm, angles in degrees, intensities relative to brain = 1."""

    gestational_age_weeks: Range = (25.0, 38.0)
    """Uniform; sets the brain volume unless ``brain_volume_ml`` is given."""
    brain_volume_ml: Range | None = None
    """Uniform range that replaces the growth curve 15.6 GA - 199 (SD 35); ``(290, 290)`` for normalised crops."""
    crop_scale_log_sd: float = 0.0
    """SD of a further log scale of the whole scene (error of the size estimate in a crop)."""
    center_jitter_mm: float = 0.0
    """The head's centre is uniform in a cube of this half-side about the grid's centre."""
    anisotropy_log_sd: float = 0.05
    """Head shape: log scales along the head's axes."""
    warp_rms_mm: Range = (0.5, 3.0)
    warp_sigma_mm: Range = (12.0, 25.0)
    pitch_sd_deg: float = 3.0
    """Play between the brain template and the landmark frame."""
    wild_contrast: float = 0.15
    """Share of samples whose tissue intensities are drawn without realism."""
    template_contrast: float = 0.45
    """Share of the other samples that blend the template's T2 contrast in."""
    texture_sd: Range = (0.02, 0.14)
    edge_mm: Range = (0.8, 1.4)
    """Logistic scale of tissue edges: in-plane blur, slice profile and resampling together."""
    eye_center_mm: tuple[float, float, float] = (16.9, 38.8, -22.4)
    """At 290 mL, right eye; the left is mirrored."""
    eye_center_sd_mm: tuple[float, float, float] = (0.9, 2.8, 1.8)
    skull_mm: Range = (3.0, 5.0)
    scalp_mm: Range = (2.0, 5.0)
    neck_tilt_sd_deg: float = 15.0
    skull_base: float = 0.85
    """Share of samples with the dark ridges of the skull base (sphenoid wings, petrous bones) between the lobes."""
    falx: float = 0.7
    """Share of samples with a dark mid-line above the brain's centre."""
    limbs: int = 3
    """Most limbs near the head; each is there with probability 0.5."""
    fluid_share: Range = (0.03, 0.5)
    """Share of the space around the head that amniotic fluid takes."""
    fluid_one_sided: Range = (0.0, 1.6)
    """How much fluid gathers on one side, in SD of the random part per 60 mm."""
    air: float = 0.8
    """Share of samples whose grid holds the skin surface and the air beyond where it falls inside."""
    slice_mm: Range = (3.0, 4.6)
    pass_jump_deg: float = 9.0
    """Half-normal scale of the turn between the two interleaved passes."""
    pass_jump_mm: float = 4.0
    still: float = 0.3
    """Share of samples without motion."""
    bias_ratio: Range = (1.25, 2.2)
    """95th to 5th percentile of the coil shading inside the brain."""
    slice_gain_sd: Range = (0.015, 0.09)
    dropout: float = 0.3
    noise_sd: Range = (0.02, 0.10)
    field_of_view_cut: float = 0.4
    """Share of samples in which each end of the slice stack may fall inside the grid."""
    cut_distance_mm: Range = (35.0, 140.0)
