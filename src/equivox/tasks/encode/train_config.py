"""Recipes of ``equivox encode pretrain`` and ``finetune``: every default is named here, once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from equivox.errors import ConfigError, did_you_mean
from equivox.run.settings import require_counts, require_positive, with_values
from equivox.tasks.encode.photometric import DegradationRange

TERMS = (
    "equivariance", "condition", "direction", "vicreg", "contrast", "bootstrap", "erased", "autoencoder", "divergence",
    "published",
)  # fmt: skip
"""Parts that an objective may have; see :mod:`equivox.tasks.encode.objectives`."""
PAIRED = frozenset({"equivariance", "condition", "direction", "vicreg", "contrast", "bootstrap"})
"""Terms that compare two views."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """What is pretrained and how."""

    preset: str
    """Name of the recipe."""
    network: Mapping[str, Any]
    """``architecture`` and its options; side and voxel size are added."""
    terms: Mapping[str, float]
    """Weight of each part of the objective."""
    side: int = 64
    """Voxels of the working grid."""
    voxel_size_mm: float = 3.3
    """Edge of its voxels: 64 of 3.3 mm hold every adult brain, as 32 of 6.6 mm do."""
    epochs: int = 40
    """Passes over the scans."""
    batch_size: int = 8
    """Scans per step."""
    lr: float = 2e-3
    """Learning rate, falling along a cosine to a hundredth (published: halved on plateaus)."""
    weight_decay: float = 1e-4
    """Of the optimiser."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """``"adam"`` with amsgrad as published."""
    strength: float = 1.0
    """Factor on the ranges of all degradations."""
    reference: Literal["upright", "turned"] = "turned"
    """First view: as the scan lies and undegraded, or turned and degraded as the second."""
    pairs: Literal["views", "sessions"] = "views"
    """Second view: of the same scan, or of another session of the same person where there is one."""
    temperature: float = 0.1
    """Of the contrast."""
    momentum: float = 0.99
    """Of the slow network (BYOL)."""
    projection: int = 64
    """Width of the projection before contrast and bootstrap."""
    alpha: float = 0.1
    """Of the published loss."""
    share_validation: float = 0.15
    """Share of the persons kept for validation where no table says which."""
    validate_every: int = 1
    """Epochs between validations."""

    def __post_init__(self) -> None:
        for name in self.terms:
            if name not in TERMS:
                hint = did_you_mean(name, TERMS)
                raise ConfigError(f"the objective has no term {name!r}{hint}; known: {', '.join(TERMS)}.")
        if not self.terms or not all(math.isfinite(value) and value > 0 for value in self.terms.values()):
            raise ConfigError(f"terms have weights above 0, got {dict(self.terms)}.")
        if "published" in self.terms and len(self.terms) > 1:
            raise ConfigError("the published objective goes alone: its rotations are its own.")
        require_counts(self, "epochs", "batch_size", "validate_every", "projection", "side")
        require_positive(self, "lr", "voxel_size_mm", "temperature")
        if self.strength < 0 or self.weight_decay < 0:
            raise ConfigError("strength and weight_decay are at least 0.")
        if not 0 < self.share_validation < 1 or not 0 <= self.momentum < 1:
            raise ConfigError("share_validation lies between 0 and 1, momentum from 0 to below 1.")

    @property
    def paired(self) -> bool:
        """Whether two views of each scan are needed."""
        return bool(PAIRED & set(self.terms))

    @property
    def ranges(self) -> DegradationRange:
        """How far degradations go."""
        return DegradationRange().scaled(self.strength)

    def network_fields(self) -> dict[str, Any]:
        """The encoder as a model folder describes it."""
        return {**self.network, "side": self.side, "voxel_size_mm": self.voxel_size_mm}

    def with_values(self, **values: Any) -> PretrainConfig:
        """Another recipe with some values replaced.

        Raises
        ------
        ConfigError
            If a name is unknown or a value is out of range.
        """
        return with_values(self, values)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record and to compare two runs."""
        return {**asdict(self), "network": dict(self.network), "terms": dict(self.terms)}


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Supervised heads on an encoder."""

    targets: tuple[str, ...] = ("age",)
    """Of ``age``, ``sex``, ``diagnosis``."""
    epochs: int = 30
    """Passes over the scans."""
    batch_size: int = 8
    """Scans per step."""
    lr: float = 1e-3
    """Learning rate of the heads."""
    encoder_lr: float = 0.1
    """Of the encoder, times that of the heads; 0 freezes it."""
    weight_decay: float = 1e-3
    """Of AdamW."""
    hidden: int = 64
    """Units of each head's hidden layer."""
    dropout: float = 0.2
    """Before it."""
    orientation: Literal["none", "uniform"] = "none"
    """How training turns scans: not at all suffices for an equivariant encoder."""
    strength: float = 0.5
    """Factor on the ranges of all degradations."""
    side: int = 0
    """Of a new encoder's grid; 0: 64."""
    share_validation: float = 0.15
    """Share of the persons kept for validation where no table says which."""
    validate_every: int = 1
    """Epochs between validations."""

    def __post_init__(self) -> None:
        known = ("age", "sex", "diagnosis")
        for name in self.targets:
            if name not in known:
                raise ConfigError(f"there is no target {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}.")
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ConfigError("give one or more different targets: age, sex, diagnosis.")
        require_counts(self, "epochs", "batch_size", "validate_every", "hidden")
        if not (math.isfinite(self.lr) and self.lr > 0) or self.encoder_lr < 0 or self.strength < 0:
            raise ConfigError("lr is above 0; encoder_lr and strength are at least 0.")
        if not 0 <= self.dropout < 1 or not 0 < self.share_validation < 1:
            raise ConfigError("dropout lies from 0 to below 1, share_validation between 0 and 1.")

    def with_values(self, **values: Any) -> FinetuneConfig:
        """Another recipe with some values replaced; see :meth:`PretrainConfig.with_values`."""
        return with_values(self, values)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "targets": list(self.targets)}


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Training of the last layers on pooled features, the convolutions being what they were drawn."""

    views: int = 4
    """Views of each scan: as it lies, turned, and the rest turned and degraded."""
    steps: int = 600
    """Most steps of the optimiser (15 for each scan); each takes one pair of views of every scan of the batch."""
    batch_size: int = 64
    """Scans per step."""
    lr: float = 3e-3
    """Learning rate, falling along a cosine."""
    terms: Mapping[str, float] = field(default_factory=lambda: {"direction": 5.0, "vicreg": 0.2, "condition": 1.0})
    """Weights of the objective."""
    weight_decay: float = 1e-3
    """Of AdamW."""


HEAD_NETWORK: Mapping[str, Any] = {"histogram_layers": [1, 2, 3, 4], "scalars": 251}
"""Options of the encoder of the preset ``head``: without the outermost layer of depth, whose tones change most when a
brain is turned; one invariant for each statistic that is pooled."""

_OURS: Mapping[str, Any] = {"architecture": "brain_encoder"}
_PLAIN: Mapping[str, Any] = {"architecture": "brain_cnn", "read": "gram"}
PRESETS: Mapping[str, PretrainConfig] = {
    "brain": PretrainConfig(
        preset="brain", network=_OURS, reference="upright",
        terms={"vicreg": 1.0, "direction": 5.0, "condition": 1.0, "erased": 1.0},
    ),
    "soe": PretrainConfig(preset="soe", network=_PLAIN, terms={"equivariance": 1.0, "condition": 1.0}, strength=0.0),
    "soe_published": PretrainConfig(
        preset="soe_published", network={"architecture": "brain_cnn", "head": "published", "norm": "batch"},
        terms={"published": 1.0}, optimizer="adam", lr=1e-3, batch_size=4, epochs=50, strength=0.0, reference="upright",
    ),
    "masked": PretrainConfig(preset="masked", network=_OURS, terms={"erased": 1.0}, reference="upright", strength=0.5),
    "vicreg": PretrainConfig(preset="vicreg", network=_OURS, terms={"vicreg": 1.0}, reference="upright"),
    "simclr": PretrainConfig(preset="simclr", network=_OURS, terms={"contrast": 1.0}, reference="upright"),
    "byol": PretrainConfig(preset="byol", network=_OURS, terms={"bootstrap": 1.0}, reference="upright"),
    "autoencoder": PretrainConfig(
        preset="autoencoder", network=_OURS, terms={"autoencoder": 1.0}, reference="upright", strength=0.5
    ),
    "vae": PretrainConfig(
        preset="vae", network=_OURS, terms={"autoencoder": 1.0, "divergence": 0.01}, reference="upright", strength=0.5
    ),
}  # fmt: skip
"""Recipes by name: ours whole, the published one, and one objective each."""


def pretrain_preset(name: str) -> PretrainConfig:
    """A recipe by name.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    wanted = name.replace("-", "_")
    if wanted not in PRESETS:
        hint = did_you_mean(wanted, PRESETS)
        raise ConfigError(f"there is no preset {name!r}{hint}; known are {', '.join(PRESETS)}.")
    return PRESETS[wanted]


def cosine_rate(lr: float, epoch: int, epochs: int) -> float:
    """From ``lr`` along a cosine to a hundredth of it in the last epoch."""
    gone = epoch / max(1, epochs - 1)
    return lr * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, gone))))
