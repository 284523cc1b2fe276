"""What a dataclass of settings asks of its values, and how it is copied with some of them changed.

This file loads no torch: the command line reads settings before anything runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from equivox.errors import ConfigError, did_you_mean

Settings = TypeVar("Settings")


def require_counts(settings: object, *names: str) -> None:
    """ConfigError unless these are whole numbers above 0; None, where a setting allows it, passes."""
    _require(settings, names, lambda value: value >= 1, "a whole number above 0")


def require_positive(settings: object, *names: str) -> None:
    """ConfigError unless these are finite numbers above 0."""
    _require(settings, names, lambda value: math.isfinite(value) and value > 0, "a number above 0")


def require_not_negative(settings: object, *names: str) -> None:
    """ConfigError unless these are finite numbers of at least 0."""
    _require(settings, names, lambda value: math.isfinite(value) and value >= 0, "a number of at least 0")


def require_known(given: Iterable[str], known: Collection[str], says: str) -> None:
    """ConfigError for the first name that is not known, ``says`` being what is said of it."""
    for name in given:
        if name not in known:
            raise ConfigError(f"{says} {name!r}{did_you_mean(name, known)}.")


def names_of(kind: Any) -> set[str]:
    """Names of the fields of a dataclass."""
    return {item.name for item in fields(kind)}


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """A copy with some values replaced.

    Raises
    ------
    ConfigError
        If a name is unknown or a value is out of range.
    """
    require_known(values, names_of(settings), "unknown setting")
    return replace(settings, **values)  # type: ignore[type-var]


def as_plain(value: Any) -> Any:
    """Lists for tuples, tables for mappings: as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): as_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(entry) for entry in value]
    return value


def _require(settings: object, names: Iterable[str], holds: Callable[[Any], bool], wanted: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and not holds(value):
            raise ConfigError(f"{name} is {value}; give {wanted}.")
