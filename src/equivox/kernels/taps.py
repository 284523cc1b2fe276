"""Where the taps of a kernel lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError

Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class TapGrid:
    """Positions of a kernel's taps: counts along (x, y, z), voxel size in mm; centred on the origin."""

    taps: Triple
    voxel_size_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @classmethod
    def for_size(cls, size: int | Sequence[int], voxel_size_mm: float | Sequence[float | int] = 1.0) -> TapGrid:
        """Taps of a kernel that spans ``size`` voxels of the finest axis, and the same length in mm along the others.

        An axis with steps ``h`` gets ``2 floor(size h_min / 2 / h) + 1`` taps (e3pose 5.5); three sizes are taken as
        they are, and so is an even size on an isotropic grid.

        Raises
        ------
        ConfigError
            If a size or voxel size is not positive, or the size is even on an anisotropic grid.
        """
        steps = edges_mm(voxel_size_mm)
        if not isinstance(size, int):
            taps = [int(entry) for entry in size]
        elif len(set(steps)) == 1:
            taps = [size] * 3
        elif size % 2 == 0:
            raise ConfigError(f"kernel size {size} on voxels {steps} mm: give an odd size or three sizes.")
        else:
            taps = [2 * int(size * min(steps) / 2 / step + 1e-9) + 1 for step in steps]
        if len(taps) != 3 or min(taps) < 1:
            raise ConfigError(f"kernel size {size} is not one or three positive whole numbers.")
        return cls((taps[0], taps[1], taps[2]), steps)

    @property
    def count(self) -> int:
        """Number of taps."""
        return self.taps[0] * self.taps[1] * self.taps[2]

    @property
    def center(self) -> int | None:
        """Flat index of the centre tap; ``None`` if an axis has an even number of taps."""
        if any(taps % 2 == 0 for taps in self.taps):
            return None
        return self.count // 2

    def positions_mm(self) -> Float[Tensor, "taps 3"]:
        """Tap positions (x, y, z) in mm from the centre, last axis fastest, float64."""
        axes = [
            (torch.arange(taps, dtype=torch.float64, device="cpu") - (taps - 1) / 2) * step
            for taps, step in zip(self.taps, self.voxel_size_mm, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def edges_mm(voxel_size_mm: float | Sequence[float | int]) -> tuple[float, float, float]:
    """Voxel edges along (x, y, z), of one number or three.

    Raises
    ------
    ConfigError
        If they are not one or three positive numbers.
    """
    sizes = [voxel_size_mm] * 3 if isinstance(voxel_size_mm, (int, float)) else list(voxel_size_mm)
    if len(sizes) != 3 or not min(sizes) > 0:
        raise ConfigError(f"voxel size {voxel_size_mm} mm is not one or three positive numbers.")
    return float(sizes[0]), float(sizes[1]), float(sizes[2])
