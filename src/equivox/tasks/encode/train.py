"""``equivox encode pretrain`` and ``finetune``: from scans to a model folder.

Both write into the results' folder: ``model/``, ``checkpoints/best.ckpt`` and ``last.ckpt``, ``curves.csv``,
``training.json`` (settings and data, to go on with), ``run.json``; finetuning also ``predictions.csv``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from equivox.errors import ConfigError
from equivox.nets.brain_encoder import BrainEncoder
from equivox.run.device import choose_device
from equivox.run.schedule import Schedule
from equivox.run.training import Course, Fitted
from equivox.run.training_folder import MODEL
from equivox.run.training_folder import TrainRun as AnyTrainRun
from equivox.run.training_session import Progress, Trained, TrainingSession
from equivox.tasks.encode.train_config import PretrainConfig
from equivox.tasks.encode.train_course import PretrainCourse
from equivox.tasks.encode.train_data import Parts, find_parts
from equivox.tasks.encode.train_result import write_pretrained
from equivox.tasks.encode.train_samples import BrainSamples, Drawing, ScanStore
from equivox.weights.folder import ModelFolder

FEWEST_SETTLED = 4
"""Fewer scans say nothing of how invariants vary."""


@dataclass(frozen=True, kw_only=True)
class TrainRun(AnyTrainRun):
    """How a training is run; nothing here changes what is learned, but the seed and the precision."""

    images: Path | None = None
    """Folder of the scans that a table names."""
    layout: str = "auto"
    """Layout of the data set."""
    brain_extracted: bool = False
    """The user's word that nothing but brain is in the scans."""
    devices: int = 1
    """Devices (or processes on a CPU) that share every batch."""
    precision: str = "32"
    """``32``, ``bf16`` or ``16``: mixed precision of the convolutions."""


@dataclass(frozen=True, slots=True)
class TrainedEncoder(Trained):
    """What a training has made; ``values`` is the last row of the curves by name."""

    values: Mapping[str, float]


def pretrain_encoder(
    inputs: Sequence[str | Path],
    config: PretrainConfig,
    run: TrainRun,
    *,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> TrainedEncoder:
    """Pretrain an encoder without labels.

    Parameters
    ----------
    inputs
        Scans, folders, or data sets with tables.
    config
        What to train and how.
    run
        Where, from which seed, into which folder.
    command
        For the record.
    progress
        Called with each epoch and its numbers.

    Raises
    ------
    EquivoxError
        If the data or the settings cannot be used, results are in the way, or an extra is missing.
    """
    parts = find_parts(
        inputs, images=run.images, layout=run.layout, share_validation=config.share_validation, seed=run.seed
    )
    course = PretrainCourse(config, seed=run.seed)
    turned = config.reference == "turned"
    drawing = Drawing(
        side=config.side, ranges=config.ranges, paired=config.paired, turn_first=turned,
        degrade_first=turned and config.strength > 0, holes="erased" in config.terms,
        sessions=config.pairs == "sessions",
    )  # fmt: skip
    samples = tuple(
        BrainSamples(
            ScanStore(part, config.voxel_size_mm, brain_extracted=run.brain_extracted),
            drawing,
            training=number == 0,
            seed=run.seed,
        )
        for number, part in enumerate((parts.training, parts.validation))
    )
    session = Session(run, config.as_dict(), parts, command, validate_every=config.validate_every)
    settle_encoder(course.encoder, samples[0].store)
    fitted = session.fit(course, samples, progress)
    model = write_pretrained(
        run.out / MODEL, config, fitted, counts=session.counts, seed=run.seed, data=session.data,
        settle=functools.partial(settle_encoder, store=samples[0].store),
    )  # fmt: skip
    return session.close(model, fitted, course)


def settle_encoder(encoder: nn.Module, store: ScanStore) -> None:
    """Standardise the pooled invariants of our encoder over scans as they lie; other encoders stay as they are.

    What is pooled varies by as little as half a percent between brains: an objective that reads it raw sees next to
    nothing but its mean.
    """
    if not isinstance(encoder, BrainEncoder) or len(store.scans) < FEWEST_SETTLED:
        return
    brains = (store[index].view(side=encoder.side) for index in range(len(store.scans)))
    encoder.settle((brain.volume[None], brain.mask[None]) for brain in brains)


class Session:
    """One training run in its folder: the plan, the record, and what they refuse.

    Parameters
    ----------
    run
        How it is run.
    settings
        The recipe as plain values, with ``epochs`` and ``batch_size``.
    parts
        The scans.
    command
        For the record.
    validate_every
        Epochs between validations.
    """

    def __init__(
        self, run: TrainRun, settings: Mapping[str, Any], parts: Parts, command: Sequence[str], *, validate_every: int
    ) -> None:
        if run.precision not in ("32", "bf16", "16") or run.devices < 1:
            raise ConfigError(f"precision is 32, bf16 or 16 and devices 1 or more; got {run.precision}, {run.devices}.")
        self.run, self.settings, self.parts = run, settings, parts
        self.device = choose_device(run.device)
        self.counts = {"training": len(parts.training), "validation": len(parts.validation)}
        self.data = {"training": parts.training.digest(), "validation": parts.validation.digest()}
        plan = {"seed": run.seed, "precision": run.precision, "settings": dict(settings), "data": self.data}
        self.schedule = Schedule(
            epochs=settings["epochs"],
            batch_size=settings["batch_size"],
            validate_every=min(validate_every, settings["epochs"]),
            keep_every=run.keep_every,
            seed=run.seed,
            workers=run.workers,
            precision=run.precision,
            devices=run.devices,
        )
        self.session = TrainingSession(run, plan, self.device, command=command, warnings=parts.notes)
        self.session.record.add("data", {**self.data, **self.counts})
        self.values: dict[str, float] = {}

    def fit(self, course: Course, samples: tuple[BrainSamples, ...], progress: Progress | None) -> Fitted:
        """Train; an interruption leaves a record that says so."""

        def keep(epoch: int, row: Mapping[str, float]) -> None:
            self.values = dict(row)
            if progress is not None:
                progress(epoch, row)

        return self.session.fit(course, samples[0], samples[1], self.schedule, keep)

    def close(self, model: ModelFolder, fitted: Fitted, course: Course) -> TrainedEncoder:
        """Write the record."""
        parameters = sum(one.numel() for one in course.network.parameters() if one.requires_grad)
        best = {"epoch": fitted.best_epoch, "val_loss": fitted.best_value}
        self.session.close(model, best=best, network={"parameters": parameters})
        return TrainedEncoder(model, fitted, self.device, parameters, self.counts, self.parts.notes, self.values)
