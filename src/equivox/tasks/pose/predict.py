"""`equivox pose predict`: from scans to poses, transform files, pictures and a page."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import equivox
from equivox.errors import ConfigError, EquivoxError, OutputError
from equivox.formats.atomic import require_absent, require_folder, write_text
from equivox.formats.nifti import write_volume
from equivox.formats.poses import PoseRow, pose_record, write_poses_csv, write_poses_json
from equivox.formats.scans import ScanInput, find_scans
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.items import Interrupted, ItemResult, map_items
from equivox.run.record import Outcome, RunRecord, file_sha256
from equivox.tasks.pose.config import FIRST_VIEWERS, PredictConfig
from equivox.tasks.pose.model import load_pose_model
from equivox.tasks.pose.outputs import (
    HEAD_GRID,
    head_grid,
)
from equivox.tasks.pose.predict_one import InputJob, mask_path, predict_input
from equivox.tasks.pose.results import (
    ITEMS,
    InputResult,
    clear_results,
    clear_unfinished,
    digest_of,
    marker_path,
    whole_result,
)
from equivox.weights.folder import find_model

POSES_CSV, POSES_JSON, RUN_JSON, REPORT = "poses.csv", "poses.json", "run.json", "report.html"
EXIT_DONE, EXIT_SOME_FAILED, EXIT_NOTHING = 0, 1, 3
Progress = Callable[[int, int, "InputOutcome"], None]


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
class InputOutcome:
    """What became of one input: its result, or the failure's code and sentence."""

    scan: ScanInput
    result: InputResult | None
    code: str = ""
    reason: str = ""
    resumed: bool = False

    def rows(self) -> list[PoseRow]:
        """Rows of ``poses.csv``: one per frame, or one that says why there is none."""
        if self.result is None:
            return [PoseRow(input=self.scan.name, frame=0, status="failed", reason=self.reason)]
        return self.result.pose_rows()


@dataclass(frozen=True)
class PredictRun:
    """A finished run."""

    out: Path
    config: PredictConfig
    model: dict[str, str]
    device: DeviceChoice
    outcomes: tuple[InputOutcome, ...]
    warnings: tuple[str, ...]

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
    require_folder(out)
    if run.overwrite and not run.resume:
        clear_results(out)
    else:
        existing = [out / name for name in (POSES_CSV, POSES_JSON, RUN_JSON, REPORT, ITEMS)]
        require_absent(existing, overwrite=run.resume)
        clear_unfinished(out)
    grid = head_grid(config)
    jobs = _jobs(scans, out, config, folder.sha256)
    record = RunRecord(command, {**config.as_dict(), **_plain(run)}, device=device.as_dict())
    model = {"name": folder.name, "sha256": folder.sha256, "path": str(folder.path)}
    record.add("model", model)
    outcomes: dict[int, InputOutcome] = {}

    def done(result: ItemResult[InputResult]) -> None:
        outcome = _outcome(jobs[result.index], result)
        outcomes[result.index] = outcome
        if progress is not None:
            progress(len(outcomes), len(jobs), outcome)

    behaviour: Literal["published"] | None = "published" if config.published else None
    try:
        with record.timed("inputs"):
            map_items(
                predict_input,
                jobs,
                initializer=functools.partial(
                    load_pose_model, str(folder.path), str(device.device), behaviour=behaviour
                ),
                workers=run.workers,
                scheduler=run.scheduler,
                threads=run.threads,
                resume=_earlier if run.resume else None,
                on_done=done,
            )
    except Interrupted:
        finished = _collect(out, config, model, device, outcomes)
        _write_tables(finished, record)
        record.write(out / RUN_JSON, "interrupted")
        raise
    clear_unfinished(out)  # of workers that died
    finished = _collect(out, config, model, device, outcomes)
    if config.reference is None and (config.write_aligned or any(row.world_from_head for row in finished.rows)):
        write_volume(out / HEAD_GRID, grid, dtype="uint8")
    _write_tables(finished, record)
    if config.report:
        from equivox.tasks.pose.predict_page import render_report

        with record.timed("report"):
            write_text(out / REPORT, render_report(finished))
    endings: dict[int, Outcome] = {EXIT_DONE: "done", EXIT_SOME_FAILED: "some_failed"}
    record.write(out / RUN_JSON, endings.get(finished.exit_code, "nothing_done"))
    return finished


