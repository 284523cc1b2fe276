"""What a brain encoder says of a scan, and how two scans that say the same lie to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class BrainCode(NamedTuple):
    """The latent of a batch of volumes: four blocks, each with its own law under an orthogonal matrix ``Q``.

    Vectors are rows in the axes of the array, (x, y, z) = (R, A, S) for a volume in RAS order. In the world, with
    direction cosines ``D`` as columns, a polar vector is ``D v`` and an axial one ``det(D) D a``.

    Parameters
    ----------
    polar
        ``V(Q x) = V(x) Q^T``.
    axial
        ``A(Q x) = det(Q) A(x) Q^T``.
    scalars
        ``s(Q x) = s(x)``.
    pseudoscalars
        ``t(Q x) = det(Q) t(x)``: they change sign in a mirror.
    """

    polar: Float[Tensor, "batch polar 3"]
    axial: Float[Tensor, "batch axial 3"]
    scalars: Float[Tensor, "batch scalar"]
    pseudoscalars: Float[Tensor, "batch pseudoscalar"]


def turn_code(code: BrainCode, rotations: Float[Tensor, "batch 3 3"]) -> BrainCode:
    """The code of the volumes after each was turned (or mirrored) by its orthogonal matrix."""
    matrices = rotations.to(code.polar)
    handed = torch.linalg.det(rotations.double()).sign().to(code.polar)
    return BrainCode(
        polar=code.polar @ matrices.mT,
        axial=(code.axial @ matrices.mT) * handed[:, None, None],
        scalars=code.scalars,
        pseudoscalars=code.pseudoscalars * handed[:, None],
    )


def all_vectors(code: BrainCode) -> Float[Tensor, "batch vector 3"]:
    """Polar and axial rows together, as far as proper rotations go."""
    return torch.cat([code.polar, code.axial], dim=1)


@dataclass(frozen=True, slots=True)
class Alignment:
    """Rotations between two codes.

    Parameters
    ----------
    rotation
        Determinant +1: second vectors are about ``rotation @`` first vectors, so the second volume is the first one
        turned by it.
    confidence
        ``(s2 +- s3) / s1`` of the correlation of both: 0 where an angle is undetermined (rank one), at most 2.
    agreement
        Cosine between the turned first and the second vectors, all of them as one: 1 for the same brain.
    """

    rotation: Float[Tensor, "batch 3 3"]
    confidence: Float[Tensor, " batch"]
    agreement: Float[Tensor, " batch"]


def align_codes(first: BrainCode, second: BrainCode) -> Alignment:
    """The proper rotation that takes the vectors of ``first`` nearest to those of ``second`` (Kabsch), per sample."""
    return align_vectors(all_vectors(first), all_vectors(second))


def align_vectors(
    first: Float[Tensor, "batch vector 3"],
    second: Float[Tensor, "batch vector 3"],
    weights: Float[Tensor, " vector"] | None = None,
) -> Alignment:
    """Minimise ``sum_i w_i |second_i - Q first_i|^2`` over proper rotations, in float64 (soe 4.7).

    Rank two is enough. Not for training: gradients of a singular value decomposition blow up where two values meet.
    """
    before, after = first.detach().double(), second.detach().double()
    weight = torch.ones(before.shape[1], dtype=torch.float64, device=before.device)
    if weights is not None:
        weight = weights.detach().double()
    correlation = torch.einsum("bnx,n,bny->bxy", before, weight, after)
    left, values, right = torch.linalg.svd(correlation)
    handed = torch.linalg.det(right.mT @ left.mT).sign()
    mended = torch.cat([right[:, :2], right[:, 2:] * handed[:, None, None]], dim=1)
    rotation = mended.mT @ left.mT
    largest = values[:, 0].clamp_min(1e-300)
    confidence = ((values[:, 1] + handed * values[:, 2]) / largest).clamp_min(0.0)
    sizes = [torch.einsum("bnx,n->b", rows.square(), weight).sqrt() for rows in (before, after)]
    agreement = (values[:, 0] + values[:, 1] + handed * values[:, 2]) / (sizes[0] * sizes[1]).clamp_min(1e-300)
    return Alignment(rotation.to(first.dtype), confidence.to(first.dtype), agreement.to(first.dtype))
