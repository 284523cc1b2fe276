"""Rotation-equivariant deep learning for volumes and images.

Importing this package loads no heavy library: every public name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from equivox.geometry.irreps import Irrep, Irreps
    from equivox.geometry.rotations import Pose
    from equivox.geometry.space import Volume
    from equivox.tasks.load import load_model, load_volume

__version__ = "0.1.0"

_PUBLIC = {
    "Irrep": "equivox.geometry.irreps",
    "Irreps": "equivox.geometry.irreps",
    "Pose": "equivox.geometry.rotations",
    "Volume": "equivox.geometry.space",
    "load_model": "equivox.tasks.load",
    "load_volume": "equivox.tasks.load",
}
__all__ = ["Irrep", "Irreps", "Pose", "Volume", "__version__", "load_model", "load_volume"]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
