"""`equivox pick predict`: from micrographs to picks in every format, ``picks.html`` and ``run.json``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

import equivox
from equivox.errors import ConfigError, InputError
from equivox.formats.atomic import atomic_path, write_json
from equivox.formats.markers import digest_of, marker_path
from equivox.formats.micrographs import MicrographInput, find_micrographs
from equivox.formats.relion_job import RelionVersion
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
from equivox.run.record import RunRecord, file_sha256
from equivox.tasks.pick.calibrate import threshold_for_precision
from equivox.tasks.pick.config import SHIPPED_MODEL
from equivox.tasks.pick.contrast import settle_contrast
from equivox.tasks.pick.data import masks_of
from equivox.tasks.pick.outputs import FORMATS, PICKS_CSV, write_all
from equivox.tasks.pick.picker import PickModel, PickOptions, Picks, load_pick_model, open_pick_model
from equivox.tasks.pick.results import (
    LEAST_PROBABILITY,
    ItemResult,
    picture_path,
    read_result,
    stems_of,
)
from equivox.weights.folder import find_model

PICKS_JSON, PAGE = "picks.json", "picks.html"
PICTURES = 6
"""Micrographs that the page shows."""
PICTURE_SIDE_PX = 900


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What is picked and what is written."""

    model: str = SHIPPED_MODEL
    """Name or folder of a model."""
    options: PickOptions = field(default_factory=PickOptions)
    """Radius, pixel size, contrast, distances."""
    grid: str | None = None
    """Other rotations than the model's own."""
    min_probability: float = 0.5
    """Picks below it are not written."""
    precision: float | None = None
    """Instead: write as many picks as are expected to be right in this share, over the whole run."""
    masks: tuple[str, ...] = ()
    """Images, one per micrograph by name, that are 0 where nothing shall be picked."""
    formats: tuple[str, ...] = FORMATS
    """Formats beside ``picks.csv``."""
    relion_version: RelionVersion = "5"
    """Of RELION's files."""
    page: bool = True
    """Write ``picks.html``."""
    micrographs_star: str | None = None
    """STAR file that names the micrographs, as RELION knows it."""

    def __post_init__(self) -> None:
        if not LEAST_PROBABILITY <= self.min_probability <= 1.0:
            raise ConfigError(
                f"--min-probability is {self.min_probability}; give {LEAST_PROBABILITY} to 1 (candidates below are "
                f"not kept)."
            )
        if self.precision is not None and not 0.0 < self.precision <= 1.0:
            raise ConfigError(f"--precision is {self.precision}; give a number above 0 and at most 1.")


@dataclass(frozen=True)
class PickJob:
    """One micrograph with everything that its worker needs to know."""

    entry: MicrographInput
    stem: str
    out: Path
    options: PickOptions
    mask: str | None
    digest: str
    picture: bool

    @property
    def traces(self) -> tuple[Path, ...]:
        """Its marker."""
        return (marker_path(self.out, self.stem),)


MicrographOutcome = InputOutcome[MicrographInput, ItemResult]
"""What became of one micrograph: its candidates, or the failure's code and sentence."""


@dataclass(frozen=True)
class PickRun:
    """A finished run."""

    out: Path
    model: dict[str, str]
    config: PredictConfig
    radius_angstrom: float
    calibrated: bool
    device: DeviceChoice
    threshold: float
    outcomes: tuple[MicrographOutcome, ...]
    warnings: tuple[str, ...]
    files: tuple[Path, ...]

    @property
    def picks(self) -> list[Picks]:
        """Picks that are written, by micrograph, also of micrographs without one."""
        return [one.result.picks.above(self.threshold) for one in self.outcomes if one.result is not None]

    @property
    def exit_code(self) -> int:
        """See :func:`equivox.run.batch.exit_code_of`."""
        return exit_code_of(self.outcomes)

    def as_dict(self) -> dict[str, object]:
        """The document of ``--json`` (schema ``equivox.pick.run/1``): counts and quantiles, not the picks."""
        kept = self.picks
        probability = np.concatenate([one.probability for one in kept]) if kept else np.zeros(0)
        shares = (0.05, 0.25, 0.5, 0.75, 0.95) if len(probability) else ()
        quantiles = {f"{share:g}": round(float(np.quantile(probability, share)), 4) for share in shares}
        return {
            "schema": "equivox.pick.run/1",
            "version": equivox.__version__,
            "out": str(self.out),
            "device": self.device.as_dict(),
            "model": self.model,
            "radius_angstrom": self.radius_angstrom,
            "threshold": round(self.threshold, 6),
            "calibrated": self.calibrated,
            "picks": len(probability),
            "expected_precision": round(float(probability.mean()), 4) if len(probability) else None,
            "probability_quantiles": quantiles,
            "results": [
                {
                    "micrograph": one.name, "picks": len(one), "contrast": one.contrast,
                    "pixel_size_angstrom": one.pixel_size_angstrom, "size_px": list(one.file_size_px),
                    "warnings": list(one.warnings),
                }
                for one in kept
            ],
            "files": [str(path) for path in self.files[:20]],
            "warnings": list(self.warnings),
            "errors": errors_of(self.outcomes),
        }  # fmt: skip


Progress = Callable[[int, int, MicrographOutcome], None]


