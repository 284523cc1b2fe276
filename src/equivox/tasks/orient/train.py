"""`equivox orient train`: from a structure, a map, or particles with refined poses, to a model folder.

Writes into the results' folder: ``model/`` (what ``equivox orient predict --model`` takes), ``checkpoints/``,
``curves.csv``, ``training.json`` (settings and data, to go on with) and ``run.json``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import equivox
from equivox.errors import ConfigError, InputError, OutputError
from equivox.formats.atomic import require_absent, require_folder, write_json
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.record import RunRecord
from equivox.run.sampling import Samples
from equivox.run.training import Fitted, Schedule, fit
from equivox.tasks.orient.config import OrientTraining
from equivox.tasks.orient.particle import is_particle_source, load_particle
from equivox.tasks.orient.samples import SimulatedPictures
from equivox.tasks.orient.train_course import OrientCourse
from equivox.tasks.orient.train_result import write_model
from equivox.tasks.orient.train_stack import StackChoice, stack_samples
from equivox.weights.folder import ModelFolder

MODEL, CHECKPOINTS, CURVES, SETTINGS, RECORD = "model", "checkpoints", "curves.csv", "training.json", "run.json"
MAY_CHANGE = ("epochs",)
"""Settings that a resumed run may have otherwise."""


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """How a training is run; nothing here changes what is learned, but the seed."""

    out: Path
    """Results' folder."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    workers: int = 0
    """Processes that prepare pictures."""
    resume: bool = False
    """Go on from ``checkpoints/last.ckpt``."""
    overwrite: bool = False
    """Replace the results of an earlier run."""


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """What is learned from."""

    data: str
    """A structure, a map, or a particle table with poses."""
    chains: str = ""
    """Of a structure."""
    sigma_angstrom: float | None = None
    """Width of the Gaussian points of a particle."""
    histogram: str | None = None
    """``.npz`` with ``counts`` (cos(tilt) by rot), for views by histogram."""
    stack: StackChoice = field(default_factory=StackChoice)
    """How a particle table is read."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return {
            "data": self.data, "chains": self.chains, "sigma_angstrom": self.sigma_angstrom,
            "histogram": self.histogram, "stack": self.stack.as_dict(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training has made; ``measured`` is what the validation pictures say of it."""

    model: ModelFolder
    fitted: Fitted
    device: DeviceChoice
    parameters: int
    counts: Mapping[str, int]
    measured: Mapping[str, Any]
    warnings: tuple[str, ...]


Progress = Callable[[int, Mapping[str, float]], None]


