"""`equivox shapes voxelize`: from meshes, point clouds and structures to fields on cubic grids."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from equivox import __version__
from equivox.errors import ConfigError, OutputError
from equivox.formats.atomic import require_absent, require_folder, write_text
from equivox.formats.nifti import require_nibabel
from equivox.formats.scans import ScanInput
from equivox.formats.shape_files import find_shapes
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.items import Interrupted, ItemResult, map_items
from equivox.run.record import Outcome, RunRecord
from equivox.tasks.shapes.voxelize_one import (
    VoxelizeConfig,
    Voxelized,
    VoxelizeJob,
    earlier_result,
    voxelize_file,
)

TABLE, RUN_JSON = "voxels.csv", "run.json"
COLUMNS = ("input", "status", "reason", "output", "kind", "mode", "side", "spacing", "filled", "outside")
LARGEST_SIDE = 1024


@dataclass(frozen=True, slots=True)
class VoxelizeOutcome:
    """What became of one input."""

    shape: ScanInput
    result: Voxelized | None
    code: str = ""
    reason: str = ""
    resumed: bool = False

    @property
    def status(self) -> str:
        """``ok``, ``cut`` (the grid is too small for all of it) or ``failed``."""
        if self.result is None:
            return "failed"
        return "cut" if self.result.outside > 0 else "ok"


@dataclass(frozen=True, slots=True)
class VoxelizeRun:
    """A finished run."""

    out: Path
    device: DeviceChoice
    outcomes: tuple[VoxelizeOutcome, ...]

    @property
    def exit_code(self) -> int:
        """0: all are written; 1: some; 2: none could be written; 3: none could be read or used."""
        lost = [outcome for outcome in self.outcomes if outcome.result is None]
        if len(lost) < len(self.outcomes):
            return 1 if lost else 0
        return 2 if any(outcome.code == OutputError.code for outcome in lost) else 3

    def as_dict(self) -> dict[str, object]:
        """The document of ``--json`` (schema ``equivox.shapes.voxelize/1``)."""
        done = [outcome for outcome in self.outcomes if outcome.result is not None]
        return {
            "schema": "equivox.shapes.voxelize/1",
            "version": __version__,
            "out": str(self.out),
            "device": self.device.as_dict(),
            "results": [asdict(outcome.result) for outcome in done if outcome.result],
            "warnings": [text for outcome in done if outcome.result for text in outcome.result.warnings],
            "errors": [
                {"input": outcome.shape.name, "code": outcome.code, "message": outcome.reason}
                for outcome in self.outcomes
                if outcome.result is None
            ],
        }


def voxelize_shapes(
    inputs: Sequence[str | Path],
    out: Path,
    config: VoxelizeConfig,
    *,
    device: str = "auto",
    workers: int = 1,
    threads: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: Sequence[str] = ("equivox", "shapes", "voxelize"),
    progress: Callable[[int, int, VoxelizeOutcome], None] | None = None,
) -> VoxelizeRun:
    """Turn every file into a field; write one file each, ``voxels.csv`` and ``run.json``.

    Raises
    ------
    InputError
        If no input is given.
    ConfigError
        If an option is out of range.
    OutputError
        If results are there already (without ``resume`` or ``overwrite``), or the folder cannot be written.
    Interrupted
        A KeyboardInterrupt after what was finished has been written.
    """
    _require_config(config)
    chosen = choose_device(device)
    if config.format == "nii":
        require_nibabel()
    shapes = find_shapes(inputs)
    require_folder(out)
    jobs = [VoxelizeJob(shape, out, config) for shape in shapes]
    existing = [out / TABLE, out / RUN_JSON, *(path for job in jobs for path in (job.target, job.sidecar))]
    require_absent(existing, overwrite=overwrite or resume)
    options = {"device": device, "workers": workers, "threads": threads, "scheduler": scheduler, "resume": resume,
               "overwrite": overwrite}  # fmt: skip
    record = RunRecord(command, {**config.as_dict(), **options}, device=chosen.as_dict())
    outcomes: dict[int, VoxelizeOutcome] = {}

    def done(result: ItemResult[Voxelized]) -> None:
        outcome = _outcome(jobs[result.index], result)
        outcomes[result.index] = outcome
        if progress is not None:
            progress(len(outcomes), len(jobs), outcome)

    try:
        with record.timed("inputs"):
            map_items(
                voxelize_file,
                jobs,
                initializer=functools.partial(torch.device, str(chosen.device)),
                workers=workers,
                scheduler=scheduler,
                threads=threads,
                resume=earlier_result if resume else None,
                on_done=done,
            )
    except Interrupted:
        _write_tables(VoxelizeRun(out, chosen, _ordered(outcomes)), record, "interrupted")
        raise
    finished = VoxelizeRun(out, chosen, _ordered(outcomes))
    endings: dict[int, Outcome] = {0: "done", 1: "some_failed"}
    _write_tables(finished, record, endings.get(finished.exit_code, "nothing_done"))
    return finished


def _require_config(config: VoxelizeConfig) -> None:
    if not 2 <= config.side <= LARGEST_SIDE:
        raise ConfigError(f"--side is {config.side}; it must be 2 to {LARGEST_SIDE} voxels.")
    if config.spacing is not None and not 0 < config.spacing < 1e6:
        raise ConfigError(f"--spacing is {config.spacing:g}; it must be positive.")
    if not 1 <= config.supersample <= 8:
        raise ConfigError(f"--supersample is {config.supersample}; it must be 1 to 8.")
    if not 0.1 <= config.sigma_voxels <= 10:
        raise ConfigError(f"--sigma-voxels is {config.sigma_voxels:g}; it must be 0.1 to 10.")


def _outcome(job: VoxelizeJob, result: ItemResult[Voxelized]) -> VoxelizeOutcome:
    if result.failure is None:
        return VoxelizeOutcome(job.shape, result.value, resumed=result.resumed)
    for path in (job.target, job.sidecar):  # of an earlier run: no longer true
        with suppress(OSError):
            path.unlink()
    return VoxelizeOutcome(job.shape, None, code=result.failure.code, reason=result.failure.reason)


def _ordered(outcomes: dict[int, VoxelizeOutcome]) -> tuple[VoxelizeOutcome, ...]:
    return tuple(outcomes[index] for index in sorted(outcomes))


def _write_tables(run: VoxelizeRun, record: RunRecord, ending: Outcome) -> None:
    """``voxels.csv`` and ``run.json``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for outcome in run.outcomes:
        found = outcome.result
        reason = outcome.reason if found is None else " ".join(found.warnings)
        cells: list[object] = [""] * 7
        if found is not None:
            cells = [found.output, found.kind, found.mode, found.side, f"{found.spacing:g}", f"{found.filled:.6f}",
                     f"{found.outside:.4f}"]  # fmt: skip
        writer.writerow([outcome.shape.name, outcome.status, reason, *cells])
        record.add_input(
            outcome.shape.path, sha256=None if found is None else found.input_sha256, resumed=outcome.resumed
        )
        if found is None:
            record.add_failure(outcome.shape.name, outcome.code, outcome.reason)
        else:
            for warning in found.warnings:
                record.add_warning(warning, input=outcome.shape.name)
    write_text(run.out / TABLE, text.getvalue())
    record.write(run.out / RUN_JSON, ending)
