"""`equivox images evaluate`: a classifier against labelled pictures, upright and turned."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

import equivox
from equivox.errors import ConfigError, InputError
from equivox.formats.atomic import require_absent, require_folder, write_json, write_text
from equivox.metrics.classification import accuracy, balanced_accuracy, class_recalls, confusion, roc_auc
from equivox.run.device import DeviceChoice, choose_device
from equivox.tasks.images.classifier import ImageModel, load_image_model
from equivox.tasks.images.config import DataConfig
from equivox.tasks.images.sources import ImageSource, open_source
from equivox.tasks.images.turned import Progress, TurnReport, report_turns

JSON_NAME, PAGE_NAME, CSV_NAME = "evaluation.json", "evaluation.html", "evaluation_predictions.csv"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What `equivox images evaluate` computes."""

    model: str
    """Name or folder of a model."""
    data: DataConfig
    """Labelled pictures."""
    split: str = "test"
    """``test``, ``validation``, ``train`` or ``all``."""
    turned: int = 500
    """Pictures of the report on turned ones, drawn by the seed; 0 leaves it out."""
    seed: int = 0
    """Of the choice of pictures."""

    def __post_init__(self) -> None:
        if self.split not in ("test", "validation", "train", "all"):
            raise ConfigError(f"--split is {self.split!r}; give test, validation, train or all.")
        if self.turned < 0:
            raise ConfigError(f"--turned is {self.turned}; give 0 (no report on turned pictures) or more.")


@dataclass(frozen=True)
class Evaluation:
    """All numbers of one evaluation; ``logits`` and ``labels`` are of ``ids``, upright."""

    config: EvaluateConfig
    model: dict[str, str]
    data: str
    device: DeviceChoice
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: Int[Tensor, "picture"]
    logits: Float[Tensor, "picture classes"]
    counts: Int[Tensor, "classes classes"]
    auc: float | None
    majority: float
    turned: TurnReport | None
    notes: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return accuracy(self.counts)

    @property
    def balanced_accuracy(self) -> float:
        """Mean over classes of the share of right answers."""
        return balanced_accuracy(self.counts)

    @property
    def cross_entropy(self) -> float:
        """Mean of -log of the probability of the true class."""
        return float(torch.nn.functional.cross_entropy(self.logits.double(), self.labels))

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values (schema ``equivox.images.evaluation/1``)."""
        recalls = class_recalls(self.counts).tolist()
        return {
            "schema": "equivox.images.evaluation/1",
            "version": equivox.__version__,
            "config": {**asdict(self.config), "data": self.config.data.as_dict()},
            "model": self.model,
            "data": self.data,
            "device": self.device.as_dict(),
            "classes": list(self.classes),
            "pictures": len(self.ids),
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "cross_entropy": self.cross_entropy,
            "auc": self.auc,
            "chance": {"majority": self.majority, "uniform": 1.0 / len(self.classes)},
            "recall": {
                name: value if value == value else None for name, value in zip(self.classes, recalls, strict=True)
            },
            "confusion": self.counts.tolist(),
            "turned": None if self.turned is None else self.turned.as_dict(),
            "notes": list(self.notes),
        }


def evaluate_images(config: EvaluateConfig, *, device: str = "auto", progress: Progress | None = None) -> Evaluation:
    """Ask a model about labelled pictures.

    Parameters
    ----------
    config
        Model, pictures, turns.
    device
        Where the network runs.
    progress
        Called with (done, total, what).

    Raises
    ------
    InputError
        If the data cannot be used, no picture is in the split, or a class is none of the model's.
    ModelFolderError
        If the model is missing or broken.
    """
    choice = choose_device(device)
    model = load_image_model(config.model, str(choice.device))
    source = open_source(config.data, model.input)
    chosen, labels = _labelled(source, config.split, model)
    squares = [source.squares[index] for index in chosen]
    logits = model.logits(squares)
    if not bool(torch.isfinite(logits).all()):
        raise InputError(f"{model.name} gives NaN or infinite logits; the network did not train.")
    present = len(set(labels.tolist()))
    auc = roc_auc(labels, torch.softmax(logits.double(), dim=1)) if len(model.classes) == 2 == present else None
    report = None
    if config.turned:
        draw = torch.Generator().manual_seed(config.seed)
        kept = sorted(torch.randperm(len(chosen), generator=draw)[: config.turned].tolist())
        report = report_turns(model, [squares[place] for place in kept], labels[kept], progress=progress)
    notes = []
    if config.split in ("train", "all"):
        notes.append("The split holds pictures that the model may have been trained on: these numbers flatter it.")
    if source.problems:
        notes.append(f"{len(source.problems)} things are left out, for example: {source.problems[0]}")
    return Evaluation(
        config=config,
        model={"name": model.folder.name, "sha256": model.folder.sha256, "path": str(model.folder.path)},
        data=source.name,
        device=choice,
        classes=model.classes,
        ids=tuple(source.entries[index].id for index in chosen),
        labels=labels,
        logits=logits,
        counts=confusion(labels, logits.argmax(dim=1), classes=len(model.classes)),
        auc=auc,
        majority=float(torch.bincount(labels).max()) / len(labels),
        turned=report,
        notes=tuple(notes),
    )


def write_evaluation(evaluation: Evaluation, out: Path, *, page: str, overwrite: bool) -> list[Path]:
    """Write ``evaluation.json``, ``evaluation_predictions.csv`` and the page; returns their paths.

    Raises
    ------
    OutputError
        If a file is there already and ``overwrite`` is not given, or the folder cannot be written.
    """
    paths = [out / name for name in (JSON_NAME, CSV_NAME, PAGE_NAME)]
    require_folder(out)
    require_absent(paths, overwrite=overwrite)
    write_json(paths[0], evaluation.as_dict())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "true", "label", "probability", *(f"p_{name}" for name in evaluation.classes)])
    probabilities = torch.softmax(evaluation.logits.double(), dim=1)
    for name, label, row in zip(evaluation.ids, evaluation.labels.tolist(), probabilities, strict=True):
        best = int(row.argmax())
        cells = [f"{value:.6f}" for value in (float(row[best]), *row.tolist())]
        writer.writerow([name, evaluation.classes[label], evaluation.classes[best], *cells])
    write_text(paths[1], text.getvalue())
    write_text(paths[2], page)
    return paths


def _labelled(source: ImageSource, split: str, model: ImageModel) -> tuple[list[int], Int[Tensor, "picture"]]:
    """Pictures of a split, and their classes among the model's."""
    chosen = source.of_split(split)
    if not chosen:
        raise InputError(f"{source.name} has no picture in the split {split!r}; choose another --split.")
    known = {name: place for place, name in enumerate(model.classes)}
    for index in chosen:
        name = source.classes[source.entries[index].label]
        if name not in known:
            raise InputError(
                f"{source.name}: {source.entries[index].id} is of the class {name!r}, which the model has not seen; "
                f"it knows {', '.join(model.classes)}."
            )
    return chosen, torch.tensor([known[source.classes[source.entries[index].label]] for index in chosen])
