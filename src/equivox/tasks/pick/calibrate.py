"""From a network's score to the log-odds that a pick is a particle, and from the precision wanted to a threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from equivox.errors import ConfigError

STEEPEST, FLATTEST = 50.0, 1e-3
STEPS = 100


@dataclass(frozen=True, slots=True)
class Calibration:
    """``log_odds = slope * score + offset``: a rising line, so that the order of picks stays.

    Parameters
    ----------
    slope, offset
        Of the line; 1 and 0 leave the score as it is.
    picks, right
        How many picks it was fitted on, and how many of them were right; 0 where it was not fitted.
    """

    slope: float = 1.0
    offset: float = 0.0
    picks: int = 0
    right: int = 0

    @property
    def fitted(self) -> bool:
        """Whether it stands on labelled picks."""
        return self.picks > 0

    def log_odds(self, score: Float[Tensor, " pick"]) -> Float[Tensor, " pick"]:
        """Calibrated log-odds."""
        return self.slope * score + self.offset

    def probability(self, score: Float[Tensor, " pick"]) -> Float[Tensor, " pick"]:
        """Calibrated probability that a pick is a labelled particle."""
        return torch.sigmoid(self.log_odds(score))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the model folder."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Read what :meth:`as_dict` gave.

        Raises
        ------
        ConfigError
            If a value is missing or the line does not rise.
        """
        try:
            found = cls(float(values["slope"]), float(values["offset"]), int(values["picks"]), int(values["right"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"the model's calibration cannot be read ({error}); write the folder again.") from error
        if not (math.isfinite(found.slope) and found.slope > 0.0 and math.isfinite(found.offset)):
            raise ConfigError(f"the model's calibration has the slope {found.slope}; it must rise.")
        return found


def fit_calibration(score: Float[Tensor, " pick"], right: Bool[Tensor, " pick"]) -> Calibration:
    """Fit a logistic line by Newton's method with Platt's smoothed targets (Platt 1999; Lin, Lin and Weng 2007).

    Returns the identity, marked as not fitted, where all picks are right, all are wrong, or there are fewer than 10.
    """
    good = int(right.sum())
    bad = len(score) - good
    if good == 0 or bad == 0 or len(score) < 10:
        return Calibration()
    x = score.double()
    center, width = x.mean(), x.std().clamp_min(1e-9)
    x = (x - center) / width
    high, low = (good + 1.0) / (good + 2.0), 1.0 / (bad + 2.0)
    target = torch.where(right, high, low).double()
    line = torch.tensor([1.0, math.log(good / bad)], dtype=torch.float64)
    design = torch.stack([x, torch.ones_like(x)], dim=1)

    def loss(values: Tensor) -> Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(design @ values, target)

    for _ in range(STEPS):
        p = torch.sigmoid(design @ line)
        gradient = design.T @ (p - target) / len(x)
        curvature = design.T @ (design * (p * (1.0 - p))[:, None]) / len(x) + 1e-9 * torch.eye(2, dtype=torch.float64)
        step = torch.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6 and loss(line - size * step) > loss(line):
            size /= 2.0
        line = line - size * step
        if float(step.abs().max()) * size < 1e-10:
            break
    slope = min(max(float(line[0] / width), FLATTEST), STEEPEST)
    offset = float(line[1]) - slope * float(center)
    return Calibration(slope, offset, len(score), good)


def threshold_for_precision(probability: Float[Tensor, " pick"], *, precision: float) -> float:
    """The lowest probability at which the kept picks are right in the share ``precision``, as expected.

    The expectation is the mean of the calibrated probabilities of the kept picks. 0 where all picks together reach it;
    above 1 where not even the best does.

    Raises
    ------
    ConfigError
        If ``precision`` is not above 0 and at most 1.
    """
    if not 0.0 < precision <= 1.0:
        raise ConfigError(f"--precision is {precision}; give a number above 0 and at most 1.")
    if len(probability) == 0:
        return 0.0
    ordered = torch.sort(probability.double(), descending=True).values
    mean = ordered.cumsum(0) / torch.arange(1, len(ordered) + 1, dtype=torch.float64)
    enough = torch.nonzero(mean >= precision).flatten()
    if len(enough) == 0:
        return math.nextafter(1.0, 2.0)
    last = int(enough[-1])
    return 0.0 if last == len(ordered) - 1 else float(ordered[last])
