"""`equivox shapes train`: from labelled objects to a model folder.

Writes into the results' folder: ``model/`` (what ``equivox shapes predict --model`` takes), ``checkpoints/best.ckpt``
and ``last.ckpt``, ``curves.csv``, ``training.json`` (settings and data, to go on with) and ``run.json``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equivox
from equivox.errors import ConfigError, InputError, OutputError
from equivox.formats.atomic import require_absent, require_folder, write_json
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.record import RunRecord
from equivox.run.training import Fitted, Schedule, fit
from equivox.tasks.shapes.config import DataConfig, ShapeTraining
from equivox.tasks.shapes.data import ShapeSource, of_split
from equivox.tasks.shapes.samples import ShapeSamples, reduced
from equivox.tasks.shapes.sources import open_source
from equivox.tasks.shapes.train_course import ShapeCourse
from equivox.tasks.shapes.train_result import write_model
from equivox.weights.folder import ModelFolder

MODEL, CHECKPOINTS, CURVES, SETTINGS, RECORD = "model", "checkpoints", "curves.csv", "training.json", "run.json"
MAY_CHANGE = ("epochs",)
"""Settings that a resumed run may have otherwise; a rate that falls over all epochs then bends where it goes on."""


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """How a training is run; nothing here changes what is learned, but the seed."""

    out: Path
    """Results' folder."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    workers: int = 0
    """Processes that prepare samples."""
    resume: bool = False
    """Go on from ``checkpoints/last.ckpt``."""
    overwrite: bool = False
    """Replace the results of an earlier run."""
    keep_every: int | None = None
    """Also keep the checkpoint of every so many epochs."""
    tensorboard: bool = False
    """Also write TensorBoard's files."""


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
        Objects for training and for validation.
    warnings
        What a user should know.
    """

    model: ModelFolder
    fitted: Fitted
    device: DeviceChoice
    parameters: int
    counts: Mapping[str, int]
    warnings: tuple[str, ...]


Progress = Callable[[int, Mapping[str, float]], None]


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
        "data": {**data.as_dict(), **{name: _digest(source, chosen) for name, chosen in parts.items()}},
    }
    course = ShapeCourse(settings, class_counts(source, parts["training"]), seed=run.seed)
    course.set_validation_counts(class_counts(source, parts["validation"]))
    schedule = Schedule(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        validate_every=min(settings.validate_every, settings.epochs),
        keep_every=run.keep_every,
        monitor="val_loss" if settings.select == "last" else "val_chosen",
        seed=run.seed,
        workers=run.workers,
    )
    out = _prepare_folder(run, plan)
    record = RunRecord(command, {**settings.as_dict(), "out": str(out)}, seed=run.seed, device=device.as_dict())
    counts = {name: len(chosen) for name, chosen in parts.items()}
    parameters = sum(parameter.numel() for parameter in course.network.parameters())
    record.add("data", {**data.as_dict(), **counts, "classes": list(source.classes)})
    record.add("network", {**course.fields, "parameters": parameters})
    if Path(data.data).is_file():
        record.add_input(data.data)
    for warning in warnings:
        record.add_warning(warning)
    samples = {
        name: ShapeSamples(source, chosen, settings, training=name == "training", seed=run.seed)
        for name, chosen in parts.items()
    }
    try:
        with record.timed("training"):
            fitted = fit(
                course, samples["training"], samples["validation"], schedule, out,
                device=device.device, resume=run.resume, tensorboard=run.tensorboard, on_epoch=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        record.write(out / RECORD, "interrupted")
        raise
    model = write_model(
        out / MODEL,
        settings,
        course.fields,
        source,
        fitted,
        data=data,
        samples=samples["training"],
        counts=counts,
        seed=run.seed,
    )
    record.add("best", {"epoch": fitted.best_epoch, schedule.monitor: fitted.best_value})
    record.add("model", {"path": MODEL, "sha256": model.sha256})
    record.write(out / RECORD, "done")
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
    training = reduced(source, training, settings.reduction, seed=seed)
    seen = {source.shapes[index].label for index in training}
    unseen = sorted({source.shapes[index].label for index in validation} - seen)
    if unseen:
        raise InputError(
            f"{source.name}: class {source.classes[unseen[0]]!r} occurs in validation and never in training; "
            "it cannot be learnt: give examples of it, or leave it out."
        )
    absent = [name for label, name in enumerate(source.classes) if label not in seen]
    warnings = (
        [f"No object for training is of the class {', '.join(absent)}; it will never be predicted."] if absent else []
    )
    if len(seen) < 2:
        raise InputError(f"{source.name} has objects of one class only for training; a classifier needs two or more.")
    lost: Sequence[str] = getattr(source, "problems", ())
    if lost:
        warnings.append(f"{len(lost)} files are left out, for example: {lost[0]}")
    return {"training": training, "validation": validation}, warnings


def class_counts(source: ShapeSource, chosen: Sequence[int]) -> list[int]:
    """Objects of each class."""
    counts = [0] * len(source.classes)
    for index in chosen:
        counts[source.shapes[index].label] += 1
    return counts


def _digest(source: ShapeSource, chosen: Sequence[int]) -> str:
    """Changes when other objects, or other labels, take part."""
    text = "\n".join(f"{source.shapes[index].id} {source.shapes[index].label}" for index in chosen)
    return f"{len(chosen)} objects, {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _prepare_folder(run: TrainRun, plan: Mapping[str, Any]) -> Path:
    """A folder that can be written, empty of other results, with the plan of this run in it."""
    out = require_folder(run.out)
    written = json.loads(json.dumps(plan))
    if run.resume and (out / SETTINGS).exists():
        _require_same_plan(out / SETTINGS, written)
    else:
        require_absent([out / name for name in (SETTINGS, CHECKPOINTS, CURVES, MODEL)], overwrite=run.overwrite)
        for name in (CHECKPOINTS, MODEL):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / CURVES).unlink(missing_ok=True)
    write_json(out / SETTINGS, {"version": equivox.__version__, **written})
    return out


def _require_same_plan(path: Path, plan: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings or data than a run was begun with."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        old = {**before["settings"], "seed": before["seed"], "data": before["data"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} cannot be read ({error}); start the run anew with --overwrite.") from error
    new = {**plan["settings"], "seed": plan["seed"], "data": plan["data"]}
    for name in sorted({*old, *new} - set(MAY_CHANGE)):
        if old.get(name) != new.get(name):
            change = "" if name in ("data", "input", "network") else f" ({old.get(name)} then, {new.get(name)} now)"
            raise ConfigError(
                f"{path.parent} was begun with another {name}{change}; resume with the same, or pass --overwrite."
            )
