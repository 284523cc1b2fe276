"""``equivox simulate head``: stacks of fetal heads with their poses and masks, laid out for ``equivox pose train``."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equivox import __version__
from equivox.errors import ConfigError, OutputError
from equivox.formats.atomic import require_absent, require_folder, write_text
from equivox.formats.fetal_templates import SHIPPED, read_templates
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.items import Interrupted, ItemResult, map_items
from equivox.run.record import Outcome, RunRecord, file_sha256
from equivox.run.seeds import seed_for
from equivox.simulate.stack_config import StackSimulation
from equivox.tasks.simulate.head_one import HeadJob, MadeHead, earlier_head, make_head, open_painter
from equivox.tasks.simulate.head_readme import readme

ANNOTATIONS, POSES, PARAMETERS_CSV = "annotations.csv", "poses.csv", "parameters.csv"
README, RUN_JSON = "README.md", "run.json"
MOST = 1_000_000
PREFIX = {"training": "sim", "validation": "val"}
"""Of the names of stacks, so that one table holds both folds."""
ANNOTATION_COLUMNS = ("frame_id", "rot_x", "rot_y", "rot_z", "fold")
POSE_COLUMNS = ("id", "file", "qx", "qy", "qz", "qw", "tx", "ty", "tz", "ga_weeks", "brain_volume_ml", "mode")


@dataclass(frozen=True, slots=True)
class HeadOutcome:
    """What became of one stack."""

    job: HeadJob
    result: MadeHead | None
    code: str = ""
    reason: str = ""
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class HeadRun:
    """A finished run."""

    out: Path
    device: DeviceChoice
    outcomes: tuple[HeadOutcome, ...]
    warnings: tuple[str, ...]

    @property
    def made(self) -> list[MadeHead]:
        """The stacks that are there."""
        return [outcome.result for outcome in self.outcomes if outcome.result is not None]

    @property
    def exit_code(self) -> int:
        """0: all are written; 1: some; 2: none could be written; 3: none could be made."""
        lost = [outcome for outcome in self.outcomes if outcome.result is None]
        if len(lost) < len(self.outcomes):
            return 1 if lost else 0
        return 2 if any(outcome.code == OutputError.code for outcome in lost) else 3

    def as_dict(self) -> dict[str, object]:
        """The document of ``--json`` (schema ``equivox.simulate.head/1``)."""
        return {
            "schema": "equivox.simulate.head/1",
            "version": __version__,
            "out": str(self.out),
            "device": self.device.as_dict(),
            "results": [dict(made.row) for made in self.made],
            "warnings": list(self.warnings),
            "errors": [
                {"input": outcome.job.id, "code": outcome.code, "message": outcome.reason}
                for outcome in self.outcomes
                if outcome.result is None
            ],
        }


def simulate_heads_to_files(
    out: Path,
    config: StackSimulation,
    *,
    count: int,
    validation: int = 0,
    seed: int = 0,
    templates: Path | None = None,
    device: str = "auto",
    workers: int = 1,
    threads: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: Sequence[str] = ("equivox", "simulate", "head"),
    progress: Callable[[int, int, HeadOutcome], None] | None = None,
) -> HeadRun:
    """Make ``count`` stacks for training and ``validation`` more; write files, tables, a README and ``run.json``.

    A stack depends on the seed, its number, the ranges and the templates alone: more workers, another count or a
    resumed run give the same files.

    Raises
    ------
    InputError
        If the templates cannot be used.
    ConfigError
        If an option is out of range.
    OutputError
        If results are there already (without ``resume`` or ``overwrite``), or the folder cannot be written.
    Interrupted
        A KeyboardInterrupt after what was finished has been written.
    """
    _require_counts(count, validation)
    chosen = choose_device(device)
    files = read_templates(templates)
    warnings = []
    if files.epi is None and config.mode_weights[0] > 0:
        warnings.append(f"{templates or SHIPPED} holds no epi_head_*.nii.gz; its share goes to the other modes.")
    digest = templates_digest(templates or SHIPPED)
    require_folder(out)
    jobs = [
        HeadJob(f"{PREFIX[fold]}-{number:05d}", fold, seed_for(seed, f"head-{fold}", number), out, config, digest)
        for fold, size in (("training", count), ("validation", validation))
        for number in range(size)
    ]
    tables = [out / name for name in (ANNOTATIONS, POSES, PARAMETERS_CSV, README, RUN_JSON)]
    require_absent(
        [*tables, *(path for job in jobs for path in (job.image, job.labels, job.sidecar))],
        overwrite=overwrite or resume,
    )
    _forget_others(out, jobs, allowed=overwrite or resume)
    options = {"count": count, "validation": validation, "templates": str(templates or "shipped"), "workers": workers,
               "threads": threads, "scheduler": scheduler, "resume": resume, "overwrite": overwrite}  # fmt: skip
    record = RunRecord(command, {**config.as_dict(), **options}, seed=seed, device=chosen.as_dict())
    record.add("templates_sha256", digest)
    for text in warnings:
        record.add_warning(text)
    outcomes: dict[int, HeadOutcome] = {}

    def done(result: ItemResult[MadeHead]) -> None:
        outcome = _outcome(jobs[result.index], result)
        outcomes[result.index] = outcome
        if progress is not None:
            progress(len(outcomes), len(jobs), outcome)

    def finished() -> HeadRun:
        return HeadRun(out, chosen, tuple(outcomes[index] for index in sorted(outcomes)), tuple(warnings))

    try:
        with record.timed("stacks"):
            map_items(
                make_head,
                jobs,
                initializer=functools.partial(
                    open_painter, None if templates is None else str(templates), str(chosen.device)
                ),
                workers=workers,
                scheduler=scheduler,
                threads=threads,
                resume=earlier_head if resume else None,
                on_done=done,
            )
    except Interrupted:
        _write_tables(finished(), config, seed, record, "interrupted")
        raise
    run = finished()
    endings: dict[int, Outcome] = {0: "done", 1: "some_failed"}
    _write_tables(run, config, seed, record, endings.get(run.exit_code, "nothing_done"))
    return run


def templates_digest(folder: Path) -> str:
    """One checksum of every template file of a folder, by name."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.nii.gz")):
        total.update(f"{path.name} {file_sha256(path)}\n".encode())
    return total.hexdigest()