def _jobs(scans: Sequence[ScanInput], out: Path, config: PredictConfig, model_sha256: str) -> list[InputJob]:
    """One job per input; the first ten that can be read get a viewer."""
    if config.mask is not None and not Path(config.mask).expanduser().is_dir() and len(scans) > 1:
        raise ConfigError(
            f"--mask {config.mask} is one file and there are {len(scans)} inputs; give a folder with a mask per scan."
        )
    decides: dict[str, object] = {"config": config.as_dict(), "model": model_sha256, "version": equivox.__version__}
    decides["reference"] = file_sha256(config.reference) if config.reference else None
    jobs = []
    viewers = 0
    for scan in scans:
        viewer = config.viewer == "all" or (config.viewer == "first" and viewers < FIRST_VIEWERS)
        viewer = viewer and config.report and not scan.problem
        viewers += viewer
        job = InputJob(scan, out, config, viewer, "", config.mask)
        mask = None
        if config.mask is not None:
            with suppress(EquivoxError, OSError):
                mask = file_sha256(mask_path(job))
        digest = digest_of({**decides, "viewer": viewer, "input": scan.name, "mask": mask})
        jobs.append(InputJob(scan, out, config, viewer, digest, config.mask))
    return jobs


def _earlier(job: InputJob) -> InputResult | None:
    """An earlier whole result of the same input under the same options."""
    return None if job.scan.problem else whole_result(job.out, job.scan.stem, job.scan.path, job.digest)


def _outcome(job: InputJob, result: ItemResult[InputResult]) -> InputOutcome:
    if result.failure is not None:
        marker_path(job.out, job.scan.stem).unlink(missing_ok=True)  # of an earlier run: no longer true
        return InputOutcome(job.scan, None, code=result.failure.code, reason=result.failure.reason)
    return InputOutcome(job.scan, result.value, resumed=result.resumed)


def _collect(
    out: Path, config: PredictConfig, model: dict[str, str], device: DeviceChoice, outcomes: dict[int, InputOutcome]
) -> PredictRun:
    ordered = tuple(outcomes[index] for index in sorted(outcomes))
    warnings = [
        text if text.startswith(outcome.scan.name) else f"{outcome.scan.name}: {text}"
        for outcome in ordered
        if outcome.result
        for text in outcome.result.warnings
    ]
    return PredictRun(out, config, model, device, ordered, tuple(warnings))


def _write_tables(run: PredictRun, record: RunRecord) -> None:
    """``poses.csv`` and ``poses.json``; notes every input, failure and warning in the record."""
    write_poses_csv(run.out / POSES_CSV, run.rows)
    write_poses_json(run.out / POSES_JSON, run.rows, version=equivox.__version__)
    for outcome in run.outcomes:
        result = outcome.result
        facts = {"resumed": outcome.resumed, "stem": outcome.scan.stem}
        record.add_input(outcome.scan.path, sha256=None if result is None else result.input_sha256, **facts)
        if result is None:
            record.add_failure(outcome.scan.name, outcome.code, outcome.reason)
            continue
        for row in result.pose_rows():
            if row.status in ("failed", "no_object"):
                record.add_failure(outcome.scan.name, _code(row), row.reason, frame=row.frame)
        for text in result.warnings:
            record.add_warning(text, input=outcome.scan.name)


def _code(row: PoseRow) -> str:
    return "EQV-NO-OBJECT" if row.status == "no_object" else "EQV-INPUT"


def _plain(run: RunChoice) -> dict[str, object]:
    return {"device": run.device, "workers": run.workers, "threads": run.threads, "scheduler": run.scheduler,
            "resume": run.resume, "overwrite": run.overwrite}  # fmt: skip
