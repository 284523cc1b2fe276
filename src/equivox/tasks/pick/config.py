"""Every default of `equivox pick`, named once. This file loads no torch, so that the command line can read it first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from equivox.errors import ConfigError
from equivox.run.settings import (
    names_of,
    require_counts,
    require_known,
    require_not_negative,
    require_positive,
    with_values,
)

NETWORK = "pick"
"""Name of the network in a model folder of this task."""
SHIPPED_MODEL = "particles"
"""The picker that comes with the package."""
Contrast = Literal["auto", "dark", "bright"]
"""How particles stand against the ice: dark as in raw micrographs, bright after an inversion, or found out."""
Risk = Literal["full", "binomial", "non-negative"]
"""All particles are labelled, or some are and how many there are is known (GE-binomial, non-negative risk)."""
Rotate = Literal["none", "quarter", "any"]
"""How training turns tiles: not, by quarter turns and mirrors, by any angle and mirrors."""
SMALLEST_RADIUS_ANGSTROM, LARGEST_RADIUS_ANGSTROM = 5.0, 5000.0


@dataclass(frozen=True, kw_only=True)
class PickInput:
    """How a micrograph becomes what a network sees; kept in the model folder."""

    radius_px: float = 9.0
    """Radius of the particle in the pixels that the network sees: images are brought to radius / radius_px."""
    radius_angstrom: float = 90.0
    """Radius of the particles that it was trained on; nothing is computed from it but a default."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.radius_px) and 2.0 <= self.radius_px <= 64.0):
            raise ConfigError(f"radius_px is {self.radius_px}; give 2 to 64 pixels.")
        require_radius(self.radius_angstrom)

    def pixel_size_angstrom(self, radius_angstrom: float) -> float:
        """Pixel size at which a particle of this radius has the size of the training.

        Examples
        --------
        >>> PickInput(radius_px=9.0).pixel_size_angstrom(90.0)
        10.0
        """
        return radius_angstrom / self.radius_px

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the model folder."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "the model's input") -> PickInput:
        """Read what :meth:`as_dict` gave; unknown keys are refused.

        Raises
        ------
        ConfigError
            If a key is unknown, or a value is missing or out of range.
        """
        require_known(values, names_of(cls), f"{where} has the unknown entry")
        try:
            return cls(**{name: float(value) for name, value in values.items()})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{where} cannot be read ({error}); write the folder again.") from error


