"""`equivox images train`: from labelled pictures to a model folder.

Writes into the results' folder: ``model/`` (what ``equivox images predict --model`` takes), ``checkpoints/best.ckpt``
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
from equivox.tasks.images.config import DataConfig, ImageTraining
from equivox.tasks.images.data import channel_statistics
from equivox.tasks.images.samples import ImageSamples
from equivox.tasks.images.sources import ImageSource, open_source
from equivox.tasks.images.train_course import ImageCourse
from equivox.tasks.images.train_result import write_model
from equivox.weights.folder import ModelFolder

MODEL, CHECKPOINTS, CURVES, SETTINGS, RECORD = "model", "checkpoints", "curves.csv", "training.json", "run.json"
MAY_CHANGE = ("epochs",)
"""Settings that a resumed run may have otherwise."""


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
    tensorboard: bool = False
    """Also write TensorBoard's files."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training has made: model folder, epochs, device, learned numbers, pictures, what a user should know."""

    model: ModelFolder
    fitted: Fitted
    device: DeviceChoice
    parameters: int
    counts: Mapping[str, int]
    warnings: tuple[str, ...]


def train_images(
    data: DataConfig,
    settings: ImageTraining,
    run: TrainRun,
    *,
    command: Sequence[str] = (),
    progress: Callable[[int, Mapping[str, float]], None] | None = None,
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
        "data": {**data.as_dict(), **{name: _digest(source, chosen) for name, chosen in parts.items()}},
    }
    course = ImageCourse(settings, class_counts(source, parts["training"]), run.out / CURVES, seed=run.seed)
    schedule = Schedule(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        monitor="val_chosen",
        seed=run.seed,
        workers=run.workers,
        patience=settings.patience,
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
        name: ImageSamples(source, chosen, settings, training=name == "training", seed=run.seed)
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
        out / MODEL, settings, course.fields, source, fitted, data=data, counts=counts, seed=run.seed
    )  # fmt: skip
    record.add("best", {"epoch": fitted.best_epoch, schedule.monitor: fitted.best_value})
    record.add("model", {"path": MODEL, "sha256": model.sha256})
    record.write(out / RECORD, "done")
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
    seen = {source.entries[index].label for index in parts["training"]}
    if len(seen) < 2:
        raise InputError(f"{source.name} has pictures of one class only for training; a classifier needs two or more.")
    unseen = sorted({source.entries[index].label for index in parts["validation"]} - seen)
    if unseen:
        raise InputError(
            f"{source.name}: class {source.classes[unseen[0]]!r} occurs in validation and never in training; "
            "it cannot be learnt: give examples of it, or leave it out."
        )
    absent = [name for label, name in enumerate(source.classes) if label not in seen]
    warnings = (
        [f"No picture for training is of the class {', '.join(absent)}; it will never be predicted."] if absent else []
    )
    if source.problems:
        warnings.append(f"{len(source.problems)} things are left out, for example: {source.problems[0]}")
    return parts, warnings


def class_counts(source: ImageSource, chosen: Sequence[int]) -> list[int]:
    """Pictures of each class."""
    counts = [0] * len(source.classes)
    for index in chosen:
        counts[source.entries[index].label] += 1
    return counts


def _digest(source: ImageSource, chosen: Sequence[int]) -> str:
    """Changes when other pictures, or other labels, take part."""
    text = "\n".join(f"{source.entries[index].id} {source.entries[index].label}" for index in chosen)
    return f"{len(chosen)} pictures, {hashlib.sha256(text.encode()).hexdigest()[:16]}"


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
