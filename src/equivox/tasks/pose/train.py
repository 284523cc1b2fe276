"""``equivox pose train``: from folders of annotated volumes to a model folder.

Writes into the results' folder: ``model/`` (what ``equivox pose predict --model`` takes), ``checkpoints/best.ckpt`` and
``last.ckpt``, ``curves.csv``, ``training.json`` (settings and data, to go on with) and ``run.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from equivox.errors import ConfigError
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.sampling import Samples
from equivox.run.schedule import Schedule
from equivox.run.training import Course, Fitted
from equivox.run.training_folder import MODEL
from equivox.run.training_folder import TrainRun as AnyTrainRun
from equivox.run.training_session import Progress, TrainingSession
from equivox.tasks.pose.loader import RotateSamples, SegmentSamples
from equivox.tasks.pose.train_config import RotateTraining, SegmentTraining
from equivox.tasks.pose.train_courses import RotateCourse, SegmentCourse
from equivox.tasks.pose.train_layout import (
    ROTATE_ENDINGS,
    Annotated,
    RotateLayout,
    annotate,
    match_folders,
    read_annotations,
)
from equivox.tasks.pose.train_result import write_model
from equivox.tasks.pose.train_simulated import MixedSamples, SimulatedData, SimulatedSamples
from equivox.weights.folder import ModelFolder, find_model

Network = Literal["segment", "rotate"]
BEFORE = {"object_symmetry": "mirror"}
"""What runs of before that setting were of."""


@dataclass(frozen=True, kw_only=True)
class TrainRun(AnyTrainRun):
    """How a training is run; nothing here changes what is learned, but the seed."""

    join: str | None = None
    """Model that the other network is taken from, so that the result can pose on its own."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training has made.

    Parameters
    ----------
    model
        The model folder with the best weights.
    fitted
        Epochs, and where the best was.
    device
        Where it ran and why.
    monitor
        What "best" means: the smallest of this column of ``curves.csv``.
    warnings
        What a user should know.
    """

    model: ModelFolder
    fitted: Fitted
    device: DeviceChoice
    monitor: str
    warnings: tuple[str, ...]


def train_segment(
    training: tuple[Path, Path] | None,
    validation: tuple[Path, Path] | None,
    settings: SegmentTraining,
    run: TrainRun,
    *,
    simulated: SimulatedData | None = None,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Trained:
    """Train the segmentation U-Net; the best epoch is the one with the smallest validation loss.

    Parameters
    ----------
    training, validation
        Folders of volumes and of labels; None where simulated stacks stand in.
    settings
        What to train and how.
    run
        Where, from which seed, into which folder.
    simulated
        Stacks simulated on the way, beside those of the folders or instead of them.
    command
        For the record.
    progress
        Called with each epoch and its numbers.

    Raises
    ------
    EquivoxError
        If the data or the settings cannot be used, results are in the way, or an extra is missing.
    """
    parts = {}
    for fold, folders in (("training", training), ("validation", validation)):
        pairs = [] if folders is None else match_folders(*folders)
        samples = SegmentSamples(pairs, settings, training=fold == "training", seed=run.seed)
        parts[fold] = ([pair.id for pair in pairs], samples)
    return _train(
        "segment",
        lambda: SegmentCourse(settings, seed=run.seed),
        *_with_simulated(parts, simulated, settings, run.seed),
        settings=settings,
        run=run,
        monitor="val_loss",
        data=_data_of(parts, simulated),
        command=command,
        progress=progress,
        warnings=(),
    )


def train_rotate(
    layout: RotateLayout,
    settings: RotateTraining,
    run: TrainRun,
    *,
    simulated: SimulatedData | None = None,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Trained:
    """Train the E(3)-CNN on annotated volumes.

    The best epoch is the one with the smallest validation loss (published) or mean geodesic error (equivox).

    Parameters
    ----------
    layout
        Folders and tables; see :func:`equivox.tasks.pose.train_layout.sort_paths`.
    settings, run, simulated, command, progress
        As for :func:`train_segment`.

    Raises
    ------
    EquivoxError
        As :func:`train_segment`.
    """
    parts, warnings = {}, []
    for fold in ("training", "validation"):
        examples, unused = _examples(layout, fold)
        samples = RotateSamples(examples, settings, training=fold == "training", seed=run.seed)
        parts[fold] = ([example.pair.id for example in examples], samples)
        if unused:
            table = layout.tables[0 if fold == "training" else -1]
            warnings.append(f"{len(unused)} rows of {table} belong to no volume, for example {unused[0]!r}.")
    return _train(
        "rotate",
        lambda: RotateCourse(settings, seed=run.seed),
        *_with_simulated(parts, simulated, settings, run.seed),
        settings=settings,
        run=run,
        monitor="val_loss" if settings.preset == "published" else "val_rotation_error_deg",
        data=_data_of(parts, simulated),
        command=command,
        progress=progress,
        warnings=tuple(warnings),
    )


def _examples(layout: RotateLayout, fold: str) -> tuple[list[Annotated], list[str]]:
    """Volumes of a fold with their angles, and rows without a volume; nothing where a fold has no folders."""
    training = fold == "training"
    images, labels = (
        (layout.training_images, layout.training_labels)
        if training
        else (layout.validation_images, layout.validation_labels)
    )
    if images is None or labels is None:
        return [], []
    table = layout.tables[0 if training else -1]
    rows = read_annotations(table, need_fold=len(layout.tables) == 1)
    return annotate(match_folders(images, labels, endings=ROTATE_ENDINGS), rows, fold=fold, table=table)


def _with_simulated(
    parts: Mapping[str, tuple[list[str], Samples]],
    simulated: SimulatedData | None,
    settings: SegmentTraining | RotateTraining,
    seed: int,
) -> tuple[Samples, Samples]:
    """Training and validation data; simulated stacks join the former and stand in for the latter where it is empty."""
    training, validation = parts["training"][1], parts["validation"][1]
    if simulated is None:
        return training, validation
    made: Samples = SimulatedSamples(simulated, settings, training=True, seed=seed)
    if not len(validation):
        validation = SimulatedSamples(simulated, settings, training=False, seed=seed)
    return (MixedSamples(training, made, seed=seed) if len(training) else made), validation


def _data_of(parts: Mapping[str, tuple[list[str], Samples]], simulated: SimulatedData | None) -> dict[str, list[str]]:
    """What is learned from, by name, for the record."""
    found = {fold: ids for fold, (ids, _) in parts.items()}
    return found if simulated is None else {**found, "simulated": simulated.described()}


def _train(
    network: Network,
    make_course: Callable[[], Course],
    training: Samples,
    validation: Samples,
    *,
    settings: SegmentTraining | RotateTraining,
    run: TrainRun,
    monitor: str,
    data: Mapping[str, list[str]],
    command: Sequence[str],
    progress: Progress | None,
    warnings: tuple[str, ...],
) -> Trained:
    device = choose_device(run.device)
    other = None if run.join is None else _other_network(run.join, network)
    schedule = Schedule(
        epochs=settings.n_epochs,
        batch_size=settings.batch_size,
        validate_every=settings.validate_every_n_epoch,
        keep_every=run.keep_every,
        monitor=monitor,
        seed=run.seed,
        workers=run.workers,
    )
    plan = {"network": network, "seed": run.seed, "settings": settings.as_dict(), "data": dict(data)}
    session = TrainingSession(
        run, plan, device, command=command, warnings=warnings, may_change=("n_epochs",), absent=BEFORE
    )
    session.record.add("network", network)
    session.record.add("data", {name: len(ids) for name, ids in data.items()})
    fitted = session.fit(make_course(), training, validation, schedule, progress)
    model = write_model(
        session.out / MODEL, network, settings, fitted, monitor=monitor, data=data, other=other, seed=run.seed
    )
    session.close(model, best={"epoch": fitted.best_epoch, monitor: fitted.best_value})
    return Trained(model, fitted, device, monitor, warnings)


def _other_network(name_or_folder: str, network: Network) -> ModelFolder:
    """A model folder that holds the network which this run does not train."""
    folder = find_model(name_or_folder)
    wanted = "rotate" if network == "segment" else "segment"
    if folder.config["task"] != "pose" or wanted not in folder.config["networks"]:
        raise ConfigError(
            f"--join {name_or_folder} holds {', '.join(folder.config['networks'])}, no network named {wanted!r}; "
            f"give a model folder that equivox pose train {wanted} or equivox model import has written."
        )
    return folder
