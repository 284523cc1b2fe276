"""``equivox images``: which class an image belongs to, however it is turned in its plane."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Group, Parameter

from equivox import __version__
from equivox.cli.options import RUNNING, Output, Run

if TYPE_CHECKING:
    from equivox.run.classification import ClassifyRun, FileOutcome
    from equivox.run.training_session import Trained

app = App(
    name="images",
    help="Which class an image belongs to, with filters that are views of one object in space.",
    help_format="plaintext",
)
NETWORK, LEARNING, INPUT = Group("Network", sort_key=5), Group("Learning", sort_key=6), Group("Input", sort_key=7)
_RUN = Parameter(group=RUNNING)
_FLAG = Parameter(group=RUNNING, negative="")
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


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How a training is run."""

    seed: Annotated[int, _RUN] = 0
    """Seed of everything random."""
    device: Annotated[str, _RUN] = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    workers: Annotated[int, _RUN] = 0
    """Processes that prepare images; results do not depend on it."""
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
    run: TrainOptions | None = None,
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
    given = _values(options or LearnOptions())
    if given.get("patience") == 0:
        given["patience"] = None
    settings = settings.with_values(**given)
    speak = run or TrainOptions()
    from equivox.run.training_folder import TrainRun
    from equivox.tasks.images.train import train_images

    trained = train_images(
        DataConfig(data=data, labels=None if labels is None else str(labels)),
        settings,
        TrainRun(
            out=out, seed=speak.seed, device=speak.device, workers=speak.workers, resume=speak.resume,
            overwrite=speak.overwrite, tensorboard=speak.tensorboard,
        ),
        command=sys.argv,
        progress=_progress(speak, settings.epochs),
    )  # fmt: skip
    _close_training(trained, out, speak)


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
    from equivox.tasks.images.config import DataConfig
    from equivox.tasks.images.evaluate import (
        CSV_NAME,
        JSON_NAME,
        PAGE_NAME,
        EvaluateConfig,
        evaluate_images,
        write_evaluation,
    )
    from equivox.tasks.images.evaluate_page import render_evaluation, summary_lines

    speak = output or Output()
    require_absent([out / name for name in (JSON_NAME, CSV_NAME, PAGE_NAME)], overwrite=speak.overwrite)
    source = DataConfig(data=data, labels=None if labels is None else str(labels))
    config = EvaluateConfig(model=model, data=source, split=split, turned=turned, seed=seed)
    evaluation = evaluate_images(config, device=device, progress=None if speak.quiet else _print_progress)
    paths = write_evaluation(evaluation, out, page=render_evaluation(evaluation), overwrite=speak.overwrite)
    if speak.json:
        document = {**evaluation.as_dict(), "files": [str(path) for path in paths]}
        print(json_format.dumps(document, indent=2, ensure_ascii=False))
    else:
        print("\n".join(summary_lines(evaluation)))
    if not speak.quiet:
        lines = [f"note: {text}" for text in evaluation.notes]
        lines.append(f"page: {out / PAGE_NAME}")
        print("\n".join(lines), file=sys.stderr)
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
        inputs, out, model, options.choice(), command=sys.argv, progress=None if options.quiet else _print_outcome
    )
    if options.json:
        print(json_format.dumps(finished.as_dict(), indent=2, ensure_ascii=False))
    if not options.quiet:
        _close_prediction(finished)
    return finished.exit_code


def _values(options: LearnOptions) -> dict[str, Any]:
    """What was given on the command line."""
    found = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: value for name, value in found.items() if value is not None}


def _progress(speak: TrainOptions, epochs: int) -> Callable[[int, Mapping[str, float]], None] | None:
    """One line on stderr per epoch."""
    shown = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")

    def line(epoch: int, row: Mapping[str, float]) -> None:
        numbers = "  ".join(f"{name} {row[name]:.4g}" for name in shown if name in row)
        print(f"[{epoch + 1}/{epochs}] {numbers}", file=sys.stderr, flush=True)

    return None if speak.quiet else line


def _close_training(trained: Trained, out: Path, speak: TrainOptions) -> None:
    """Say where the results are; on stdout for machines, on stderr for people."""
    fitted = trained.fitted
    if speak.json:
        result = {
            "out": str(out), "model": str(trained.model.path), "sha256": trained.model.sha256,
            "parameters": trained.parameters, "pictures": dict(trained.counts), "epochs": fitted.epochs,
            "best_epoch": fitted.best_epoch, "best_value": fitted.best_value, "device": trained.device.as_dict(),
        }  # fmt: skip
        document = {
            "schema": "equivox.images-train/1", "version": __version__, "results": [result],
            "warnings": list(trained.warnings), "errors": [],
        }  # fmt: skip
        print(json_format.dumps(document, indent=2))
    if not speak.quiet:
        lines = [f"note: {text}" for text in trained.warnings]
        lines.append(f"device {trained.device.device} ({trained.device.reason}), {trained.parameters} parameters")
        lines.append(f"model: {trained.model.path}")
        print("\n".join(lines), file=sys.stderr)


def _print_progress(done: int, total: int, what: str) -> None:
    """One line on stderr now and then."""
    if done == total or done % max(1, total // 10) == 0:
        print(f"[{done}/{total}] {what}", file=sys.stderr, flush=True)


def _print_outcome(done: int, total: int, outcome: FileOutcome) -> None:
    """One line on stderr per finished input."""
    rows = outcome.rows()
    state = "kept" if outcome.resumed else rows[0].status
    line = f"[{done}/{total}] {outcome.entry.path.name}  {state}"
    if outcome.result is not None and len(rows) == 1 and rows[0].probability is not None:
        line += f"  {rows[0].label}  {rows[0].probability:.2f}"
    elif outcome.result is not None:
        line += f"  {len(rows)} images"
    print(line, file=sys.stderr, flush=True)


def _close_prediction(finished: ClassifyRun) -> None:
    """What was run, where the results are, what has no answer; on stderr."""
    lost = [outcome for outcome in finished.outcomes if outcome.result is None]
    lines = [f"model {finished.model['name']}, device {finished.device.device} ({finished.device.reason})"]
    if lost:
        lines.append(f"without an answer: {len(lost)} of {len(finished.outcomes)}")
        lines += [
            f"  {one.reason}" if one.reason.startswith(one.entry.name) else f"  {one.entry.name}: {one.reason}"
            for one in lost[:20]
        ]
    lines.append(f"results: {finished.out / 'predictions.csv'}")
    print("\n".join(lines), file=sys.stderr)
