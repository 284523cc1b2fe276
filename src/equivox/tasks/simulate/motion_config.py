"""Every default of `equivox simulate motion`, named once, with where it comes from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from equivox.errors import ConfigError
from equivox.simulate.slices import ORIENTATIONS, Orientation

Method = Literal["truth", "navigator", "model", "landmarks", "blind"]
METHODS: tuple[Method, ...] = get_args(Method)
METHOD_WORDS: dict[Method, str] = {
    "truth": "the true pose at the slice's own time",
    "navigator": "the true pose at the navigator's time: what the delay alone costs",
    "model": "the model's pose in the navigator",
    "landmarks": "the eye rule on the true labels, at the navigator's resolution",
    "blind": "the first pose throughout: no correction",
}


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """The navigator experiment; values are the published ones where a comment names none."""

    orientations: tuple[Orientation, ...] = ORIENTATIONS
    """Of the stacks of slices."""
    methods: tuple[Method, ...] = METHODS
    """How slices are steered."""
    thickness_mm: float = 3.0
    """Of a slice; also the distance of slices."""
    slice_voxel_mm: float = 1.0
    """In the plane."""
    slice_size: int = 256
    """Voxels along i and j."""
    interleave: int = 4
    """Sweeps over the stack."""
    navigator_mm: float = 6.0
    """Voxel size of the navigator."""
    repetition_s: float = 2.5
    """From one navigator to the next."""
    delay_s: float = 1.0
    """From a navigator to its slice."""
    navigator_noise: float = 0.03
    """Standard deviation over the 90th percentile; ours, the published navigators have no noise."""
    t1_s: tuple[float, float] = (3.0, 5.0)
    """Recovery time, uniform."""
    bursts_per_minute: float = 2.0
    """Of sampled motion (ours)."""
    burst_deg: float = 15.0
    """Its scale (ours)."""

    def __post_init__(self) -> None:
        for name in ("thickness_mm", "slice_voxel_mm", "navigator_mm", "repetition_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be above 0.")
        if not 0 <= self.delay_s < self.repetition_s:
            raise ConfigError(
                f"--delay-s is {self.delay_s}; a slice follows its navigator and precedes the next, within "
                f"--repetition-s {self.repetition_s}."
            )
        if self.slice_size < 1 or self.interleave < 1:
            raise ConfigError(
                f"--slice-size is {self.slice_size} and --interleave {self.interleave}; both must be 1 or more."
            )
        if not self.orientations or not self.methods:
            raise ConfigError("--orientations or --methods names nothing; give at least one of each.")
        if self.navigator_noise < 0 or self.bursts_per_minute < 0 or self.burst_deg < 0:
            raise ConfigError("--navigator-noise, --bursts-per-minute and --burst-deg must be 0 or more.")

    def as_dict(self) -> dict[str, object]:
        """Plain values, for the record."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
