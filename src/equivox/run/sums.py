"""Means over samples of an epoch, whatever the batches they came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(slots=True)
class SampleSums:
    """Means over samples, whatever the batches they came in."""

    totals: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one number per sample by name; ``"loss"`` is among them and counts the samples."""
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + float(value.detach().double().sum())
        self.count += int(values["loss"].shape[0])

    def take(self, prefix: str) -> dict[str, float]:
        """The means by name, and empty sums for the next epoch."""
        means = {f"{prefix}_{name}": total / self.count for name, total in self.totals.items()} if self.count else {}
        self.totals, self.count = {}, 0
        return means
