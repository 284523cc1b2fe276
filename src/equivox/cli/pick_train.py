"""``equivox pick train``: from labelled micrographs to a picker."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from equivox.cli.options import Training
from equivox.cli.pick_options import LabelOptions, texts
from equivox.cli.speaking import close_training, epoch_lines, given_values, say

LEARNING = Group("Learning", sort_key=6)
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


def train(
    micrographs: list[str],
    /,
    *,
    coordinates: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    radius_angstrom: float,
    out: Path,
    labels: LabelOptions | None = None,
    options: LearnOptions | None = None,
    run: Training | None = None,
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

    read, speak = labels or LabelOptions(), run or Training()
    source = PickSource(
        micrographs=tuple(micrographs), coordinates=texts(coordinates), radius_angstrom=radius_angstrom,
        pixel_size_angstrom=read.pixel_size_angstrom, negatives=texts(read.negatives), masks=texts(read.masks),
        contrast=read.contrast, flip_y=read.flip_y, coordinate_scale=read.coordinate_scale,
        split=None if read.split is None else str(read.split), validation_share=read.validation_share,
    )  # fmt: skip
    settings = PickTraining()
    given = given_values(options or LearnOptions())
    network = {name: given.pop(key) for key, name in (("network", "preset"), ("grid", "grid")) if key in given}
    if network:
        given["network"] = network if "preset" in network else {**settings.network, **network}
    if "expected_number" in given and "risk" not in given:
        given["risk"] = "binomial"
    settings = settings.with_values(**given)
    from equivox.tasks.pick.train import train_picker

    trained = train_picker(
        [source],
        settings,
        speak.train_run(out),
        command=sys.argv,
        progress=epoch_lines(speak, settings.epochs, ("train_loss", "val_average_precision")),
        reading=None if speak.quiet else _print_reading,
    )  # fmt: skip
    precision = trained.average_precision
    close_training(
        speak, "equivox.pick-train/1", trained, out,
        {**trained.counts, "best_epoch": trained.fitted.best_epoch, "average_precision": precision},
        [f"average precision {precision:.3f} on the validation micrographs"],
    )  # fmt: skip


def _print_reading(done: int, total: int, name: str) -> None:
    """One line on stderr when all micrographs are read, and now and then before."""
    if done == total or done % 20 == 0:
        say([f"read {done} of {total} micrographs"])
