"""``equivox pick train``: from labelled micrographs to a picker."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from equivox import __version__
from equivox.cli.options import RUNNING
from equivox.cli.pick_options import LabelOptions, texts

if TYPE_CHECKING:
    from equivox.tasks.pick.train import TrainedPicker

LEARNING = Group("Learning", sort_key=6)
_RUN = Parameter(group=RUNNING)
_FLAG = Parameter(group=RUNNING, negative="")
_LEARN = Parameter(group=LEARNING)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LearnOptions:
    """What replaces the recipe's values; None leaves them."""

    risk: Annotated[Literal["full", "binomial", "non-negative"] | None, _LEARN] = None
    """full: all particles are labelled. The others: some are; give --expected-number. [full]"""
    expected_number: Annotated[float | None, _LEARN] = None
    """Particles per micrograph, labelled or not."""
    network: Annotated[str | None, _LEARN] = None
    """Network by name; an unknown name lists all. [ball_cryo45_3k]"""
    grid: Annotated[str | None, _LEARN] = None
    """Rotations: d4opt-16, O (24), d4opt-64 ... [d4opt-16]"""
    epochs: Annotated[int | None, _LEARN] = None
    """Epochs at most."""
    patience: Annotated[int | None, _LEARN] = None
    """Stop after so many epochs without a better validation."""
    tiles_per_epoch: Annotated[int | None, _LEARN] = None
    """Tiles per epoch."""
    batch_size: Annotated[int | None, _LEARN] = None
    """Tiles per step."""
    lr: Annotated[float | None, _LEARN] = None
    """Learning rate at first."""
    radius_px: Annotated[float | None, _LEARN] = None
    """Radius of the particle in the pixels that the network sees."""
    rotate: Annotated[Literal["none", "quarter", "any"] | None, _LEARN] = None
    """How tiles are turned."""
    edge_angstrom: Annotated[float | None, _LEARN] = None
    """Learn nothing nearer to the edge."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How a training is run."""

    seed: Annotated[int, _RUN] = 0
    """Seed of everything random."""
    device: Annotated[str, _RUN] = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    workers: Annotated[int, _RUN] = 0
    """Processes that prepare tiles; results do not depend on it."""
    resume: Annotated[bool, _FLAG] = False
    """Go on from the last whole epoch, exactly as if nothing had happened."""
    overwrite: Annotated[bool, _FLAG] = False
    """Replace the results of an earlier run."""
    tensorboard: Annotated[bool, _FLAG] = False
    """Also write TensorBoard files, beside curves.csv."""
    json: Annotated[bool, _FLAG] = False
    """Print one JSON document on stdout."""
    quiet: Annotated[bool, _FLAG] = False
    """Print no progress."""


def train(
    micrographs: list[str],
    /,
    *,
    coordinates: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    radius_angstrom: float,
    out: Path,
    labels: LabelOptions | None = None,
    options: LearnOptions | None = None,
    run: TrainOptions | None = None,
) -> None:
    """Train a picker on labelled micrographs.

    Writes model/ (for equivox pick predict --model), checkpoints/best.ckpt and last.ckpt, curves.csv and run.json.
    Needs the extra train.

    For example:

    equivox pick train "mics/*.mrc" --coordinates picks.star --radius-angstrom 90 --out picker

    equivox pick train mics --coordinates some.txt --radius-angstrom 90 --risk binomial --expected-number 300 --out pu

    Parameters
    ----------
    micrographs
        Files, folders, or globs in quotes: MRC, TIFF, PNG.
    coordinates
        Files, folders or globs: topaz, RELION STAR, .box, .cbox, cryoSPARC .cs, CSV.
    radius_angstrom
        Radius of the particle.
    out
        Results' folder.
    labels
        How labels are read.
    options
        What replaces the recipe's values.
    run
        How it is run.
    """
    from equivox.tasks.pick.config import PickSource, PickTraining

    read, speak = labels or LabelOptions(), run or TrainOptions()
    source = PickSource(
        micrographs=tuple(micrographs), coordinates=texts(coordinates), radius_angstrom=radius_angstrom,
        pixel_size_angstrom=read.pixel_size_angstrom, negatives=texts(read.negatives), masks=texts(read.masks),
        contrast=read.contrast, flip_y=read.flip_y, coordinate_scale=read.coordinate_scale,
        split=None if read.split is None else str(read.split), validation_share=read.validation_share,
    )  # fmt: skip
    settings = PickTraining()
    given = _values(options or LearnOptions())
    network = {name: given.pop(key) for key, name in (("network", "preset"), ("grid", "grid")) if key in given}
    if network:
        given["network"] = network if "preset" in network else {**settings.network, **network}
    if "expected_number" in given and "risk" not in given:
        given["risk"] = "binomial"
    settings = settings.with_values(**given)
    from equivox.run.training_folder import TrainRun
    from equivox.tasks.pick.train import train_picker

    trained = train_picker(
        [source],
        settings,
        TrainRun(
            out=out, seed=speak.seed, device=speak.device, workers=speak.workers, resume=speak.resume,
            overwrite=speak.overwrite, tensorboard=speak.tensorboard,
        ),
        command=sys.argv,
        progress=_progress(speak, settings.epochs),
        reading=None if speak.quiet else _print_reading,
    )  # fmt: skip
    _close_training(trained, out, speak)


def _values(options: LearnOptions) -> dict[str, Any]:
    """What was given on the command line."""
    found = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: value for name, value in found.items() if value is not None}


def _progress(speak: TrainOptions, epochs: int) -> Callable[[int, Mapping[str, float]], None] | None:
    """One line on stderr per epoch."""
    shown = ("train_loss", "val_average_precision")

    def line(epoch: int, row: Mapping[str, float]) -> None:
        numbers = "  ".join(f"{name} {row[name]:.4g}" for name in shown if name in row)
        print(f"[{epoch + 1}/{epochs}] {numbers}", file=sys.stderr, flush=True)

    return None if speak.quiet else line


def _print_reading(done: int, total: int, name: str) -> None:
    """One line on stderr when all micrographs are read, and now and then before."""
    if done == total or done % 20 == 0:
        print(f"read {done} of {total} micrographs", file=sys.stderr, flush=True)


def _close_training(trained: TrainedPicker, out: Path, speak: TrainOptions) -> None:
    """Say where the results are; on stdout for machines, on stderr for people."""
    fitted = trained.fitted
    if speak.json:
        result = {
            "out": str(out), "model": str(trained.model.path), "sha256": trained.model.sha256,
            "parameters": trained.parameters, **trained.counts, "epochs": fitted.epochs,
            "best_epoch": fitted.best_epoch, "average_precision": trained.average_precision,
            "device": trained.device.as_dict(),
        }  # fmt: skip
        document = {
            "schema": "equivox.pick-train/1", "version": __version__, "results": [result],
            "warnings": list(trained.warnings), "errors": [],
        }  # fmt: skip
        print(json_format.dumps(document, indent=2, ensure_ascii=False))
    if not speak.quiet:
        lines = [f"note: {text}" for text in trained.warnings]
        lines.append(f"device {trained.device.device} ({trained.device.reason}), {trained.parameters} parameters")
        lines.append(f"average precision {trained.average_precision:.3f} on the validation micrographs")
        lines.append(f"model: {trained.model.path}")
        print("\n".join(lines), file=sys.stderr)
