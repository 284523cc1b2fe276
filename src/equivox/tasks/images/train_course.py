"""What is trained and how it is judged: network, loss, optimiser, learning rate (a ``Course`` of `run/training.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError, ModelFolderError
from equivox.run.curves import Curves
from equivox.run.seeds import seeded
from equivox.tasks.images.config import ImageTraining
from equivox.tasks.images.data import make_field
from equivox.weights.registry import build_network


class ImageCourse:
    """Train a classifier by cross-entropy (:class:`equivox.run.training.Course`).

    Parameters
    ----------
    settings
        Network, input, optimiser.
    class_counts
        Training pictures of each class.
    curves
        The file of the run's curves: the learning rate follows the validation losses in it, so that a run that goes on
        takes the rate that it had.
    seed
        Of the first weights.

    Raises
    ------
    ConfigError
        If the network cannot be built, or takes pictures of another size.
    """

    def __init__(self, settings: ImageTraining, class_counts: Sequence[int], curves: Path, *, seed: int) -> None:
        self.settings, self._curves = settings, Curves(curves)
        self.fields = network_fields(settings, len(class_counts))
        self.network = seeded_network(self.fields, seed)
        side = int(self.network.receptive_field_px)  # type: ignore[arg-type]
        if side != settings.input.side:
            raise ConfigError(
                f"{settings.preset} classifies {side} pixels a side, the input has {settings.input.side}; leave out "
                f"--side, or choose a network of that size."
            )
        counts = torch.tensor(class_counts, dtype=torch.float64).clamp_min(1.0)
        self._weights = (counts.mean() / counts).float() if settings.class_weights else torch.ones(len(counts))

    def start_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rate of an epoch from the validation losses before it."""
        losses = [
            float(row["val_loss"]) for row in self._curves.rows() if int(row["epoch"]) < epoch and row.get("val_loss")
        ]
        for group in optimizer.param_groups:
            group["lr"] = self.settings.rate(losses)

    def training_values(self, group: dict[str, Tensor]) -> Mapping[str, Float[Tensor, "batch"]]:
        """Loss and whether the answer is right, for each picture."""
        label = group["label"]
        logits = self.network(make_field(group["picture"], self.settings.input))
        losses = functional.cross_entropy(
            logits, label, reduction="none", label_smoothing=self.settings.label_smoothing
        )
        weight = self._weights.to(losses)[label]
        return {"loss": losses * weight, "accuracy": (logits.detach().argmax(dim=1) == label).to(losses)}

    def validation_values(self, group: dict[str, Tensor]) -> Mapping[str, Float[Tensor, "batch"]]:
        """Plain cross-entropy and accuracy; ``chosen`` is the column that selection minimises."""
        label = group["label"]
        logits = self.network(make_field(group["picture"], self.settings.input))
        losses = functional.cross_entropy(logits, label, reduction="none")
        right = (logits.argmax(dim=1) == label).to(losses)
        return {
            "loss": losses,
            "accuracy": right,
            "chosen": 1.0 - right if self.settings.select == "accuracy" else losses,
        }

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam, or AdamW where weights decay."""
        if self.settings.weight_decay:
            return torch.optim.AdamW(
                self.network.parameters(), lr=self.settings.lr, weight_decay=self.settings.weight_decay
            )
        return torch.optim.Adam(self.network.parameters(), lr=self.settings.lr)


def network_fields(settings: ImageTraining, classes: int) -> dict[str, Any]:
    """The network as a model folder describes it."""
    return {**settings.network, "classes": classes, "channels_in": settings.input.channels}


def seeded_network(fields: Mapping[str, Any], seed: int) -> nn.Module:
    """A network whose first weights depend on the seed alone; torch's global generator is left as it was.

    Raises
    ------
    ConfigError
        If the architecture has no such option.
    """
    with seeded(seed, "weights"):
        try:
            return build_network(fields, where="the recipe")
        except ModelFolderError as error:
            raise ConfigError(str(error)) from error
