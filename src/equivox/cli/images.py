"""``equivox images``: which class an image belongs to, however it is turned in its plane."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter

from equivox.cli.options import Output, Run, Training
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
    name="images",
    help="Which class an image belongs to, with filters that are views of one object in space.",
    help_format="plaintext",
)
NETWORK, LEARNING, INPUT = Group("Network", sort_key=5), Group("Learning", sort_key=6), Group("Input", sort_key=7)
SHOWN = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
"""Numbers of an epoch that a terminal shows."""
_NETWORK, _LEARN, _INPUT = Parameter(group=NETWORK), Parameter(group=LEARNING), Parameter(group=INPUT)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """What replaces the network's own choices."""

    grid: Annotated[str | None, _NETWORK] = None
    """Rotations: O, d4opt-64, fibonacci-8x8, C8 ... [O; C8 for so2_...]"""
    aggregation: Annotated[Literal["al1_effective", "al1", "logmeanexp", "mean", "max"] | None, _NETWORK] = None
    """From one logit per rotation to one. [al1_effective for ours, al1 for the published]"""
    side: Annotated[int | None, _NETWORK] = None
    """Pixels of the field, for linear_... networks; all others have their own."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LearnOptions:
    """What replaces the recipe's values; None leaves them."""

    epochs: Annotated[int | None, _LEARN] = None
    """Epochs at most. [200]"""
    batch_size: Annotated[int | None, _LEARN] = None
    """Images per step; small sets want 32. [512]"""
    lr: Annotated[float | None, _LEARN] = None
    """Learning rate of Adam at first. [0.001]"""
    weight_decay: Annotated[float | None, _LEARN] = None
    """Above 0: AdamW with this decay. [0]"""
    plateau: Annotated[int | None, _LEARN] = None
    """The rate falls after more than so many epochs without a better validation loss. [3]"""
    factor: Annotated[float | None, _LEARN] = None
    """By which the rate falls. [0.1]"""
    patience: Annotated[int | None, _LEARN] = None
    """Stop after so many epochs without a better validation; 0: never. [5]"""
    augment: Annotated[Literal["none", "mirror", "square", "turn"] | None, _LEARN] = None
    """Show images as they are; mirrored too; in all 8 symmetries of the square; turned by any angle. [none]"""
    class_weights: Annotated[bool | None, _LEARN] = None
    """Weigh rare classes more."""
    label_smoothing: Annotated[float | None, _LEARN] = None
    """Share of the target spread over all classes. [0]"""
    select: Annotated[Literal["loss", "accuracy", "last"] | None, _LEARN] = None
    """Which epoch's weights are kept. [loss]"""
    crop: Annotated[int | None, _INPUT] = None
    """Side of the central square of the image that is used [px]. [180 for ..gz2.., else as large as fits]"""
    channels: Annotated[Literal[1, 3] | None, _INPUT] = None
    """1: grey, 3: colour. [3]"""


@app.command
def train(
    data: str,
    /,
    *,
    out: Path,
    preset: str,
    labels: Path | None = None,
    network: NetworkOptions | None = None,
    options: LearnOptions | None = None,
    run: Training | None = None,
) -> None:
    """Train a classifier of images.

    DATA is a folder whose sub-folders are the classes (with or without train, val and test above them), a folder of
    CIFAR's batches (cifar-10-batches-py or -bin), an .npz file (x and label; MedMNIST), or a folder of images with a
    table of labels. Writes model/ (for equivox images predict --model), checkpoints/, curves.csv and run.json. Needs
    the extra train.

    For example:

    equivox images train cifar-10-batches-bin --preset ball_cifar33 --out cifar --epochs 20 --batch-size 128

    equivox images train galaxies --labels gz2_hart16.csv --preset ball_gz2_45 --out galaxies-ours

    Parameters
    ----------
    data
        A folder or a file.
    out
        Results' folder.
    preset
        Network. Published: linear_, conv_, so2_, so3_ with cifar33, gz2_45, cryo45; conv_..._free (no norm on the
        logits), resnet_ (ours); ball_cifar33, ball_gz2_45, ball_cryo45_3k, ball_cryo45_15k (ours). An unknown name
        lists all.
    labels
        A table with the columns file and label (and split), or a catalogue of Galaxy Zoo (gz2class, or the votes
        Class1.1 to Class7.3).
    network
        What replaces the network's own choices.
    options
        What replaces the recipe's values.
    run
        How it is run.
    """
    from equivox.tasks.images.config import DataConfig, image_preset

    chosen = network or NetworkOptions()
    settings = image_preset(preset, grid=chosen.grid, aggregation=chosen.aggregation, size=chosen.side)
    given = given_values(options or LearnOptions())
    if given.get("patience") == 0:
        given["patience"] = None
    settings = settings.with_values(**given)
    speak = run or Training()
    from equivox.tasks.images.train import train_images

    trained = train_images(
        DataConfig(data=data, labels=None if labels is None else str(labels)),
        settings,
        speak.train_run(out),
        command=sys.argv,
        progress=epoch_lines(speak, settings.epochs, SHOWN),
    )  # fmt: skip
    facts = {"pictures": dict(trained.counts), **best_of(trained)}
    close_training(speak, "equivox.images-train/1", trained, out, facts)


