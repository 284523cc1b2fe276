"""What is trained and how it is judged: network, loss, optimiser, learning rate (a ``Course`` of `run/training.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.nets.classifiers import build_classifier
from equivox.nn.conv3d import SteerableConv3d
from equivox.run.seeds import seeded
from equivox.tasks.shapes.config import ShapeTraining
from equivox.tasks.shapes.data import make_field


class ShapeCourse:
    """Train a classifier by cross-entropy (:class:`equivox.run.training.Course`).

    Parameters
    ----------
    settings
        Network, input, optimiser.
    class_counts
        Training objects of each class.
    seed
        Of the first weights.
    """

    def __init__(self, settings: ShapeTraining, class_counts: Sequence[int], *, seed: int) -> None:
        self.settings = settings
        self.fields = network_fields(settings, len(class_counts))
        self.network = seeded_classifier(self.fields, seed)
        counts = torch.tensor(class_counts, dtype=torch.float64).clamp_min(1.0)
        self._weights = (counts.mean() / counts).float() if settings.class_weights else torch.ones(len(counts))
        self._selecting = settings.burn_in == 0

    def start_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rate of an epoch, and whether its validation may choose the weights."""
        for group in optimizer.param_groups:
            group["lr"] = self.settings.rate(epoch)
        self._selecting = epoch >= self.settings.burn_in

    def training_values(self, group: dict[str, Tensor]) -> Mapping[str, Float[Tensor, "batch"]]:
        """Loss and whether the answer is right, for each object."""
        label = group["label"]
        logits = self.network(make_field(group, self.settings.input))
        losses = functional.cross_entropy(
            logits, label, reduction="none", label_smoothing=self.settings.label_smoothing
        )
        weight = self._weights.to(losses)[label]
        return {"loss": losses * weight, "accuracy": (logits.detach().argmax(dim=1) == label).to(losses)}

    def validation_values(self, group: dict[str, Tensor]) -> Mapping[str, Float[Tensor, "batch"]]:
        """Plain cross-entropy and accuracy; after the burn-in also ``chosen``, the column that selection minimises."""
        label = group["label"]
        logits = self.network(make_field(group, self.settings.input))
        losses = functional.cross_entropy(logits, label, reduction="none")
        right = (logits.argmax(dim=1) == label).to(losses)
        values = {"loss": losses, "accuracy": right}
        if self._selecting and self.settings.select in ("accuracy", "balanced_accuracy"):
            values["chosen"] = (1.0 - right) * self._share.to(losses)[label]
        elif self._selecting:
            values["chosen"] = losses
        return values

    def set_validation_counts(self, counts: Sequence[int]) -> None:
        """Tell how many validation objects each class has: a balanced mean weighs by their inverse."""
        present = [count for count in counts if count]
        total = sum(present)
        balanced = self.settings.select == "balanced_accuracy"
        self._share = torch.tensor([total / (len(present) * count) if count and balanced else 1.0 for count in counts])

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam with penalties on convolution weights as published, or AdamW."""
        chosen = self.settings
        convolutions, others = _split_parameters(self.network)
        if chosen.optimizer == "adamw":
            return torch.optim.AdamW(self.network.parameters(), lr=chosen.lr, weight_decay=chosen.weight_decay)
        groups = [{"params": convolutions, "weight_decay": chosen.l2, "l1": chosen.l1}, {"params": others, "l1": 0.0}]
        return PenalizedAdam(groups, lr=chosen.lr)


class PenalizedAdam(torch.optim.Adam):
    """Adam whose gradients carry ``l1 sign(w)`` beside ``weight_decay w``; ``l1`` is an entry of a parameter group."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Add the penalty to the gradients that the closure makes, then step."""

        def penalized() -> Any:
            loss: Any = 0.0 if closure is None else closure()
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in group["params"]:
                        if group.get("l1", 0.0) and parameter.grad is not None:
                            parameter.grad.add_(parameter.sign(), alpha=group["l1"])
            return loss

        return super().step(penalized)


def network_fields(settings: ShapeTraining, classes: int) -> dict[str, Any]:
    """The network as a model folder describes it."""
    options = {name: _as_json(value) for name, value in settings.network.items()}
    return {**options, "classes": classes, "channels_in": settings.input.channels}


def seeded_classifier(fields: Mapping[str, Any], seed: int) -> nn.Module:
    """A network whose first weights depend on the seed alone; torch's global generator is left as it was.

    Raises
    ------
    ConfigError
        If the architecture has no such option.
    """
    options = dict(fields)
    name = str(options.pop("architecture"))
    with seeded(seed, "weights"):
        try:
            return build_classifier(name, **options)
        except TypeError as error:
            raise ConfigError(f"the network {name} cannot be built: {error}.") from error


def _split_parameters(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weights of convolutions, and everything else."""
    convolutions: list[nn.Parameter] = []
    for module in network.modules():
        if isinstance(module, SteerableConv3d | nn.Conv3d):
            convolutions.append(module.weight)  # type: ignore[arg-type]
    known = {id(parameter) for parameter in convolutions}
    return convolutions, [parameter for parameter in network.parameters() if id(parameter) not in known]


def _as_json(value: Any) -> Any:
    return [_as_json(entry) for entry in value] if isinstance(value, list | tuple) else value
