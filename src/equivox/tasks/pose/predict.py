"""`equivox pose predict`: from scans to poses, transform files, pictures and a page."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import equivox
from equivox.errors import EquivoxError, OutputError
from equivox.formats.atomic import require_folder, write_text
from equivox.formats.markers import digest_of
from equivox.formats.nifti import write_volume
from equivox.formats.poses import PoseRow, pose_record, write_poses_csv, write_poses_json
from equivox.formats.scans import ScanInput, find_scans, mask_of_scan, require_masks
from equivox.run.batch import (
    EXIT_DONE,
    EXIT_NOTHING,
    EXIT_SOME_FAILED,
    InputOutcome,
    RunChoice,
    clear_the_way,
    close_record,
    if_still_true,
    note_inputs,
    open_record,
    run_inputs,
)
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.record import RunRecord, file_sha256
from equivox.tasks.pose.config import FIRST_VIEWERS, PredictConfig
from equivox.tasks.pose.model import load_pose_model
from equivox.tasks.pose.outputs import HEAD_GRID, head_grid
from equivox.tasks.pose.predict_one import InputJob, predict_input
from equivox.tasks.pose.results import InputResult, clear_results, is_whole, read_result
from equivox.weights.folder import find_model

POSES_CSV, POSES_JSON, REPORT = "poses.csv", "poses.json", "report.html"
Progress = Callable[[int, int, "PoseOutcome"], None]


class PoseOutcome(InputOutcome[ScanInput, InputResult]):
    """What became of one input."""

    def rows(self) -> list[PoseRow]:
        """Rows of ``poses.csv``: one per frame, or one that says why there is none."""
        if self.result is None:
            return [PoseRow(input=self.entry.name, frame=0, status="failed", reason=self.reason)]
        return self.result.pose_rows()


@dataclass(frozen=True)
class PredictRun:
    """A finished run."""

    out: Path
    config: PredictConfig
    model: dict[str, str]
    device: DeviceChoice
    outcomes: tuple[PoseOutcome, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about the scans, each with its scan's name."""
        return tuple(
            text if text.startswith(outcome.entry.name) else f"{outcome.entry.name}: {text}"
            for outcome in self.outcomes
            if outcome.result
            for text in outcome.result.warnings
        )

    @property
    def rows(self) -> list[PoseRow]:
        """All rows of ``poses.csv``."""
        return [row for outcome in self.outcomes for row in outcome.rows()]

    @property
    def exit_code(self) -> int:
        """0: a pose in every frame; 1: some without; 2: nothing could be written; 3: nothing could be read or used."""
        states = [row.status for row in self.rows]
        if all(state in ("ok", "low_confidence") for state in states):
            return EXIT_DONE
        if not all(state == "failed" for state in states):
            return EXIT_SOME_FAILED
        unwritten = any(outcome.code == OutputError.code for outcome in self.outcomes)
        return OutputError.exit_code if unwritten else EXIT_NOTHING

    def as_dict(self) -> dict[str, object]:
        """The document of ``--json`` (schema ``equivox.pose.run/1``)."""
        errors = [
            {"input": row.input, "frame": row.frame, "code": _code(row), "message": row.reason}
            for row in self.rows
            if row.status in ("failed", "no_object")
        ]
        return {
            "schema": "equivox.pose.run/1",
            "version": equivox.__version__,
            "out": str(self.out),
            "device": self.device.as_dict(),
            "model": self.model,
            "results": [pose_record(row) for row in self.rows],
            "warnings": list(self.warnings),
            "errors": errors,
        }


