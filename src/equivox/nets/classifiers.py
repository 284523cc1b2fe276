"""The published classifiers of volumes: steerable networks and the plain ones beside them.

Each takes (batch, channel, x, y, z) to logits (batch, class). :func:`build_classifier` makes any of them by name; the
names are also those of model folders. Layer tables: steerable.md 5.1 to 5.3; the numbers of parameters are the
published ones.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from torch import nn

from equivox.errors import ConfigError

CLASSIFIERS: Mapping[str, str] = {
    "tetris": "equivox.nets.classifiers_gated:TetrisNet",
    "tetris_cnn": "equivox.nets.classifiers_plain:TetrisCNN",
    "shrec17": "equivox.nets.classifiers_gated:Shrec17Net",
    "se3resnet34_small": "equivox.nets.classifiers_residual:SE3ResNet34Small",
    "se3resnet34": "equivox.nets.classifiers_residual:SE3ResNet34",
    "se3resnet34_large": "equivox.nets.classifiers_residual:SE3ResNet34Large",
    "resnet34_small": "equivox.nets.classifiers_plain:ResNet34Small",
    "resnet34": "equivox.nets.classifiers_plain:ResNet34",
    "shape_net": "equivox.nets.shape_net:ShapeNet",
    "plain_shape_net": "equivox.nets.shape_net:PlainShapeNet",
}
"""Name -> module and class; the class's parameters are the options."""


def build_classifier(name: str, *, classes: int, channels_in: int = 1, **options: object) -> nn.Module:
    """Build the untrained network of that name.

    Parameters
    ----------
    name
        A key of :data:`CLASSIFIERS`.
    classes
        Number of logits.
    channels_in
        Scalar channels of the input.
    options
        Further parameters of the network's class.

    Raises
    ------
    ConfigError
        If the name is unknown.

    Examples
    --------
    >>> network = build_classifier("tetris", classes=8)
    >>> sum(parameter.numel() for parameter in network.parameters())
    41198
    """
    if name not in CLASSIFIERS:
        raise ConfigError(f"there is no classifier named {name!r}; known are {', '.join(CLASSIFIERS)}.")
    module, _, attribute = CLASSIFIERS[name].partition(":")
    network = getattr(importlib.import_module(module), attribute)(classes=classes, channels_in=channels_in, **options)
    assert isinstance(network, nn.Module)
    return network
