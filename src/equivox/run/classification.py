"""Files through a classifier: ``predictions.csv``, ``predictions.json``, a marker per file and ``run.json``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, runtime_checkable

import equivox
from equivox.errors import InputError
from equivox.formats.atomic import write_json
from equivox.formats.markers import digest_of, marker_path
from equivox.formats.predictions import InputResult, PredictionRow, read_result, write_predictions
from equivox.formats.scans import ScanInput
from equivox.run.batch import (
    InputOutcome,
    RunChoice,
    clear_the_way,
    close_record,
    errors_of,
    exit_code_of,
    if_still_true,
    note_inputs,
    open_record,
    run_inputs,
)
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.items import State
from equivox.run.record import file_sha256
from equivox.weights.folder import ModelFolder, find_model

PREDICTIONS_CSV, PREDICTIONS_JSON = "predictions.csv", "predictions.json"


@runtime_checkable
class Answer(Protocol):
    """What a classifier says of one object or picture."""

    @property
    def label(self) -> str:
        """The likeliest class."""

    @property
    def probability(self) -> float:
        """Its probability."""

    @property
    def probabilities(self) -> Mapping[str, float]:
        """Of every class."""


@dataclass(frozen=True)
class FileClassifier(Generic[State]):
    """What a task knows about its files and its models.

    Parameters
    ----------
    schema
        Of the document of ``--json``.
    find
        From files, folders and globs to inputs.
    classes
        Names of the classes of a model folder; raises ModelFolderError if the model is broken or of another task.
    load
        From the path of a model folder and a device to a model, in each worker.
    answers
        From a model and a file to (name of the object in the file, or nothing; answer) of all its objects.
    """

    schema: str
    find: Callable[[Sequence[str | Path]], list[ScanInput]]
    classes: Callable[[ModelFolder], tuple[str, ...]]
    load: Callable[[Path, str], State]
    answers: Callable[[State, Path], Sequence[tuple[str, Answer]]]


@dataclass(frozen=True)
class FileJob:
    """One file with everything that its worker needs to know."""

    entry: ScanInput
    out: Path
    digest: str

    @property
    def traces(self) -> tuple[Path, ...]:
        """Its marker."""
        return (marker_path(self.out, self.entry.stem),)


class FileOutcome(InputOutcome[ScanInput, InputResult]):
    """What became of one file."""

    def rows(self) -> list[PredictionRow]:
        """Rows of ``predictions.csv``: one per object or picture, or one that says why there is none."""
        if self.result is None:
            return [PredictionRow(input=self.entry.name, status="failed", reason=self.reason)]
        return list(self.result.rows)


@dataclass(frozen=True)
class ClassifyRun:
    """A finished run."""

    schema: str
    out: Path
    model: dict[str, str]
    classes: tuple[str, ...]
    device: DeviceChoice
    outcomes: tuple[FileOutcome, ...]

    @property
    def rows(self) -> list[PredictionRow]:
        """All rows of ``predictions.csv``."""
        return [row for outcome in self.outcomes for row in outcome.rows()]

    @property
    def exit_code(self) -> int:
        """See :func:`equivox.run.batch.exit_code_of`."""
        return exit_code_of(self.outcomes)

    def as_dict(self) -> dict[str, object]:
        """The document of ``--json``."""
        return {
            "schema": self.schema,
            "version": equivox.__version__,
            "out": str(self.out),
            "device": self.device.as_dict(),
            "model": self.model,
            "classes": list(self.classes),
            "results": [row.as_dict() for row in self.rows],
            "warnings": [],
            "errors": errors_of(self.outcomes),
        }


Progress = Callable[[int, int, FileOutcome], None]


def classify_files(
    classifier: FileClassifier[Any],
    inputs: Sequence[str | Path],
    out: Path,
    model: str,
    run: RunChoice | None = None,
    *,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> ClassifyRun:
    """Classify every object in every file.

    Parameters
    ----------
    classifier
        What the task knows about its files and its models.
    inputs
        Files, folders, globs.
    out
        Output folder.
    model
        Name or folder of a model.
    run
        Device, workers, resume, overwrite.
    command
        The command line, for the run record.
    progress
        Called with (done, total, outcome) as inputs finish.

    Raises
    ------
    InputError
        If no input is given.
    OutputError
        If results are there already (without resume or overwrite), or the folder cannot be written.
    ModelFolderError
        If the model is missing, broken, or of another task.
    Interrupted
        A KeyboardInterrupt after what was finished has been written.
    """
    run = run or RunChoice()
    device = choose_device(run.device)
    folder = find_model(model)
    classes = classifier.classes(folder)
    entries = classifier.find(inputs)
    clear_the_way(out, (PREDICTIONS_CSV, PREDICTIONS_JSON), run)
    digest = digest_of({"model": folder.sha256, "version": equivox.__version__})
    record = open_record(command, {"model": model}, run, device, folder)

    def finish(outcomes: tuple[FileOutcome, ...]) -> ClassifyRun:
        finished = ClassifyRun(classifier.schema, out, folder.as_dict(), classes, device, outcomes)
        write_predictions(out / PREDICTIONS_CSV, finished.rows, classes)
        write_json(out / PREDICTIONS_JSON, finished.as_dict())
        note_inputs(record, outcomes)
        return finished

    finished = run_inputs(
        functools.partial(classify_file, classifier.answers),
        [FileJob(entry, out, digest) for entry in entries],
        initializer=functools.partial(classifier.load, folder.path, str(device.device)),
        run=run, out=out, record=record, earlier=_earlier, outcome=FileOutcome, finish=finish, progress=progress,
    )  # fmt: skip
    close_record(record, out, finished.exit_code)
    return finished


def classify_file(
    answers: Callable[[State, Path], Sequence[tuple[str, Answer]]], model: State, job: FileJob
) -> InputResult:
    """Classify the objects of one file and write its marker; a file that cannot be used raises."""
    if job.entry.problem:
        raise InputError(job.entry.problem)
    rows = tuple(
        PredictionRow(
            input=f"{job.entry.name}#{name}" if name else job.entry.name,
            status="ok",
            label=one.label,
            probability=round(one.probability, 6),
            probabilities={label: round(value, 6) for label, value in one.probabilities.items()},
        )
        for name, one in answers(model, job.entry.path)
    )
    result = InputResult(job.entry.name, job.entry.stem, file_sha256(job.entry.path), job.digest, rows)
    result.write(job.out)
    return result


def _earlier(job: FileJob) -> InputResult | None:
    """An earlier whole result of the same file under the same model."""
    found = if_still_true(read_result(job.out, job.entry.stem), job)
    return found if found is not None and found.input == job.entry.name else None
