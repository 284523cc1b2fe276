"""`equivox orient predict`: from a particle table and its stacks to orientations with their confidence."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import equivox
from equivox.errors import ConfigError, OutputError
from equivox.formats.atomic import write_json, write_text
from equivox.formats.markers import ITEMS, digest_of
from equivox.geometry.point_groups import canonical_name
from equivox.run.batch import (
    EXIT_DONE,
    EXIT_NOTHING,
    EXIT_SOME_FAILED,
    RunChoice,
    clear_the_way,
    close_record,
    open_record,
    run_items,
)
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.items import ItemResult
from equivox.run.record import file_sha256
from equivox.tasks.orient.model import MOST_ANSWERS, OrientModel, load_orient_model, open_orient_model
from equivox.tasks.orient.outputs import image_names, write_orientations, write_table
from equivox.tasks.orient.picture import Contrast
from equivox.tasks.orient.portions import Portion, PortionJob, predict_portion, read_portion
from equivox.tasks.orient.prepare import Preparation, prepare_stack
from equivox.tasks.orient.stacks import ParticleStack, open_stack
from equivox.weights.folder import find_model

ORIENTATIONS, PAGE, DOCUMENT = "orientations.csv", "orientations.html", "orientations.json"
PORTION = 200
"""Particles of one item of work."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What `equivox orient predict` computes."""

    particles: str
    """A particle table (STAR, ``.cs``) or a stack."""
    model: str
    """Name or folder of a model."""
    hypotheses: int = 1
    """Different answers per particle, up to 5."""
    symmetry: str | None = None
    """Point group, over the model's own."""
    contrast: Contrast | Literal["auto"] = "auto"
    """Whether particles are light or dark."""
    pixel_size_angstrom: float | None = None
    """Of the images, over what table and stack say."""
    project: str | None = None
    """Folder that image paths are relative to."""
    passthrough: tuple[str, ...] = ()
    """Of a ``.cs`` table."""

    def __post_init__(self) -> None:
        if not 1 <= self.hypotheses <= MOST_ANSWERS:
            raise ConfigError(f"--hypotheses is {self.hypotheses}; give 1 to {MOST_ANSWERS}.")
        if self.symmetry is not None:
            canonical_name(self.symmetry)
        if self.pixel_size_angstrom is not None and not 0.1 <= self.pixel_size_angstrom <= 50:
            raise ConfigError(f"--pixel-size-angstrom is {self.pixel_size_angstrom:g}; give 0.1 to 50 Å.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return {**asdict(self), "passthrough": list(self.passthrough)}


@dataclass(frozen=True, eq=False)
class PredictRun:
    """A finished run, one row per particle."""

    config: PredictConfig
    out: Path
    model: dict[str, str]
    device: DeviceChoice
    stack: ParticleStack
    rotations: Tensor
    confidence: Tensor
    merit: Tensor
    entropy: Tensor
    shifts_angstrom: Tensor | None
    usable: Tensor
    failures: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]
    symmetry: str

    @property
    def exit_code(self) -> int:
        """0: every particle has an answer; 1: some have none; 3: none has one."""
        if bool(self.usable.all()):
            return EXIT_DONE
        return EXIT_SOME_FAILED if bool(self.usable.any()) else EXIT_NOTHING

    @property
    def table(self) -> Path:
        """The copy of the particle table."""
        source = Path(self.config.particles)
        return self.out / (source.name if self.stack.particles.table is not None else f"{source.stem}.star")

    def as_dict(self) -> dict[str, Any]:
        """The document of ``--json`` (schema ``equivox.orient.run/1``)."""
        told = self.confidence[self.usable, 0]
        return {
            "schema": "equivox.orient.run/1",
            "version": equivox.__version__,
            "out": str(self.out),
            "model": self.model,
            "device": self.device.as_dict(),
            "symmetry": self.symmetry,
            "particles": len(self.usable),
            "answered": int(self.usable.sum()),
            "hypotheses": int(self.rotations.shape[1]),
            "confidence": {
                name: round(float(told.double().quantile(share)), 4) if len(told) else None
                for name, share in (("quarter", 0.25), ("median", 0.5), ("three_quarters", 0.75))
            },
            "median_entropy_nat": round(float(self.entropy[self.usable].median()), 3) if len(told) else None,
            "results": [str(self.out / ORIENTATIONS), str(self.table), str(self.out / PAGE)],
            "warnings": list(self.notes),
            "errors": [{"input": name, "code": code, "message": reason} for name, code, reason in self.failures],
        }


Progress = Callable[[int, int], None]
Page = Callable[[PredictRun, Preparation], str]


