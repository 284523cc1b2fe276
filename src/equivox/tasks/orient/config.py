"""What a picture is for a network, and how one is trained: every default once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from equivox.errors import ConfigError
from equivox.geometry.point_groups import canonical_name
from equivox.run.settings import as_plain, names_of, require_counts, require_known, require_positive

Transfer = Literal["flip", "channel", "none"]
Loss = Literal["mixture", "hard"]
Views = Literal["uniform", "preferred", "histogram"]
NETWORK = "orientation"


@dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """What the network looks at."""

    side: int = 33
    """Pixels along a side, odd."""
    pixel_size_angstrom: float = 3.0
    """Of these pixels."""
    transfer: Transfer = "flip"
    """Contrast transfer: ``flip`` its negative signs, give it as a second ``channel``, or ``none``: ignore it."""
    symmetry: str = "C1"
    """Point group of the particle."""
    shift: bool = False
    """Whether the network also estimates where the centre lies."""

    def __post_init__(self) -> None:
        if self.side < 17 or self.side % 2 == 0:
            raise ConfigError(f"side is {self.side} pixels; give an odd number of at least 17, for example 33.")
        if not (math.isfinite(self.pixel_size_angstrom) and self.pixel_size_angstrom > 0):
            raise ConfigError(f"the pictures' pixel size is {self.pixel_size_angstrom} Å; give a number above 0.")
        if self.transfer not in ("flip", "channel", "none"):
            raise ConfigError(f"transfer is {self.transfer!r}; give flip, channel or none.")
        canonical_name(self.symmetry)

    @property
    def channels(self) -> int:
        """Of a picture."""
        return 2 if self.transfer == "channel" else 1

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the model folder."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "the model's input") -> PictureConfig:
        """Read what :meth:`as_dict` gave; ConfigError for unknown entries and values out of range."""
        require_known(values, names_of(cls), f"{where} has the unknown entry")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """Pictures that are simulated from a structure or a map."""

    particles: int = 2000
    """New pictures in every epoch."""
    fixed: bool = False
    """The same pictures in every epoch instead."""
    validation: int = 500
    """Pictures to judge on, the same in every epoch."""
    views: Views = "uniform"
    """Poses: ``uniform``, ``preferred`` (a normal distribution about one random pose), or a ``histogram`` of views."""
    preferred_sigma_rad: float = 0.1
    """Width of preferred poses about each axis of the body (Granberry et al.)."""
    snr: tuple[float, float] | None = None
    """Range of var(signal) / var(noise) over the whole picture, drawn evenly in its logarithm; None: no noise."""
    defocus_angstrom: tuple[float, float] | None = None
    """Range of underfocus; None: no contrast transfer."""
    voltage_kv: float = 300.0
    """Of the microscope."""
    cs_mm: float = 2.7
    """Spherical aberration."""
    amplitude_contrast: float = 0.1
    """Share of amplitude contrast."""
    shift_angstrom: float = 0.0
    """Largest displacement of the centre along x and along y."""

    def __post_init__(self) -> None:
        require_counts(self, "particles", "validation")
        for name in ("snr", "defocus_angstrom"):
            pair = getattr(self, name)
            if pair is not None and not 0 < pair[0] <= pair[1]:
                raise ConfigError(f"{name} is {pair[0]:g} to {pair[1]:g}; give two rising numbers above 0.")
        if not self.shift_angstrom >= 0:
            raise ConfigError(f"shift_angstrom is {self.shift_angstrom}; give 0 or more.")
        if not self.preferred_sigma_rad > 0:
            raise ConfigError(f"preferred_sigma_rad is {self.preferred_sigma_rad}; give a number above 0.")


@dataclass(frozen=True, kw_only=True)
class OrientTraining:
    """What is trained and how."""

    picture: PictureConfig = field(default_factory=PictureConfig)
    """What the network looks at."""
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    """Where pictures are simulated."""
    coarse_grid: str = "O"
    """Poses of the first look: the 24 of the cube."""
    fine_grid: str = "healpix-4"
    """Poses of the second look: 4608, closed under the symmetries of the pixel grid."""
    coarse_channels: tuple[int, ...] = (8, 16)
    """Widths of the first look's layers."""
    fine_channels: tuple[int, ...] = (16, 32)
    """Widths of the second look's layers."""
    features: int = 64
    """Numbers that describe one pose of one picture."""
    head: Literal["mixture", "unimodal"] = "mixture"
    """A mixture over poses, or one pose from all features (the paper's comparison)."""
    offset: Literal["body", "procrustes", "quaternion_add"] = "body"
    """How a pose is corrected."""
    loss: Loss = "mixture"
    """Likelihood of the mixture, or the paper's loss on the true cell."""
    fine: bool = True
    """Whether there is a second look."""
    turn_grid: bool = True
    """Turn the coarse grid at random in every step, so that the network learns about all poses."""
    candidates: int = 4
    """Poses of the second look in training, one of them near the truth."""
    epochs: int = 20
    """Epochs."""
    batch_size: int = 100
    """Pictures per step (Granberry et al.)."""
    lr: float = 3e-3
    """Learning rate at first; it falls along a cosine to a hundredth."""
    weight_decay: float = 1e-4
    """Of AdamW."""

    def __post_init__(self) -> None:
        require_counts(self, "epochs", "batch_size", "features", "candidates")
        require_positive(self, "lr")
        if self.head == "unimodal" and self.fine:
            raise ConfigError("a unimodal head has no second look; pass --no-fine with it.")
        if self.head == "unimodal" and self.picture.shift:
            raise ConfigError("a unimodal head estimates no shifts; leave --shift-angstrom out, or take the mixture.")
        if self.head == "unimodal" and self.loss == "hard":
            raise ConfigError("the hard loss needs one hypothesis per cell; take --loss mixture with a unimodal head.")

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch."""
        return self.lr * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * epoch / self.epochs)))

    def network(self) -> dict[str, Any]:
        """Fields of the model folder that rebuild the network."""
        return {
            "architecture": "orientation", "side": self.picture.side, "channels_in": self.picture.channels,
            "coarse_grid": self.coarse_grid, "fine_grid": self.fine_grid,
            "coarse_channels": list(self.coarse_channels), "fine_channels": list(self.fine_channels),
            "features": self.features, "head": self.head, "offset": self.offset, "fine": self.fine,
            "shift": self.picture.shift,
        }  # fmt: skip

    def with_values(self, **values: Any) -> OrientTraining:
        """Another recipe with some values replaced; entries of the picture and the simulation go by their own names.

        Raises
        ------
        ConfigError
            If a name is unknown or a value is out of range.
        """
        rooms = {"picture": PictureConfig, "simulation": SimulationConfig}
        own = names_of(self) - set(rooms)
        require_known(values, own.union(*(names_of(kind) for kind in rooms.values())), "unknown setting")
        changed = {name: value for name, value in values.items() if name in own}
        for room, kind in rooms.items():
            inner = {name: value for name, value in values.items() if name in names_of(kind) - own}
            changed |= {room: replace(getattr(self, room), **inner)} if inner else {}
        return replace(self, **changed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record and to compare two runs."""
        return as_plain(asdict(self))
