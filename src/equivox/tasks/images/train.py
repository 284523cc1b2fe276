"""`equivox images train`: from labelled pictures to a model folder.

Writes into the results' folder: ``model/`` (what ``equivox images predict --model`` takes), ``checkpoints/best.ckpt``
and ``last.ckpt``, ``curves.csv``, ``training.json`` (settings and data, to go on with) and ``run.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equivox.errors import InputError
from equivox.run.device import choose_device
from equivox.run.labelled import class_counts, left_out_notes, part_digest, require_learnable
from equivox.run.schedule import Schedule
from equivox.run.training_folder import CURVES, MODEL, TrainRun
from equivox.run.training_session import Progress, Trained, TrainingSession, parameter_count
from equivox.tasks.images.config import DataConfig, ImageTraining
from equivox.tasks.images.data import channel_statistics
from equivox.tasks.images.samples import ImageSamples
from equivox.tasks.images.sources import ImageSource, open_source
from equivox.tasks.images.train_course import ImageCourse
from equivox.tasks.images.train_result import write_model


def train_images(
    data: DataConfig,
    settings: ImageTraining,
    run: TrainRun,
    *,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Trained:
    """Train a classifier.

    Parameters
    ----------
    data
        Pictures and classes.
    settings
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
    device = choose_device(run.device)
    source = open_source(data, settings.input)
    parts, warnings = training_parts(source)
    mean, deviation = channel_statistics([source.squares[index] for index in parts["training"]])
    settings = settings.with_values(mean=mean, deviation=deviation)
    plan = {
        "seed": run.seed,
        "settings": settings.as_dict(),
        "data": {
            **data.as_dict(),
            **{name: part_digest(source.entries, chosen, "pictures") for name, chosen in parts.items()},
        },
    }
    of_class = class_counts(source.entries, parts["training"], len(source.classes))
    course = ImageCourse(settings, of_class, run.out / CURVES, seed=run.seed)
    schedule = Schedule(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        keep_every=run.keep_every,
        monitor="val_chosen",
        seed=run.seed,
        workers=run.workers,
        patience=settings.patience,
    )
    session = TrainingSession(run, plan, device, command=command, warnings=warnings)
    counts, parameters = {name: len(chosen) for name, chosen in parts.items()}, parameter_count(course.network)
    session.record.add("data", {**data.as_dict(), **counts, "classes": list(source.classes)})
    session.record.add("network", {**course.fields, "parameters": parameters})
    if Path(data.data).is_file():
        session.record.add_input(data.data)
    samples = {
        name: ImageSamples(source, chosen, settings, training=name == "training", seed=run.seed)
        for name, chosen in parts.items()
    }
    fitted = session.fit(course, samples["training"], samples["validation"], schedule, progress)
    model = write_model(
        session.out / MODEL, settings, course.fields, source, fitted, data=data, counts=counts, seed=run.seed
    )
    session.close(model, best={"epoch": fitted.best_epoch, schedule.monitor: fitted.best_value})
    return Trained(model, fitted, device, parameters, counts, tuple(warnings))


def training_parts(source: ImageSource) -> tuple[dict[str, list[int]], list[str]]:
    """Positions of the pictures for training and for validation, and what a user should know about them.

    Raises
    ------
    InputError
        If a part is empty, there is one class only, or a class of validation does not occur in training.
    """
    parts = {"training": source.of_split("train"), "validation": source.of_split("validation")}
    for name, chosen in parts.items():
        if not chosen:
            raise InputError(
                f"{source.name} has no pictures for {name}; give more pictures per class, or the parts train and val."
            )
    warnings = require_learnable(source.name, source.classes, source.entries, parts, "picture")
    return parts, [*warnings, *left_out_notes(source.problems, "things")]
