"""`equivox shapes evaluate`: a classifier against labelled objects, as they lie and in many orientations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

import equivox
from equivox.errors import ConfigError, InputError
from equivox.metrics.retrieval import Retrieval, evaluate_retrieval, rank_lists
from equivox.run.classifier_evaluation import (
    ClassifierEvaluation,
    area_under_curve,
    drawn_places,
    require_split,
    seen_notes,
    write_classifier_evaluation,
)
from equivox.run.device import choose_device
from equivox.run.labelled import known_labels, left_out_notes
from equivox.tasks.shapes.classifier import ShapeModel, load_shape_model
from equivox.tasks.shapes.config import DataConfig
from equivox.tasks.shapes.data import ShapeSource, of_split
from equivox.tasks.shapes.rotation_report import Progress, RotationReport, logits_of, report_rotations
from equivox.tasks.shapes.sources import open_source


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
        require_split(self.split)
        if self.rotations < 1 or self.curve_objects < 1:
            raise ConfigError(f"--rotations is {self.rotations}; give a whole number above 0.")
        if self.objects < 0:
            raise ConfigError(f"--objects is {self.objects}; give 0 (no rotation report) or more.")


@dataclass(frozen=True)
class Evaluation(ClassifierEvaluation):
    """All numbers of one evaluation; ``logits`` and ``labels`` are of ``ids``, as they lie."""

    config: EvaluateConfig
    rotations: RotationReport | None
    retrieval: Retrieval | None

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values (schema ``equivox.shapes.evaluation/1``)."""
        return {
            "schema": "equivox.shapes.evaluation/1",
            "version": equivox.__version__,
            "config": {**asdict(self.config), "data": self.config.data.as_dict()},
            **self.numbers("objects"),
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
    auc = area_under_curve(labels, logits, model.classes)
    report = None
    if config.objects:
        kept = drawn_places(len(chosen), config.objects, seed=config.seed)
        report = report_rotations(
            model, source, [chosen[place] for place in kept], labels[kept],
            draws=config.rotations, curve_objects=config.curve_objects, seed=config.seed, progress=progress,
        )  # fmt: skip
    return Evaluation(
        config=config,
        model=model.folder.as_dict(),
        data=source.name,
        device=choice,
        classes=model.classes,
        ids=tuple(source.shapes[index].id for index in chosen),
        labels=labels,
        logits=logits,
        auc=auc,
        rotations=report,
        retrieval=_retrieve(source, chosen, logits, config.split) if config.retrieval else None,
        notes=(*notes, *left_out_notes(getattr(source, "problems", ()), "files"), *_seen_notes(model, config)),
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
    labels = known_labels(source.name, source.classes, source.shapes, chosen, classes)
    lost = len(members) - len(chosen)
    return chosen, labels, [f"{lost} objects without a label are left out."] if lost else []


def write_evaluation(evaluation: Evaluation, out: Path, *, page: str, overwrite: bool) -> list[Path]:
    """Write ``evaluation.json``, ``evaluation_predictions.csv`` and the page; returns their paths.

    Raises
    ------
    OutputError
        If a file is there already and ``overwrite`` is not given, or the folder cannot be written.
    """
    return write_classifier_evaluation(evaluation, evaluation.as_dict(), out, page=page, overwrite=overwrite)


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
    if seen := seen_notes(config.split, "objects"):
        return seen
    trained = model.folder.config.get("provenance", {}).get("data")
    fold = trained.get("fold") if isinstance(trained, dict) else None
    if isinstance(trained, dict) and fold != config.data.fold:
        return [
            f"The model was trained with --fold {fold}, asked with {config.data.fold}: it may have seen these objects."
        ]
    return []