def predict_poses(
    inputs: Sequence[str | Path],
    out: Path,
    config: PredictConfig,
    run: RunChoice | None = None,
    *,
    command: Sequence[str] = ("equivox", "pose", "predict"),
    progress: Progress | None = None,
) -> PredictRun:
    """Find the pose in every scan and write everything that the configuration asks for.

    Parameters
    ----------
    inputs
        Files, folders, globs, BIDS roots.
    out
        Output folder.
    config
        What to compute and write.
    run
        Device, workers, resume, overwrite.
    command
        The command line, for the run record.
    progress
        Called with (done, total, outcome) as inputs finish.

    Raises
    ------
    InputError
        If no input is given, or the reference cannot be read.
    OutputError
        If results are there already (without resume or overwrite), or the folder cannot be written.
    ModelFolderError
        If the model is missing or broken.
    Interrupted
        A KeyboardInterrupt after what was finished has been written.
    """
    run = run or RunChoice()
    device = choose_device(run.device)
    folder = find_model(config.model)
    scans = find_scans(inputs)
    if run.overwrite and not run.resume:
        clear_results(require_folder(out))
    clear_the_way(out, (POSES_CSV, POSES_JSON, REPORT), run)
    grid = head_grid(config)
    jobs = _jobs(scans, out, config, folder.sha256)
    record = open_record(command, config.as_dict(), run, device, folder)
    behaviour: Literal["published"] | None = "published" if config.published else None

    def finish(outcomes: tuple[PoseOutcome, ...]) -> PredictRun:
        finished = PredictRun(out, config, folder.as_dict(), device, outcomes)
        _write_tables(finished, record)
        return finished

    finished = run_inputs(
        predict_input,
        jobs,
        initializer=functools.partial(load_pose_model, str(folder.path), str(device.device), behaviour=behaviour),
        run=run, out=out, record=record, earlier=_earlier, outcome=PoseOutcome, finish=finish, progress=progress,
    )  # fmt: skip
    if config.reference is None and (config.write_aligned or any(row.world_from_head for row in finished.rows)):
        write_volume(out / HEAD_GRID, grid, dtype="uint8")
    if config.report:
        from equivox.tasks.pose.predict_page import render_report

        with record.timed("report"):
            write_text(out / REPORT, render_report(finished))
    close_record(record, out, finished.exit_code)
    return finished


def _jobs(scans: Sequence[ScanInput], out: Path, config: PredictConfig, model_sha256: str) -> list[InputJob]:
    """One job per input; the first ten that can be read get a viewer."""
    require_masks(config.mask, len(scans))
    decides: dict[str, object] = {"config": config.as_dict(), "model": model_sha256, "version": equivox.__version__}
    decides["reference"] = file_sha256(config.reference) if config.reference else None
    jobs = []
    viewers = 0
    for scan in scans:
        viewer = config.viewer == "all" or (config.viewer == "first" and viewers < FIRST_VIEWERS)
        viewer = viewer and config.report and not scan.problem
        viewers += viewer
        mask = None
        if config.mask is not None:
            with suppress(EquivoxError, OSError):
                mask = file_sha256(mask_of_scan(config.mask, scan))
        digest = digest_of({**decides, "viewer": viewer, "input": scan.name, "mask": mask})
        jobs.append(InputJob(scan, out, config, viewer, digest, config.mask))
    return jobs


def _earlier(job: InputJob) -> InputResult | None:
    """An earlier whole result of the same input under the same options."""
    found = if_still_true(read_result(job.out, job.entry.stem), job)
    return found if found is not None and is_whole(job.out, found) else None


def _write_tables(run: PredictRun, record: RunRecord) -> None:
    """``poses.csv`` and ``poses.json``; notes every input, failure and warning in the record."""
    write_poses_csv(run.out / POSES_CSV, run.rows)
    write_poses_json(run.out / POSES_JSON, run.rows, version=equivox.__version__)
    for outcome in run.outcomes:
        note_inputs(record, [outcome], lambda one: {"stem": one.entry.stem})
        if outcome.result is None:
            continue
        for row in outcome.result.pose_rows():
            if row.status in ("failed", "no_object"):
                record.add_failure(outcome.entry.name, _code(row), row.reason, frame=row.frame)
        for text in outcome.result.warnings:
            record.add_warning(text, input=outcome.entry.name)


def _code(row: PoseRow) -> str:
    return "EQV-NO-OBJECT" if row.status == "no_object" else "EQV-INPUT"
