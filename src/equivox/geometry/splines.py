"""Values of a volume between its voxels by cubic B-splines."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from equivox.geometry.space import Volume


class CubicSampler:
    """Interpolates one volume at world points; its spline coefficients are computed once.

    Exact for polynomials of degree three away from the border, where the volume goes on as its mirror image. Values may
    lie beyond the volume's own range beside sharp edges.

    Parameters
    ----------
    volume
        Scalar channels.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        data = volume.data.detach().cpu().double().numpy()
        self._coefficients = [_filtered(channel) for channel in data]

    def __call__(self, points_mm: Float[Tensor, "x y z 3"]) -> Float[Tensor, "channel x y z"]:
        """Values (float32) at world points: 0 beyond the outer voxel edges, clamped to the outer centres before."""
        index = self.volume.voxel_from_world(points_mm)
        last = torch.tensor(self.volume.shape, dtype=torch.float64) - 1
        inside = ((index >= -0.5) & (index <= last + 0.5)).all(-1)
        where = torch.minimum(index.clamp_min(0), last).movedim(-1, 0).numpy()
        values = np.stack(
            [ndimage.map_coordinates(one, where, order=3, mode="mirror", prefilter=False) for one in self._coefficients]
        )
        return (torch.from_numpy(values) * inside).float()


def _filtered(
    channel: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """B-spline coefficients along all axes."""
    return np.asarray(ndimage.spline_filter(channel, order=3, output=np.float64, mode="mirror"))
