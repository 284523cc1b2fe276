"""`equivox pick train`: from labelled micrographs to a model folder.

Writes into the results' folder: ``model/`` (what ``equivox pick predict --model`` takes), ``checkpoints/best.ckpt`` and
``last.ckpt``, ``curves.csv``, ``training.json`` (settings and data, to go on with) and ``run.json``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equivox
from equivox.errors import ConfigError, OutputError
from equivox.formats.atomic import require_absent, require_folder, write_json
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.record import RunRecord
from equivox.run.training import Fitted, Schedule, fit
from equivox.tasks.pick.config import PickInput, PickSource, PickTraining
from equivox.tasks.pick.data import LabelledMicrograph, LabelledSet, Progress, open_labelled, require_labels
from equivox.tasks.pick.samples import TrainingTiles, WholeMicrographs
from equivox.tasks.pick.train_course import PickCourse, network_fields, prior_of
from equivox.tasks.pick.train_result import write_model
from equivox.weights.folder import ModelFolder

MODEL, CHECKPOINTS, CURVES, SETTINGS, RECORD = "model", "checkpoints", "curves.csv", "training.json", "run.json"
MAY_CHANGE = ("epochs", "patience")
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
    """Processes that prepare tiles."""
    resume: bool = False
    """Go on from ``checkpoints/last.ckpt``."""
    overwrite: bool = False
    """Replace the results of an earlier run."""
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
        Micrographs and labels for training and for validation.
    warnings
        What a user should know.
    """

    model: ModelFolder
    fitted: Fitted
    device: DeviceChoice
    parameters: int
    counts: Mapping[str, int]
    warnings: tuple[str, ...]

    @property
    def average_precision(self) -> float:
        """On the validation micrographs, the mean over them, at the best epoch."""
        return 1.0 - self.fitted.best_value


@dataclass(frozen=True, slots=True)
class Parts:
    """All sources together: training and validation, each micrograph with the margin [working px] of its source."""

    training: list[LabelledMicrograph]
    validation: list[LabelledMicrograph]
    training_margins: list[float]
    validation_margins: list[float]


def train_picker(
    sources: Sequence[PickSource],
    settings: PickTraining,
    run: TrainRun,
    *,
    command: Sequence[str] = (),
    progress: Callable[[int, Mapping[str, float]], None] | None = None,
    reading: Progress | None = None,
) -> Trained:
    """Train a picker.

    Parameters
    ----------
    sources
        Labelled micrographs; each source has one radius, and all are brought to the same size.
    settings
        What to train and how.
    run
        Where, from which seed, into which folder.
    command
        For the record.
    progress
        Called with each epoch and its numbers.
    reading
        Called with (done, total, micrograph) while micrographs are read.

    Raises
    ------
    EquivoxError
        If the data or the settings cannot be used, results are in the way, or an extra is missing.
    """
    device = choose_device(run.device)
    network_fields(settings.network)  # an unknown network is said before an hour of reading
    if not run.resume:
        require_absent([run.out / name for name in (SETTINGS, CHECKPOINTS, CURVES, MODEL)], overwrite=run.overwrite)
    sets = [open_labelled(one, radius_px=settings.radius_px, seed=run.seed, progress=reading) for one in sources]
    parts = _joined(sources, sets, settings)
    require_labels(parts.training)
    course = PickCourse(settings, prior=None, seed=run.seed)
    course.prior = prior_of(parts.training, settings, stride_px=course.grid.stride_px)
    plan = {
        "seed": run.seed,
        "settings": settings.as_dict(),
        "data": [{**one.as_dict(), "digest": read.digest} for one, read in zip(sources, sets, strict=True)],
    }
    out = _prepare_folder(run, plan)
    schedule = Schedule(
        epochs=settings.epochs, batch_size=settings.batch_size, monitor="val_loss", seed=run.seed, workers=run.workers,
        patience=settings.patience,
    )  # fmt: skip
    counts = {
        "training_micrographs": len(parts.training), "validation_micrographs": len(parts.validation),
        "training_labels": sum(len(one.labels_px) for one in parts.training),
        "validation_labels": sum(len(one.labels_px) for one in parts.validation),
    }  # fmt: skip
    parameters = sum(parameter.numel() for parameter in course.network.parameters())
    record = RunRecord(command, {**settings.as_dict(), "out": str(out)}, seed=run.seed, device=device.as_dict())
    record.add("data", {"sources": plan["data"], **counts})
    record.add("network", {**course.fields, "parameters": parameters})
    warnings = _notes(sets)
    for warning in warnings:
        record.add_warning(warning)
    try:
        with record.timed("training"):
            fitted = fit(
                course,
                TrainingTiles(
                    parts.training, settings, course.grid, seed=run.seed, margins_px=parts.training_margins
                ),
                WholeMicrographs(parts.validation, parts.validation_margins),
                schedule, out, device=device.device, resume=run.resume, tensorboard=run.tensorboard, on_epoch=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        record.write(out / RECORD, "interrupted")
        raise
    with record.timed("calibration"):
        model = write_model(
            out / MODEL, settings, course, fitted, sources=sources, sets=sets,
            size=PickInput(radius_px=settings.radius_px, radius_angstrom=sources[0].radius_angstrom),
            validation=parts.validation, margins_px=parts.validation_margins, counts=counts, seed=run.seed,
        )  # fmt: skip
    record.add("best", {"epoch": fitted.best_epoch, "average_precision": 1.0 - fitted.best_value})
    record.add("model", {"path": MODEL, "sha256": model.sha256})
    record.write(out / RECORD, "done")
    return Trained(model, fitted, device, parameters, counts, warnings)


def _joined(sources: Sequence[PickSource], sets: Sequence[LabelledSet], settings: PickTraining) -> Parts:
    """Micrographs of all sources."""
    parts = Parts([], [], [], [])
    for source, read in zip(sources, sets, strict=True):
        margin = settings.edge_angstrom * settings.radius_px / source.radius_angstrom
        parts.training.extend(read.training)
        parts.validation.extend(read.validation)
        parts.training_margins.extend([margin] * len(read.training))
        parts.validation_margins.extend([margin] * len(read.validation))
    return parts


def _notes(sets: Sequence[LabelledSet]) -> tuple[str, ...]:
    """What a user should know about the data, each once."""
    notes = [note for read in sets for note in read.warnings]
    notes += [f"Particles are {read.contrast}." for read in sets]
    return tuple(dict.fromkeys(notes))


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
            change = "" if name in ("data", "network") else f" ({old.get(name)} then, {new.get(name)} now)"
            raise ConfigError(
                f"{path.parent} was begun with another {name}{change}; resume with the same, or pass --overwrite."
            )
