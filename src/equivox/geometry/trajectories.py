"""Rigid motion over time: rotations and translations at given times, and between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import GeometryError
from equivox.geometry.rotations import require_rotation, rotation_from_vector, rotation_vector


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Rigid motion about a fixed centre: ``p(t) = centre + R(t) (p - centre + translation(t))``.

    The translation comes first and is turned with the object, as the published simulation has it.

    Parameters
    ----------
    times_s
        Increasing.
    rotations
        One per time.
    translations_mm
        One per time.

    Raises
    ------
    GeometryError
        If times do not increase, or a number is not finite.
    """

    times_s: Float[Tensor, "time"]
    rotations: Float[Tensor, "time 3 3"]
    translations_mm: Float[Tensor, "time 3"]

    def __post_init__(self) -> None:
        if len(self.times_s) < 1 or bool((self.times_s.diff() <= 0).any()):
            raise GeometryError("the times of a trajectory must increase; sort its rows and drop repeated times.")
        if not bool(torch.isfinite(self.times_s).all() and torch.isfinite(self.translations_mm).all()):
            raise GeometryError("a trajectory holds NaN or infinite numbers; repair its table.")
        require_rotation(self.rotations, name="a trajectory's rotation")

    @property
    def duration_s(self) -> float:
        """Last time less the first."""
        return float(self.times_s[-1] - self.times_s[0])

    def at(self, times_s: Float[Tensor, "wanted"]) -> tuple[Float[Tensor, "wanted 3 3"], Float[Tensor, "wanted 3"]]:
        """Rotations (along the shortest turn) and translations (along lines) at other times within the trajectory.

        Raises
        ------
        GeometryError
            If a time lies outside.
        """
        low, high = float(self.times_s[0]), float(self.times_s[-1])
        if float(times_s.min()) < low - 1e-9 or float(times_s.max()) > high + 1e-9:
            raise GeometryError(f"a trajectory from {low:g} to {high:g} s has no place at {float(times_s.max()):g} s.")
        if len(self.times_s) == 1:
            first = torch.zeros(len(times_s), dtype=torch.int64)
            return self.rotations[first], self.translations_mm[first]
        after = torch.searchsorted(self.times_s.contiguous(), times_s).clamp(1, len(self.times_s) - 1)
        start, stop = self.times_s[after - 1], self.times_s[after]
        share = ((times_s - start) / (stop - start)).clamp(0.0, 1.0)[:, None]
        first = self.rotations[after - 1]
        turn = rotation_vector(first.mT @ self.rotations[after])
        moved = self.translations_mm[after - 1] * (1 - share) + self.translations_mm[after] * share
        return first @ rotation_from_vector(turn * share), moved

    def matrices(self, times_s: Float[Tensor, "wanted"]) -> Float[Tensor, "wanted 4 4"]:
        """``[R, R translation]``: what the motion does to points measured from its centre."""
        rotations, translations = self.at(times_s)
        matrices = torch.eye(4, dtype=torch.float64).repeat(len(times_s), 1, 1)
        matrices[:, :3, :3] = rotations
        matrices[:, :3, 3] = (rotations @ translations[:, :, None])[:, :, 0]
        return matrices

    def then(self, other: Trajectory) -> Trajectory:
        """This one, and from its end on the other one's motion: times and translations add, its rotations come after.

        The other one's row at time 0, if it has one, is left out.
        """
        later = other.times_s > 0
        return Trajectory(
            torch.cat([self.times_s, self.times_s[-1] + other.times_s[later]]),
            torch.cat([self.rotations, other.rotations[later] @ self.rotations[-1]]),
            torch.cat([self.translations_mm, self.translations_mm[-1] + other.translations_mm[later]]),
        )


def chained(parts: Sequence[Trajectory], until_s: float) -> Trajectory:
    """The parts one after another, again from the first when all are used, until ``until_s`` is reached.

    Raises
    ------
    GeometryError
        If no part has a later time to add.
    """
    if not parts or all(bool((part.times_s <= 0).all()) for part in parts):
        raise GeometryError("a trajectory without any time above 0 s cannot be made longer; give one with more rows.")
    whole, number = parts[0], 1
    while float(whole.times_s[-1]) < until_s:
        whole = whole.then(parts[number % len(parts)])
        number += 1
    return whole
