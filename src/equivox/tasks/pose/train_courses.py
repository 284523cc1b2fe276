"""The two courses of training: network, loss, metrics, optimiser. Plain torch; Lightning runs them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.metrics.rotation import euler_mean_error_deg, geodesic_error_deg
from equivox.metrics.segmentation import dice_of_decision
from equivox.nets.object_symmetry import nearest_equivalent, read_field
from equivox.run.seeds import seeded
from equivox.tasks.pose.losses import rotation_loss, segmentation_loss
from equivox.tasks.pose.train_config import RotateTraining, SegmentTraining
from equivox.weights.registry import build_network

SECOND_DECAY = 0.999
"""Adam's second decay rate."""


class SegmentCourse:
    """Train the U-Net by weighted cross-entropy and Dice (:class:`equivox.run.training.Course`).

    Parameters
    ----------
    settings
        Sizes, losses, optimiser.
    seed
        Of the first weights.
    """

    def __init__(self, settings: SegmentTraining, *, seed: int) -> None:
        self.settings = settings
        self.network = _seeded_network(segment_fields(settings), seed)
        self.class_weights = torch.tensor(settings.weights)

    def training_values(self, group: dict[str, Tensor]) -> Mapping[str, Float[Tensor, "batch"]]:
        """Loss of each item."""
        return self._judge(self.network(group["image"]), group["labels"])

    def validation_values(self, group: dict[str, Tensor]) -> Mapping[str, Float[Tensor, "batch"]]:
        """Loss of each item, and ``dice_class_1`` ... of the decided classes."""
        logits = self.network(group["image"])
        dice = dice_of_decision(logits, group["labels"])
        return {
            **self._judge(logits, group["labels"]),
            **{f"dice_class_{index}": dice[:, index] for index in range(1, dice.shape[1])},
        }

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam, as published; AdamW in our preset."""
        kind = torch.optim.Adam if self.settings.preset == "published" else torch.optim.AdamW
        return kind(self.network.parameters(), lr=self.settings.lr, weight_decay=self.settings.weight_decay)

    def _judge(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        loss = segmentation_loss(
            logits, labels, class_weights=self.class_weights, dice_weight=self.settings.dice_weight
        )
        return {"loss": loss.total, "cross_entropy": loss.cross_entropy, "dice_loss": loss.dice}


class RotateCourse:
    """Train the E(3)-CNN by its map's axes (:class:`equivox.run.training.Course`).

    Parameters
    ----------
    settings
        Sizes and optimiser.
    seed
        Of the first weights.
    """

    def __init__(self, settings: RotateTraining, *, seed: int) -> None:
        self.settings = settings
        self.network = _seeded_network(rotate_fields(settings), seed)

    def training_values(self, group: dict[str, Tensor]) -> Mapping[str, Float[Tensor, "batch"]]:
        """Loss of each item."""
        return self._judge(self.network(group["image"]), group["head_from_image"])

    def validation_values(self, group: dict[str, Tensor]) -> Mapping[str, Float[Tensor, "batch"]]:
        """Loss of each item, the geodesic error of its read-out, and beside it the older Euler mean."""
        field, truth = self.network(group["image"]), group["head_from_image"]
        image_from_head = read_field(field, self.settings.object_symmetry).rotation
        image_from_head = nearest_equivalent(truth.mT, image_from_head, self.settings.object_symmetry)
        predicted = image_from_head.mT
        return {
            **self._judge(field, truth),
            "rotation_error_deg": geodesic_error_deg(truth, predicted),
            "euler_mean_error_deg": euler_mean_error_deg(truth, predicted),
        }

    def optimizer(self) -> torch.optim.Optimizer:
        """SGD with momentum, as published; AdamW in our preset."""
        chosen, parameters = self.settings, self.network.parameters()
        if chosen.preset == "published":
            return torch.optim.SGD(parameters, lr=chosen.lr, momentum=chosen.momentum, weight_decay=chosen.weight_decay)
        return torch.optim.AdamW(
            parameters, lr=chosen.lr, betas=(chosen.momentum, SECOND_DECAY), weight_decay=chosen.weight_decay
        )

    def _judge(self, field: Tensor, head_from_image: Tensor) -> dict[str, Tensor]:
        loss = rotation_loss(field, head_from_image, symmetry=self.settings.object_symmetry)
        return {"loss": loss.total, "pseudovector_loss": loss.pseudovector, "vector_loss": loss.vectors}


def segment_fields(settings: SegmentTraining) -> dict[str, object]:
    """The U-Net as a model folder describes it."""
    return {
        "architecture": "unet",
        "channels_in": 1,
        "classes": settings.n_output_channels,
        "levels": settings.n_levels,
        "features": settings.unet_feat,
        "multiplier": settings.feat_mult,
        "activation": settings.activation,
        "norm": settings.norm,
    }


def rotate_fields(settings: RotateTraining) -> dict[str, object]:
    """The E(3)-CNN as a model folder describes it; ``published`` pools odd scalars and scales gates as the original."""
    published = settings.preset == "published"
    return {
        "architecture": "pose_net",
        "poolings": settings.n_levels,
        "kernel_size": settings.kernel_size,
        "multiplier": settings.multiplier,
        "symmetry": "SO3" if settings.object_symmetry == "none" else "O3",
        "odd_scalars": "signed" if published else "absolute",
        "gate_constants": "published" if published else "exact",
        **({} if settings.object_symmetry == "mirror" else {"object_symmetry": settings.object_symmetry}),
    }


def _seeded_network(fields: Mapping[str, object], seed: int) -> nn.Module:
    """A network whose first weights depend on the seed alone; torch's global generator is left as it was."""
    with seeded(seed, "weights"):
        return build_network(fields, where="the training settings")
