"""How often repeated read-outs of classes are right: balanced accuracy with its interval over people, F1, ROC area."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.metrics.classification import balanced_accuracy, confusion
from equivox.metrics.grouped import Measured, Resamples, measure, weighted_mean


@dataclass(frozen=True, slots=True)
class ClassNumbers:
    """Shares of one predictor.

    Parameters
    ----------
    bacc
        Balanced accuracy with its interval; a guess has 1 over the number of classes.
    bacc_sd
        SD over repetitions of the cross-validation; NaN for one.
    f1
        Of the second class, for two classes; NaN for more.
    auc
        Area under the ROC curve of the mean score, for two classes; NaN for more.
    """

    bacc: Measured
    bacc_sd: float
    f1: float
    auc: float

    def as_dict(self) -> dict[str, object]:
        """For JSON, NaN as None."""
        numbers = {"bacc_sd": self.bacc_sd, "f1": self.f1, "auc": self.auc}
        plain = {name: round(value, 5) if value == value else None for name, value in numbers.items()}
        return {"bacc": self.bacc.as_dict(), **plain}


def class_numbers(
    predicted: Int[Tensor, "repeat item"],
    scores: Float[Tensor, "repeat item"],
    labels: Int[Tensor, " item"],
    *,
    classes: int,
    resamples: Resamples,
) -> ClassNumbers:
    """Numbers of a predictor from its held-out answers in every repetition; ``scores`` are of the second class."""
    each = torch.tensor([balanced_accuracy(confusion(labels, one, classes=classes)) for one in predicted])
    right = (predicted == labels).double().mean(dim=0)
    members = torch.stack([(labels == index).double() for index in range(classes)])

    def recall_mean(values: Tensor, weights: Tensor) -> Tensor:
        return torch.stack([weighted_mean(values, weights * own) for own in members]).nanmean(dim=0)

    two = classes == 2
    return ClassNumbers(
        bacc=measure(right, recall_mean, resamples),
        bacc_sd=float(each.std()) if len(each) > 1 else float("nan"),
        f1=sum(_f1(one, labels) for one in predicted) / len(predicted) if two else float("nan"),
        auc=roc_area(scores.double().mean(dim=0), labels) if two else float("nan"),
    )


def roc_area(scores: Float[Tensor, " item"], labels: Int[Tensor, " item"]) -> float:
    """Probability that an item of class 1 scores above one of class 0, ties by half; NaN where a class has none.

    >>> roc_area(torch.tensor([0.1, 0.4, 0.4, 0.9]), torch.tensor([0, 0, 1, 1]))
    0.875
    """
    high, low = scores[labels == 1].double(), scores[labels == 0].double()
    if not len(high) or not len(low):
        return float("nan")
    above = (high[:, None] > low).double() + 0.5 * (high[:, None] == low).double()
    return float(above.mean())


def _f1(predicted: Tensor, labels: Tensor) -> float:
    """2 TP / (2 TP + FP + FN) of class 1; 0 where nobody is or was put there."""
    hits = int(((predicted == 1) & (labels == 1)).sum())
    wrong = int((predicted != labels).sum())
    return 2 * hits / (2 * hits + wrong) if hits + wrong else 0.0
