"""Scalar functions that gates use, their parity, and the factors that keep a unit Gaussian's second moment at 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from equivox.errors import ConfigError

Constants = Literal["exact", "published", "none"] | Mapping[str, float]

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": torch.nn.functional.silu,
    "softplus": torch.nn.functional.softplus,
    "abs": torch.abs,
    "gelu": torch.nn.functional.gelu,
    "elu": torch.nn.functional.elu,
    "identity": lambda value: value,
}

PARITY: dict[str, int] = {"tanh": -1, "identity": -1, "abs": 1}
"""Odd (-1) and even (+1) functions; the others have no parity and fit even scalars only."""

_EXACT = {
    "relu": math.sqrt(2.0),
    "sigmoid": 1.8462285453386054,
    "tanh": 1.5925374197228313,
    "silu": 1.676532470331091,
    "softplus": 1.0418668355353016,
    "abs": 1.0,
    "gelu": 1.5335304411955353,
    "elu": 1.2451983007007066,
    "identity": 1.0,
}
"""``E[f(z)^2]^(-1/2)`` for a standard normal ``z``."""

_PUBLISHED = {
    "relu": 1.4163393446331365,
    "sigmoid": 1.8467055342154763,
    "tanh": 1.5937334472592695,
    "silu": 1.6791767923989418,
    "softplus": 1.0426436590527184,
    "abs": 1.001110600838467,
    "gelu": 1.5360642850770576,
    "elu": 1.2467863885570512,
    "identity": 1.001110600838467,
}
"""The same from e3nn's fixed Monte-Carlo draw; networks trained with e3nn carry these (e3pose 5.7)."""


def second_moment_constant(name: str, constants: Constants) -> float:
    """Factor of one function.

    Parameters
    ----------
    name
        A key of ``FUNCTIONS``.
    constants
        ``"exact"``, ``"published"`` (e3nn's Monte-Carlo values), ``"none"`` (all 1), or a mapping from names.

    Raises
    ------
    ConfigError
        If the function, or its constant in a mapping, is unknown.
    """
    if name not in FUNCTIONS:
        raise ConfigError(f"activation {name!r} is unknown; choose one of {', '.join(sorted(FUNCTIONS))}.")
    if constants == "none":
        return 1.0
    table = {"exact": _EXACT, "published": _PUBLISHED}[constants] if isinstance(constants, str) else constants
    if name not in table:
        raise ConfigError(f"constants give no factor for {name!r}; they name {', '.join(sorted(table))}.")
    return float(table[name])