def pick_micrographs(
    inputs: Sequence[str | Path],
    out: Path,
    config: PredictConfig | None = None,
    run: RunChoice | None = None,
    *,
    command: Sequence[str] = ("equivox", "pick", "predict"),
    progress: Progress | None = None,
) -> PickRun:
    """Pick particles on every micrograph.

    Parameters
    ----------
    inputs
        Files, folders, globs.
    out
        Output folder.
    config
        Model, radius, threshold, formats.
    run
        Device, workers, resume, overwrite.
    command
        The command line, for the run record.
    progress
        Called with (done, total, outcome) as micrographs finish.

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
    config, run = config or PredictConfig(), run or RunChoice()
    device = choose_device(run.device)
    folder = find_model(config.model)
    model = open_pick_model(folder, str(device.device), grid=config.grid)
    entries = find_micrographs(inputs)
    clear_the_way(out, (PICKS_CSV, PICKS_JSON, PAGE), run)
    masks = masks_of(config.masks, [str(entry.path) for entry in entries])
    options, notes = settle_contrast(model, config.options, entries)
    digest = digest_of(
        {"model": folder.sha256, "version": equivox.__version__, "grid": config.grid, "options": asdict(options)}
    )
    shown = set(np.linspace(0, len(entries) - 1, min(PICTURES, len(entries))).round().astype(int).tolist())
    jobs = [
        PickJob(entry, stem, out, options, masks.get(index), digest, config.page and index in shown)
        for index, (entry, stem) in enumerate(zip(entries, stems_of(entries), strict=True))
    ]
    record = open_record(command, {**asdict(config), "contrast": options.contrast}, run, device, folder)

    def finish(outcomes: tuple[MicrographOutcome, ...]) -> PickRun:
        finished = PickRun(
            out, folder.as_dict(), config, model.radius_angstrom(options), model.calibration.fitted, device,
            _threshold(config, outcomes), outcomes, tuple(dict.fromkeys([*notes, *_notes(outcomes)])), (),
        )  # fmt: skip
        return _written(finished, record)

    load = functools.partial(load_pick_model, folder.path, str(device.device), grid=config.grid)
    alone = run.workers == 1 and run.scheduler is None
    finished = run_inputs(
        pick_one, jobs, initializer=(lambda: model) if alone else load, run=run, out=out, record=record,
        earlier=_earlier, outcome=InputOutcome, finish=finish, progress=progress, timing="micrographs",
    )  # fmt: skip
    close_record(record, out, finished.exit_code)
    return finished


def pick_one(model: PickModel, job: PickJob) -> ItemResult:
    """Pick on one micrograph and write its marker; one that cannot be used raises."""
    if job.entry.problem:
        raise InputError(job.entry.problem)
    prepared = model.prepare(job.entry.path, job.options, mask=job.mask)
    prepared = replace(prepared, name=job.entry.name)
    picks = model.pick(prepared, job.options, contrast=job.options.contrast, warnings=prepared.warnings)
    result = ItemResult(job.stem, picks.above(LEAST_PROBABILITY), file_sha256(job.entry.path), job.digest)
    result.write(job.out)
    if job.picture:
        from equivox.report.micrograph_picture import grey_picture

        with atomic_path(picture_path(job.out, job.stem)) as temporary:
            temporary.write_bytes(grey_picture(prepared.image, largest_side_px=PICTURE_SIDE_PX))
    return result


def _earlier(job: PickJob) -> ItemResult | None:
    """An earlier whole result of the same file under the same model and options."""
    found = if_still_true(read_result(job.out, job.stem), job)
    if found is None or found.picks.name != job.entry.name:
        return None
    if job.picture and not picture_path(job.out, job.stem).exists():
        return None
    return found


def _threshold(config: PredictConfig, outcomes: Sequence[MicrographOutcome]) -> float:
    """The least probability of a pick that is written."""
    if config.precision is None:
        return config.min_probability
    found = [torch.from_numpy(one.result.picks.probability) for one in outcomes if one.result is not None]
    return threshold_for_precision(
        torch.cat(found) if found else torch.zeros(0, dtype=torch.float64), precision=config.precision
    )


def _notes(outcomes: Sequence[MicrographOutcome]) -> list[str]:
    """What a user should know about the run as a whole."""
    found = [one.result.picks for one in outcomes if one.result is not None]
    notes = [text for one in found for text in one.warnings]
    bright = [one for one in found if one.contrast == "bright"]
    if bright and len(bright) < len(found):
        notes.append(
            f"Particles were taken as bright on {len(bright)} of {len(found)} micrographs, for example "
            f"{bright[0].name}: give --contrast if they are alike."
        )
    return notes


def _written(finished: PickRun, record: RunRecord) -> PickRun:
    """Write the tables and the page; note every input, warning and failure in the record."""
    with record.timed("writing"):
        files, notes = write_all(
            finished.out, finished.picks, finished.config.formats, radius_angstrom=finished.radius_angstrom,
            version=finished.config.relion_version, micrographs_star=finished.config.micrographs_star,
        )  # fmt: skip
        if finished.config.page:
            from equivox.tasks.pick.predict_page import write_page

            files = [*files, write_page(finished, finished.out / PAGE)]
    finished = replace(finished, files=tuple(files), warnings=(*finished.warnings, *notes))
    write_json(finished.out / PICKS_JSON, finished.as_dict())
    note_inputs(record, finished.outcomes)
    for text in finished.warnings:
        record.add_warning(text)
    return finished
