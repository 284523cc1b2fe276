"""`equivox shapes evaluate`: a classifier against labelled objects, as they lie and in many orientations."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
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
from equivox.metrics.retrieval import Retrieval, evaluate_retrieval, rank_lists
from equivox.run.device import DeviceChoice, choose_device
from equivox.tasks.shapes.classifier import ShapeModel, load_shape_model
from equivox.tasks.shapes.config import DataConfig
from equivox.tasks.shapes.data import ShapeSource, of_split
from equivox.tasks.shapes.rotation_report import Progress, RotationReport, logits_of, report_rotations
from equivox.tasks.shapes.sources import open_source

JSON_NAME, PAGE_NAME, CSV_NAME = "evaluation.json", "evaluation.html", "evaluation_predictions.csv"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What `equivox shapes evaluate` computes."""

    model: str
    """Name or folder of a model."""
    data: DataConfig
    """Labelled objects."""
    split: str = "test"
    """``test``, ``validation``, ``train`` or ``all``."""
    rotations: int = 4
    """Random orientations per object."""
    objects: int = 200
    """Objects of the rotation report, drawn by the seed; 0 leaves the report out."""
    curve_objects: int = 48
    """Objects of the equivariance curve."""
    retrieval: bool = False
    """Also SHREC17's retrieval measures, by the predicted class and its logit."""
    seed: int = 0
    """Of orientations and of the choice of objects."""

    def __post_init__(self) -> None:
        if self.split not in ("test", "validation", "train", "all"):
            raise ConfigError(f"--split is {self.split!r}; give test, validation, train or all.")
        if self.rotations < 1 or self.curve_objects < 1:
            raise ConfigError(f"--rotations is {self.rotations}; give a whole number above 0.")
        if self.objects < 0:
            raise ConfigError(f"--objects is {self.objects}; give 0 (no rotation report) or more.")


@dataclass(frozen=True)
class Evaluation:
    """All numbers of one evaluation; ``logits`` and ``labels`` are of ``ids``, as they lie."""

    config: EvaluateConfig
    model: dict[str, str]
    data: str
    device: DeviceChoice
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: Int[Tensor, " object"]
    logits: Float[Tensor, "object classes"]
    counts: Int[Tensor, "classes classes"]
    auc: float | None
    majority: float
    rotations: RotationReport | None
    retrieval: Retrieval | None
    notes: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Share of right answers, objects as they lie."""
        return accuracy(self.counts)

    @property
    def balanced_accuracy(self) -> float:
        """Mean over classes of the share of right answers."""
        return balanced_accuracy(self.counts)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values (schema ``equivox.shapes.evaluation/1``)."""
        recalls = class_recalls(self.counts).tolist()
        return {
            "schema": "equivox.shapes.evaluation/1",
            "version": equivox.__version__,
            "config": {**asdict(self.config), "data": self.config.data.as_dict()},
            "model": self.model,
            "data": self.data,
            "device": self.device.as_dict(),
            "classes": list(self.classes),
            "objects": len(self.ids),
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "auc": self.auc,
            "chance": {"majority": self.majority, "uniform": 1.0 / len(self.classes)},
            "recall": {name: _finite(value) for name, value in zip(self.classes, recalls, strict=True)},
            "confusion": self.counts.tolist(),
            "rotations": None if self.rotations is None else self.rotations.as_dict(),
            "retrieval": None if self.retrieval is None else _retrieval_dict(self.retrieval),
            "notes": list(self.notes),
        }