def _require_counts(count: int, validation: int) -> None:
    if not 1 <= count <= MOST:
        raise ConfigError(f"--count is {count}; it must be 1 to {MOST}.")
    if not 0 <= validation <= MOST:
        raise ConfigError(f"--validation is {validation}; it must be 0 to {MOST}.")


def _forget_others(out: Path, jobs: Sequence[HeadJob], *, allowed: bool) -> None:
    """Refuse a folder with stacks that this run would not make: they would be trained on without a row."""
    known = {path for job in jobs for path in (job.image, job.labels)}
    strangers = sorted(
        path
        for fold in ("training", "validation")
        for kind in ("img", "lab")
        for path in (out / fold / kind).glob(f"{PREFIX[fold]}-*.nii.gz")
        if path not in known
    )
    if strangers:
        advice = "give at least the earlier --count, or another --out" if allowed else "choose another --out"
        raise OutputError(
            f"{strangers[0]} and {len(strangers) - 1} more are of an earlier run and not of this one; {advice}."
        )


def _outcome(job: HeadJob, result: ItemResult[MadeHead]) -> HeadOutcome:
    if result.failure is None:
        return HeadOutcome(job, result.value, resumed=result.resumed)
    for path in (job.image, job.labels, job.sidecar):  # of an earlier run: no longer true
        with suppress(OSError):
            path.unlink()
    return HeadOutcome(job, None, code=result.failure.code, reason=result.failure.reason)


def _write_tables(run: HeadRun, config: StackSimulation, seed: int, record: RunRecord, ending: Outcome) -> None:
    rows = [dict(made.row) for made in run.made]
    if rows:
        _write_csv(run.out / ANNOTATIONS, ANNOTATION_COLUMNS, rows)
        poses = [{**row, "id": row["frame_id"], "file": f"{row['fold']}/img/{row['frame_id']}.nii.gz"} for row in rows]
        _write_csv(run.out / POSES, POSE_COLUMNS, poses)
        _write_csv(run.out / PARAMETERS_CSV, tuple(rows[0]), rows)
    write_text(run.out / README, readme(config, rows, seed))
    for outcome in run.outcomes:
        if outcome.result is None:
            record.add_failure(outcome.job.id, outcome.code, outcome.reason)
    record.add("stacks", {"made": len(rows), "kept": sum(outcome.resumed for outcome in run.outcomes)})
    record.write(run.out / RUN_JSON, ending)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row[name] for name in columns] for row in rows)
    write_text(path, text.getvalue())
