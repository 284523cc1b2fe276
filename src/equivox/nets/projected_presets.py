"""Networks of the published tables by name, with the parameter counts that identify them, and our own.

The published architectures were recovered from their counts (projection2d.md 2.4). The two equivariant networks of
Galaxy Zoo meet their count, but other layouts do too, and they need larger crops than the paper names: uncertain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from equivox.errors import ConfigError, did_you_mean
from equivox.geometry.so3_grids import RotationGrid
from equivox.nets.projected import ProjectedClassifier
from equivox.nets.projected_baselines import LinearClassifier, PlainClassifier, ResidualClassifier

ARCHITECTURES: Mapping[str, type[nn.Module]] = {
    "projected": ProjectedClassifier,
    "projected_linear": LinearClassifier,
    "projected_plain": PlainClassifier,
    "projected_residual": ResidualClassifier,
}
"""Names in a model folder."""


@dataclass(frozen=True, slots=True)
class Preset:
    """One named network.

    Parameters
    ----------
    architecture
        A key of :data:`ARCHITECTURES`.
    fields
        Its arguments.
    side_px
        Crops that it classifies.
    channels_in, classes
        Of the published data.
    parameters
        Published count, with these channels and classes; 0: ours, not published.
    certain
        Whether the published count leaves no other layout (as far as was searched).
    summary
        One line.
    """

    architecture: str
    fields: Mapping[str, Any]
    side_px: int
    channels_in: int
    classes: int
    parameters: int
    certain: bool
    summary: str


def _projected(weight: str, channels: tuple[int, ...], kernels: tuple[int, ...], grid: str) -> dict[str, Any]:
    """Fields of a published equivariant network."""
    return {
        "channels": channels, "kernel_sizes": kernels, "grid": grid, "weight": weight, "subsampling": "plain",
        "aggregation": "al1",
    }  # fmt: skip


def _ours(channels: tuple[int, ...], kernels: tuple[int, ...]) -> dict[str, Any]:
    """Fields of our networks."""
    return {"channels": channels, "kernel_sizes": kernels, "grid": "O", "weight": "ball", "subsampling": "blur"}


_CRYO, _CIFAR = (9, 7, 7, 7), (9, 5, 5, 5)
_SO3, _SO2 = (4, 8, 16), (12, 24, 48)
PRESETS: Mapping[str, Preset] = {
    "linear_cryo45": Preset("projected_linear", {"size": 45}, 45, 1, 1, 2026, True, "logistic regression"),
    "conv_cryo45": Preset("projected_plain", {}, 45, 1, 1, 74054, True, "plain convolutions"),
    "conv_cryo45_free": Preset(
        "projected_plain", {"last_norm": False}, 45, 1, 1, 0, True, "plain convolutions, no norm on the logit"
    ),
    "resnet_cryo45": Preset("projected_residual", {}, 45, 1, 1, 0, True, "our residual network"),
    "so2_cryo45": Preset(
        "projected", _projected("square", _SO2, _CRYO, "C8"), 45, 1, 1, 74137, True, "SO(2)-AL1, squares"
    ),
    "so3_one_filter_cryo45": Preset(
        "projected", _projected("cube", (), (45,), "O"), 45, 1, 1, 91126, True, "SO(3)-AL1, one cube"
    ),
    "so3_cryo45": Preset("projected", _projected("cube", _SO3, _CRYO, "O"), 45, 1, 1, 63369, True, "SO(3)-AL1, cubes"),
    "linear_cifar33": Preset("projected_linear", {"size": 33}, 33, 3, 10, 32680, True, "logistic regression"),
    "conv_cifar33": Preset("projected_plain", {"kernel_sizes": _CIFAR}, 33, 3, 10, 51104, True, "plain convolutions"),
    "conv_cifar33_free": Preset(
        "projected_plain", {"kernel_sizes": _CIFAR, "last_norm": False}, 33, 3, 10, 0, True,
        "plain convolutions, no norm on the logits",
    ),
    "resnet_cifar33": Preset(
        "projected_residual", {"kernel_sizes": _CIFAR, "width": 38}, 33, 3, 10, 0, True, "our residual network"
    ),
    "so2_cifar33": Preset(
        "projected", _projected("square", _SO2, _CIFAR, "C8"), 33, 3, 10, 51178, True, "SO(2)-AL1, squares"
    ),
    "so3_cifar33": Preset(
        "projected", _projected("cube", _SO3, _CIFAR, "O"), 33, 3, 10, 48842, True, "SO(3)-AL1, cubes"
    ),
    "linear_gz2_45": Preset("projected_linear", {"size": 45}, 45, 3, 8, 48608, True, "logistic regression"),
    "conv_gz2_45": Preset("projected_plain", {"channels": (32, 64, 128)}, 45, 3, 8, 560176, True, "plain convolutions"),
    "conv_gz2_45_free": Preset(
        "projected_plain", {"channels": (32, 64, 128), "last_norm": False}, 45, 3, 8, 0, True,
        "plain convolutions, no norm on the logits",
    ),
    "resnet_gz2_45": Preset("projected_residual", {"width": 76}, 45, 3, 8, 0, True, "our residual network"),
    "so2_gz2_73": Preset(
        "projected", _projected("square", (24, 48, 96), (13, 11, 11, 11), "C8"), 73, 3, 8, 802568, False,
        "SO(2)-AL1, squares (uncertain)",
    ),
    "so3_gz2_89": Preset(
        "projected", _projected("cube", _SO3, (17, 13, 13, 13), "O"), 89, 3, 8, 691784, False,
        "SO(3)-AL1, cubes (uncertain)",
    ),
    "so2_gz2_45": Preset(
        "projected", _projected("square", _SO2, _CRYO, "C8"), 45, 3, 8, 0, True, "SO(2)-AL1 at 45 px, ours"
    ),
    "so3_gz2_45": Preset(
        "projected", _projected("cube", _SO3, _CRYO, "O"), 45, 3, 8, 0, True, "SO(3)-AL1 at 45 px, ours"
    ),
    "ball_cryo45_3k": Preset("projected", _ours(_SO3, (7, 7, 7, 7)), 45, 1, 1, 0, True, "ours, ball weights, small"),
    "ball_cryo45_15k": Preset(
        "projected", _ours((10, 20, 40), (7, 7, 7, 7)), 45, 1, 1, 0, True, "ours, ball weights, wide"
    ),
    "ball_cifar33": Preset(
        "projected", _ours((12, 24, 48), (7, 5, 5, 5)), 33, 3, 10, 0, True, "ours, ball weights"
    ),
    "ball_cifar33_5k": Preset(
        "projected", _ours((8, 16, 32), (7, 5, 5, 5)), 33, 3, 10, 0, True, "ours, ball weights, small"
    ),
    "ball_gz2_45_4k": Preset("projected", _ours(_SO3, (7, 7, 7, 7)), 45, 3, 8, 0, True, "ours, ball weights, small"),
    "ball_gz2_45": Preset("projected", _ours((8, 16, 32), (7, 7, 7, 7)), 45, 3, 8, 0, True, "ours, ball weights"),
}  # fmt: skip


def preset_fields(
    name: str, *, channels_in: int = 1, classes: int = 1, grid: str | None = None, **changes: Any
) -> dict[str, Any]:
    """What a model folder says about a preset's network: ``{"architecture": …, field: value, …}``.

    Raises
    ------
    ConfigError
        If the name is unknown, or a change does not fit the architecture.
    """
    preset = find_preset(name)
    fields: dict[str, Any] = {**preset.fields, **changes}
    if grid is not None:
        if preset.architecture != "projected":
            raise ConfigError(f"{name} has no rotations; leave out the grid {grid!r}.")
        fields["grid"] = grid
    return {"architecture": preset.architecture, "channels_in": channels_in, "classes": classes, **fields}


def find_preset(name: str) -> Preset:
    """A preset by name; :class:`ConfigError` names the nearest if there is none."""
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS)
        raise ConfigError(f"there is no network named {name!r}{hint}; known are {', '.join(PRESETS)}.")
    return PRESETS[name]


def build_projected(
    name: str,
    *,
    channels_in: int = 1,
    classes: int = 1,
    grid: RotationGrid | str | None = None,
    generator: torch.Generator | None = None,
    **changes: Any,
) -> nn.Module:
    """A network by name, untrained.

    Parameters
    ----------
    name
        A key of :data:`PRESETS`, for example ``"so3_cryo45"`` (published) or ``"ball_cryo45_3k"`` (ours).
    channels_in, classes
        Channels of the image; logits.
    grid
        Rotations in place of the preset's.
    generator
        Source of the initial weights of projected layers; default: torch's own.
    changes
        Other arguments of the architecture.

    Raises
    ------
    ConfigError
        If the name is unknown, or a change does not fit.

    Examples
    --------
    >>> network = build_projected("so3_cryo45")
    >>> sum(parameter.numel() for parameter in network.parameters())
    63369
    """
    named = grid if isinstance(grid, str) or grid is None else "O"
    fields = preset_fields(name, channels_in=channels_in, classes=classes, grid=named, **changes)
    architecture = str(fields.pop("architecture"))
    if architecture == "projected":
        fields["generator"] = generator
        if isinstance(grid, RotationGrid):
            fields["grid"] = grid
    try:
        return ARCHITECTURES[architecture](**fields)
    except TypeError as error:
        raise ConfigError(f"{name} takes no such argument: {error}") from error
