"""What is trained and how it is judged: network, risk, optimiser, learning rate (a ``Course`` of `run/training.py`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError, did_you_mean
from equivox.metrics.picking import pooled
from equivox.nets.projected_presets import PRESETS, preset_fields
from equivox.run.seeds import seeded
from equivox.tasks.pick.config import PickTraining
from equivox.tasks.pick.data import LabelledMicrograph
from equivox.tasks.pick.judge import judged
from equivox.tasks.pick.risks import binomial_risk, labelled_risk, non_negative_risk
from equivox.tasks.pick.scoring import dense_scores, find_candidates, score_grid
from equivox.tasks.pick.targets import soft_target
from equivox.weights.registry import build_network

EMPTY_RADII = 1.0
"""Places nearer than this to one that is known to be empty are negatives."""


class PickCourse:
    """Train a picker on tiles (:class:`equivox.run.training.Course`).

    Parameters
    ----------
    settings
        Network, risk, optimiser.
    priors
        For the two risks of positives and unlabelled: expected share of outputs on a particle, a mean over micrographs.
    seed
        Of the first weights.
    """

    def __init__(self, settings: PickTraining, *, prior: float | None, seed: int) -> None:
        self.settings, self.prior = settings, prior
        self.fields = network_fields(settings.network)
        self.network = seeded_network(self.fields, seed)
        self.grid = score_grid(self.network)
        spacing = 2.0 * settings.positive_width * settings.radius_px / self.grid.stride_px
        self.spacing = max(1, round(spacing))

    def start_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rate of an epoch."""
        for group in optimizer.param_groups:
            group["lr"] = self.settings.rate(epoch)

    def training_values(self, group: dict[str, Tensor]) -> Mapping[str, Float[Tensor, "batch"]]:
        """Risk of each tile; the risks of positives and unlabelled are one number for the batch."""
        logits = dense_scores(self.network, group["image"])
        distance, weight = group["distance"], group["weight"]
        if self.settings.risk == "full":
            target = soft_target(distance, width=self.settings.target_width)
            losses = labelled_risk(logits, target, weight, positive_share=self.settings.positive_share)
            return {"loss": losses.mean(dim=(1, 2))}
        assert self.prior is not None
        known = weight > 0
        positive = known & (distance <= self.settings.positive_width)
        empty = known & (group["negative"] <= EMPTY_RADII)
        unlabelled = known & ~empty & (group["anywhere"][:, None, None] > 0)
        if self.settings.risk == "binomial":
            # the number expected is of all particles: labelled places count as unlabelled ones where tiles lie anywhere
            lattice = torch.zeros_like(known)
            lattice[:, :: self.spacing, :: self.spacing] = True
            risk = binomial_risk(logits[positive], logits[unlabelled & lattice], prior=self.prior)
        else:
            risk = non_negative_risk(logits[positive], logits[unlabelled], prior=self.prior)
        if bool(empty.any()):
            risk = risk + torch.nn.functional.softplus(logits[empty]).mean()
        return {"loss": risk.expand(len(logits))}

    def validation_values(self, group: dict[str, Tensor]) -> Mapping[str, Float[Tensor, "batch"]]:
        """Average precision of the picks on whole micrographs; ``loss`` is 1 minus it."""
        areas = []
        for image, labels, keep, margin in zip(
            group["image"], group["labels"], group["keep"], group["margin"], strict=True
        ):
            picks = find_candidates(
                self.network,
                image[0].cpu(),
                distance_px=self.settings.radius_px,
                margin_px=float(margin),
                keep=keep.cpu(),
                device=str(image.device),
            )
            size = (image.shape[1], image.shape[2])
            part = judged(picks, labels.cpu(), self.settings.radius_px, size=size, margin_px=float(margin))
            areas.append(pooled([part]).area)
        area = torch.tensor(areas, dtype=torch.float64)
        return {"loss": 1.0 - area, "average_precision": area}

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW; biases and norms do not decay."""
        decaying = [parameter for parameter in self.network.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in self.network.parameters() if parameter.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": decaying, "weight_decay": self.settings.weight_decay},
            {"params": others},
        ]
        return torch.optim.AdamW(groups, lr=self.settings.lr, weight_decay=0.0)


def network_fields(network: Mapping[str, Any]) -> dict[str, Any]:
    """The network as a model folder describes it: ``preset`` is replaced by what it stands for.

    Raises
    ------
    ConfigError
        If there is no such preset.
    """
    options: dict[str, Any] = {
        name: list(value) if isinstance(value, tuple) else value for name, value in network.items()
    }
    preset = options.pop("preset", None)
    if preset is None:
        return {"channels_in": 1, "classes": 1, **options}
    if preset not in PRESETS:
        raise ConfigError(
            f"--network {preset!r} is unknown{did_you_mean(str(preset), PRESETS)}; known are {', '.join(PRESETS)}."
        )
    options.pop("architecture", None)
    grid = options.pop("grid", None)
    fields = preset_fields(str(preset), grid=grid, **options)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def seeded_network(fields: Mapping[str, Any], seed: int) -> nn.Module:
    """A network whose first weights depend on the seed alone; torch's global generator is left as it was."""
    with seeded(seed, "weights"):
        return build_network(fields, where="the recipe")


def prior_of(micrographs: Sequence[LabelledMicrograph], settings: PickTraining, *, stride_px: int) -> float | None:
    """Expected share of outputs on a particle, from the expected number per micrograph; None with full labels.

    Raises
    ------
    ConfigError
        If that many particles would not fit.
    """
    if settings.expected_number is None:
        return None
    reach = settings.positive_width * settings.radius_px / stride_px
    per_particle = max(1.0, math.pi * reach**2)
    outputs = sum(one.image.numel() for one in micrographs) / len(micrographs) / stride_px**2
    prior = settings.expected_number * per_particle / outputs
    labelled = sum(len(one.labels_px) for one in micrographs) / len(micrographs)
    if prior >= 0.5:
        raise ConfigError(
            f"--expected-number is {settings.expected_number:g}; so many particles of this radius do not fit on a "
            f"micrograph: lower it."
        )
    if settings.expected_number < labelled:
        raise ConfigError(
            f"--expected-number is {settings.expected_number:g}, fewer than the {labelled:.0f} labels per micrograph; "
            f"give the number of all particles, labelled or not."
        )
    return prior
