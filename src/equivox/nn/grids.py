"""Which grids a strided layer meets symmetrically: the condition for exact quarter turns (steerable 1.9).

The outputs of a window that moves in steps lie centred in the grid only if the steps fill the padded side:
``(side + 2 padding - window) mod stride = 0``. For an odd window with half of it as padding and a stride of 2: odd
sides. Otherwise the output grid is shifted against the input's centre, and a turned input no longer turns the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from equivox.errors import ConfigError, GridSymmetryError

Triple = tuple[int, int, int]
GridRule = Literal["symmetric", "any"]
"""``"symmetric"`` refuses grids that a layer meets off centre; ``"any"`` takes all, as published networks do."""


def triple(value: int | Sequence[int], name: str) -> Triple:
    """One number or three as (x, y, z); all at least 1."""
    entries = (value,) * 3 if isinstance(value, int) else tuple(value)
    if len(entries) != 3 or min(entries) < 1:
        raise ConfigError(f"{name} {value} is not one or three positive whole numbers.")
    return (entries[0], entries[1], entries[2])


def require_symmetric_grid(sides: Sequence[int], window: Triple, padding: Triple, stride: Triple, layer: str) -> None:
    """Check the condition above on every axis.

    Raises
    ------
    GridSymmetryError
        With the rule, the axis at fault and the nearest sides that are fine.
    """
    for axis, side, size, pad, step in zip("xyz", sides, window, padding, stride, strict=True):
        excess = (side + 2 * pad - size) % step
        if excess:
            smaller, larger = side - excess, side + step - excess
            nearest = f"{smaller} or {larger}" if smaller >= max(size - 2 * pad, 1) else str(larger)
            raise GridSymmetryError(
                f"{layer} would sample a grid of sides {tuple(sides)} off centre along {axis}, and quarter turns would "
                f"not be exact: (side + 2 padding - window) must be a multiple of the stride, here ({side} + "
                f"{2 * pad} - {size}) of {step}; pad or crop that side to {nearest}, or pass grid='any' to allow it."
            )
