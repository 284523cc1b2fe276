"""`equivox images evaluate`: a classifier against labelled pictures, upright and turned."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

import equivox
from equivox.errors import ConfigError, InputError
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
from equivox.tasks.images.classifier import ImageModel, load_image_model
from equivox.tasks.images.config import DataConfig
from equivox.tasks.images.sources import ImageSource, open_source
from equivox.tasks.images.turned import Progress, TurnReport, report_turns


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
        require_split(self.split)
        if self.turned < 0:
            raise ConfigError(f"--turned is {self.turned}; give 0 (no report on turned pictures) or more.")


@dataclass(frozen=True)
class Evaluation(ClassifierEvaluation):
    """All numbers of one evaluation; ``logits`` and ``labels`` are of ``ids``, upright."""

    config: EvaluateConfig
    turned: TurnReport | None

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values (schema ``equivox.images.evaluation/1``)."""
        return {
            "schema": "equivox.images.evaluation/1",
            "version": equivox.__version__,
            "config": {**asdict(self.config), "data": self.config.data.as_dict()},
            **self.numbers("pictures"),
            "cross_entropy": self.cross_entropy,
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
    auc = area_under_curve(labels, logits, model.classes)
    report = None
    if config.turned:
        kept = drawn_places(len(chosen), config.turned, seed=config.seed)
        report = report_turns(model, [squares[place] for place in kept], labels[kept], progress=progress)
    return Evaluation(
        config=config,
        model=model.folder.as_dict(),
        data=source.name,
        device=choice,
        classes=model.classes,
        ids=tuple(source.entries[index].id for index in chosen),
        labels=labels,
        logits=logits,
        auc=auc,
        turned=report,
        notes=(*seen_notes(config.split, "pictures"), *left_out_notes(source.problems, "things")),
    )


def write_evaluation(evaluation: Evaluation, out: Path, *, page: str, overwrite: bool) -> list[Path]:
    """Write ``evaluation.json``, ``evaluation_predictions.csv`` and the page; returns their paths.

    Raises
    ------
    OutputError
        If a file is there already and ``overwrite`` is not given, or the folder cannot be written.
    """
    return write_classifier_evaluation(evaluation, evaluation.as_dict(), out, page=page, overwrite=overwrite)


def _labelled(source: ImageSource, split: str, model: ImageModel) -> tuple[list[int], Int[Tensor, "picture"]]:
    """Pictures of a split, and their classes among the model's."""
    chosen = source.of_split(split)
    if not chosen:
        raise InputError(f"{source.name} has no picture in the split {split!r}; choose another --split.")
    return chosen, known_labels(source.name, source.classes, source.entries, chosen, model.classes)
