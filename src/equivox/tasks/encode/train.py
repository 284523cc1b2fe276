"""``equivox encode pretrain`` and ``finetune``: from scans to a model folder.

Both write into the results' folder: ``model/``, ``checkpoints/best.ckpt`` and ``last.ckpt``, ``curves.csv``,
``training.json`` (settings and data, to go on with), ``run.json``; finetuning also ``predictions.csv``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equivox
from equivox.errors import ConfigError, OutputError
from equivox.formats.atomic import require_absent, require_folder, write_json
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.record import RunRecord
from equivox.run.training import Course, Fitted, Schedule, fit
from equivox.tasks.encode.train_config import PretrainConfig
from equivox.tasks.encode.train_course import PretrainCourse
from equivox.tasks.encode.train_data import Parts, find_parts
from equivox.tasks.encode.train_result import write_pretrained
from equivox.tasks.encode.train_samples import BrainSamples, Drawing, ScanStore
from equivox.weights.folder import ModelFolder

MODEL, CHECKPOINTS, CURVES, SETTINGS, RECORD = "model", "checkpoints", "curves.csv", "training.json", "run.json"
MAY_CHANGE = ("epochs",)
"""Settings that a resumed run may have otherwise."""
Progress = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """How a training is run; nothing here changes what is learned, but the seed and the precision."""

    out: Path
    """Results' folder."""
    images: Path | None = None
    """Folder of the scans that a table names."""
    layout: str = "auto"
    """Layout of the data set."""
    brain_extracted: bool = False
    """The user's word that nothing but brain is in the scans."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    devices: int = 1
    """Devices (or processes on a CPU) that share every batch."""
    precision: str = "32"
    """``32``, ``bf16`` or ``16``: mixed precision of the convolutions."""
    workers: int = 0
    """Processes that prepare samples."""
    resume: bool = False
    """Go on from ``checkpoints/last.ckpt``."""
    overwrite: bool = False
    """Replace the results of an earlier run."""
    keep_every: int | None = None
    """Also keep the checkpoint of every so many epochs."""
    tensorboard: bool = False
    """Also write TensorBoard's files."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training has made.

    Parameters
    ----------
    model
        The model folder.
    fitted
        Epochs, and where the best was.
    device
        Where it ran and why.
    parameters
        Learned numbers.
    counts
        Scans for training and for validation.
    values
        The last row of the curves by name.
    warnings
        What a user should know.
    """

    model: ModelFolder
    fitted: Fitted
    device: DeviceChoice
    parameters: int
    counts: Mapping[str, int]
    values: Mapping[str, float]
    warnings: tuple[str, ...]


def pretrain_encoder(
    inputs: Sequence[str | Path],
    config: PretrainConfig,
    run: TrainRun,
    *,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Trained:
    """Pretrain an encoder without labels.

    Parameters
    ----------
    inputs
        Scans, folders, or data sets with tables.
    config
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
    parts = find_parts(
        inputs, images=run.images, layout=run.layout, share_validation=config.share_validation, seed=run.seed
    )
    course = PretrainCourse(config, seed=run.seed)
    turned = config.reference == "turned"
    drawing = Drawing(
        side=config.side, ranges=config.ranges, paired=config.paired, turn_first=turned,
        degrade_first=turned and config.strength > 0, holes="erased" in config.terms,
        sessions=config.pairs == "sessions",
    )  # fmt: skip
    samples = tuple(
        BrainSamples(
            ScanStore(part, config.voxel_size_mm, brain_extracted=run.brain_extracted),
            drawing,
            training=number == 0,
            seed=run.seed,
        )
        for number, part in enumerate((parts.training, parts.validation))
    )
    session = Session(run, config.as_dict(), parts, command, validate_every=config.validate_every)
    fitted = session.fit(course, samples, progress)
    model = write_pretrained(run.out / MODEL, config, fitted, counts=session.counts, seed=run.seed, data=session.data)
    return session.close(model, fitted, course)


class Session:
    """One training run in its folder: the plan, the record, and what they refuse.

    Parameters
    ----------
    run
        How it is run.
    settings
        The recipe as plain values, with ``epochs`` and ``batch_size``.
    parts
        The scans.
    command
        For the record.
    validate_every
        Epochs between validations.
    """

    def __init__(
        self, run: TrainRun, settings: Mapping[str, Any], parts: Parts, command: Sequence[str], *, validate_every: int
    ) -> None:
        if run.precision not in ("32", "bf16", "16") or run.devices < 1:
            raise ConfigError(f"precision is 32, bf16 or 16 and devices 1 or more; got {run.precision}, {run.devices}.")
        self.run, self.settings, self.parts = run, settings, parts
        self.device = choose_device(run.device)
        self.counts = {"training": len(parts.training), "validation": len(parts.validation)}
        self.data = {"training": parts.training.digest(), "validation": parts.validation.digest()}
        plan = {"seed": run.seed, "precision": run.precision, "settings": dict(settings), "data": self.data}
        self.schedule = Schedule(
            epochs=settings["epochs"],
            batch_size=settings["batch_size"],
            validate_every=min(validate_every, settings["epochs"]),
            keep_every=run.keep_every,
            seed=run.seed,
            workers=run.workers,
            precision=run.precision,
            devices=run.devices,
        )
        prepare_folder(run, plan)
        self.record = RunRecord(command, {**settings, "out": str(run.out)}, seed=run.seed, device=self.device.as_dict())
        self.record.add("data", {**self.data, **self.counts})
        for note in parts.notes:
            self.record.add_warning(note)
        self.values: dict[str, float] = {}

    def fit(self, course: Course, samples: tuple[BrainSamples, ...], progress: Progress | None) -> Fitted:
        """Train; an interruption leaves a record that says so."""

        def keep(epoch: int, row: Mapping[str, float]) -> None:
            self.values = dict(row)
            if progress is not None:
                progress(epoch, row)

        try:
            with self.record.timed("training"):
                return fit(
                    course, samples[0], samples[1], self.schedule, self.run.out, device=self.device.device,
                    resume=self.run.resume, tensorboard=self.run.tensorboard, on_epoch=keep,
                )  # fmt: skip
        except KeyboardInterrupt:
            self.record.write(self.run.out / RECORD, "interrupted")
            raise

    def close(self, model: ModelFolder, fitted: Fitted, course: Course) -> Trained:
        """Write the record."""
        parameters = sum(one.numel() for one in course.network.parameters() if one.requires_grad)
        self.record.add("best", {"epoch": fitted.best_epoch, "val_loss": fitted.best_value})
        self.record.add("network", {"parameters": parameters})
        self.record.add("model", {"path": MODEL, "sha256": model.sha256})
        self.record.write(self.run.out / RECORD, "done")
        return Trained(model, fitted, self.device, parameters, self.counts, self.values, self.parts.notes)


def prepare_folder(run: TrainRun, plan: Mapping[str, Any]) -> None:
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


def _require_same_plan(path: Path, plan: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings or data than a run was begun with."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        old = {**before["settings"], **{name: before[name] for name in ("seed", "precision", "data")}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} cannot be read ({error}); start the run anew with --overwrite.") from error
    new = {**plan["settings"], **{name: plan[name] for name in ("seed", "precision", "data")}}
    for name in sorted({*old, *new} - set(MAY_CHANGE)):
        if old.get(name) != new.get(name):
            change = "" if name in ("data", "network", "terms") else f" ({old.get(name)} then, {new.get(name)} now)"
            raise ConfigError(
                f"{path.parent} was begun with another {name}{change}; resume with the same, or pass --overwrite."
            )
