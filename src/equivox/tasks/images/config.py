"""Every default of `equivox images`, named once: how a picture becomes a field, and the recipe of training.

The recipe is the published one (projection2d.md 1.6, 10.2, 10.3): Adam at 1e-3, the rate divided by ten after three
epochs without a better validation loss, stopped after five, at most 200 epochs, 512 pictures per step. This file loads
no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from equivox.errors import ConfigError
from equivox.run.settings import (
    as_plain,
    names_of,
    require_counts,
    require_known,
    require_not_negative,
    require_positive,
)

Augment = Literal["none", "mirror", "square", "turn"]
"""What training does to a picture: nothing; left and right swapped; the eight symmetries of the square; any turn."""
Select = Literal["loss", "accuracy", "last"]
SPLITS = ("train", "validation", "test")
NETWORK = "classify"
"""Name of the network in a model folder of this task."""


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """How a picture becomes the field that a network sees; kept in the model folder."""

    side: int
    """Pixels along each axis."""
    channels: int = 3
    """1 (grey) or 3 (colour)."""
    crop: int | None = None
    """Side of the central square that is used [px]; None: as large as fits."""
    mean: tuple[float, ...] = ()
    """Of each channel over the training part, 0 to 1; what padding shows."""
    deviation: tuple[float, ...] = ()
    """Standard deviation of each channel over the training part."""

    def __post_init__(self) -> None:
        if self.side < 3 or self.side % 2 == 0:
            raise ConfigError(f"side is {self.side}; projected networks need an odd side of at least 3 pixels.")
        if self.channels not in (1, 3):
            raise ConfigError(f"channels is {self.channels}; give 1 (grey) or 3 (colour).")
        if self.crop is not None and self.crop < 1:
            raise ConfigError(f"crop is {self.crop}; give a number of pixels above 0.")
        for name in ("mean", "deviation"):
            values = getattr(self, name)
            if values and (len(values) != self.channels or not all(math.isfinite(value) for value in values)):
                raise ConfigError(f"{name} is {values}; one finite number per channel is needed.")
        if any(value <= 0 for value in self.deviation):
            raise ConfigError(f"deviation is {self.deviation}; numbers above 0 are needed.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the model folder."""
        return {**asdict(self), "mean": list(self.mean), "deviation": list(self.deviation)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str) -> InputConfig:
        """Read what :meth:`as_dict` gave; :class:`ConfigError` for unknown or missing entries."""
        require_known(values, names_of(cls), f"{where} has the unknown entry")
        if "side" not in values:
            raise ConfigError(f"{where} lacks side.")
        lists = {name: tuple(values[name]) for name in ("mean", "deviation") if name in values}
        return cls(**{**values, **lists})


@dataclass(frozen=True, kw_only=True)
class ImageTraining:
    """What is trained and how."""

    preset: str
    """Name of the network: :data:`equivox.nets.projected_presets.PRESETS`."""
    network: Mapping[str, Any]
    """``architecture`` and its options; classes and channels are added from the data."""
    input: InputConfig
    """How pictures become fields."""
    epochs: int = 200
    """At most."""
    batch_size: int = 512
    """Pictures per step."""
    lr: float = 1e-3
    """Learning rate of Adam at first."""
    weight_decay: float = 0.0
    """Decoupled weight decay; above 0 the optimiser is AdamW."""
    plateau: int = 3
    """The rate falls after more than so many epochs without a better validation loss."""
    factor: float = 0.1
    """By which it falls; not stated in the paper, PyTorch's own."""
    patience: int | None = 5
    """Epochs without a better validation until training stops; None: never."""
    augment: Augment = "none"
    """What training does to a picture."""
    class_weights: bool = False
    """Weigh the loss by the inverse of the classes' frequencies."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    select: Select = "loss"
    """Which epoch's weights are kept: the best by validation, or the last."""

    def __post_init__(self) -> None:
        require_counts(self, "epochs", "batch_size", "patience")
        require_positive(self, "lr")
        require_not_negative(self, "weight_decay")
        if not 0.0 < self.factor <= 1.0:
            raise ConfigError(f"factor is {self.factor}; give a number above 0 and at most 1.")
        if self.plateau < 0:
            raise ConfigError(f"plateau is {self.plateau}; give 0 or more epochs.")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ConfigError(f"label_smoothing is {self.label_smoothing}; give at least 0 and below 1.")

    def rate(self, losses: list[float]) -> float:
        """Learning rate after epochs with these validation losses."""
        rate, best, idle = self.lr, math.inf, 0
        for loss in losses:
            if loss < best * (1.0 - 1e-4):
                best, idle = loss, 0
            else:
                idle += 1
            if idle > self.plateau:
                rate, idle = rate * self.factor, 0
        return rate

    def with_values(self, **values: Any) -> ImageTraining:
        """Another recipe with some values replaced; the input's entries go by their own names."""
        inputs = names_of(InputConfig)
        inner = {name: value for name, value in values.items() if name in inputs}
        outer = {name: value for name, value in values.items() if name not in inputs}
        return replace(self, **{"input": replace(self.input, **inner), **outer})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record and to compare two runs."""
        return {**asdict(self), "network": as_plain(self.network), "input": self.input.as_dict()}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which pictures, of which classes."""

    data: str
    """A folder of classes, a folder of CIFAR's batches, or an ``.npz`` file."""
    labels: str | None = None
    """Folder of pictures: a table with the columns file and label (and split), or a catalogue of Galaxy Zoo."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return asdict(self)


def image_preset(
    name: str, *, grid: str | None = None, aggregation: str | None = None, size: int | None = None
) -> ImageTraining:
    """The recipe for one network.

    Parameters
    ----------
    name
        A key of :data:`equivox.nets.projected_presets.PRESETS`.
    grid, aggregation
        Rotations and aggregation in place of the preset's.
    size
        Side of the field for ``"linear_..."`` networks, which take any.

    Raises
    ------
    ConfigError
        If the name is unknown, or an option does not fit the network.
    """
    from equivox.nets.projected_presets import find_preset, preset_fields

    preset = find_preset(name)
    changes: dict[str, Any] = {} if aggregation is None else {"aggregation": aggregation}
    if aggregation is not None and preset.architecture != "projected":
        raise ConfigError(f"{name} has no rotations; leave out the aggregation {aggregation!r}.")
    found = preset_fields(name, grid=grid, **changes)
    network = {key: value for key, value in found.items() if key not in ("channels_in", "classes")}
    side = preset.side_px
    if size is not None and preset.architecture == "projected_linear":
        network["size"] = side = size
    elif size is not None and size != side:
        raise ConfigError(f"{name} classifies {side} pixels a side, not {size}; choose a network of that size.")
    crop = 180 if "gz2" in name else None
    return ImageTraining(preset=name, network=as_plain(network), input=InputConfig(side=side, crop=crop))
