"""From fields over a brain to numbers of the whole brain: landmarks' first moments, mean vectors, invariant statistics.

Everything is weighed by the brain's own mask, so that neither the background nor a shift of the brain in the grid
counts (soe 4.3, point 8; 4.7).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.nn.lowpass import apply_bands
from equivox.nn.masked import precise_mean, precise_sum, sum_dtype
from equivox.nn.vector_frames import cross_product


def landmark_moments(
    scores: Float[Tensor, "batch channel x y z"], mask: Float[Tensor, "batch 1 x y z"], voxel_size_mm: float
) -> Float[Tensor, "batch channel 3"]:
    """Centres of the soft landmarks ``sigmoid(2 score) mask`` in mm, relative to their common mean: polar vectors.

    Differences of landmarks: a shift of the brain cancels.
    """
    weight = torch.sigmoid(2.0 * scores) * mask
    total = precise_sum(weight).clamp_min(1e-6)
    x, y, z = weight.shape[2:]
    sums = []
    for axis, side in enumerate((x, y, z)):
        place = torch.arange(side, dtype=total.dtype, device=weight.device) - (side - 1) / 2
        short, long = (2 + other for other in range(3) if other != axis)
        along = weight.sum(dim=long).to(total.dtype).sum(dim=short)
        sums.append(along @ place)
    center = torch.stack(sums, dim=2) / total[:, :, None] * voxel_size_mm
    return center - center.mean(dim=1, keepdim=True)


def mean_vectors(
    vectors: Float[Tensor, "batch channel x y z"], mask: Float[Tensor, "batch 1 x y z"]
) -> Float[Tensor, "batch vector 3"]:
    """Mean of every vector field over the mask; channels are (copy, component)."""
    return precise_mean(vectors, mask).unflatten(1, (-1, 3))


def mean_products(
    vectors: Float[Tensor, "batch channel x y z"], mask: Float[Tensor, "batch 1 x y z"]
) -> tuple[Float[Tensor, "batch vector 3"], Float[Tensor, "batch vector"], Float[Tensor, "batch vector"]]:
    """Of each vector field and its neighbour in the list: means of the cross product, of ``v v``, and of ``v w``."""
    field = vectors.unflatten(1, (-1, 3))
    other = field.roll(-1, dims=1)
    crossed = cross_product(field, other).flatten(1, 2)
    own = precise_mean(field.square().sum(2), mask)
    mixed = precise_mean((field * other).sum(2), mask)
    return mean_vectors(crossed, mask), own, mixed


class TissueDepthHistogram(nn.Module):
    """How much of the brain has which contrast at which depth: an invariant of O(3), soft in both.

    Depth is the brain mask blurred by a wide Gaussian: near 1 in the middle of a brain, one half at its surface. Dark
    voxels far inside are ventricles, dark ones near the surface sulci.

    Parameters
    ----------
    side
        Voxels of the cube.
    contrasts
        Bins of contrast between 0 and ``reach``.
    depths
        Bins of depth.
    depth_mm
        Standard deviation of the Gaussian.
    voxel_size_mm
        Edge of a voxel.
    layers
        Of the bins of depth those that are given out, 0 the outermost; all by default. The outermost is the tips of the
        brain alone, few voxels and all of them cut by the mask's edge: where the grid lies decides their brightness.

    Raises
    ------
    ConfigError
        If ``layers`` are no places of bins of depth, each once.
    """

    band: Tensor

    def __init__(
        self,
        side: int,
        contrasts: int = 12,
        depths: int = 5,
        *,
        depth_mm: float = 15.0,
        voxel_size_mm: float,
        reach: float = 2.0,
        layers: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.contrasts, self.depths, self.reach = contrasts, depths, reach
        self.layers = tuple(range(depths)) if layers is None else tuple(layers)
        if not self.layers or not set(self.layers) <= set(range(depths)) or len(set(self.layers)) < len(self.layers):
            raise ConfigError(f"layers of depth are different numbers from 0 to {depths - 1}; got {list(self.layers)}.")
        self.register_buffer("band", gaussian_band(side, depth_mm / voxel_size_mm), persistent=False)

    @property
    def count(self) -> int:
        """Numbers that come out."""
        return self.contrasts * len(self.layers)

    def depth(self, mask: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, "batch 1 x y z"]:
        """The mask under the Gaussian."""
        return apply_bands(mask, [self.band, self.band, self.band])

    def forward(
        self, contrast: Float[Tensor, "batch 1 x y z"], mask: Float[Tensor, "batch 1 x y z"]
    ) -> Float[Tensor, "batch bin"]:
        """Shares of the brain, by contrast and then by layer; over all layers those of a sample sum to 1."""
        tones = _soft_bins(contrast.flatten(1), 0.0, self.reach, self.contrasts)
        layers = _soft_bins(self.depth(mask).flatten(1), 0.3, 1.0, self.depths)[:, list(self.layers)] * mask.flatten(2)
        slices = mask.shape[2]
        one, other = (bins.unflatten(2, (slices, -1)).transpose(1, 2) for bins in (tones, layers))
        joint = torch.matmul(one, other.mT).to(sum_dtype(mask)).sum(dim=1).flatten(1)
        return joint / precise_sum(mask).clamp_min(1e-6)

    def extra_repr(self) -> str:
        """Bins."""
        return f"contrasts={self.contrasts}, depths={self.depths}, layers={self.layers}"


def _soft_bins(values: Tensor, low: float, high: float, count: int) -> Tensor:
    """(batch, count, voxels): triangular membership in bins from ``low`` to ``high``; each voxel's sum to 1."""
    step = (high - low) / (count - 1)
    place = ((values - low) / step).clamp(0, count - 1)
    centers = torch.arange(count, dtype=values.dtype, device=values.device)
    return (1.0 - (place[:, None] - centers[None, :, None]).abs()).clamp_min(0.0)


def gaussian_band(side: int, sigma: float) -> Float[Tensor, "side side"]:
    """Rows of a Gaussian about every voxel, of sum 1 on an endless axis."""
    offset = torch.arange(side)[None, :] - torch.arange(side)[:, None]
    far = torch.arange(-4 * side, 4 * side + 1)
    total = torch.exp(-0.5 * (far / sigma) ** 2).sum()
    return torch.exp(-0.5 * (offset / sigma) ** 2) / total
