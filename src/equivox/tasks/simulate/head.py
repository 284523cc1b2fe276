"""``equivox simulate head``: stacks of fetal heads with their poses and masks, laid out for ``equivox pose train``."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from equivox import __version__
from equivox.errors import ConfigError, OutputError
from equivox.formats.atomic import require_absent, require_folder, write_text
from equivox.formats.fetal_templates import SHIPPED, read_templates
from equivox.formats.tables import records_as_csv
from equivox.run.batch import InputOutcome, RunChoice, close_record, errors_of, exit_code_of, lost_of, run_inputs
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.record import RUN_JSON, RunRecord, file_sha256
from equivox.run.seeds import seed_for
from equivox.simulate.stack_config import StackSimulation
from equivox.tasks.simulate.head_one import HeadJob, MadeHead, earlier_head, make_head, open_painter
from equivox.tasks.simulate.head_readme import readme

ANNOTATIONS, POSES, PARAMETERS_CSV = "annotations.csv", "poses.csv", "parameters.csv"
README = "README.md"
MOST = 1_000_000
PREFIX = {"training": "sim", "validation": "val"}
"""Of the names of stacks, so that one table holds both folds."""
ANNOTATION_COLUMNS = ("frame_id", "rot_x", "rot_y", "rot_z", "fold")
POSE_COLUMNS = ("id", "file", "qx", "qy", "qz", "qw", "tx", "ty", "tz", "ga_weeks", "brain_volume_ml", "mode")


class HeadOutcome(InputOutcome[HeadJob, MadeHead]):
    """What became of one stack."""

    @property
    def job(self) -> HeadJob:
        """What was to be made."""
        return self.entry


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
        """See :func:`equivox.run.batch.exit_code_of`."""
        return exit_code_of(self.outcomes)

    def as_dict(self) -> dict[str, object]:
        """The document of ``--json`` (schema ``equivox.simulate.head/1``)."""
        return {
            "schema": "equivox.simulate.head/1",
            "version": __version__,
            "out": str(self.out),
            "device": self.device.as_dict(),
            "results": [dict(made.row) for made in self.made],
            "warnings": list(self.warnings),
            "errors": errors_of(self.outcomes),
        }


def simulate_heads_to_files(
    out: Path,
    config: StackSimulation,
    run: RunChoice | None = None,
    *,
    count: int,
    validation: int = 0,
    seed: int = 0,
    templates: Path | None = None,
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
        If results are there already (without resume or overwrite), or the folder cannot be written.
    Interrupted
        A KeyboardInterrupt after what was finished has been written.
    """
    _require_counts(count, validation)
    run = run or RunChoice()
    chosen = choose_device(run.device)
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
        [*tables, *(path for job in jobs for path in job.traces)],
        overwrite=run.overwrite or run.resume,
        resumable=True,
    )
    _forget_others(out, jobs, allowed=run.overwrite or run.resume)
    options = {"count": count, "validation": validation, "templates": str(templates or "shipped"), **run.as_dict()}
    del options["device"]  # told by itself
    record = RunRecord(command, {**config.as_dict(), **options}, seed=seed, device=chosen.as_dict())
    record.add("templates_sha256", digest)
    for text in warnings:
        record.add_warning(text)

    def finish(outcomes: tuple[HeadOutcome, ...]) -> HeadRun:
        finished = HeadRun(out, chosen, outcomes, tuple(warnings))
        _write_tables(finished, config, seed, record)
        return finished

    finished = run_inputs(
        make_head,
        jobs,
        initializer=functools.partial(open_painter, None if templates is None else str(templates), str(chosen.device)),
        run=run, out=out, record=record, earlier=earlier_head, outcome=HeadOutcome, finish=finish, progress=progress,
        timing="stacks",
    )  # fmt: skip
    close_record(record, out, finished.exit_code)
    return finished


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


def _write_tables(run: HeadRun, config: StackSimulation, seed: int, record: RunRecord) -> None:
    rows = [dict(made.row) for made in run.made]
    if rows:
        write_text(run.out / ANNOTATIONS, records_as_csv(rows, ANNOTATION_COLUMNS))
        poses = [{**row, "id": row["frame_id"], "file": f"{row['fold']}/img/{row['frame_id']}.nii.gz"} for row in rows]
        write_text(run.out / POSES, records_as_csv(poses, POSE_COLUMNS))
        write_text(run.out / PARAMETERS_CSV, records_as_csv(rows))
    write_text(run.out / README, readme(config, rows, seed))
    for lost in lost_of(run.outcomes):
        record.add_failure(lost.entry.name, lost.code, lost.reason)
    record.add("stacks", {"made": len(rows), "kept": sum(outcome.resumed for outcome in run.outcomes)})
