"""``equivox orient train``: learn orientations of one particle."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from equivox.cli.options import Training
from equivox.cli.speaking import close_training, epoch_lines, given_values

DATA, LEARNING, PICTURE = Group("Data", sort_key=5), Group("Learning", sort_key=6), Group("Pictures", sort_key=7)
_DATA, _LEARN, _PICTURE = Parameter(group=DATA), Parameter(group=LEARNING), Parameter(group=PICTURE)
_PAIR = Parameter(group=DATA, consume_multiple=True, negative="")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What is learned from."""

    chains: Annotated[str, _DATA] = ""
    """Of a structure: AB, or A,B. [all]"""
    sigma_angstrom: Annotated[float | None, _DATA] = None
    """Width of the Gaussians that a particle is made of. [3 Å for residues, 0.6 voxels of a map]"""
    particles: Annotated[int | None, _DATA] = None
    """Simulated pictures per epoch."""
    validation: Annotated[int | None, _DATA] = None
    """Simulated pictures to judge on."""
    fixed: Annotated[bool | None, Parameter(group=DATA, negative="")] = None
    """The same pictures in every epoch, not new ones."""
    views: Annotated[Literal["uniform", "preferred", "histogram"] | None, _DATA] = None
    """Poses of simulated particles."""
    histogram: Annotated[Path | None, _DATA] = None
    """For --views histogram: an .npz with counts (cos(tilt) by rot)."""
    snr: Annotated[tuple[float, float] | None, _PAIR] = None
    """Signal-to-noise of simulated pictures, lowest and highest. [no noise]"""
    defocus_angstrom: Annotated[tuple[float, float] | None, _PAIR] = None
    """Underfocus of simulated pictures, lowest and highest. [no contrast transfer]"""
    shift_angstrom: Annotated[float | None, _DATA] = None
    """Largest displacement; above 0 the network learns to estimate it."""
    contrast: Annotated[Literal["auto", "light", "dark"], _DATA] = "auto"
    """Of particles with poses: light on dark, or dark."""
    pixel_size_angstrom: Annotated[float | None, _DATA] = None
    """Of particles with poses, over what table and stack say."""
    project: Annotated[Path | None, _DATA] = None
    """Folder that image paths of a table are relative to."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LearnOptions:
    """What replaces the recipe's values; None leaves them."""

    epochs: Annotated[int | None, _LEARN] = None
    """Epochs."""
    batch_size: Annotated[int | None, _LEARN] = None
    """Pictures per step."""
    lr: Annotated[float | None, _LEARN] = None
    """Learning rate at first."""
    coarse_grid: Annotated[str | None, _LEARN] = None
    """Poses of the first look: O (24), d4opt-64, d4opt-256 ..."""
    head: Annotated[Literal["mixture", "unimodal"] | None, _LEARN] = None
    """A mixture over poses, or one pose from all features."""
    offset: Annotated[Literal["body", "procrustes", "quaternion_add"] | None, _LEARN] = None
    """How a pose is corrected."""
    loss: Annotated[Literal["mixture", "hard"] | None, _LEARN] = None
    """Likelihood of the mixture, or the paper's loss on the true cell."""
    fine: Annotated[bool | None, _LEARN] = None
    """Whether there is a second look near the best answers of the first."""
    side: Annotated[int | None, _PICTURE] = None
    """Pixels along a side of what the network sees: 25, 29, 33, 37 ..."""
    picture_pixel_angstrom: Annotated[float | None, _PICTURE] = None
    """Of these pixels."""
    transfer: Annotated[Literal["flip", "channel", "none"] | None, _PICTURE] = None
    """Contrast transfer: flip its negative signs, give it to the network, or leave it alone."""
    symmetry: Annotated[str | None, _PICTURE] = None
    """Point group of the particle: C1, C2 ..., D2 ..., T, T-relion, O, I1, I2, I3, I4."""


def train(
    data: str,
    /,
    *,
    out: Path,
    source: SourceOptions | None = None,
    options: LearnOptions | None = None,
    run: Training | None = None,
) -> None:
    """Train a network that tells the orientation of one particle.

    DATA is a structure (.pdb, .cif) or a density map (.mrc), whose pictures are simulated, or a particle table with
    poses (STAR, .cs) of a refinement. Writes model/ (for equivox orient predict --model), checkpoints, curves.csv and
    run.json. Needs the extra train.

    For example:

    equivox orient train 11as.pdb.gz --chains A --out asparagine --epochs 20

    equivox orient train refined.star --symmetry C2 --out mine --seed 1 --resume

    Parameters
    ----------
    data
        Structure, map, or table.
    out
        Results' folder.
    source
        What is learned from.
    options
        What replaces the recipe's values.
    run
        How it is run.
    """
    from equivox.tasks.orient.config import OrientTraining
    from equivox.tasks.orient.train_stack import StackChoice

    given, speak = source or SourceOptions(), run or Training()
    values = given_values(options or LearnOptions())
    for name in ("particles", "validation", "fixed", "views", "snr", "defocus_angstrom", "shift_angstrom"):
        if getattr(given, name) is not None:
            values[name] = getattr(given, name)
    if "picture_pixel_angstrom" in values:
        values["pixel_size_angstrom"] = values.pop("picture_pixel_angstrom")
    if given.shift_angstrom:
        values["shift"] = True
    settings = OrientTraining().with_values(**values)
    stack = StackChoice(
        project=None if given.project is None else str(given.project), own_pixel_angstrom=given.pixel_size_angstrom,
        contrast=given.contrast,
    )  # fmt: skip
    from equivox.tasks.orient.train import TrainData, train_orientation

    trained = train_orientation(
        TrainData(
            data=data, chains=given.chains, sigma_angstrom=given.sigma_angstrom,
            histogram=None if given.histogram is None else str(given.histogram), stack=stack,
        ),
        settings,
        speak.train_run(out),
        command=sys.argv,
        progress=epoch_lines(speak, settings.epochs, ("train_loss", "val_loss", "val_angle_rad")),
    )  # fmt: skip
    measured = trained.measured
    close_training(
        speak, "equivox.orient-train/1", trained, out,
        {"pictures": dict(trained.counts), "validation": dict(measured)},
        [f"validation: mean error {measured['mean_rad']:.4f} rad, {measured['near']:.1%} within 10 degrees"],
    )  # fmt: skip
