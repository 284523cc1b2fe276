"""Binomial low-pass before subsampling an image: what a stride alone would fold back stays small."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError


class BlurSubsample2d(nn.Module):
    """Binomial filter without padding, then every ``stride``-th pixel.

    Parameters
    ----------
    taps
        3: (1, 2, 1) / 4, 5: (1, 4, 6, 4, 1) / 16, in both axes.
    stride
        Of the pixels kept.

    Raises
    ------
    ConfigError
        If ``taps`` is even or below 3.

    Notes
    -----
    Exact under the square's symmetries where the first and the last pixel are both kept: odd sides for stride 2.
    """

    def __init__(self, taps: int = 3, stride: int = 2) -> None:
        super().__init__()
        if taps < 3 or taps % 2 == 0:
            raise ConfigError(f"a binomial blur needs an odd number of taps, at least 3; got {taps}.")
        self.taps, self.stride = taps, stride
        line = torch.tensor([float(math.comb(taps - 1, place)) for place in range(taps)], dtype=torch.float64)
        plane = line[:, None] * line[None, :] / 4.0 ** (taps - 1)
        self.register_buffer("weights", plane[None, None], persistent=False)

    def forward(
        self, field: Float[Tensor, "batch channel y x"], *, stride: int | None = None
    ) -> Float[Tensor, "batch channel y_out x_out"]:
        """Filter and subsample; ``stride`` in place of the layer's own."""
        assert isinstance(self.weights, torch.Tensor)
        channels = field.shape[1]
        weights = self.weights.to(field).expand(channels, -1, -1, -1)
        return functional.conv2d(field, weights, stride=self.stride if stride is None else stride, groups=channels)

    def extra_repr(self) -> str:
        """Taps and stride."""
        return f"taps={self.taps}, stride={self.stride}"
