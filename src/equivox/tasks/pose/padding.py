"""Where a scan was measured: blocks of zeros, left by resampling or masking, are no tissue and no air but unknown."""

from __future__ import annotations

import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.space import Volume

LEAST_SHARE = 0.05
"""Fewer zeros than this are dark voxels of the scan itself (2 % of the stacks known here, scattered)."""


def measured_voxels(volume: Volume) -> Float[Tensor, "1 x y z"] | None:
    """1 where the first channel was measured, 0 in blocks of exact zeros (at least 3 voxels wide); None: no such block.

    A scan that was turned and resampled, or cut out by a mask, fills the rest of its box with zeros. Taken for dark
    tissue, they change its bright level and put edges where none are.
    """
    zero = (volume.data[:1] == 0).float()
    if float(zero.mean()) < LEAST_SHARE:
        return None
    core = -functional.max_pool3d(-functional.pad(zero, [1] * 6, value=1.0), 3, stride=1)
    if not bool(core.any()):
        return None
    return 1 - functional.max_pool3d(core, 3, stride=1, padding=1)