def evaluate_shapes(config: EvaluateConfig, *, device: str = "auto", progress: Progress | None = None) -> Evaluation:
    """Ask a model about labelled objects.

    Parameters
    ----------
    config
        Model, objects, orientations.
    device
        Where the network runs.
    progress
        Called with (done, total, what).

    Raises
    ------
    InputError
        If the data cannot be used, no object of the split has a label, or a class is none of the model's.
    ModelFolderError
        If the model is missing or broken.
    """
    choice = choose_device(device)
    model = load_shape_model(config.model, str(choice.device))
    source = open_source(config.data, model.input)
    chosen, labels, notes = labelled_objects(source, config.split, model.classes)
    logits = logits_of(model, source, chosen, progress=progress)
    predicted = logits.argmax(dim=1)
    counts = confusion(labels, predicted, classes=len(model.classes))
    present = len(set(labels.tolist()))
    auc = roc_auc(labels, torch.softmax(logits.double(), dim=1)) if len(model.classes) == 2 == present else None
    report = None
    if config.objects:
        draw = torch.Generator().manual_seed(config.seed)
        kept = sorted(torch.randperm(len(chosen), generator=draw)[: config.objects].tolist())
        report = report_rotations(
            model, source, [chosen[place] for place in kept], labels[kept],
            draws=config.rotations, curve_objects=config.curve_objects, seed=config.seed, progress=progress,
        )  # fmt: skip
    return Evaluation(
        config=config,
        model={"name": model.folder.name, "sha256": model.folder.sha256, "path": str(model.folder.path)},
        data=source.name,
        device=choice,
        classes=model.classes,
        ids=tuple(source.shapes[index].id for index in chosen),
        labels=labels,
        logits=logits,
        counts=counts,
        auc=auc,
        majority=float(torch.bincount(labels).max()) / len(labels),
        rotations=report,
        retrieval=_retrieve(source, chosen, logits, config.split) if config.retrieval else None,
        notes=(*notes, *_lost_notes(source), *_seen_notes(model, config)),
    )


def labelled_objects(
    source: ShapeSource, split: str, classes: Sequence[str]
) -> tuple[list[int], Int[Tensor, " object"], list[str]]:
    """Objects of a split that have a label, their classes among the model's, and notes on those left out.

    Raises
    ------
    InputError
        If there are none, or one is of a class that the model does not know.
    """
    members = of_split(source, split)
    chosen = [index for index in members if source.shapes[index].label >= 0]
    if not chosen:
        raise InputError(f"{source.name} has no labelled object in the split {split!r}; choose another --split.")
    known = {name: place for place, name in enumerate(classes)}
    for index in chosen:
        name = source.classes[source.shapes[index].label]
        if name not in known:
            raise InputError(
                f"{source.name}: {source.shapes[index].id} is of the class {name!r}, which the model has not seen; "
                f"it knows {', '.join(classes)}."
            )
    labels = torch.tensor([known[source.classes[source.shapes[index].label]] for index in chosen])
    lost = len(members) - len(chosen)
    return chosen, labels, [f"{lost} objects without a label are left out."] if lost else []


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


def _retrieve(source: ShapeSource, chosen: Sequence[int], logits: Tensor, split: str) -> Retrieval:
    """SHREC17's measures: an object's list is all that are predicted in its class, by that class's logit."""
    shapes = [source.shapes[index] for index in chosen]
    truth = {}
    for shape in shapes:
        name = source.classes[shape.label]
        truth[shape.id] = (name, f"{name}/{shape.sublabel}" if shape.sublabel else name, split)
    return evaluate_retrieval(truth, rank_lists([shape.id for shape in shapes], logits), split=split)


def _retrieval_dict(found: Retrieval) -> dict[str, Any]:
    return {
        "micro": found.micro.as_dict(), "macro": found.macro.as_dict(), "score": found.score,
        "queries": len(found.queries), "missing": found.missing,
    }  # fmt: skip


def _seen_notes(model: ShapeModel, config: EvaluateConfig) -> list[str]:
    """Whether the model was trained on what it is asked about."""
    if config.split in ("train", "all"):
        return ["The split holds objects that the model may have been trained on: these numbers flatter it."]
    trained = model.folder.config.get("provenance", {}).get("data")
    fold = trained.get("fold") if isinstance(trained, dict) else None
    if isinstance(trained, dict) and fold != config.data.fold:
        return [
            f"The model was trained with --fold {fold}, asked with {config.data.fold}: it may have seen these objects."
        ]
    return []


def _lost_notes(source: ShapeSource) -> list[str]:
    """Files of a folder that could not be used."""
    lost: Sequence[str] = getattr(source, "problems", ())
    return [f"{len(lost)} files are left out, for example: {lost[0]}"] if lost else []


def _finite(value: float) -> float | None:
    return value if value == value else None
