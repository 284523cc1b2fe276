"""Which architectures a model folder may name, and how its fields become a network."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping

from torch import nn

from equivox.errors import ConfigError, ModelFolderError, did_you_mean
from equivox.nets.brain_encoders import ENCODERS
from equivox.nets.classifiers import CLASSIFIERS

ARCHITECTURES: Mapping[str, str] = {
    "unet": "equivox.nets.unet:UNet",
    "equivariant_unet": "equivox.nets.equivariant_unet:EquivariantUNet",
    "pose_net": "equivox.nets.pose:PoseNet",
    "finder": "equivox.nets.finder:FinderNet",
    "head_pose": "equivox.nets.head_pose:HeadPoseNet",
    "head_template": "equivox.nets.head_template:HeadTemplate",
    "projected": "equivox.nets.projected:ProjectedClassifier",
    "projected_linear": "equivox.nets.projected_baselines:LinearClassifier",
    "projected_plain": "equivox.nets.projected_baselines:PlainClassifier",
    "projected_residual": "equivox.nets.projected_baselines:ResidualClassifier",
    "orientation": "equivox.nets.orientation:OrientationNet",
    **CLASSIFIERS,
    **ENCODERS,
    "brain_heads": "equivox.nets.brain_heads:BrainHeads",
}
"""Name in ``config.json`` -> module and class. The class's parameters are the fields that the file may hold."""


def build_network(fields: Mapping[str, object], *, where: str = "config.json") -> nn.Module:
    """Build the untrained network that ``{"architecture": name, field: value, ...}`` describes.

    Raises
    ------
    ModelFolderError
        If the architecture or a field is unknown (with the nearest known name), or a value is refused.
    """
    remaining = dict(fields)
    name = remaining.pop("architecture", None)
    if not isinstance(name, str) or name not in ARCHITECTURES:
        hint = did_you_mean(str(name), ARCHITECTURES)
        raise ModelFolderError(f"{where} names the architecture {name!r}, which this version does not know{hint}.")
    module, _, attribute = ARCHITECTURES[name].partition(":")
    constructor = getattr(importlib.import_module(module), attribute)
    known = [
        parameter
        for parameter in inspect.signature(constructor).parameters
        if parameter not in ("dtype", "device", "generator")
    ]
    for key in remaining:
        if key not in known:
            hint = did_you_mean(key, known)
            raise ModelFolderError(
                f"{where} gives {name} the unknown field {key!r}{hint}; known are {', '.join(known)}."
            )
    try:
        network = constructor(**remaining)
    except (TypeError, ValueError, ConfigError) as error:
        raise ModelFolderError(f"{where} describes a {name} that cannot be built: {error}") from error
    if not isinstance(network, nn.Module):
        raise TypeError(f"{ARCHITECTURES[name]} is not a torch module")
    return network
