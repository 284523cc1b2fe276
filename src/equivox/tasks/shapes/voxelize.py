"""`equivox shapes voxelize`: from meshes, point clouds and structures to fields on cubic grids."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from equivox import __version__
from equivox.errors import ConfigError
from equivox.formats.atomic import require_absent, require_folder, write_text
from equivox.formats.nifti import require_nibabel
from equivox.formats.scans import ScanInput
from equivox.formats.shape_files import find_shapes
from equivox.formats.tables import as_csv
from equivox.run.batch import (
    InputOutcome,
    RunChoice,
    close_record,
    errors_of,
    exit_code_of,
    note_inputs,
    run_inputs,
)
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.record import RUN_JSON, RunRecord
from equivox.tasks.shapes.voxelize_one import (
    VoxelizeConfig,
    Voxelized,
    VoxelizeJob,
    earlier_result,
    voxelize_file,
)

TABLE = "voxels.csv"
COLUMNS = ("input", "status", "reason", "output", "kind", "mode", "side", "spacing", "filled", "outside")
LARGEST_SIDE = 1024


class VoxelizeOutcome(InputOutcome[ScanInput, Voxelized]):
    """What became of one input."""

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
        """See :func:`equivox.run.batch.exit_code_of`."""
        return exit_code_of(self.outcomes)

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
            "errors": errors_of(self.outcomes),
        }


def voxelize_shapes(
    inputs: Sequence[str | Path],
    out: Path,
    config: VoxelizeConfig,
    run: RunChoice | None = None,
    *,
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
        If results are there already (without resume or overwrite), or the folder cannot be written.
    Interrupted
        A KeyboardInterrupt after what was finished has been written.
    """
    _require_config(config)
    run = run or RunChoice()
    chosen = choose_device(run.device)
    if config.format == "nii":
        require_nibabel()
    shapes = find_shapes(inputs)
    require_folder(out)
    jobs = [VoxelizeJob(shape, out, config) for shape in shapes]
    existing = [out / TABLE, out / RUN_JSON, *(path for job in jobs for path in (job.target, job.sidecar))]
    require_absent(existing, overwrite=run.overwrite or run.resume, resumable=True)
    record = RunRecord(command, {**config.as_dict(), **run.as_dict()}, device=chosen.as_dict())

    def finish(outcomes: tuple[VoxelizeOutcome, ...]) -> VoxelizeRun:
        finished = VoxelizeRun(out, chosen, outcomes)
        _write_tables(finished, record)
        return finished

    finished = run_inputs(
        voxelize_file, jobs, initializer=functools.partial(torch.device, str(chosen.device)), run=run, out=out,
        record=record, earlier=earlier_result, outcome=VoxelizeOutcome, finish=finish, progress=progress,
    )  # fmt: skip
    close_record(record, out, finished.exit_code)
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


def _write_tables(run: VoxelizeRun, record: RunRecord) -> None:
    """``voxels.csv``; notes every input, failure and warning in the record."""
    rows: list[list[object]] = []
    for outcome in run.outcomes:
        found = outcome.result
        reason = outcome.reason if found is None else " ".join(found.warnings)
        cells: list[object] = [""] * 7
        if found is not None:
            cells = [found.output, found.kind, found.mode, found.side, f"{found.spacing:g}", f"{found.filled:.6f}",
                     f"{found.outside:.4f}"]  # fmt: skip
        rows.append([outcome.entry.name, outcome.status, reason, *cells])
        for warning in () if found is None else found.warnings:
            record.add_warning(warning, input=outcome.entry.name)
    note_inputs(record, run.outcomes)
    write_text(run.out / TABLE, as_csv(COLUMNS, rows))
