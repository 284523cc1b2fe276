"""``equivox shapes``: which class a shape, a protein or a residue belongs to."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Group, Parameter

from equivox.cli.options import Output, Run, Training
from equivox.cli.shapes_voxelize import register as register_voxelize
from equivox.cli.speaking import (
    best_of,
    classification_lines,
    close_evaluation,
    close_run,
    close_training,
    epoch_lines,
    given_values,
    say_classified,
    say_now_and_then,
)

app = App(
    name="shapes",
    help="Which class a shape, a protein domain or a residue belongs to, however it is turned.",
    help_format="plaintext",
)
register_voxelize(app)
DATA, LEARNING, INPUT = Group("Data", sort_key=5), Group("Learning", sort_key=6), Group("Input", sort_key=7)
SHOWN = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
"""Numbers of an epoch that a terminal shows."""
_LEARN, _INPUT, _DATA = Parameter(group=LEARNING), Parameter(group=INPUT), Parameter(group=DATA)
_SWITCH = Parameter(group=LEARNING)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which objects, of which classes, in which parts."""

    task: Annotated[Literal["3class", "10arch", "20topo"] | None, _DATA] = None
    """CATH: classes, architectures or topologies. [10arch of the rebuilt set, else what the file holds]"""
    fold: Annotated[int | None, _DATA] = None
    """Data in ten splits: test on this one, validate on the next. [train on 0-6, validate on 7, test on 8 and 9]"""
    perturbed: Annotated[bool, Parameter(group=DATA, negative="")] = False
    """Meshes: each in its own fixed rotation, where the data have one."""
    labels: Annotated[Path | None, _DATA] = None
    """Folder of files: a CSV with the columns file, label and, if wanted, split; else its sub-folders are classes."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LearnOptions:
    """What replaces the recipe's values; None leaves them."""

    network: Annotated[str | None, _LEARN] = None
    """Architecture instead of the recipe's: tetris, tetris_cnn, shrec17, shape_net ...; an unknown name lists all."""
    epochs: Annotated[int | None, _LEARN] = None
    """Epochs."""
    batch_size: Annotated[int | None, _LEARN] = None
    """Objects per step."""
    lr: Annotated[float | None, _LEARN] = None
    """Learning rate at first."""
    weight_decay: Annotated[float | None, _LEARN] = None
    """Weight decay of AdamW."""
    orientation: Annotated[Literal["none", "fixed", "uniform", "cube", "upright"] | None, _LEARN] = None
    """How training turns objects: not; once each; at every access by SO(3), by the cube's 24, about the vertical."""
    select: Annotated[Literal["last", "loss", "accuracy", "balanced_accuracy"] | None, _LEARN] = None
    """Which epoch's weights are kept."""
    class_weights: Annotated[bool | None, _SWITCH] = None
    """Weigh rare classes more."""
    balanced: Annotated[bool | None, _SWITCH] = None
    """As many objects of each class per epoch as the smallest has."""
    label_smoothing: Annotated[float | None, _LEARN] = None
    """Share of the target spread over all classes."""
    validate_every: Annotated[int | None, _LEARN] = None
    """Epochs between validations."""
    kind: Annotated[Literal["tetris", "voxels", "points", "mesh", "environment"] | None, _INPUT] = None
    """What an object is; voxels for MedMNIST3D."""
    side: Annotated[int | None, _INPUT] = None
    """Voxels along each axis; our networks with one stride of 2 need an odd number, with two 1 more than 4 n."""
    channels: Annotated[int | None, _INPUT] = None
    """Channels of the field."""
    spacing: Annotated[float | None, _INPUT] = None
    """Edge of a voxel: ångström for proteins, radii of the object for meshes."""
    sigma: Annotated[float | None, _INPUT] = None
    """Standard deviation of the Gaussian that a point becomes, same unit."""
    cell: Annotated[float | None, _INPUT] = None
    """Tetris: voxels along a cell."""
    frame: Annotated[Literal["local", "laboratory"] | None, _INPUT] = None
    """Environments: in the residue's own frame, or as the structure lies."""
    fill: Annotated[Literal["points", "surface", "occupancy"] | None, _INPUT] = None
    """Meshes: points that become Gaussians, voxels cut by the surface, or share of voxels inside."""
    trace: Annotated[Literal["atoms", "chain"] | None, _INPUT] = None
    """Proteins: C-alpha atoms alike, or in five channels by what the chain does."""


