"""One seeded source of single numbers, for parameters that are drawn one by one and written down."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

Vector = tuple[float, float, float]


class Dice:
    """Draws numbers from a generator on the CPU, so that a seed means the same parameters on every device.

    Examples
    --------
    >>> dice = Dice(torch.Generator().manual_seed(0))
    >>> 2.0 <= dice.uniform(2.0, 3.0) < 3.0
    True
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        """Uniform between ``low`` and ``high``."""
        return low + (high - low) * float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def log_uniform(self, low: float, high: float) -> float:
        """Uniform in the logarithm."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def normal(self, sigma: float = 1.0) -> float:
        """Normal with mean 0."""
        return sigma * float(torch.randn((), generator=self.generator, dtype=torch.float64))

    def chance(self, probability: float) -> bool:
        """True with the given probability; always takes one number."""
        return self.uniform(0.0, 1.0) < probability

    def integer(self, low: int, high: int) -> int:
        """Whole number from ``low`` to ``high``, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def choice(self, weights: Sequence[float]) -> int:
        """Index drawn in proportion to its weight."""
        return int(torch.multinomial(torch.tensor(weights, dtype=torch.float64), 1, generator=self.generator))

    def normals(self, *sigmas: float) -> Vector:
        """Three normals, each with its standard deviation."""
        x, y, z = (self.normal(sigma) for sigma in sigmas)
        return (x, y, z)

    def direction(self) -> Vector:
        """Uniform on the sphere."""
        x, y, z = self.normals(1.0, 1.0, 1.0)
        size = math.sqrt(x * x + y * y + z * z)
        return (x / size, y / size, z / size)

    def seed(self) -> int:
        """A seed for another generator (of noise fields, on any device)."""
        return int(torch.randint(2**62, (), generator=self.generator))
