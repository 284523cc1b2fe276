"""The frame of a command over many inputs: clear the way, work on each input, say what became of it, close the record.

A task brings what is its own (how a job is done, which tables are written); here is what all of them do alike. One
marker per input (:mod:`equivox.formats.markers`) lets ``--resume`` keep what is done and whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from equivox.errors import OutputError
from equivox.formats.atomic import clear_unfinished, require_absent, require_folder
from equivox.formats.markers import ITEMS
from equivox.formats.scans import InputFile
from equivox.run.device import DeviceChoice
from equivox.run.items import Interrupted, Item, ItemResult, State, Value, map_items
from equivox.run.record import RUN_JSON, Outcome, RunRecord, file_sha256
from equivox.weights.folder import ModelFolder

EXIT_DONE, EXIT_SOME_FAILED, EXIT_NOTHING = 0, 1, 3
ENDINGS: dict[int, Outcome] = {EXIT_DONE: "done", EXIT_SOME_FAILED: "some_failed"}


@dataclass(frozen=True, kw_only=True)
class RunChoice:
    """How the work is run (the fields of the command line's running options that matter here)."""

    device: str = "auto"
    workers: int = 1
    threads: int | None = None
    scheduler: str | None = None
    resume: bool = False
    overwrite: bool = False

    def as_dict(self) -> dict[str, object]:
        """For the run record."""
        return asdict(self)


@runtime_checkable
class Entry(Protocol):
    """Something to work on."""

    @property
    def name(self) -> str:
        """As it is shown and recorded."""


@runtime_checkable
class Job(Protocol):
    """One entry with everything that its worker needs to know."""

    @property
    def entry(self) -> Entry:
        """What is worked on."""

    @property
    def traces(self) -> tuple[Path, ...]:
        """Files of an earlier run that are no longer true where this job fails: its marker, at least."""


@runtime_checkable
class MarkedJob(Protocol):
    """A job over a file whose result is kept with a digest."""

    @property
    def entry(self) -> InputFile:
        """The file."""

    @property
    def digest(self) -> str:
        """Of everything that decides the result, beside the file's bytes."""


@runtime_checkable
class MarkedResult(Protocol):
    """What a marker says of its input."""

    @property
    def input_sha256(self) -> str:
        """Checksum of the input's bytes."""

    @property
    def digest(self) -> str:
        """Of everything else that decided the result."""


EntryType = TypeVar("EntryType", bound=Entry)
JobType = TypeVar("JobType", bound=Job)
Result = TypeVar("Result")
Marked = TypeVar("Marked", bound=MarkedResult)


@dataclass(frozen=True)
class InputOutcome(Generic[EntryType, Result]):
    """What became of one entry: its result, or the failure's code and sentence."""

    entry: EntryType
    result: Result | None
    code: str = ""
    reason: str = ""
    resumed: bool = False


AnyOutcome = TypeVar("AnyOutcome", bound=InputOutcome[Any, Any])
Finished = TypeVar("Finished")


def clear_the_way(out: Path, names: Sequence[str], run: RunChoice) -> None:
    """Make the results' folder and refuse, forget or keep what an earlier run has left there.

    Parameters
    ----------
    out
        Output folder.
    names
        Files of results that may not be replaced without being asked, beside ``run.json`` and the markers.
    run
        With ``overwrite`` earlier markers go, with ``resume`` everything stays.

    Raises
    ------
    OutputError
        If the folder cannot be written, or holds results and neither option is given.
    """
    require_folder(out)
    if run.overwrite and not run.resume:
        shutil.rmtree(out / ITEMS, ignore_errors=True)
    else:
        require_absent([out / name for name in (*names, RUN_JSON, ITEMS)], overwrite=run.resume, resumable=True)
    clear_unfinished(out)


def open_record(
    command: Sequence[str],
    config: Mapping[str, object],
    run: RunChoice,
    device: DeviceChoice,
    folder: ModelFolder,
    *,
    seed: int | None = None,
) -> RunRecord:
    """The record of a command that takes inputs through a model: its options, how it is run, where, which model."""
    record = RunRecord(command, {**config, **run.as_dict()}, seed=seed, device=device.as_dict())
    record.add("model", folder.as_dict())
    return record


def run_items(
    function: Callable[[State, Item], Value],
    items: Sequence[Item],
    *,
    initializer: Callable[[], State],
    run: RunChoice,
    out: Path,
    record: RunRecord,
    earlier: Callable[[Item], Value | None] | None = None,
    on_done: Callable[[ItemResult[Value]], None] | None = None,
    on_interrupt: Callable[[], object] | None = None,
    timing: str = "inputs",
) -> list[ItemResult[Value]]:
    """Map a function over items as the options say (see :func:`equivox.run.items.map_items`).

    Parameters
    ----------
    function, items, initializer, on_done
        As there.
    run
        Workers, scheduler, threads, and whether ``earlier`` is asked.
    out
        Output folder; what dead workers were writing is cleared away at the end.
    record
        Gets the time under the name ``timing``; written as interrupted if that happens.
    earlier
        An earlier, whole result of an item, for ``--resume``.
    on_interrupt
        Called before an interrupted run's record is written: writes what is finished.

    Raises
    ------
    Interrupted
        A KeyboardInterrupt after what was finished has been written.
    """
    try:
        with record.timed(timing):
            results = map_items(
                function, items, initializer=initializer, workers=run.workers, scheduler=run.scheduler,
                threads=run.threads, resume=earlier if run.resume else None, on_done=on_done,
            )  # fmt: skip
    except Interrupted:
        if run.scheduler is None:  # workers of a cluster may still write; our own are gone
            clear_unfinished(out)
        if on_interrupt is not None:
            on_interrupt()
        record.write(out / RUN_JSON, "interrupted")
        raise
    clear_unfinished(out)
    return results


def run_inputs(
    function: Callable[[State, JobType], Value],
    jobs: Sequence[JobType],
    *,
    initializer: Callable[[], State],
    run: RunChoice,
    out: Path,
    record: RunRecord,
    earlier: Callable[[JobType], Value | None],
    outcome: Callable[..., AnyOutcome],
    finish: Callable[[tuple[AnyOutcome, ...]], Finished],
    progress: Callable[[int, int, AnyOutcome], None] | None = None,
    timing: str = "inputs",
) -> Finished:
    """Work on every input; ``finish`` writes the tables, also of an interrupted run.

    Parameters
    ----------
    function, jobs, initializer, run, out, record, earlier, timing
        As for :func:`run_items`. ``function`` writes the marker of its input, last.
    outcome
        :class:`InputOutcome`, or what a task makes of it.
    finish
        From the outcomes so far, in the order of the jobs, to the finished run, with its tables written.
    progress
        Called with (done, total, outcome) as inputs finish.

    Returns
    -------
    What ``finish`` returns for all outcomes. The record is left to :func:`close_record`.
    """
    outcomes: dict[int, AnyOutcome] = {}

    def done(result: ItemResult[Value]) -> None:
        job, failure = jobs[result.index], result.failure
        if failure is None:
            one = outcome(job.entry, result.value, resumed=result.resumed)
        else:
            for path in job.traces:
                with suppress(OSError):
                    path.unlink()
            one = outcome(job.entry, None, code=failure.code, reason=failure.reason)
        outcomes[result.index] = one
        if progress is not None:
            progress(len(outcomes), len(jobs), one)

    def so_far() -> Finished:
        return finish(tuple(outcomes[index] for index in sorted(outcomes)))

    run_items(
        function, jobs, initializer=initializer, run=run, out=out, record=record, earlier=earlier, on_done=done,
        on_interrupt=so_far, timing=timing,
    )  # fmt: skip
    return so_far()


def close_record(record: RunRecord, out: Path, exit_code: int) -> None:
    """Write ``run.json`` of a run that was not interrupted."""
    record.write(out / RUN_JSON, ENDINGS.get(exit_code, "nothing_done"))


def if_still_true(found: Marked | None, job: MarkedJob) -> Marked | None:
    """An earlier result that may stand for a new one: of the same bytes, under the same options and model."""
    if found is None or job.entry.problem or found.digest != job.digest or not job.entry.path.is_file():
        return None
    return found if file_sha256(job.entry.path) == found.input_sha256 else None


def lost_of(outcomes: Sequence[AnyOutcome]) -> list[AnyOutcome]:
    """Those without a result."""
    return [outcome for outcome in outcomes if outcome.result is None]


def exit_code_of(outcomes: Sequence[InputOutcome[Any, Any]]) -> int:
    """0: every input was used; 1: some were not; 2: nothing could be written; 3: nothing could be read or used."""
    lost = lost_of(outcomes)
    if not lost:
        return EXIT_DONE
    if len(lost) < len(outcomes):
        return EXIT_SOME_FAILED
    return OutputError.exit_code if any(outcome.code == OutputError.code for outcome in lost) else EXIT_NOTHING


def errors_of(outcomes: Sequence[InputOutcome[Any, Any]]) -> list[dict[str, str]]:
    """The errors of a ``--json`` document."""
    return [{"input": one.entry.name, "code": one.code, "message": one.reason} for one in lost_of(outcomes)]


def note_inputs(
    record: RunRecord,
    outcomes: Sequence[AnyOutcome],
    facts: Callable[[AnyOutcome], Mapping[str, object]] | None = None,
) -> None:
    """Note every input and every failure in the record, with further ``facts`` of each input."""
    for one in outcomes:
        further = {} if facts is None else facts(one)
        sha256 = None if one.result is None else one.result.input_sha256
        record.add_input(one.entry.path, sha256=sha256, resumed=one.resumed, **further)
        if one.result is None:
            record.add_failure(one.entry.name, one.code, one.reason)
