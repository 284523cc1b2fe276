"""A classifier against labelled things: how often it is right, and the files that say so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import ConfigError
from equivox.metrics.classification import accuracy, balanced_accuracy, class_recalls, confusion, roc_auc
from equivox.run.device import DeviceChoice
from equivox.run.evaluation_files import write_evaluation_files

SPLITS = ("test", "validation", "train", "all")
CSV_NAME = "evaluation_predictions.csv"


@dataclass(frozen=True)
class ClassifierEvaluation:
    """What a classifier says of labelled things as they are.

    Parameters
    ----------
    model, data, device
        Who was asked about what, and where.
    classes
        Of the model.
    ids, labels, logits
        Things, their classes, and the answers.
    auc
        See :func:`area_under_curve`.
    notes
        What a reader should know.
    """

    model: dict[str, str]
    data: str
    device: DeviceChoice
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: Int[Tensor, " thing"]
    logits: Float[Tensor, "thing classes"]
    auc: float | None
    notes: tuple[str, ...]

    @cached_property
    def counts(self) -> Int[Tensor, "classes classes"]:
        """How many of each true class (row) were taken for each class (column)."""
        return confusion(self.labels, self.logits.argmax(dim=1), classes=len(self.classes))

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

    @property
    def majority(self) -> float:
        """Share of the largest class."""
        return float(torch.bincount(self.labels).max()) / len(self.labels)

    def numbers(self, what: str) -> dict[str, Any]:
        """Plain JSON values of all this; ``what`` names the things, in the plural."""
        recalls = class_recalls(self.counts).tolist()
        return {
            "model": self.model,
            "data": self.data,
            "device": self.device.as_dict(),
            "classes": list(self.classes),
            what: len(self.ids),
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "auc": self.auc,
            "chance": {"majority": self.majority, "uniform": 1.0 / len(self.classes)},
            "recall": {
                name: value if value == value else None for name, value in zip(self.classes, recalls, strict=True)
            },
            "confusion": self.counts.tolist(),
        }

    def rows(self) -> Iterator[list[str]]:
        """Lines of ``evaluation_predictions.csv``."""
        probabilities = torch.softmax(self.logits.double(), dim=1)
        for name, label, row in zip(self.ids, self.labels.tolist(), probabilities, strict=True):
            best = int(row.argmax())
            cells = [f"{value:.6f}" for value in (float(row[best]), *row.tolist())]
            yield [name, self.classes[label], self.classes[best], *cells]


def area_under_curve(
    labels: Int[Tensor, " thing"], logits: Float[Tensor, "thing classes"], classes: Sequence[str]
) -> float | None:
    """Area under the ROC curve where there are two classes and both occur; None elsewhere."""
    if len(classes) != 2 or len(set(labels.tolist())) != 2:
        return None
    return roc_auc(labels, torch.softmax(logits.double(), dim=1))


def drawn_places(count: int, wanted: int, *, seed: int) -> list[int]:
    """At most ``wanted`` of ``count`` positions, drawn by the seed, in order."""
    draw = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(count, generator=draw)[:wanted].tolist())


def require_split(split: str) -> None:
    """ConfigError for a part of the data that there is not."""
    if split not in SPLITS:
        raise ConfigError(f"--split is {split!r}; give test, validation, train or all.")


def seen_notes(split: str, what: str) -> list[str]:
    """What is said of a split that the model may have learnt from; ``what`` names its things, in the plural."""
    if split in ("train", "all"):
        return [f"The split holds {what} that the model may have been trained on: these numbers flatter it."]
    return []


def write_classifier_evaluation(
    evaluation: ClassifierEvaluation, document: dict[str, Any], out: Path, *, page: str, overwrite: bool
) -> list[Path]:
    """Write ``evaluation.json``, ``evaluation_predictions.csv`` and the page; returns their paths.

    Raises
    ------
    OutputError
        If a file is there already and ``overwrite`` is not given, or the folder cannot be written.
    """
    header = ["id", "true", "label", "probability", *(f"p_{name}" for name in evaluation.classes)]
    return write_evaluation_files(
        out, document, page, table=CSV_NAME, header=header, rows=evaluation.rows(), overwrite=overwrite
    )
