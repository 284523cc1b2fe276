"""Projected filters at rotations that are given with every call: a grid for all pictures, or some for each picture.

The same layers as :mod:`equivox.nn.projected_conv2d` with ball weights, ungrouped from a grid: the weights turn by
Wigner matrices, ``k_R = B D(R) w``, so that a network can be asked about any pose. Features are (batch, rotation,
channel, y, x). For a symmetry ``g`` of the pixel grid ``F(g I, g R) = g F(I, R)``, exactly.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import GridSymmetryError
from equivox.geometry.wigner import wigner_matrix
from equivox.kernels.projected import POLAR_Z, BallBasis, Richness, ball_basis, planar_profiles


class TurnedBall(nn.Module):
    """The matrix from ball weights to filters at any rotations.

    Parameters
    ----------
    size
        Side of the filters [px], odd.
    richness
        As for :func:`equivox.kernels.projected.ball_basis`.
    """

    def __init__(self, size: int, *, richness: Richness = "exact") -> None:
        super().__init__()
        self.basis: BallBasis = ball_basis(size, richness)
        self._cast: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def profiles(self, like: Tensor) -> Float[Tensor, "y x profile"]:
        """The planar images that all filters are mixed of, built in float64 and cast once for each dtype and device."""
        key = (like.dtype, like.device)
        if key not in self._cast:
            with torch.inference_mode(mode=False):  # kept beyond this call, perhaps for a training
                self._cast[key] = planar_profiles(self.basis).to(device=like.device, dtype=like.dtype, copy=True)
        return self._cast[key]

    def mixing(self, rotations: Float[Tensor, "*any 3 3"]) -> Float[Tensor, "*any profile function"]:
        """How weights mix the planar profiles, at every rotation."""
        polar = POLAR_Z.to(rotations)
        turn = polar @ rotations.mT @ polar.mT
        wigner = {degree: wigner_matrix(degree, turn).mT for degree in {degree for _, degree in self.basis.blocks}}
        count = sum(degree + 1 for _, degree in self.basis.blocks)
        full = rotations.new_zeros(*rotations.shape[:-2], count, self.basis.dimension)
        row = 0
        for (_, degree), part in zip(self.basis.blocks, self.basis.slices(), strict=True):
            full[..., row : row + degree + 1, part] = wigner[degree][..., ::2, :]  # l + m even: the others are not seen
            row += degree + 1
        return full


class LiftingConvAt(nn.Module):
    """First layer: pictures to features of every rotation.

    The picture is convolved once with the planar profiles that all filters are mixed of; a rotation costs no more
    than the mixing. Valid convolution.

    Parameters
    ----------
    channels_in, channels_out
        Of the picture, and of a rotation's features.
    kernel_size
        Odd side of the filters.
    stride
        Step of the output; the input's side less the filter's must be divisible by it, so that quarter turns stay
        exact.
    richness
        Of the filters' basis.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel_size: int, *, stride: int = 1, richness: Richness = "exact"
    ) -> None:
        super().__init__()
        self.ball = TurnedBall(kernel_size, richness=richness)
        self.stride = stride
        scale = math.sqrt(2.0 / (channels_in * kernel_size**2))
        self.weight = nn.Parameter(torch.randn(self.ball.basis.dimension, channels_in, channels_out) * scale)

    def forward(
        self, pictures: Float[Tensor, "batch channel y x"], rotations: Float[Tensor, "*any rotation 3 3"]
    ) -> Float[Tensor, "batch rotation feature y2 x2"]:
        """Features at ``rotations``: (rotation, 3, 3) for all pictures, or (batch, rotation, 3, 3)."""
        size = self.ball.basis.size
        if any((side - size) % self.stride for side in pictures.shape[-2:]):
            raise GridSymmetryError(
                f"pictures of {pictures.shape[-1]} px and filters of {size} px do not meet at a stride of "
                f"{self.stride}: quarter turns would not be exact; take a side of {size} plus a multiple of it."
            )
        channels = pictures.shape[1]
        kernels = self.ball.profiles(pictures).permute(2, 0, 1)[:, None]
        maps = functional.conv2d(pictures.flatten(0, 1)[:, None], kernels, stride=self.stride)
        maps = maps.unflatten(0, (-1, channels)).flatten(1, 2)  # (batch, channel * profile, y2, x2)
        mixed = torch.einsum("...pb,bio->...oip", self.ball.mixing(rotations.to(pictures)), self.weight).flatten(-2)
        flat = maps.flatten(2)
        if mixed.ndim == 3:
            found = (mixed.flatten(0, 1) @ flat).unflatten(1, mixed.shape[:2])
        else:
            found = (mixed.flatten(1, 2) @ flat).unflatten(1, mixed.shape[1:3])
        return found.unflatten(-1, maps.shape[-2:])


class ProjectedConvAt(nn.Module):
    """Hidden layer: every rotation's features through the filters of that rotation. Valid convolution.

    Parameters
    ----------
    channels_in, channels_out
        Of a rotation's features.
    kernel_size
        Odd side of the filters.
    richness
        Of the filters' basis.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel_size: int, *, richness: Richness = "exact") -> None:
        super().__init__()
        self.ball = TurnedBall(kernel_size, richness=richness)
        scale = math.sqrt(2.0 / (channels_in * kernel_size**2))
        self.weight = nn.Parameter(torch.randn(self.ball.basis.dimension, channels_out, channels_in) * scale)

    def forward(
        self,
        features: Float[Tensor, "batch rotation channel y x"],
        rotations: Float[Tensor, "*any rotation 3 3"],
    ) -> Float[Tensor, "batch rotation feature y2 x2"]:
        """Convolve within each rotation."""
        mixed = torch.einsum("...pb,boi->...oip", self.ball.mixing(rotations.to(features)), self.weight)
        filters = torch.einsum("yxp,...oip->...oiyx", self.ball.profiles(features), mixed)
        batch, count, channels = features.shape[:3]
        if rotations.ndim == 3:
            kernels = filters.flatten(0, 1)
            found = functional.conv2d(features.flatten(1, 2), kernels, groups=count)
        else:
            kernels = filters.flatten(0, 2)
            flat = features.reshape(1, batch * count * channels, *features.shape[-2:])
            found = functional.conv2d(flat, kernels, groups=batch * count)
        return found.reshape(batch, count, -1, *found.shape[-2:])


class ProjectedReadAt(nn.Module):
    """Last layer: the whole map of every rotation through filters of the map's size, to one vector.

    Parameters
    ----------
    channels_in
        Of a rotation's features.
    features
        Entries of the vector.
    size
        Side of the map [px], odd.
    richness
        Of the filters' basis.
    """

    def __init__(self, channels_in: int, features: int, size: int, *, richness: Richness = "exact") -> None:
        super().__init__()
        self.ball = TurnedBall(size, richness=richness)
        scale = math.sqrt(1.0 / (channels_in * size**2))
        self.weight = nn.Parameter(torch.randn(channels_in, self.ball.basis.dimension, features) * scale)
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(
        self,
        features: Float[Tensor, "batch rotation channel y x"],
        rotations: Float[Tensor, "*any rotation 3 3"],
    ) -> Float[Tensor, "batch rotation feature"]:
        """Inner products with the filters: first with the turned functions, then with the weights all share."""
        profiles = self.ball.profiles(features).flatten(0, 1)  # (pixel, profile)
        seen = features.flatten(3) @ profiles
        turned = seen @ self.ball.mixing(rotations.to(features))  # (batch, rotation, channel, function)
        return turned.flatten(2) @ self.weight.flatten(0, 1) + self.bias
