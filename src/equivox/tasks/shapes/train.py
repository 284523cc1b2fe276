"""`equivox shapes train`: from labelled objects to a model folder.

Writes into the results' folder: ``model/`` (what ``equivox shapes predict --model`` takes), ``checkpoints/best.ckpt``
and ``last.ckpt``, ``curves.csv``, ``training.json`` (settings and data, to go on with) and ``run.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equivox.errors import InputError
from equivox.run.device import choose_device
from equivox.run.labelled import class_counts, left_out_notes, part_digest, require_learnable
from equivox.run.schedule import Schedule
from equivox.run.training_folder import MODEL, TrainRun
from equivox.run.training_session import Progress, Trained, TrainingSession, parameter_count
from equivox.tasks.shapes.config import DataConfig, ShapeTraining
from equivox.tasks.shapes.data import ShapeSource, of_split
from equivox.tasks.shapes.samples import ShapeSamples, reduced
from equivox.tasks.shapes.sources import open_source
from equivox.tasks.shapes.train_course import ShapeCourse
from equivox.tasks.shapes.train_result import write_model


def train_shapes(
    data: DataConfig,
    settings: ShapeTraining,
    run: TrainRun,
    *,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Trained:
    """Train a classifier.

    Parameters
    ----------
    data
        Objects, classes, splits.
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
    parts, warnings = training_parts(source, settings, seed=run.seed)
    plan = {
        "seed": run.seed,
        "settings": settings.as_dict(),
        "data": {
            **data.as_dict(),
            **{name: part_digest(source.shapes, chosen, "objects") for name, chosen in parts.items()},
        },
    }
    of_class = {name: class_counts(source.shapes, chosen, len(source.classes)) for name, chosen in parts.items()}
    course = ShapeCourse(settings, of_class["training"], seed=run.seed)
    course.set_validation_counts(of_class["validation"])
    schedule = Schedule(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        validate_every=min(settings.validate_every, settings.epochs),
        keep_every=run.keep_every,
        monitor="val_loss" if settings.select == "last" else "val_chosen",
        seed=run.seed,
        workers=run.workers,
    )
    session = TrainingSession(run, plan, device, command=command, warnings=warnings)
    counts, parameters = {name: len(chosen) for name, chosen in parts.items()}, parameter_count(course.network)
    session.record.add("data", {**data.as_dict(), **counts, "classes": list(source.classes)})
    session.record.add("network", {**course.fields, "parameters": parameters})
    if Path(data.data).is_file():
        session.record.add_input(data.data)
    samples = {
        name: ShapeSamples(source, chosen, settings, training=name == "training", seed=run.seed)
        for name, chosen in parts.items()
    }
    fitted = session.fit(course, samples["training"], samples["validation"], schedule, progress)
    model = write_model(
        session.out / MODEL, settings, course.fields, source, fitted, data=data, samples=samples["training"],
        counts=counts, seed=run.seed,
    )  # fmt: skip
    session.close(model, best={"epoch": fitted.best_epoch, schedule.monitor: fitted.best_value})
    return Trained(model, fitted, device, parameters, counts, tuple(warnings))


def training_parts(
    source: ShapeSource, settings: ShapeTraining, *, seed: int
) -> tuple[dict[str, list[int]], list[str]]:
    """Positions of the objects for training and for validation, and what a user should know about them.

    Raises
    ------
    InputError
        If a part is empty, an object has no label, or a class of validation does not occur in training.
    """
    training, validation = of_split(source, "train"), of_split(source, "validation")
    for name, chosen in (("training", training), ("validation", validation)):
        if not chosen:
            raise InputError(f"{source.name} has no objects for {name}; look at its splits or its sub-folders.")
        unlabelled = [source.shapes[index].id for index in chosen if source.shapes[index].label < 0]
        if unlabelled:
            raise InputError(
                f"{source.name}: {unlabelled[0]} has no label and cannot take part in {name}; leave it out."
            )
    parts = {"training": reduced(source, training, settings.reduction, seed=seed), "validation": validation}
    warnings = require_learnable(source.name, source.classes, source.shapes, parts, "object")
    lost: Sequence[str] = getattr(source, "problems", ())
    return parts, [*warnings, *left_out_notes(lost, "files")]
