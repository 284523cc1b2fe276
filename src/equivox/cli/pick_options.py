"""Options that training and evaluation of pickers share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

LABELS = Group("Labels", sort_key=5)
_LABEL = Parameter(group=LABELS)
_LABEL_FILES = Parameter(group=LABELS, consume_multiple=True, negative="")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """What the labels are and how they are to be read."""

    pixel_size_angstrom: Annotated[float | None, _LABEL] = None
    """Pixel size of the micrographs, instead of what their headers say."""
    contrast: Annotated[Literal["auto", "dark", "bright"], _LABEL] = "auto"
    """Particles are dark or bright; auto finds out from the labels."""
    flip_y: Annotated[bool, _LABEL] = False
    """The coordinates count rows from the last one."""
    coordinate_scale: Annotated[float, _LABEL] = 1.0
    """Factor from the coordinates to pixels of the micrographs, for example 0.25 for unbinned coordinates."""
    negatives: Annotated[list[Path] | None, _LABEL_FILES] = None
    """Coordinate files of places without a particle."""
    masks: Annotated[list[Path] | None, _LABEL_FILES] = None
    """Images, one per micrograph by name (a suffix _mask is allowed), that are 0 where nothing shall be learned."""
    split: Annotated[Path | None, _LABEL] = None
    """CSV with the columns micrograph and split (train, val, test)."""
    validation_share: Annotated[float, _LABEL] = 0.2
    """Share of the micrographs kept for validation, where no table says it."""


def texts(paths: list[Path] | None) -> tuple[str, ...]:
    """Paths as the tasks take them."""
    return tuple(str(path) for path in paths or ())
