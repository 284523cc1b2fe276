"""How cryo-EM simulations run: one job per micrograph, a file with its truth beside each, tables at the end.

A job depends on its own seed and on the options alone, so that more workers, a larger count or a resumed run give the
same files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from equivox import __version__
from equivox.errors import ConfigError, InputError, OutputError
from equivox.formats.atomic import require_absent, require_folder, write_json
from equivox.run.batch import InputOutcome, RunChoice, close_record, lost_of, run_inputs
from equivox.run.record import RUN_JSON, RunRecord, file_sha256
from equivox.simulate.ctf import Microscope
from equivox.simulate.specimen import Specimen
from equivox.tasks.simulate.specimen_files import (
    SpecimenChoice,
    open_specimen,
    read_histogram,
    shipped_histogram,
    source_path,
)

State = TypeVar("State")
MOST = 100_000


@dataclass(frozen=True, slots=True)
class FrameJob:
    """One micrograph to make: its image (or its stack of particles), its truth, and what both depend on."""

    name: str
    seed: int
    count: int
    image: Path
    sidecar: Path
    key: str

    @property
    def entry(self) -> FrameJob:
        """Nothing is read but the particle: the job itself."""
        return self

    @property
    def traces(self) -> tuple[Path, ...]:
        """Both files."""
        return self.image, self.sidecar


@dataclass(frozen=True, slots=True)
class MadeFrame:
    """A micrograph that is there, with its truth as JSON values."""

    name: str
    truth: Mapping[str, Any]


FrameOutcome = InputOutcome[FrameJob, MadeFrame]


@dataclass(frozen=True, slots=True)
class CryoRun:
    """A finished run: what was made, what failed and why, and the tables that were written."""

    schema: str
    out: Path
    made: tuple[MadeFrame, ...]
    failures: tuple[tuple[str, str, str], ...]
    warnings: tuple[str, ...]
    written: tuple[Path, ...]

    @property
    def particles(self) -> int:
        """Particles in all."""
        return sum(len(frame.truth["rot_tilt_psi_deg"]) for frame in self.made)

    @property
    def exit_code(self) -> int:
        """0: all are written; 1: some; 2: none could be written; 3: none could be made."""
        if self.made:
            return 1 if self.failures else 0
        return 2 if any(code == OutputError.code for _, code, _ in self.failures) else 3

    def as_dict(self) -> dict[str, object]:
        """The document of ``--json``."""
        return {
            "schema": self.schema,
            "version": __version__,
            "out": str(self.out),
            "results": [{"micrographs": len(self.made), "particles": self.particles,
                         "written": [str(path) for path in self.written]}],
            "warnings": list(self.warnings),
            "errors": [{"input": name, "code": code, "message": text} for name, code, text in self.failures],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class CryoPlan:
    """What a command asks for: where, how many, of what, and how the work is run."""

    out: Path
    choice: SpecimenChoice
    microscope: Microscope
    seed: int = 0
    views: Path | None = None
    run: RunChoice = field(default_factory=RunChoice)
    command: Sequence[str] = ("equivox", "simulate")

    def key(self, config: Mapping[str, object]) -> str:
        """Checksum of everything that an image depends on but its seed."""
        source = source_path(self.choice.source)
        views = None if self.views is None else file_sha256(self.views)
        facts = [__version__, file_sha256(source) if source.is_file() else "", repr(self.choice), repr(self.microscope),
                 json.dumps(config, sort_keys=True), views]  # fmt: skip
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def open_scene(plan: CryoPlan) -> tuple[Specimen, torch.Tensor, tuple[str, ...]]:
    """The particle, the histogram of views, and what had to be assumed."""
    specimen, warnings = open_specimen(plan.choice)
    histogram = shipped_histogram() if plan.views is None else read_histogram(plan.views)
    return specimen, histogram, warnings


def earlier_frame(job: FrameJob) -> MadeFrame | None:
    """A whole result of the same job of an earlier run."""
    try:
        document = json.loads(job.sidecar.read_text(encoding="utf-8"))
        if document["key"] != job.key or document["seed"] != job.seed or document["count"] != job.count:
            return None
        return MadeFrame(job.name, document["truth"]) if job.image.stat().st_size == document["bytes"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_frame(job: FrameJob, truth: Mapping[str, Any]) -> MadeFrame:
    """Write the truth beside an image that is there."""
    document = {"key": job.key, "seed": job.seed, "count": job.count, "bytes": job.image.stat().st_size, "truth": truth}
    write_json(job.sidecar, document)
    return MadeFrame(job.name, dict(truth))


def run_frames(
    plan: CryoPlan,
    config: Mapping[str, object],
    jobs: Sequence[FrameJob],
    make: Callable[[State, FrameJob], MadeFrame],
    initializer: Callable[[], State],
    tables: Callable[[Sequence[MadeFrame]], list[Path]],
    *,
    schema: str,
    planned: Sequence[Path],
    progress: Callable[[int, int, str, str], None] | None = None,
) -> CryoRun:
    """Make all frames, write the tables and ``run.json``.

    Raises
    ------
    OutputError
        If results are there already (without ``resume`` or ``overwrite``).
    InputError, ConfigError
        If the particle cannot be opened.
    Interrupted
        After what was finished has been written.
    """
    if not 1 <= len(jobs) <= MOST:
        raise ConfigError(f"{len(jobs)} micrographs; 1 to {MOST} can be made at once.")
    _, _, warnings = open_scene(plan)
    require_folder(plan.out)
    paths = [*planned, plan.out / RUN_JSON, *(path for job in jobs for path in job.traces)]
    require_absent(paths, overwrite=plan.run.overwrite or plan.run.resume, resumable=True)
    options = {"source": plan.choice.source, **plan.run.as_dict()}
    del options["device"]  # none is asked for
    options["views"] = None if plan.views is None else str(plan.views)
    record = RunRecord(plan.command, {**config, **options}, seed=plan.seed)
    record.add_input(source_path(plan.choice.source))
    for text in warnings:
        record.add_warning(text)

    def tell(done: int, total: int, one: FrameOutcome) -> None:
        if progress is not None:
            state = "failed" if one.result is None else "kept" if one.resumed else "made"
            progress(done, total, one.entry.name, state)

    def finish(outcomes: tuple[FrameOutcome, ...]) -> CryoRun:
        frames = tuple(one.result for one in outcomes if one.result is not None)
        written = tables(frames) if frames else []
        lost = tuple((one.entry.name, one.code, one.reason) for one in lost_of(outcomes))
        for name, code, reason in lost:
            record.add_failure(name, code, reason)
        return CryoRun(schema, plan.out, frames, lost, warnings, tuple(written))

    finished = run_inputs(
        make, jobs, initializer=initializer, run=plan.run, out=plan.out, record=record, earlier=earlier_frame,
        outcome=InputOutcome, finish=finish, progress=tell, timing="images",
    )  # fmt: skip
    close_record(record, plan.out, finished.exit_code)
    return finished


def require_some(count: int, option: str) -> None:
    """ConfigError unless a count is 1 to ten million."""
    if not 1 <= count <= 10_000_000:
        raise ConfigError(f"{option} is {count}; it must be 1 to 10000000.")


def require_views(path: Path | None) -> None:
    """InputError if a histogram of views is named that is not there."""
    if path is not None and not path.is_file():
        raise InputError(f"{path} does not exist; give an .npz file with the array counts (cos theta, phi).")
