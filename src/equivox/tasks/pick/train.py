"""`equivox pick train`: from labelled micrographs to a model folder.

Writes into the results' folder: ``model/`` (what ``equivox pick predict --model`` takes), ``checkpoints/best.ckpt`` and
``last.ckpt``, ``curves.csv``, ``training.json`` (settings and data, to go on with) and ``run.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from equivox.formats.atomic import require_absent
from equivox.run.device import choose_device
from equivox.run.schedule import Schedule
from equivox.run.training_folder import MODEL, RESULTS, TrainRun
from equivox.run.training_session import Progress, Trained, TrainingSession, parameter_count
from equivox.tasks.pick.config import PickInput, PickSource, PickTraining
from equivox.tasks.pick.data import LabelledMicrograph, LabelledSet, open_labelled, require_labels
from equivox.tasks.pick.data import Progress as ReadingProgress
from equivox.tasks.pick.samples import TrainingTiles, WholeMicrographs
from equivox.tasks.pick.train_course import PickCourse, network_fields, prior_of
from equivox.tasks.pick.train_result import write_model

MAY_CHANGE = ("epochs", "patience")
"""Settings that a resumed run may have otherwise."""


class TrainedPicker(Trained):
    """What a training has made; ``counts`` are of micrographs and of labels."""

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
    progress: Progress | None = None,
    reading: ReadingProgress | None = None,
) -> TrainedPicker:
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
        require_absent([run.out / name for name in RESULTS], overwrite=run.overwrite, resumable=True)
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
    warnings = _notes(sets)
    session = TrainingSession(run, plan, device, command=command, warnings=warnings, may_change=MAY_CHANGE)
    schedule = Schedule(
        epochs=settings.epochs, batch_size=settings.batch_size, monitor="val_loss", seed=run.seed, workers=run.workers,
        patience=settings.patience, keep_every=run.keep_every,
    )  # fmt: skip
    counts = {
        "training_micrographs": len(parts.training), "validation_micrographs": len(parts.validation),
        "training_labels": sum(len(one.labels_px) for one in parts.training),
        "validation_labels": sum(len(one.labels_px) for one in parts.validation),
    }  # fmt: skip
    parameters = parameter_count(course.network)
    session.record.add("data", {"sources": plan["data"], **counts})
    session.record.add("network", {**course.fields, "parameters": parameters})
    fitted = session.fit(
        course,
        TrainingTiles(parts.training, settings, course.grid, seed=run.seed, margins_px=parts.training_margins),
        WholeMicrographs(parts.validation, parts.validation_margins),
        schedule,
        progress,
    )
    with session.record.timed("calibration"):
        model = write_model(
            session.out / MODEL, settings, course, fitted, sources=sources, sets=sets,
            size=PickInput(radius_px=settings.radius_px, radius_angstrom=sources[0].radius_angstrom),
            validation=parts.validation, margins_px=parts.validation_margins, counts=counts, seed=run.seed,
        )  # fmt: skip
    session.close(model, best={"epoch": fitted.best_epoch, "average_precision": 1.0 - fitted.best_value})
    return TrainedPicker(model, fitted, device, parameters, counts, warnings)


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