@dataclass(frozen=True, kw_only=True)
class PickTraining:
    """What is trained and how."""

    network: Mapping[str, Any] = field(default_factory=lambda: {"preset": "ball_cryo45_3k", "grid": "d4opt-16"})
    """``preset`` of nets/projected_presets.py or ``architecture``, and options."""
    radius_px: float = 9.0
    """Radius of the particle in the pixels that the network sees."""
    risk: Risk = "full"
    """What is known of the places without a label."""
    expected_number: float | None = None
    """Particles per micrograph, for the two risks of positives and unlabelled."""
    epochs: int = 24
    """Epochs at most."""
    patience: int | None = 8
    """Validations without a better one after which training stops; None: never."""
    tiles_per_epoch: int = 160
    """Tiles per epoch."""
    batch_size: int = 8
    """Tiles per step."""
    tile_outputs: int = 40
    """Outputs of the network along each side of a tile."""
    lr: float = 5e-3
    """Learning rate at first; falls along a cosine to a hundredth."""
    weight_decay: float = 1e-4
    """Decoupled weight decay of AdamW."""
    positive_share: float = 0.2
    """Share of the loss's weight that places on particles hold at least."""
    target_width: float = 0.25
    """Standard deviation of the soft target around a label, in particle radii."""
    positive_width: float = 0.25
    """Positives and unlabelled: places nearer to a label than this, in particle radii, are positive."""
    labelled_tiles: float = 0.5
    """Share of tiles that are drawn around a label; the others lie anywhere."""
    rotate: Rotate = "none"
    """How tiles are turned; a network on a closed grid of rotations needs none."""
    scale_jitter: float = 0.1
    """Tiles are enlarged or shrunk by up to this share: radii are never known exactly."""
    contrast_jitter: float = 0.2
    """Tiles are multiplied by 1 plus or minus up to this."""
    noise: float = 0.1
    """Standard deviation of white noise added to tiles, in units of the micrograph's own spread."""
    edge_angstrom: float = 0.0
    """Nothing nearer to the edge of a micrograph is learned from or picked."""

    def __post_init__(self) -> None:
        require_counts(self, "epochs", "tiles_per_epoch", "batch_size", "tile_outputs", "patience")
        require_positive(self, "lr", "target_width", "positive_width")
        require_not_negative(self, "weight_decay", "contrast_jitter", "noise", "edge_angstrom")
        for name in ("positive_share", "labelled_tiles"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; give 0 to 1.")
        if not 0.0 <= self.scale_jitter < 0.5:
            raise ConfigError(f"scale_jitter is {self.scale_jitter}; give at least 0 and below 0.5.")
        if self.risk != "full" and self.expected_number is None:
            raise ConfigError(f"--risk {self.risk} needs --expected-number, the particles per micrograph.")
        if self.risk == "full" and self.expected_number is not None:
            raise ConfigError("--expected-number says that labels are missing; give --risk binomial or non-negative.")
        if self.expected_number is not None and not (math.isfinite(self.expected_number) and self.expected_number > 0):
            raise ConfigError(f"--expected-number is {self.expected_number}; give a number above 0.")
        if not {"architecture", "preset"} & set(self.network):
            raise ConfigError("the network has no architecture; name one with --network.")
        PickInput(radius_px=self.radius_px)

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch: one epoch at half of it, then a cosine down to a hundredth."""
        if epoch == 0 and self.epochs > 2:
            return 0.5 * self.lr
        gone = epoch / self.epochs
        return self.lr * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * gone)))

    def with_values(self, **values: Any) -> PickTraining:
        """Another recipe with some values replaced.

        Raises
        ------
        ConfigError
            If a name is unknown or a value is out of range.
        """
        return with_values(self, values)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record and to compare two runs."""
        return {**asdict(self), "network": dict(self.network)}


@dataclass(frozen=True, kw_only=True)
class PickSource:
    """Labelled micrographs of one kind of particle."""

    micrographs: tuple[str, ...]
    """Files, folders or globs."""
    coordinates: tuple[str, ...]
    """Coordinate files, folders or globs of them."""
    radius_angstrom: float
    """Of the particle."""
    pixel_size_angstrom: float | None = None
    """Instead of what the files say."""
    negatives: tuple[str, ...] = ()
    """Coordinate files of places without a particle."""
    masks: tuple[str, ...] = ()
    """Images, one per micrograph by name, that are 0 where nothing shall be learned or picked."""
    contrast: Contrast = "auto"
    """Of the particles."""
    flip_y: bool = False
    """The coordinates count rows from the last one."""
    coordinate_scale: float = 1.0
    """Factor from the coordinates to pixels of the micrographs."""
    split: str | None = None
    """CSV with the columns micrograph and split (train, val); None: by ``validation_share``."""
    validation_share: float = 0.2
    """Share of micrographs that training does not see, at least one; without a table of splits."""

    def __post_init__(self) -> None:
        require_radius(self.radius_angstrom)
        if not (math.isfinite(self.coordinate_scale) and self.coordinate_scale > 0):
            raise ConfigError(f"--coordinate-scale is {self.coordinate_scale}; give a number above 0.")
        if not 0.0 < self.validation_share < 1.0:
            raise ConfigError(f"--validation-share is {self.validation_share}; give more than 0 and less than 1.")
        if self.contrast not in ("auto", "dark", "bright"):
            raise ConfigError(f"--contrast is {self.contrast!r}; give auto, dark or bright.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def require_radius(radius_angstrom: float) -> None:
    """Refuse a radius that no particle has.

    Raises
    ------
    ConfigError
        If it is not a number from 5 to 5000 Å.
    """
    if not (math.isfinite(radius_angstrom) and SMALLEST_RADIUS_ANGSTROM <= radius_angstrom <= LARGEST_RADIUS_ANGSTROM):
        raise ConfigError(
            f"--radius-angstrom is {radius_angstrom:g}; give the radius of the particle, "
            f"{SMALLEST_RADIUS_ANGSTROM:g} to {LARGEST_RADIUS_ANGSTROM:g} Å."
        )
