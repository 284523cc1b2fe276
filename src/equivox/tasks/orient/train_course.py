"""How an orientation network learns: both looks at once, and the optimiser (a ``Course`` of `run/training.py`)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.geometry.point_groups import point_group
from equivox.geometry.rotations import geodesic_angle, random_rotations
from equivox.nets.orientation import OrientationNet
from equivox.nn.pose_heads import PoseHypotheses, exponential
from equivox.nn.pose_losses import hard_loss, mixture_loss, shift_loss
from equivox.run.seeds import generator_for, seeded
from equivox.tasks.orient.config import OrientTraining
from equivox.weights.registry import build_network

NEAR_RAD = 0.35
"""One pose of the second look lies about this far from the truth at most (normal, of a width drawn up to it)."""
SPREAD_RAD = 0.1
"""The others are answers of the first look, moved by this about each axis: more than half a cell of the fine grid."""
SHIFT_WEIGHT = 0.2
"""Of the squared error of the shift [px²] beside the log likelihood."""


class OrientCourse:
    """Train an :class:`equivox.nets.orientation.OrientationNet` (:class:`equivox.run.training.Course`).

    The first look is judged on the turned coarse grid. The second looks at the best answers of the first, moved a
    little, and at one pose near the truth; what it learns is to tell the true one among good wrong ones.

    Parameters
    ----------
    settings
        Network, losses, optimiser.
    seed
        Of the first weights and of everything drawn.
    """

    def __init__(self, settings: OrientTraining, *, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.orientation = seeded_network(settings, seed)
        self.network: nn.Module = self.orientation
        group = point_group(settings.picture.symmetry).float()
        self.group = None if len(group) == 1 else group
        self._draw = generator_for(seed, "training poses", 0)

    def start_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rate, and start the epoch's own random numbers."""
        for group in optimizer.param_groups:
            group["lr"] = self.settings.rate(epoch)
        self._draw = generator_for(self.seed, "training poses", epoch)

    def training_values(self, group: dict[str, Tensor]) -> Mapping[str, Float[Tensor, "batch"]]:
        """Loss of both looks for each picture."""
        pictures, truth = group["picture"], group["rotation"]
        frame = random_rotations(1, generator=self._draw)[0] if self.settings.turn_grid else None
        coarse = self.orientation.look_coarse(pictures, frame)
        losses = self._judge(coarse, truth, frame)
        found = {"coarse": losses.detach()}
        if self.orientation.fine is not None:
            fine = self.orientation.look_fine(pictures, self._candidates(coarse, truth))
            second = mixture_loss(fine, truth, group=self._members(truth))
            losses = losses + second
            found["fine"] = second.detach()
            if fine.shifts_px is not None:
                losses = losses + SHIFT_WEIGHT * shift_loss(fine, group["shift_px"], truth)
        if coarse.shifts_px is not None:
            losses = losses + SHIFT_WEIGHT * shift_loss(coarse, group["shift_px"], truth)
        return {"loss": losses, **found}

    def validation_values(self, group: dict[str, Tensor]) -> Mapping[str, Float[Tensor, "batch"]]:
        """Loss and angle of the best answer, by the search that prediction uses."""
        from equivox.nets.orientation_search import best_answers, hypotheses_of

        pictures, truth = group["picture"], group["rotation"]
        members = self._members(truth)
        found = hypotheses_of(self.orientation, pictures)
        if self.settings.loss == "hard" and self.orientation.fine is None:
            losses = hard_loss(found, self.orientation.grid.matrices.to(truth), truth, group=members)
            rows = torch.arange(len(truth), device=truth.device)
            answer = found.rotations[rows, found.logits.argmax(1)]
        else:
            losses = mixture_loss(found, truth, group=members)
            answer = best_answers(found, group=members).rotations[:, 0]
        variants = truth[:, None] if members is None else truth[:, None] @ members
        angle = geodesic_angle(variants, answer[:, None].expand_as(variants)).amin(1)
        return {"loss": losses, "angle_rad": angle}

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(
            self.network.parameters(), lr=self.settings.lr, weight_decay=self.settings.weight_decay
        )

    def _judge(self, coarse: PoseHypotheses, truth: Tensor, frame: Tensor | None) -> Tensor:
        members = self._members(truth)
        if self.settings.loss == "hard":
            grid = self.orientation.grid.matrices.to(truth)
            return hard_loss(coarse, grid if frame is None else grid @ frame.to(truth), truth, group=members)
        return mixture_loss(coarse, truth, group=members)

    def _candidates(self, coarse: PoseHypotheses, truth: Tensor) -> Tensor:
        """Poses for the second look."""
        count = min(self.settings.candidates, coarse.logits.shape[1])
        best = coarse.select(coarse.logits.topk(count, dim=1).indices).rotations.detach()

        def drawn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=self._draw).to(truth)

        width = NEAR_RAD * torch.rand(len(truth), 1, generator=self._draw).to(truth)
        near = truth @ exponential(width * drawn(len(truth), 3))
        moved = best[:, : count - 1] @ exponential(SPREAD_RAD * drawn(len(truth), count - 1, 3))
        return torch.cat([moved, near[:, None]], dim=1)

    def _members(self, like: Tensor) -> Tensor | None:
        return None if self.group is None else self.group.to(like)


def seeded_network(settings: OrientTraining, seed: int) -> OrientationNet:
    """A network whose first weights depend on the seed alone; torch's global generator is left as it was."""
    with seeded(seed, "weights"):
        network = build_network(settings.network(), where="the settings")
    assert isinstance(network, OrientationNet)
    return network
