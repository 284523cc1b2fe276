"""Every default of `equivox shapes`, named once: how an object becomes a field, and the recipes of training.

Recipes named after a dataset are the published ones (steerable.md 5.1 to 5.3, data_shapes.md A3, C1, D); those that end
in ``-equivox`` are ours. This file loads no torch, so that the command line can read it before anything runs.
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

Kind = Literal["tetris", "voxels", "points", "mesh", "environment"]
"""What an object is: a piece of Tetris, a volume, atoms of a protein, a surface, the atoms about a residue."""
Normalization = Literal["atom", "analytic", "published"]
"""How a point's Gaussian is scaled: :func:`equivox.geometry.density.gaussian_density`."""
Orientation = Literal["none", "fixed", "uniform", "cube", "upright"]
"""How training turns objects: as they lie; one random turn each, drawn once; a new random turn at every access, of
SO(3), of the 24 of the cube, or about the vertical axis."""
Select = Literal["last", "loss", "accuracy", "balanced_accuracy"]
"""Which epoch's weights are kept: the last ones, or the best by validation."""
SPLITS = ("train", "validation", "test")
NETWORK = "classify"
"""Name of the network in a model folder of this task."""


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """How an object becomes the field that a network sees; kept in the model folder."""

    kind: Kind
    """What an object is."""
    side: int
    """Voxels along each axis."""
    channels: int = 1
    """Channels of the field."""
    spacing: float = 1.0
    """Edge of a voxel: ångström for proteins, radii of the object for meshes, voxels otherwise."""
    sigma: float = 1.0
    """Standard deviation of the Gaussian that a point becomes, in the same unit."""
    normalization: Normalization = "atom"
    """How that Gaussian is scaled."""
    cell: float = 5.0
    """Tetris: voxels along a cell."""
    enlarge: Literal["zoom", "plain"] = "plain"
    """Tetris: ``"zoom"`` keeps the published trap (cells of 4, 6, 6, 4 voxels); ``"plain"`` covers equal lengths."""
    frame: Literal["local", "laboratory"] = "laboratory"
    """Environments: turned into the residue's own frame, or as the structure lies."""
    fill: Literal["points", "surface", "occupancy"] = "points"
    """Meshes: points on the surface that become Gaussians; voxels that it cuts; or the share of voxels inside."""
    points: int = 2048
    """Meshes: how many points."""
    trace: Literal["atoms", "chain"] = "atoms"
    """Proteins: C-alpha atoms alike, or sorted into five channels by what the chain does: `geometry/chain.py`."""
    scale: float = 1.0
    """Factor of a field made of points."""
    up: Literal["x", "y", "z"] = "z"
    """The vertical axis, for turns about it."""

    def __post_init__(self) -> None:
        require_counts(self, "side", "channels", "points")
        require_positive(self, "spacing", "sigma", "cell", "scale")
        if self.trace == "chain" and self.channels != 5:
            raise ConfigError(f"channels is {self.channels}; the trace of a chain has 5: give --channels 5.")
        if self.kind == "environment" and self.channels != 4:
            raise ConfigError(f"channels is {self.channels}; environments have 4 (C, N, O, S): give --channels 4.")
        if self.kind == "tetris" and self.enlarge == "zoom" and self.cell != round(self.cell):
            raise ConfigError(f"cell is {self.cell} voxels; the published zoom needs a whole number.")
        if self.kind == "tetris" and 4 * self.cell > self.side:
            raise ConfigError(f"side is {self.side} voxels, the pieces need {4 * self.cell:g}; give more --side.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the model folder."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "the model's input") -> InputConfig:
        """Read what :meth:`as_dict` gave; unknown keys are refused.

        Raises
        ------
        ConfigError
            If a key is unknown or missing, or a value is out of range.
        """
        require_known(values, names_of(cls), f"{where} has the unknown entry")
        missing = {"kind", "side"} - set(values)
        if missing:
            raise ConfigError(f"{where} lacks {', '.join(sorted(missing))}.")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class ShapeTraining:
    """What is trained and how."""

    preset: str
    """Name of the recipe."""
    network: Mapping[str, Any]
    """``architecture`` and its options; classes and channels are added from the data."""
    input: InputConfig
    """How objects become fields."""
    epochs: int
    """Epochs."""
    batch_size: int
    """Objects per step."""
    lr: float
    """Learning rate of the first epochs."""
    decay_start: int = 0
    """Epoch after which the rate falls."""
    decay: float = 1.0
    """Factor of the rate per epoch after that."""
    steps: tuple[tuple[int, float], ...] = ()
    """Or: from such an epoch on, the first rate times such a factor."""
    warmup: int = 0
    """Epochs over which the rate rises linearly from nothing."""
    cosine: bool = False
    """After ``decay_start`` let the rate fall along a cosine, to a hundredth in the last epoch."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam, or AdamW with ``weight_decay``."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    l1: float = 0.0
    """Times the sign of every convolution weight, added to the gradient."""
    l2: float = 0.0
    """Times every convolution weight, added to the gradient."""
    orientation: Orientation = "uniform"
    """How training turns objects."""
    balanced: bool = False
    """As many objects of each class per epoch as the smallest class has, class after class."""
    class_weights: bool = False
    """Weigh the loss by the inverse of the classes' frequencies."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    drop_last: bool = False
    """Leave out the objects that do not fill a batch."""
    settle: bool = False
    """At the end replace the running statistics of batch norms by plain means over the training objects."""
    select: Select = "loss"
    """Which epoch's weights are kept."""
    burn_in: int = 0
    """Epochs before selection begins."""
    validate_every: int = 1
    """Epochs between validations."""
    reduction: int = 1
    """Train on one in so many objects of each class."""

    def __post_init__(self) -> None:
        require_counts(self, "epochs", "batch_size", "validate_every", "reduction")
        require_positive(self, "lr", "decay")
        require_not_negative(self, "weight_decay", "l1", "l2", "decay_start", "burn_in", "warmup")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ConfigError(f"label_smoothing is {self.label_smoothing}; give at least 0 and below 1.")
        if "architecture" not in self.network:
            raise ConfigError("the network has no architecture; name one with --network.")
        if self.select != "last" and self.burn_in >= self.epochs:
            raise ConfigError(
                f"burn_in is {self.burn_in} of {self.epochs} epochs; nothing is left to select from: lower it."
            )
        last_validated = self.epochs // self.validate_every * self.validate_every - 1
        if self.select != "last" and self.validate_every <= self.epochs and last_validated < self.burn_in:
            raise ConfigError(
                f"validate_every is {self.validate_every}: no epoch after a burn_in of {self.burn_in} is validated."
            )

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch."""
        factor = 1.0 if self.warmup == 0 else min(1.0, (epoch + 1) / (self.warmup + 1))
        if self.cosine:
            gone = max(0, epoch - self.decay_start) / max(1, self.epochs - self.decay_start)
            return self.lr * factor * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * gone)))
        for start, share in self.steps:
            if epoch >= start:
                factor = share
        return self.lr * factor * self.decay ** max(0, epoch - self.decay_start)

    def with_values(self, **values: Any) -> ShapeTraining:
        """Another recipe with some values replaced; the input's entries go by their own names.

        Raises
        ------
        ConfigError
            If a name is unknown or a value is out of range.
        """
        own, inputs = names_of(self), names_of(InputConfig)
        require_known(values, own | inputs, "unknown setting")
        inner = {name: value for name, value in values.items() if name in inputs and name not in own}
        outer = {name: value for name, value in values.items() if name in own}
        return replace(self, **{"input": replace(self.input, **inner), **outer})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record and to compare two runs."""
        found = asdict(self)
        return {**found, "network": as_plain(self.network), "steps": [list(step) for step in self.steps]}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which objects, of which classes, in which splits."""

    data: str
    """``tetris``, an ``.npz`` file, or a folder."""
    task: str = ""
    """CATH: ``3class``, ``10arch`` or ``20topo``; empty: what the file holds, 10 architectures of the rebuilt set."""
    fold: int | None = None
    """Of data in ten splits: test on this one, validate on the next; None: 0 to 6, 7, 8 and 9."""
    perturbed: bool = False
    """Meshes: each in its own fixed rotation, where the data have one (SHREC17, toyshapes)."""
    labels: str | None = None
    """Folder of files: table with the columns file, label and, if wanted, split; None: its sub-folders are classes."""

    def __post_init__(self) -> None:
        if self.task not in ("", "3class", "10arch", "20topo"):
            raise ConfigError(f"--task {self.task!r} is unknown; known are 3class, 10arch, 20topo.")
        if self.fold is not None and not 0 <= self.fold <= 9:
            raise ConfigError(f"--fold is {self.fold}; the splits are numbered 0 to 9.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return asdict(self)