@app.command
def evaluate(
    data: str,
    /,
    *,
    model: str,
    out: Path,
    labels: Path | None = None,
    split: Literal["test", "validation", "train", "all"] = "test",
    turned: int = 500,
    seed: int = 0,
    device: str = "auto",
    output: Output | None = None,
) -> int:
    """Measure a classifier on labelled images, upright and turned in their plane.

    Accuracy, balanced accuracy, cross-entropy, confusion; the same over the 8 symmetries of the square and at angles
    between, with the change of the logits. Writes evaluation.html, evaluation.json and evaluation_predictions.csv.

    For example:

    equivox images evaluate cifar-10-batches-bin --model cifar/model --out report

    equivox images evaluate galaxies --labels gz2_hart16.csv --model galaxies-ours/model --out report --json

    Parameters
    ----------
    data
        A folder or a file, as for training.
    model
        Name or folder of a model.
    out
        Output folder.
    labels
        A table of labels, as for training.
    split
        Part of the data to ask about.
    turned
        Images of the report on turned ones, drawn by the seed; 0 leaves it out.
    seed
        Of the choice of images.
    device
        auto, cpu, cuda, cuda:N or mps.
    output
        How the command speaks.
    """
    from equivox.formats.atomic import require_absent
    from equivox.run.classifier_evaluation import CSV_NAME
    from equivox.run.evaluation_files import evaluation_paths
    from equivox.tasks.images.config import DataConfig
    from equivox.tasks.images.evaluate import EvaluateConfig, evaluate_images, write_evaluation
    from equivox.tasks.images.evaluate_page import render_evaluation, summary_lines

    speak = output or Output()
    require_absent(evaluation_paths(out, CSV_NAME), overwrite=speak.overwrite)
    source = DataConfig(data=data, labels=None if labels is None else str(labels))
    config = EvaluateConfig(model=model, data=source, split=split, turned=turned, seed=seed)
    evaluation = evaluate_images(config, device=device, progress=None if speak.quiet else say_now_and_then)
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
    """Say which class every image belongs to.

    Writes predictions.csv (input, status, reason, label, probability, and one column per class), predictions.json and
    run.json. An .npz file gives one row per image, after its name and a #. A classifier always answers with one of its
    classes, also for an image of none of them.

    For example:

    equivox images predict galaxy.jpg --model galaxies-ours/model --out classes

    equivox images predict "pictures/*.png" --model cifar/model --out classes --workers 2 --json

    Parameters
    ----------
    inputs
        Files, folders, or globs in quotes.
    out
        Output folder.
    model
        Name or folder of a model; equivox model list shows the names.
    run
        How the work is run.
    """
    from equivox.tasks.images.predict import predict_images

    options = run or Run()
    finished = predict_images(
        inputs,
        out,
        model,
        options.choice(),
        command=sys.argv,
        progress=None if options.quiet else say_classified("images"),
    )
    return close_run(options, finished, classification_lines)
