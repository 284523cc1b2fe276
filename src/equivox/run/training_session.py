"""One training from its plan to its record: the same for every task, whatever is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from equivox.run.device import DeviceChoice
from equivox.run.ranks import rank
from equivox.run.record import RUN_JSON, RunRecord
from equivox.run.sampling import Samples
from equivox.run.training import Course, Fitted, Schedule, fit
from equivox.run.training_folder import MODEL, TrainRun, prepare_training
from equivox.weights.folder import ModelFolder

Progress = Callable[[int, Mapping[str, float]], None]
"""Called with each epoch and its numbers."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training has made.

    Parameters
    ----------
    model
        The model folder.
    fitted
        Epochs, and where the best was.
    device
        Where it ran and why.
    parameters
        Learned numbers of the network.
    counts
        Things for training and for validation.
    warnings
        What a user should know.
    """

    model: ModelFolder
    fitted: Fitted
    device: DeviceChoice
    parameters: int
    counts: Mapping[str, int]
    warnings: tuple[str, ...]


class TrainingSession:
    """A training in its folder.

    Parameters
    ----------
    run
        How it is run.
    plan
        See :func:`equivox.run.training_folder.prepare_training`; its ``settings`` go into the record.
    device
        Where it is run.
    command
        For the record.
    warnings
        What a user should know, for the record.
    may_change, absent
        See :func:`equivox.run.training_folder.prepare_training`.

    Attributes
    ----------
    out
        The results' folder.
    record
        The run record, for further facts.

    Raises
    ------
    ConfigError, OutputError
        If the run to go on with was begun with another plan, or results are in the way.
    """

    def __init__(
        self,
        run: TrainRun,
        plan: Mapping[str, Any],
        device: DeviceChoice,
        *,
        command: Sequence[str] = (),
        warnings: Sequence[str] = (),
        may_change: tuple[str, ...] = ("epochs",),
        absent: Mapping[str, object] | None = None,
    ) -> None:
        self.out = prepare_training(run, plan, may_change=may_change, absent=absent)
        self.record = RunRecord(
            command, {**plan["settings"], "out": str(self.out)}, seed=run.seed, device=device.as_dict()
        )
        for warning in warnings:
            self.record.add_warning(warning)
        self._run, self._device = run, device

    def fit(
        self, course: Course, training: Samples, validation: Samples, schedule: Schedule, progress: Progress | None
    ) -> Fitted:
        """Train (see :func:`equivox.run.training.fit`); an interruption leaves a record that says so."""
        try:
            with self.record.timed("training"):
                return fit(
                    course, training, validation, schedule, self.out, device=self._device.device,
                    resume=self._run.resume, tensorboard=self._run.tensorboard, on_epoch=progress,
                )  # fmt: skip
        except KeyboardInterrupt:
            if rank() == 0:
                self.record.write(self.out / RUN_JSON, "interrupted")
            raise

    def close(self, model: ModelFolder, **facts: object) -> None:
        """Write the record, with further facts and the model that was made."""
        for name, value in facts.items():
            self.record.add(name, value)
        self.record.add("model", {"path": MODEL, "sha256": model.sha256})
        self.record.write(self.out / RUN_JSON, "done")


def parameter_count(network: nn.Module) -> int:
    """Learned numbers of a network."""
    return sum(parameter.numel() for parameter in network.parameters())