def predict_orientations(
    config: PredictConfig,
    out: Path,
    run: RunChoice | None = None,
    *,
    command: Sequence[str] = ("equivox", "orient", "predict"),
    progress: Progress | None = None,
    page: Page | None = None,
) -> PredictRun:
    """Find the orientation of every particle of a table.

    Parameters
    ----------
    config
        Particles, model, what is asked.
    out
        Output folder.
    run
        Device, workers, resume, overwrite.
    command
        For the run record.
    progress
        Called with (particles done, particles).
    page
        Makes the HTML page; None writes none.

    Raises
    ------
    EquivoxError
        If the table, a stack or the model cannot be used, or results are in the way.
    Interrupted
        A KeyboardInterrupt; portions that were finished are kept for ``--resume``.
    """
    run = run or RunChoice()
    device = choose_device(run.device)
    folder = find_model(config.model)
    model = open_orient_model(folder).with_symmetry(config.symmetry)
    preparation = open_preparation(config, model)
    stack = preparation.stack
    _clear_the_way(config, out, run)
    digest = _digest(config, folder.sha256, stack)
    starts = range(0, len(stack), PORTION)
    jobs = [
        PortionJob(
            start, min(start + PORTION, len(stack)), config.hypotheses, out / ITEMS / f"portion-{start:08d}.npz", digest
        )
        for start in starts
    ]
    record = open_record(command, config.as_dict(), run, device, folder)
    record.add_input(config.particles, particles=len(stack), box_px=stack.box_px)
    for note in (*stack.warnings, *preparation.notes):
        record.add_warning(note)
    finished: list[int] = []

    def done(result: ItemResult[Portion]) -> None:
        job = jobs[result.index]
        finished.append(job.stop - job.start)
        if progress is not None:
            progress(sum(finished), len(stack))

    results = run_items(
        predict_portion,
        jobs,
        initializer=functools.partial(open_worker, config, folder.path, str(device.device), preparation.sign),
        run=run, out=out, record=record, earlier=read_portion, on_done=done, timing="particles",
    )  # fmt: skip
    whole = _assemble(config, out, folder.as_dict(), device, model, preparation, jobs, results)
    for name, code, reason in whole.failures:
        record.add_failure(name, code, reason)
    _write(whole, preparation, page)
    close_record(record, out, whole.exit_code)
    return whole


def open_preparation(config: PredictConfig, model: OrientModel) -> Preparation:
    """Open the particles of a prediction for a model."""
    stack = open_stack(
        config.particles,
        project=None if config.project is None else Path(config.project),
        pixel_size_angstrom=config.pixel_size_angstrom,
        passthrough=config.passthrough,
    )
    return prepare_stack(stack, model.picture, contrast=config.contrast)


def open_worker(config: PredictConfig, folder: Path, device: str, sign: int) -> tuple[OrientModel, Preparation]:
    """What every worker needs: the model and the stacks, opened where it runs, with the sign that was found."""
    model = load_orient_model(folder, device, config.symmetry)
    contrast: Contrast = "light" if sign > 0 else "dark"
    return model, open_preparation(replace(config, contrast=contrast), model)


def _clear_the_way(config: PredictConfig, out: Path, run: RunChoice) -> None:
    """A folder for results that does not hold the input itself, nor, unless asked for, earlier results."""
    source = Path(config.particles)
    if source.resolve().parent == out.resolve():
        raise OutputError(f"{out} is the folder of {source.name}, whose copy would replace it; choose another --out.")
    clear_the_way(out, (ORIENTATIONS, PAGE, DOCUMENT), run)


def _digest(config: PredictConfig, model_sha256: str, stack: ParticleStack) -> str:
    """Changes when anything does that decides the results."""
    files = []
    for image in stack.files.values():
        state = image.path.stat()
        files.append([str(image.path), state.st_size, state.st_mtime_ns])
    table = Path(config.particles)
    values = {
        "config": config.as_dict(), "model": model_sha256, "version": equivox.__version__, "files": files,
        "table": file_sha256(table) if stack.particles.table is not None or table.suffix == ".star" else "",
    }  # fmt: skip
    return digest_of(values)


def _assemble(
    config: PredictConfig,
    out: Path,
    named: dict[str, str],
    device: DeviceChoice,
    model: OrientModel,
    preparation: Preparation,
    jobs: Sequence[PortionJob],
    results: Sequence[ItemResult[Portion]],
) -> PredictRun:
    """One row per particle, from portions in their order; those of a failed one have no answer."""
    stack, count, answers = preparation.stack, len(preparation.stack), config.hypotheses
    names = image_names(stack.particles)
    rotations = torch.eye(3).expand(count, answers, 3, 3).clone()
    confidence, merit = torch.zeros(count, answers), torch.zeros(count, answers)
    entropy, usable = torch.zeros(count), torch.zeros(count, dtype=torch.bool)
    shifts = torch.zeros(count, 2) if model.network.has_shift else None
    failures = []
    for job, result in zip(jobs, results, strict=True):
        part, rows = result.value, slice(job.start, job.stop)
        if part is None:
            assert result.failure is not None
            failures.append((f"particles {job.start} to {job.stop - 1}", result.failure.code, result.failure.reason))
            continue
        rotations[rows], confidence[rows], merit[rows] = part.rotations, part.confidence, part.merit
        entropy[rows], usable[rows] = part.entropy, part.usable
        if shifts is not None and part.shifts_px is not None:
            shifts[rows] = part.shifts_px * model.picture.pixel_size_angstrom
        for place in torch.nonzero(~part.usable)[:, 0].tolist():
            name = names[job.start + place]
            failures.append((name, "EQV-INPUT", f"{name}: the image is blank or holds NaN; it has no orientation."))
    return PredictRun(
        config, out, named, device, stack, rotations, confidence, merit, entropy, shifts, usable, tuple(failures),
        (*stack.warnings, *preparation.notes), canonical_name(model.picture.symmetry),
    )  # fmt: skip


def _write(run: PredictRun, preparation: Preparation, page: Page | None) -> None:
    """Every file of the results but the record; with no answer at all, no table."""
    if bool(run.usable.any()):
        names = image_names(run.stack.particles)
        write_orientations(run.out / ORIENTATIONS, names, run.rotations, run.confidence, run.usable)
        shifts = run.shifts_angstrom
        write_table(
            run.table, run.stack, run.rotations[:, 0], run.confidence[:, 0], run.merit[:, 0], shifts, run.usable
        )
        if page is not None:
            write_text(run.out / PAGE, page(run, preparation))
    write_json(run.out / DOCUMENT, run.as_dict())
