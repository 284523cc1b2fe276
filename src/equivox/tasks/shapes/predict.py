"""`equivox shapes predict`: from files to ``predictions.csv``, ``predictions.json`` and ``run.json``."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import equivox
from equivox.errors import InputError, OutputError
from equivox.formats.atomic import require_absent, require_folder, write_json
from equivox.formats.predictions import (
    ITEMS,
    InputResult,
    PredictionRow,
    digest_of,
    marker_path,
    read_result,
    write_predictions,
)
from equivox.formats.scans import ScanInput
from equivox.formats.shape_files import find_shapes
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.items import Interrupted, ItemResult, map_items
from equivox.run.record import Outcome, RunRecord, file_sha256
from equivox.tasks.shapes.classifier import ShapeModel, load_shape_model, open_shape_model
from equivox.weights.folder import find_model

PREDICTIONS_CSV, PREDICTIONS_JSON, RUN_JSON = "predictions.csv", "predictions.json", "run.json"
EXIT_DONE, EXIT_SOME_FAILED, EXIT_NOTHING = 0, 1, 3


@dataclass(frozen=True, kw_only=True)
class RunChoice:
    """How the work is run (the fields of the command line's running options that matter here)."""

    device: str = "auto"
    workers: int = 1
    threads: int | None = None
    scheduler: str | None = None
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class InputJob:
    """One input with everything that its worker needs to know."""

    entry: ScanInput
    out: Path
    digest: str


@dataclass(frozen=True)
class InputOutcome:
    """What became of one input: its result, or the failure's code and sentence."""

    entry: ScanInput
    result: InputResult | None
    code: str = ""
    reason: str = ""
    resumed: bool = False

    def rows(self) -> list[PredictionRow]:
        """Rows of ``predictions.csv``: one per object, or one that says why there is none."""
        if self.result is None:
            return [PredictionRow(input=self.entry.name, status="failed", reason=self.reason)]
        return list(self.result.rows)


@dataclass(frozen=True)
class PredictRun:
    """A finished run."""

    out: Path
    model: dict[str, str]
    classes: tuple[str, ...]
    device: DeviceChoice
    outcomes: tuple[InputOutcome, ...]

    @property
    def rows(self) -> list[PredictionRow]:
        """All rows of ``predictions.csv``."""
        return [row for outcome in self.outcomes for row in outcome.rows()]

    @property
    def exit_code(self) -> int:
        """0: every input was used; 1: some were not; 2: nothing could be written; 3: nothing could be read or used."""
        lost = [outcome for outcome in self.outcomes if outcome.result is None]
        if not lost:
            return EXIT_DONE
        if len(lost) < len(self.outcomes):
            return EXIT_SOME_FAILED
        return OutputError.exit_code if any(outcome.code == OutputError.code for outcome in lost) else EXIT_NOTHING

    def as_dict(self) -> dict[str, object]:
        """The document of ``--json`` (schema ``equivox.shapes.run/1``)."""
        lost = [outcome for outcome in self.outcomes if outcome.result is None]
        return {
            "schema": "equivox.shapes.run/1",
            "version": equivox.__version__,
            "out": str(self.out),
            "device": self.device.as_dict(),
            "model": self.model,
            "classes": list(self.classes),
            "results": [row.as_dict() for row in self.rows],
            "warnings": [],
            "errors": [{"input": one.entry.name, "code": one.code, "message": one.reason} for one in lost],
        }


Progress = Callable[[int, int, InputOutcome], None]


def predict_shapes(
    inputs: Sequence[str | Path],
    out: Path,
    model: str,
    run: RunChoice | None = None,
    *,
    command: Sequence[str] = ("equivox", "shapes", "predict"),
    progress: Progress | None = None,
) -> PredictRun:
    """Classify every object in every file.

    Parameters
    ----------
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
    classes = open_shape_model(folder).classes
    entries = find_shapes(inputs)
    require_folder(out)
    if run.overwrite and not run.resume:
        shutil.rmtree(out / ITEMS, ignore_errors=True)
    else:
        existing = [out / name for name in (PREDICTIONS_CSV, PREDICTIONS_JSON, RUN_JSON, ITEMS)]
        require_absent(existing, overwrite=run.resume)
    named = {"name": folder.name, "sha256": folder.sha256, "path": str(folder.path)}
    digest = digest_of({"model": folder.sha256, "version": equivox.__version__})
    jobs = [InputJob(entry, out, digest) for entry in entries]
    record = RunRecord(command, {"model": model, **asdict(run)}, device=device.as_dict())
    record.add("model", named)
    outcomes: dict[int, InputOutcome] = {}

    def done(result: ItemResult[InputResult]) -> None:
        outcome = _outcome(jobs[result.index], result)
        outcomes[result.index] = outcome
        if progress is not None:
            progress(len(outcomes), len(jobs), outcome)

    def finish() -> PredictRun:
        ordered = tuple(outcomes[index] for index in sorted(outcomes))
        finished = PredictRun(out, named, classes, device, ordered)
        _write_tables(finished, record)
        return finished

    try:
        with record.timed("inputs"):
            map_items(
                predict_input,
                jobs,
                initializer=functools.partial(load_shape_model, folder.path, str(device.device)),
                workers=run.workers,
                scheduler=run.scheduler,
                threads=run.threads,
                resume=_earlier if run.resume else None,
                on_done=done,
            )
    except Interrupted:
        finish()
        record.write(out / RUN_JSON, "interrupted")
        raise
    finished = finish()
    endings: dict[int, Outcome] = {EXIT_DONE: "done", EXIT_SOME_FAILED: "some_failed"}
    record.write(out / RUN_JSON, endings.get(finished.exit_code, "nothing_done"))
    return finished


def predict_input(model: ShapeModel, job: InputJob) -> InputResult:
    """Classify the objects of one file and write its marker; a file that cannot be used raises."""
    if job.entry.problem:
        raise InputError(job.entry.problem)
    found = model.predict(job.entry.path)
    rows = tuple(
        PredictionRow(
            input=f"{job.entry.name}#{one.object}" if one.object else job.entry.name,
            status="ok",
            label=one.label,
            probability=round(one.probability, 6),
            probabilities={name: round(value, 6) for name, value in one.probabilities.items()},
        )
        for one in found
    )
    result = InputResult(job.entry.name, job.entry.stem, file_sha256(job.entry.path), job.digest, rows)
    result.write(job.out)
    return result


def _earlier(job: InputJob) -> InputResult | None:
    """An earlier whole result of the same file under the same model."""
    found = None if job.entry.problem else read_result(job.out, job.entry.stem)
    same = found is not None and found.digest == job.digest and found.input == job.entry.name
    if not same or found is None or found.input_sha256 != file_sha256(job.entry.path):
        return None
    return found


def _outcome(job: InputJob, result: ItemResult[InputResult]) -> InputOutcome:
    if result.failure is not None:
        marker_path(job.out, job.entry.stem).unlink(missing_ok=True)  # of an earlier run: no longer true
        return InputOutcome(job.entry, None, code=result.failure.code, reason=result.failure.reason)
    return InputOutcome(job.entry, result.value, resumed=result.resumed)


def _write_tables(run: PredictRun, record: RunRecord) -> None:
    """``predictions.csv`` and ``predictions.json``; notes every input and failure in the record."""
    write_predictions(run.out / PREDICTIONS_CSV, run.rows, run.classes)
    write_json(run.out / PREDICTIONS_JSON, run.as_dict())
    for outcome in run.outcomes:
        sha256 = None if outcome.result is None else outcome.result.input_sha256
        record.add_input(outcome.entry.path, sha256=sha256, resumed=outcome.resumed)
        if outcome.result is None:
            record.add_failure(outcome.entry.name, outcome.code, outcome.reason)
