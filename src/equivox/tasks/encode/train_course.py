"""How an encoder is trained and judged: the ``Course`` of `run/training.py` for pretraining and for finetuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.geometry.rotate_published import rotate_volume_published
from equivox.geometry.rotations import rotation_about, rotation_angle
from equivox.nets.brain_code import BrainCode, align_codes, all_vectors
from equivox.run.seeds import generator_for
from equivox.tasks.encode import objectives
from equivox.tasks.encode.train_config import FinetuneConfig, PretrainConfig, cosine_rate
from equivox.tasks.encode.train_networks import PredictionNetwork, PretrainNetwork, trained_parameters

Group = dict[str, Tensor]
PUBLISHED_TURNS = tuple((axis, angle) for axis in ("x", "y") for angle in (90.0, 180.0, 270.0))
"""All that the published pretraining draws from: its z axis is never chosen (soe F4, F5)."""


class PretrainCourse:
    """Self-supervised training (:class:`equivox.run.training.Course`).

    Parameters
    ----------
    config
        The recipe.
    seed
        Of first weights and of what the course draws.
    """

    def __init__(self, config: PretrainConfig, *, seed: int) -> None:
        self.config, self.seed = config, seed
        self.network: nn.Module = PretrainNetwork(config, seed)
        self._parts: PretrainNetwork = self.network
        self._epoch, self._step = 0, 0

    @property
    def encoder(self) -> nn.Module:
        """What is kept in the end."""
        return self._parts.encoder

    def start_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rate."""
        self._epoch, self._step = epoch, 0
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(self.config.lr, epoch, self.config.epochs)

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW, or Adam with amsgrad as published."""
        chosen, parameters = self.config, trained_parameters([self.network])
        if chosen.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=chosen.lr, weight_decay=chosen.weight_decay, amsgrad=True)
        return torch.optim.AdamW(parameters, lr=chosen.lr, weight_decay=chosen.weight_decay)

    def training_values(self, group: Group) -> Mapping[str, Float[Tensor, "batch"]]:
        """Loss and its parts of each scan."""
        if "bootstrap" in self.config.terms:
            self._parts.follow(self.config.momentum)
        self._step += 1
        return self._values(group, generator_for(self.seed, "course", self._epoch, self._step))

    def validation_values(self, group: Group) -> Mapping[str, Float[Tensor, "batch"]]:
        """The same, and the error of the rotation that two views give."""
        return self._values(group, generator_for(self.seed, "validation course", len(group["volume"])), pose=True)

    def _values(self, group: Group, draw: torch.Generator, *, pose: bool = False) -> dict[str, Tensor]:
        terms = self.config.terms
        if "published" in terms:
            found = self._published(group, draw)
            return {"loss": found["published"], **found}
        parts: dict[str, Tensor] = {}
        if "erased" in terms:
            parts["erased"] = self._erased(group)
        first: BrainCode | None = None
        if set(terms) - {"erased"}:
            first = self._parts.encoder(group["volume"], group["mask"])
        if first is not None and "autoencoder" in terms:
            parts |= self._autoencoder(group, first, draw)
        if first is not None and self.config.paired:
            second = self._parts.encoder(group["volume_b"], group["mask_b"])
            turns = group["turn_b"] @ group["turn"].mT
            parts |= self._compared(group, first, second, turns)
            if pose:
                error = rotation_angle(align_codes(first, second).rotation.float() @ turns.mT)
                parts["pose_deg"] = torch.rad2deg(error)
        loss = sum((terms[name] * part for name, part in parts.items() if name in terms), torch.zeros(()))
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

    def _compared(self, group: Group, first: BrainCode, second: BrainCode, turns: Tensor) -> dict[str, Tensor]:
        """Terms that two views of one person have."""
        terms, same = self.config.terms, group["same_scan"]
        parts: dict[str, Tensor] = {}
        vectors = [all_vectors(one).float() for one in (first, second)]
        scalars = [one.scalars.float() for one in (first, second)]
        if "equivariance" in terms:
            parts["equivariance"] = same * objectives.equivariance_loss(vectors[0], vectors[1], turns)
        if "direction" in terms:
            parts["direction"] = same * objectives.direction_loss(vectors[0], vectors[1], turns)
        if "condition" in terms:
            parts["condition"] = objectives.condition_loss(second.polar.float())
        if "vicreg" in terms:
            parts["vicreg"] = objectives.vicreg_loss(scalars[0], scalars[1])
        if {"contrast", "bootstrap"} & set(terms):
            projected = [self._parts.project(one) for one in scalars]
            if "contrast" in terms:
                parts["contrast"] = objectives.contrastive_loss(
                    projected[0], projected[1], temperature=self.config.temperature
                )
            if "bootstrap" in terms:
                targets = [
                    self._parts.slow_projection(group[f"volume{ending}"], group[f"mask{ending}"])
                    for ending in ("", "_b")
                ]
                predicted = [self._parts.predict(one) for one in projected]
                parts["bootstrap"] = 0.5 * (
                    objectives.bootstrap_loss(predicted[0], targets[1])
                    + objectives.bootstrap_loss(predicted[1], targets[0])
                )
        return parts

    def _erased(self, group: Group) -> Tensor:
        """Error in the erased balls."""
        holes = group["holes"]
        found = self._parts.inpainted(group["volume"] * (1.0 - holes), group["mask"] * (1.0 - holes))
        return objectives.reconstruction_loss(found.float(), group["volume"], holes * group["mask"])

    def _autoencoder(self, group: Group, code: BrainCode, draw: torch.Generator) -> dict[str, Tensor]:
        """Error of the volume that the code alone gives; with ``divergence`` the code is drawn first."""
        parts: dict[str, Tensor] = {}
        if "divergence" in self.config.terms:
            spread = self._parts.log_variance(code.scalars.float()).clamp(-8.0, 4.0)
            plain, turning = spread.split([code.scalars.shape[1], code.polar.shape[1]], dim=1)
            flat = code.polar.flatten(1)
            parts["divergence"] = objectives.gaussian_divergence(
                torch.cat([code.scalars, flat], dim=1), torch.cat([plain, turning.repeat_interleave(3, dim=1)], dim=1)
            )
            noise = [torch.randn(one.shape, generator=draw).to(one) for one in (code.scalars, code.polar)]
            code = code._replace(
                scalars=code.scalars + noise[0] * (0.5 * plain).exp(),
                polar=code.polar + noise[1] * (0.5 * turning).exp()[:, :, None],
            )
        found = self._parts.decode(code)
        parts["autoencoder"] = objectives.reconstruction_loss(found.float(), group["volume"], group["mask"])
        return parts

    def _published(self, group: Group, draw: torch.Generator) -> dict[str, Tensor]:
        """One of the six rotations for the whole batch, about the wrong centre, as published."""
        axis, angle = PUBLISHED_TURNS[int(torch.randint(len(PUBLISHED_TURNS), (), generator=draw))]
        pull = rotation_about(axis, angle).to(group["volume"])
        reversed_axes = group["volume"].permute(0, 1, 4, 3, 2)
        turned = rotate_volume_published(reversed_axes, pull).permute(0, 1, 4, 3, 2)
        first, second = (self._parts.encoder(one, group["mask"]).polar for one in (group["volume"], turned))
        terms = objectives.published_loss(first, second, pull.expand(len(first), 3, 3), alpha=self.config.alpha)
        error = objectives.equivariance_loss(first.detach(), second.detach(), pull.mT.expand(len(first), 3, 3))
        return {
            "published": terms.loss, "distance": terms.distance.detach(), "repulsion": terms.repulsion.detach(),
            "length": first.detach().flatten(1).norm(dim=1), "equivariance": error,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class TargetScale:
    """How targets become numbers: fitted on the training scans only.

    Parameters
    ----------
    age_mean, age_sd
        In years.
    classes
        Names of diagnoses.
    """

    age_mean: float = 0.0
    age_sd: float = 1.0
    classes: tuple[str, ...] = ()

    def outputs(self, targets: tuple[str, ...]) -> dict[str, int]:
        """Numbers that each head gives."""
        return {name: len(self.classes) if name == "diagnosis" else 1 for name in targets}


class FinetuneCourse:
    """Supervised training (:class:`equivox.run.training.Course`); scans without a target count nothing for it.

    Parameters
    ----------
    network
        Encoder and heads.
    config
        The recipe.
    scale
        Of the targets.
    class_weights
        For sex (female, male) and for diagnoses, from the training scans, once.
    """

    def __init__(
        self,
        network: PredictionNetwork,
        config: FinetuneConfig,
        scale: TargetScale,
        class_weights: Mapping[str, tuple[float, ...]],
    ) -> None:
        self.network: nn.Module = network
        self._parts, self.config, self.scale = network, config, scale
        self.class_weights = {name: torch.tensor(values) for name, values in class_weights.items()}

    def start_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rates."""
        rate = cosine_rate(self.config.lr, epoch, self.config.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW with a slower rate for the encoder."""
        chosen = self.config
        if not chosen.encoder_lr:
            self._parts.encoder.requires_grad_(False)
        groups = [{"params": trained_parameters([self._parts.heads]), "share": 1.0, "lr": chosen.lr}]
        inner = trained_parameters([self._parts.encoder])
        if inner:
            groups.append({"params": inner, "share": chosen.encoder_lr, "lr": chosen.lr * chosen.encoder_lr})
        return torch.optim.AdamW(groups, weight_decay=chosen.weight_decay)

    def training_values(self, group: Group) -> Mapping[str, Float[Tensor, "batch"]]:
        """Loss per scan."""
        return self._values(group)

    def validation_values(self, group: Group) -> Mapping[str, Float[Tensor, "batch"]]:
        """Loss per scan, the error of age in years, whether classes are right."""
        return self._values(group, judged=True)

    def _values(self, group: Group, *, judged: bool = False) -> dict[str, Tensor]:
        found = self._parts(group["volume"], group["mask"])
        loss = torch.zeros(len(group["volume"]), device=group["volume"].device)
        values: dict[str, Tensor] = {}
        for name, output in found.items():
            target, known = group[name], group[f"{name}_known"]
            if name == "age":
                part = functional.huber_loss(output[:, 0], target, reduction="none")
                error = (output[:, 0] - target).abs().detach() * self.scale.age_sd
                values |= {"age_error_years": error * known} if judged else {}
            elif name == "sex":
                weight = self.class_weights[name].to(output)[target.long()]
                part = weight * functional.binary_cross_entropy_with_logits(output[:, 0], target, reduction="none")
                values |= {"sex_right": ((output[:, 0] > 0).float() == target).float() * known} if judged else {}
            else:
                weight = self.class_weights[name].to(output)[target.long()]
                part = weight * functional.cross_entropy(output, target.long(), reduction="none")
                values |= {"diagnosis_right": (output.argmax(1) == target.long()).float() * known} if judged else {}
            loss = loss + part * known
        return {"loss": loss, **values}
