"""Encoders of brain MRI by name: ours and the baselines, all with the same call."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping

from torch import nn

from equivox.errors import ConfigError

ENCODERS: Mapping[str, str] = {
    "brain_encoder": "equivox.nets.brain_encoder:BrainEncoder",
    "brain_cnn": "equivox.nets.brain_baselines:BrainCNN",
    "brain_vit": "equivox.nets.brain_baselines:BrainViT",
    "brain_swin": "equivox.nets.brain_baselines:BrainSwin",
}
"""Name in a model folder -> module and class."""


def build_encoder(name: str, **options: object) -> nn.Module:
    """An encoder by name; all are called ``encoder(volume, mask) -> BrainCode``.

    Parameters
    ----------
    name
        ``"brain_encoder"`` (ours), ``"brain_cnn"``, ``"brain_vit"``, ``"brain_swin"`` (baselines, see
        :mod:`equivox.nets.brain_baselines`).
    options
        Of its class.

    Raises
    ------
    ConfigError
        If the name or an option is unknown.
    """
    if name not in ENCODERS:
        raise ConfigError(f"there is no encoder {name!r}; known are {', '.join(ENCODERS)}.")
    module, _, attribute = ENCODERS[name].partition(":")
    constructor = getattr(importlib.import_module(module), attribute)
    known = inspect.signature(constructor).parameters
    for option in options:
        if option not in known:
            raise ConfigError(f"{name} has no option {option!r}; known are {', '.join(known)}.")
    encoder = constructor(**options)
    assert isinstance(encoder, nn.Module)
    return encoder
