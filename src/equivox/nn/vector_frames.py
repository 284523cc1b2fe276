"""What vector neurons say that does not turn: Gram matrices, coordinates in a frame of their own; and cross products.

Vectors are (batch, channel, 3, sample, ...). A polar vector changes sign in a point reflection, an axial one does not:
the cross product of two vectors of one kind is axial, of two different kinds polar.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.nn.vector_neurons import EPS, VectorLinear, VectorLinearLeakyReLU, require_vectors


def cross_product(
    first: Float[Tensor, "batch channel 3 *sample"], second: Float[Tensor, "batch channel 3 *sample"]
) -> Float[Tensor, "batch channel 3 *sample"]:
    """Channel by channel, along the vector axis whatever the other sides are.

    Written out: ``torch.linalg.cross`` along an axis that is not the last takes ten times as long on a CPU.
    """
    require_vectors(first, None, "cross_product")
    (x, y, z), (u, v, w) = first.unbind(2), second.unbind(2)
    return torch.stack([y * w - z * v, z * u - x * w, x * v - y * u], dim=2)


def gram_matrix(vectors: Float[Tensor, "batch channel 3"]) -> Float[Tensor, "batch channel channel2"]:
    """``G = X X^T``: all that is invariant under O(3) in one kind of vectors."""
    return torch.einsum("bcx,bdx->bcd", vectors, vectors)


def gram_invariants(vectors: Float[Tensor, "batch channel 3"]) -> Float[Tensor, "batch invariant"]:
    """The upper triangle of the Gram matrix, ``channel (channel + 1) / 2`` numbers."""
    count = vectors.shape[1]
    row, column = torch.triu_indices(count, count, device=vectors.device)
    return gram_matrix(vectors)[:, row, column]


def orthonormal_frame(
    first: Float[Tensor, "batch 3 *sample"],
    second: Float[Tensor, "batch 3 *sample"],
    *,
    length: Literal["exact", "published"] = "exact",
) -> Float[Tensor, "batch 3 3 *sample"]:
    """Right-handed frame from two vectors (Gram-Schmidt, third axis by the cross product).

    Axis 1 of the result is xyz, axis 2 the frame's vectors. ``"exact"`` divides by the length; where the two vectors
    vanish or are parallel, the axes that they do not determine are zero. ``"published"`` adds 1e-6 to lengths, which
    costs up to 3e-4 of orthonormality for short vectors.
    """
    one = _unit(first, length)
    two = _unit(second - (second * one).sum(1, keepdim=True) * one, length)
    return torch.stack([one, two, torch.linalg.cross(one, two, dim=1)], dim=2)


def _unit(vector: Tensor, length: Literal["exact", "published"]) -> Tensor:
    """Of length 1 along axis 1."""
    norm = vector.norm(dim=1, keepdim=True)
    return vector / (norm + EPS if length == "published" else norm.clamp_min(EPS))


class VectorFrame(nn.Module):
    """A frame that turns with the vectors, from two vector layers and a linear one.

    Parameters
    ----------
    channels
        Vectors; at least 4.
    kind
        ``"orthonormal"``: two vectors and their cross product; not for mirrors (its third axis is axial).
        ``"free"``: three vectors of any length and angle.
    norm
        Of the two layers: ``"rms"``, or ``"batch"`` as published.
    length
        As for :func:`orthonormal_frame`.
    generator
        Source of the first weights.

    Raises
    ------
    ConfigError
        For another kind, or fewer than 4 channels.
    """

    def __init__(
        self,
        channels: int,
        *,
        kind: Literal["orthonormal", "free"] = "orthonormal",
        norm: str = "rms",
        length: Literal["exact", "published"] = "exact",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if kind not in ("orthonormal", "free") or channels < 4:
            raise ConfigError(f"a frame is 'orthonormal' or 'free' and needs 4 vectors; got {kind!r} and {channels}.")
        self.kind: Literal["orthonormal", "free"] = kind
        self.length: Literal["exact", "published"] = length
        self.first = VectorLinearLeakyReLU(channels, channels // 2, norm=norm, generator=generator)
        self.second = VectorLinearLeakyReLU(channels // 2, channels // 4, norm=norm, generator=generator)
        self.last = VectorLinear(channels // 4, 2 if kind == "orthonormal" else 3, generator=generator)

    def forward(self, vectors: Float[Tensor, "batch channel 3 *sample"]) -> Float[Tensor, "batch 3 3 *sample"]:
        """Axis 1 is xyz, axis 2 the frame's vectors."""
        axes = self.last(self.second(self.first(vectors)))
        if self.kind == "free":
            return axes.transpose(1, 2)
        return orthonormal_frame(axes[:, 0], axes[:, 1], length=self.length)


def in_frame(
    vectors: Float[Tensor, "batch channel 3 *sample"], frame: Float[Tensor, "batch 3 3 *sample"]
) -> Float[Tensor, "batch channel 3 *sample"]:
    """``y_ck = <x_c, f_k>``: coordinates of every vector along the frame's vectors, invariant under rotations."""
    return torch.einsum("bcx...,bxk...->bck...", vectors, frame)


class InvariantReadout(nn.Module):
    """Numbers from the Gram matrix of some vectors, with an offset: a vector head alone is 0 wherever its input is.

    Parameters
    ----------
    channels
        Vectors.
    outputs
        Numbers.
    hidden
        Units between; 0 for a linear map of the Gram matrix.
    generator
        Source of the first weights.
    """

    def __init__(
        self, channels: int, outputs: int, *, hidden: int = 0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        widths = [channels * (channels + 1) // 2, *([hidden] if hidden else []), outputs]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            linear = nn.utils.skip_init(nn.Linear, before, after)
            with torch.no_grad():
                linear.weight.normal_(std=before**-0.5, generator=generator)
                linear.bias.zero_()
            layers += [linear, nn.SiLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, vectors: Float[Tensor, "batch channel 3"]) -> Float[Tensor, "batch output"]:
        """Read."""
        result: Tensor = self.layers(gram_invariants(vectors))
        return result