@app.command
def train(
    data: str,
    /,
    *,
    out: Path,
    preset: str,
    reduction: int = 1,
    source: DataOptions | None = None,
    options: LearnOptions | None = None,
    run: Training | None = None,
) -> None:
    """Train a classifier of objects.

    DATA is the word tetris (eight pieces, made here), an .npz file (a CATH set, residue environments, a set of meshes,
    MedMNIST3D), a SHREC17 folder, or a folder whose sub-folders are the classes. Writes model/ (for equivox shapes
    predict --model), checkpoints/best.ckpt and last.ckpt, curves.csv and run.json. Needs the extra train.

    For example:

    equivox shapes train tetris --preset tetris-equivox --out tetris --epochs 20

    equivox shapes train cath_ca.npz --preset cath-equivox --task 10arch --out cath --seed 1 --resume

    Parameters
    ----------
    data
        The word tetris, a file or a folder.
    out
        Results' folder.
    preset
        Recipe. Published: tetris, tetris-cnn, shrec17, cath, cath-cnn. Ours: tetris-equivox, cath-equivox,
        residue-equivox, shapes-equivox.
    reduction
        Train on one in so many objects of each class.
    source
        Which objects, of which classes, in which parts.
    options
        What replaces the recipe's values.
    run
        How it is run.
    """
    from equivox.tasks.shapes.presets import shape_preset

    settings = shape_preset(preset, reduction=reduction)
    given = given_values(options or LearnOptions())
    network = given.pop("network", None)
    if network is not None:
        given["network"] = {"architecture": network}
    settings = settings.with_values(**given)
    chosen = data_config(data, source)
    speak = run or Training()
    from equivox.tasks.shapes.train import train_shapes

    trained = train_shapes(
        chosen,
        settings,
        speak.train_run(out),
        command=sys.argv,
        progress=epoch_lines(speak, settings.epochs, SHOWN),
    )  # fmt: skip
    facts = {"objects": dict(trained.counts), **best_of(trained)}
    close_training(speak, "equivox.shapes-train/1", trained, out, facts)


@app.command
def evaluate(
    data: str,
    /,
    *,
    model: str,
    out: Path,
    split: Literal["test", "validation", "train", "all"] = "test",
    rotations: int = 4,
    objects: int = 200,
    retrieval: Annotated[bool, Parameter(negative="")] = False,
    seed: int = 0,
    device: str = "auto",
    source: DataOptions | None = None,
    output: Output | None = None,
) -> int:
    """Measure a classifier on labelled objects, as they lie and turned.

    Accuracy, balanced accuracy, confusion; the rotation report: accuracy over the 24 turns of the cube, about the
    vertical axis and over random rotations, change of the logits against the angle. Writes evaluation.html,
    evaluation.json and evaluation_predictions.csv.

    For example:

    equivox shapes evaluate tetris --model tetris --rotations 100 --out report

    equivox shapes evaluate toyshapes.npz --model shapes/model --retrieval --out report --json

    Parameters
    ----------
    data
        The word tetris, a file or a folder, as for training.
    model
        Name or folder of a model.
    out
        Output folder.
    split
        Part of the data to ask about.
    rotations
        Random rotations per object in the rotation report.
    objects
        Objects of the rotation report, drawn by the seed; 0 leaves it out.
    retrieval
        Also the retrieval measures of SHREC17.
    seed
        Of orientations and of the choice of objects.
    device
        auto, cpu, cuda, cuda:N or mps.
    source
        Which objects, of which classes, in which parts.
    output
        How the command speaks.
    """
    from equivox.formats.atomic import require_absent
    from equivox.run.classifier_evaluation import CSV_NAME
    from equivox.run.evaluation_files import evaluation_paths
    from equivox.tasks.shapes.evaluate import EvaluateConfig, evaluate_shapes, write_evaluation
    from equivox.tasks.shapes.evaluate_page import render_evaluation, summary_lines

    speak = output or Output()
    require_absent(evaluation_paths(out, CSV_NAME), overwrite=speak.overwrite)
    config = EvaluateConfig(
        model=model, data=data_config(data, source), split=split, rotations=rotations, objects=objects,
        retrieval=retrieval, seed=seed,
    )  # fmt: skip
    evaluation = evaluate_shapes(config, device=device, progress=None if speak.quiet else say_now_and_then)
    paths = write_evaluation(evaluation, out, page=render_evaluation(evaluation), overwrite=speak.overwrite)
    notes = [f"note: {text}" for text in evaluation.notes]
    close_evaluation(speak, evaluation.as_dict(), paths, summary_lines(evaluation), notes)
    return 0


@app.command
def predict(
    inputs: list[str],
    /,
    *,
    out: Path,
    model: str,
    run: Run | None = None,
) -> int:
    """Say which class every object belongs to.

    Writes predictions.csv (input, status, reason, label, probability, and one column per class), predictions.json and
    run.json. A structure gives one row per chain, or per residue, after its name and a #. A classifier always answers
    with one of its classes, also for an object of none of them.

    For example:

    equivox shapes predict 1abc.pdb --model cath-10arch --out classes

    equivox shapes predict "structures/*.cif" --model residue-environment --out residues --workers 4 --json

    Parameters
    ----------
    inputs
        Files, folders, or globs in quotes: what the model was trained on (structures, meshes, volumes, .npz sets).
    out
        Output folder.
    model
        Name or folder of a model; equivox model list shows the names.
    run
        How the work is run.
    """
    from equivox.tasks.shapes.predict import predict_shapes

    options = run or Run()
    finished = predict_shapes(
        inputs,
        out,
        model,
        options.choice(),
        command=sys.argv,
        progress=None if options.quiet else say_classified("objects"),
    )
    return close_run(options, finished, classification_lines)


def data_config(data: str, source: DataOptions | None) -> Any:
    """What was given on the command line, as the task takes it."""
    from equivox.tasks.shapes.config import DataConfig

    given = source or DataOptions()
    return DataConfig(
        data=data, task=given.task or "", fold=given.fold, perturbed=given.perturbed,
        labels=None if given.labels is None else str(given.labels),
    )  # fmt: skip
