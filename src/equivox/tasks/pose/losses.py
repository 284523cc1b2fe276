"""What the two pose networks are trained to make small. Every loss is one number per item of the batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from jaxtyping import Float, Shaped
from torch import Tensor

from equivox.metrics.segmentation import dice_coefficient, one_hot
from equivox.nets.object_symmetry import ObjectSymmetry, tensor_of_axes

PSEUDOVECTOR_WEIGHT = 0.5
"""Weight of the left-right axis beside the two vectors (published value)."""


@dataclass(frozen=True, slots=True)
class RotationLoss:
    """The parts of the rotation loss, one number per item.

    Parameters
    ----------
    total
        ``0.5 pseudovector + vectors``.
    pseudovector
        Mean over the voxels of ``|u x r|``, the sine of the angle to the target axis: free of sign.
    vectors
        Mean over voxels, axes and components of ``|u - r|``.
    """

    total: Float[Tensor, "batch"]
    pseudovector: Float[Tensor, "batch"]
    vectors: Float[Tensor, "batch"]


def rotation_loss(
    field: Float[Tensor, "batch channel x y z"],
    head_from_image: Float[Tensor, "batch 3 3"],
    *,
    symmetry: ObjectSymmetry = "mirror",
) -> RotationLoss:
    """Compare the network's map, before it is pooled, with the three axes of the head, or of another object.

    Every voxel of the map counts equally. Channels 0-2 are the pseudovector, 3-5 and 6-8 the two vectors; each is
    normalised voxel by voxel.

    Parameters
    ----------
    field
        Output of the network without spatial pooling.
    head_from_image
        Row ``i`` is axis ``i`` of the head in array-axis coordinates of the image.
    symmetry
        Of the object. ``"mirror"`` is the published loss. ``"none"``: all three axes are vectors and count alike.
        ``"c2"``: the first part is that of the tensor ``x x^T - y y^T`` (1 - cosine, halved), the second that of z.

    References
    ----------
    .. [1] Muthukrishnan et al., "Equivariant Symmetry-Aware Head Pose Estimation for Fetal MRI", arXiv 2512.04890.
    """
    if symmetry == "c2":
        return _half_turn_loss(field, head_from_image)
    axes = field.flatten(2).unflatten(1, (3, 3))  # batch, axis, component, voxel
    axes = axes / axes.norm(dim=2, keepdim=True).clamp_min(1e-12)
    target = head_from_image.to(axes)[..., None]
    if symmetry == "none":
        vectors = (axes - target).abs().mean((1, 2, 3))
        return RotationLoss(vectors, torch.zeros_like(vectors), vectors)
    sine = torch.linalg.cross(axes[:, 0], target[:, 0].expand_as(axes[:, 0]), dim=1).norm(dim=1)
    pseudovector = sine.mean(-1)
    vectors = (axes[:, 1:] - target[:, 1:]).abs().mean((1, 2, 3))
    return RotationLoss(PSEUDOVECTOR_WEIGHT * pseudovector + vectors, pseudovector, vectors)


def _half_turn_loss(
    field: Float[Tensor, "batch 8 x y z"], object_from_image: Float[Tensor, "batch 3 3"]
) -> RotationLoss:
    """Of an object that a half turn about z leaves as it is: nothing changes when x and y change sign together."""
    flat = field.flatten(2)
    vector, tensor = (part / part.norm(dim=1, keepdim=True).clamp_min(1e-12) for part in flat.split([3, 5], dim=1))
    target = object_from_image.to(field)
    wanted = tensor_of_axes(target[:, 0], target[:, 1])
    planar = 0.5 * (1.0 - (tensor * wanted[:, :, None]).sum(1)).mean(-1)
    along = (vector - target[:, 2, :, None]).abs().mean((1, 2))
    return RotationLoss(PSEUDOVECTOR_WEIGHT * planar + along, planar, along)


@dataclass(frozen=True, slots=True)
class SegmentationLoss:
    """The parts of the segmentation loss, one number per item.

    Parameters
    ----------
    total
        ``cross_entropy + dice_weight * dice``.
    cross_entropy
        Mean over the voxels of ``-w_c log p_c`` at the true class c: divided by the number of voxels, not by the sum
        of the weights.
    dice
        Sum over the classes but the background of ``w_c (1 - Dice_c)``.
    """

    total: Float[Tensor, "batch"]
    cross_entropy: Float[Tensor, "batch"]
    dice: Float[Tensor, "batch"]


def segmentation_loss(
    logits: Float[Tensor, "batch class x y z"],
    labels: Shaped[Tensor, "batch x y z"],
    *,
    class_weights: Float[Tensor, "class"],
    dice_weight: float = 1.0,
) -> SegmentationLoss:
    """Weighted cross-entropy plus weighted Dice loss.

    Parameters
    ----------
    logits
        Output of the network.
    labels
        Class of every voxel; a label beyond the last class counts as none of them.
    class_weights
        One weight per class, background first.
    dice_weight
        Weight of the Dice part.

    References
    ----------
    .. [1] Muthukrishnan et al., "Equivariant Symmetry-Aware Head Pose Estimation for Fetal MRI", arXiv 2512.04890.
    """
    weights = class_weights.to(logits)
    target = one_hot(labels, logits.shape[1], dtype=logits.dtype)
    log_probability = functional.log_softmax(logits, dim=1)
    voxels = logits[0, 0].numel()
    cross_entropy = -(weights.view(1, -1, 1, 1, 1) * target * log_probability).sum((1, 2, 3, 4)) / voxels
    overlap = dice_coefficient(log_probability.exp(), target)
    dice = (weights[1:] * (1.0 - overlap[:, 1:])).sum(1)
    return SegmentationLoss(cross_entropy + dice_weight * dice, cross_entropy, dice)
