"""From features of rotations to poses: a score and a correction in the body's frame for every sampled rotation.

The feature of rotation ``R`` has seen the picture through filters projected at ``R``; turning the picture by a symmetry
``g`` of the pixel grid permutes the features, ``F(g I, g R) = F(I, R)``. A head with weights shared by all rotations
that gives ``R exp([delta]x)`` is therefore exactly equivariant: its answers turn with the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.rotations import nearest_rotation, quaternion_from_rotation, rotation_from_quaternion

Offset = Literal["body", "procrustes", "quaternion_add", "none"]
OFFSET_SIZE = {"body": 3, "procrustes": 9, "quaternion_add": 4, "none": 0}
FIRST_KAPPA, LARGEST_KAPPA = 10.0, 1e4


@dataclass(frozen=True, slots=True)
class PoseHypotheses:
    """What a head says: a mixture over rotations.

    Parameters
    ----------
    logits
        Unnormalised log weights.
    rotations
        Poses ``R`` (image from volume): a point ``p`` of the particle appears at the first two components of ``R p``.
    kappa
        Concentration of each, in (0, 1e4].
    shifts_px
        Where the particle's centre appears, (x, y) pixels from the centre of the picture; None where not estimated.
    """

    logits: Float[Tensor, "batch rotation"]
    rotations: Float[Tensor, "batch rotation 3 3"]
    kappa: Float[Tensor, "batch rotation"]
    shifts_px: Float[Tensor, "batch rotation 2"] | None = None

    def select(self, places: Tensor) -> PoseHypotheses:
        """Some of the hypotheses of each picture, by index (batch, kept)."""
        shifts = None if self.shifts_px is None else torch.take_along_dim(self.shifts_px, places[..., None], dim=1)
        return PoseHypotheses(
            logits=torch.take_along_dim(self.logits, places, dim=1),
            rotations=torch.take_along_dim(self.rotations, places[..., None, None], dim=1),
            kappa=torch.take_along_dim(self.kappa, places, dim=1),
            shifts_px=shifts,
        )


class PoseHead(nn.Module):
    """Score, correction and concentration of every rotation from its own feature, with shared weights.

    Parameters
    ----------
    channels
        Entries of a rotation's feature.
    offset
        ``"body"``: three numbers, ``R exp([delta]x)``; ``"procrustes"``: nine, the rotation nearest to
        ``R (1 + D)``; ``"quaternion_add"``: four, added to the quaternion as the paper reads, not equivariant;
        ``"none"``.
    hidden
        Width of one hidden layer; 0 has none.
    max_angle_rad
        A correction in the body's frame stays below it (``w tanh(|delta| / w)``); infinite: no limit.
    kappa
        ``"global"``: one learned number; ``"each"``: one per hypothesis.
    shift
        Also a shift: a vector in the body's frame, of which the picture shows the first two components.

    The last layer starts at zero: all rotations alike, no correction, ``kappa`` 10.
    """

    def __init__(
        self,
        channels: int,
        *,
        offset: Offset = "body",
        hidden: int = 64,
        max_angle_rad: float = math.inf,
        kappa: Literal["global", "each"] = "global",
        shift: bool = False,
    ) -> None:
        super().__init__()
        if offset not in OFFSET_SIZE:
            raise ConfigError(f"offset is {offset!r}; give one of {', '.join(OFFSET_SIZE)}.")
        if not max_angle_rad > 0:
            raise ConfigError(f"max_angle_rad is {max_angle_rad}; give an angle above 0.")
        self.offset, self.max_angle_rad, self.shift = offset, max_angle_rad, shift
        self.each_kappa = kappa == "each"
        self._sizes = [1, OFFSET_SIZE[offset], int(self.each_kappa), 3 * int(shift)]
        last = nn.Linear(hidden or channels, sum(self._sizes))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        before = [nn.Linear(channels, hidden), nn.ReLU()] if hidden else []
        self.layers = nn.Sequential(*before, last)
        self.kappa_level = nn.Parameter(torch.tensor(_inverse_softplus(FIRST_KAPPA)))

    def forward(
        self, features: Float[Tensor, "batch rotation channel"], rotations: Float[Tensor, "*any rotation 3 3"]
    ) -> PoseHypotheses:
        """Hypotheses at ``rotations``: the same for every picture (rotation, 3, 3), or each its own (batch, ...)."""
        score, offset, level, body_shift = self.layers(features).split(self._sizes, dim=-1)
        corrected = self._correct(rotations.to(features), offset)
        kappa = nn.functional.softplus(
            self.kappa_level + 4.0 * level.squeeze(-1) if self.each_kappa else self.kappa_level
        )
        shifts = (corrected @ body_shift[..., None]).squeeze(-1)[..., :2] if self.shift else None
        return PoseHypotheses(
            logits=score.squeeze(-1),
            rotations=corrected,
            kappa=kappa.clamp(1e-3, LARGEST_KAPPA).expand(score.shape[:-1]),
            shifts_px=shifts,
        )

    def extra_repr(self) -> str:
        """What it corrects with."""
        return f"offset={self.offset}, max_angle_rad={self.max_angle_rad:.3g}, shift={self.shift}"

    def _correct(self, rotations: Tensor, offset: Tensor) -> Tensor:
        shape = (*offset.shape[:-1], 3, 3)
        if self.offset == "body":
            return rotations @ exponential(capped(offset, self.max_angle_rad))
        if self.offset == "procrustes":
            return nearest_rotation(rotations @ (torch.eye(3).to(offset) + offset.unflatten(-1, (3, 3))))
        if self.offset == "quaternion_add":
            return rotation_from_quaternion(quaternion_from_rotation(rotations) + offset)
        return rotations.expand(shape)


class UnimodalHead(nn.Module):
    """One pose from the features of all rotations, in fixed order: the paper's comparison, not equivariant.

    Parameters
    ----------
    features
        Numbers of one picture in all.
    hidden
        Width of the hidden layer.
    """

    def __init__(self, features: int, *, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 9))
        self.kappa_level = nn.Parameter(torch.tensor(_inverse_softplus(FIRST_KAPPA)))

    def forward(self, features: Float[Tensor, "batch *rest"]) -> PoseHypotheses:
        """The rotation nearest to nine numbers, plus the identity so that the first answer is defined."""
        nine = self.layers(features.flatten(1)).unflatten(-1, (3, 3)) + 0.1 * torch.eye(3).to(features)
        rotations = nearest_rotation(nine)[:, None]
        kappa = nn.functional.softplus(self.kappa_level).clamp(1e-3, LARGEST_KAPPA)
        flat = torch.zeros(len(features), 1).to(features)
        return PoseHypotheses(logits=flat, rotations=rotations, kappa=kappa.expand(flat.shape))


def exponential(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation by ``|vector|`` rad about its direction, with exact gradients everywhere, at zero too."""
    squared = vector.square().sum(-1)
    small = squared < 1e-4
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    sine = torch.where(small, 1.0 - squared / 6.0 + squared.square() / 120.0, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - squared / 24.0 + squared.square() / 720.0, (1.0 - angle.cos()) / safe)
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return identity + sine[..., None, None] * cross + cosine[..., None, None] * (cross @ cross)


def capped(vector: Float[Tensor, "*batch 3"], limit: float) -> Float[Tensor, "*batch 3"]:
    """The vector with its length ``n`` replaced by ``limit * tanh(n / limit)``."""
    if math.isinf(limit):
        return vector
    squared = (vector / limit).square().sum(-1, keepdim=True)
    small = squared < 1e-4
    length = torch.where(small, torch.ones_like(squared), squared).sqrt()
    factor = torch.where(small, 1.0 - squared / 3.0 + 2.0 * squared.square() / 15.0, length.tanh() / length)
    return vector * factor


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))