def train_orientation(
    data: TrainData,
    settings: OrientTraining,
    run: TrainRun,
    *,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Trained:
    """Train a network that tells orientations.

    Parameters
    ----------
    data
        Structure, map, or particles with poses.
    settings
        What to train and how.
    run
        Where, from which seed, into which folder.
    command
        For the record.
    progress
        Called with each epoch and its numbers.

    Raises
    ------
    EquivoxError
        If the data or the settings cannot be used, results are in the way, or an extra is missing.
    """
    device = choose_device(run.device)
    source, training, validation, warnings = training_pictures(data, settings, seed=run.seed)
    course = OrientCourse(settings, seed=run.seed)
    schedule = Schedule(
        epochs=settings.epochs,
        batch_size=min(settings.batch_size, len(training)),
        validate_every=max(1, settings.epochs // 10),
        monitor="val_angle_rad",
        seed=run.seed,
        workers=run.workers,
    )
    counts = {"training": len(training), "validation": len(validation)}
    plan = {"seed": run.seed, "settings": settings.as_dict(), "data": {**data.as_dict(), **counts}}
    out = _prepare_folder(run, plan)
    record = RunRecord(command, {**settings.as_dict(), "out": str(out)}, seed=run.seed, device=device.as_dict())
    parameters = sum(parameter.numel() for parameter in course.network.parameters())
    record.add("data", {**data.as_dict(), **counts, "source": source})
    record.add("network", {**settings.network(), "parameters": parameters})
    record.add_input(data.data)
    for warning in warnings:
        record.add_warning(warning)
    try:
        with record.timed("training"):
            fitted = fit(
                course, training, validation, schedule, out, device=device.device, resume=run.resume, on_epoch=progress
            )
    except KeyboardInterrupt:
        record.write(out / RECORD, "interrupted")
        raise
    model, measured = write_model(
        out / MODEL, settings, fitted, validation, source=source, counts=counts, seed=run.seed
    )
    record.add("validation", measured)
    record.add("model", {"path": MODEL, "sha256": model.sha256})
    record.write(out / RECORD, "done")
    return Trained(model, fitted, device, parameters, counts, measured, tuple(warnings))


def training_pictures(
    data: TrainData, settings: OrientTraining, *, seed: int
) -> tuple[str, Samples, Samples, list[str]]:
    """Where pictures come from, those to train and those to judge on, and what a user should know.

    Raises
    ------
    InputError
        If the data cannot be used.
    """
    if not is_particle_source(data.data):
        return stack_samples(Path(data.data), data.stack, settings, seed=seed)
    loaded = load_particle(data.data, chains=data.chains, sigma_angstrom=data.sigma_angstrom)
    warnings, picture = list(loaded.warnings), settings.picture
    reach = loaded.points.radius_angstrom + settings.simulation.shift_angstrom
    half = picture.side / 2 * picture.pixel_size_angstrom
    if reach > half:
        warnings.append(
            f"the particle reaches {reach:.0f} Å from the centre, the pictures {half:.0f} Å: its edge is cut off; "
            f"give a larger --side or --picture-pixel-angstrom."
        )
    if reach < 0.35 * half:
        warnings.append(
            f"the particle fills {reach / half:.0%} of the pictures' half side; a smaller --picture-pixel-angstrom "
            f"shows more of it."
        )
    histogram = None if data.histogram is None else _read_histogram(Path(data.histogram))
    if settings.simulation.views == "histogram" and histogram is None:
        raise ConfigError("--views histogram needs --histogram FILE.npz with an array named counts.")
    training, validation = (
        SimulatedPictures(loaded.points, picture, settings.simulation, seed=seed, training=kind, histogram=histogram)
        for kind in (True, False)
    )
    return loaded.source, training, validation, warnings


def _read_histogram(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            counts = np.asarray(file["counts"], dtype=np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} holds no array named counts ({error}); give an .npz with one.") from error
    if counts.ndim != 2 or not np.isfinite(counts).all() or (counts < 0).any() or not counts.sum() > 0:
        raise InputError(f"{path}: counts must be a table of cos(tilt) by rot, at least 0 and not all 0.")
    return counts


def _prepare_folder(run: TrainRun, plan: Mapping[str, Any]) -> Path:
    """A folder that can be written, empty of other results, with the plan of this run in it."""
    out = require_folder(run.out)
    written = json.loads(json.dumps(plan))
    if run.resume and (out / SETTINGS).exists():
        _require_same_plan(out / SETTINGS, written)
    else:
        require_absent([out / name for name in (SETTINGS, CHECKPOINTS, CURVES, MODEL)], overwrite=run.overwrite)
        for name in (CHECKPOINTS, MODEL):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / CURVES).unlink(missing_ok=True)
    write_json(out / SETTINGS, {"version": equivox.__version__, **written})
    return out


def _require_same_plan(path: Path, plan: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings or data than a run was begun with."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        old = {**before["settings"], "seed": before["seed"], "data": before["data"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} cannot be read ({error}); start the run anew with --overwrite.") from error
    new = {**plan["settings"], "seed": plan["seed"], "data": plan["data"]}
    for name in sorted({*old, *new} - set(MAY_CHANGE)):
        if old.get(name) != new.get(name):
            change = f" ({old.get(name)} then, {new.get(name)} now)" if not isinstance(new.get(name), dict) else ""
            raise ConfigError(
                f"{path.parent} was begun with another {name}{change}; resume with the same, or pass --overwrite."
            )
