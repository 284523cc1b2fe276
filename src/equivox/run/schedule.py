"""How long a training runs, in which portions, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from equivox.errors import ConfigError
from equivox.run.settings import require_counts

PRECISIONS: Mapping[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}
"""Our names and Lightning's."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and in which portions a course runs.

    Raises
    ------
    ConfigError
        If a number is not positive.
    """

    epochs: int
    """Epochs in all, those before a resume included."""
    batch_size: int = 1
    """Samples per step."""
    validate_every: int = 1
    """Epochs between validations."""
    keep_every: int | None = None
    """Also keep the checkpoint of every so many epochs; by default only the best and the last."""
    monitor: str = "val_loss"
    """Column of the curves whose smallest value is the best."""
    seed: int = 0
    """Of everything random."""
    workers: int = 0
    """Processes that prepare samples; 0 prepares them in the training process. Results do not depend on it."""
    patience: int | None = None
    """Stop after so many validations without a new best; None: never."""
    precision: str = "32"
    """``"32"``, or ``"bf16"`` and ``"16"``: mixed precision."""
    devices: int = 1
    """Devices, or processes on a CPU, that share every batch; torchrun and Slurm start them themselves."""

    def __post_init__(self) -> None:
        require_counts(self, "epochs", "batch_size", "validate_every", "keep_every", "patience")
        if self.validate_every > self.epochs:
            raise ConfigError(f"validate_every is {self.validate_every}, more than the {self.epochs} epochs; lower it.")
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; give 0 or more.")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is {self.precision!r}; give one of {', '.join(PRECISIONS)}.")
        if self.devices < 1 or self.batch_size % self.devices:
            raise ConfigError(
                f"{self.devices} devices cannot share a batch of {self.batch_size}; give a batch size that they divide."
            )

    def idle_enough(self, validations: int) -> bool:
        """Whether so many validations without a new best end the training."""
        return self.patience is not None and validations >= self.patience
