"""`equivox orient train`: from a structure, a map, or particles with refined poses, to a model folder.

Writes into the results' folder: ``model/`` (what ``equivox orient predict --model`` takes), ``checkpoints/``,
``curves.csv``, ``training.json`` (settings and data, to go on with) and ``run.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from equivox.errors import ConfigError, InputError
from equivox.run.device import choose_device
from equivox.run.sampling import Samples
from equivox.run.schedule import Schedule
from equivox.run.training_folder import MODEL, TrainRun
from equivox.run.training_session import Progress, Trained, TrainingSession, parameter_count
from equivox.tasks.orient.config import OrientTraining
from equivox.tasks.orient.particle import is_particle_source, load_particle
from equivox.tasks.orient.samples import SimulatedPictures
from equivox.tasks.orient.train_course import OrientCourse
from equivox.tasks.orient.train_result import write_model
from equivox.tasks.orient.train_stack import StackChoice, stack_samples


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
class TrainedOrientation(Trained):
    """What a training has made; ``measured`` is what the validation pictures say of it."""

    measured: Mapping[str, Any]


def train_orientation(
    data: TrainData,
    settings: OrientTraining,
    run: TrainRun,
    *,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> TrainedOrientation:
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
        keep_every=run.keep_every,
        monitor="val_angle_rad",
        seed=run.seed,
        workers=run.workers,
    )
    counts = {"training": len(training), "validation": len(validation)}
    plan = {"seed": run.seed, "settings": settings.as_dict(), "data": {**data.as_dict(), **counts}}
    session = TrainingSession(run, plan, device, command=command, warnings=warnings)
    parameters = parameter_count(course.network)
    session.record.add("data", {**data.as_dict(), **counts, "source": source})
    session.record.add("network", {**settings.network(), "parameters": parameters})
    session.record.add_input(data.data)
    fitted = session.fit(course, training, validation, schedule, progress)
    model, measured = write_model(
        session.out / MODEL, settings, fitted, validation, source=source, counts=counts, seed=run.seed
    )
    session.close(model, validation=measured)
    return TrainedOrientation(model, fitted, device, parameters, counts, tuple(warnings), measured)


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
