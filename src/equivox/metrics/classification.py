"""How often a classifier is right: accuracy, balanced accuracy, confusion, area under the ROC curve."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import InputError, MissingExtraError


def confusion(
    labels: Int[Tensor, " item"], predicted: Int[Tensor, " prediction"], *, classes: int
) -> Int[Tensor, "class class"]:
    """How many items of the true class (row) were taken for each class (column).

    Raises
    ------
    InputError
        If the numbers of items differ or an index lies outside 0 to ``classes`` - 1.

    Examples
    --------
    >>> confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    if labels.shape != predicted.shape:
        raise InputError(f"there are {len(labels)} labels and {len(predicted)} predictions; one of each is needed.")
    for name, values in (("label", labels), ("prediction", predicted)):
        if len(values) and not (int(values.min()) >= 0 and int(values.max()) < classes):
            raise InputError(
                f"a {name} lies outside the {classes} classes (0 to {classes - 1}): they run from "
                f"{int(values.min())} to {int(values.max())}."
            )
    places = labels.long().cpu() * classes + predicted.long().cpu()
    return torch.bincount(places, minlength=classes * classes).view(classes, classes)


def accuracy(counts: Int[Tensor, "class class"]) -> float:
    """Share of items that were put in their class, from :func:`confusion`; NaN without items.

    >>> accuracy(torch.tensor([[3, 1], [0, 4]]))
    0.875
    """
    total = int(counts.sum())
    return int(counts.diagonal().sum()) / total if total else float("nan")


def class_recalls(counts: Int[Tensor, "class class"]) -> Float[Tensor, " class"]:
    """Accuracy within each true class, from :func:`confusion`; NaN for a class without items.

    >>> class_recalls(torch.tensor([[3, 1], [0, 4]])).tolist()
    [0.75, 1.0]
    """
    return counts.diagonal().double() / counts.sum(dim=1).double()


def balanced_accuracy(counts: Int[Tensor, "class class"]) -> float:
    """Mean of :func:`class_recalls` over the classes that have items; NaN without items.

    >>> balanced_accuracy(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    0.875
    """
    return float(class_recalls(counts).nanmean())


def logit_spread(logits: Float[Tensor, "item class"]) -> float:
    """Standard deviation of the logits over items, RMS over classes; 1 where there is but one item."""
    if len(logits) < 2:
        return 1.0
    return max(float(logits.double().var(dim=0).mean().sqrt()), 1e-12)


def logit_change(
    logits: Float[Tensor, "*draws item class"], before: Float[Tensor, "item class"], spread: float
) -> float:
    """RMS change of logits against those of the same items ``before``, relative to their spread."""
    return float((logits - before).double().square().mean().sqrt()) / spread


def roc_auc(labels: Int[Tensor, " item"], probabilities: Float[Tensor, "prediction class"]) -> float:
    """Area under the ROC curve: of class 1 for two classes, else the mean over classes, each against the rest.

    A class without items, or with nothing else, has no curve and is left out of the mean, as MedMNIST's own figures
    are only defined where all classes occur.

    Raises
    ------
    InputError
        If the numbers of items differ, a probability is NaN, or fewer than two classes occur.
    MissingExtraError
        If scikit-learn is not installed.

    Examples
    --------
    >>> roc_auc(torch.tensor([0, 0, 1, 1]), torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]]))
    0.75
    """
    try:
        from sklearn.metrics import roc_auc_score
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "shapes", "the area under the ROC curve") from error
    if len(labels) != len(probabilities):
        raise InputError(f"there are {len(labels)} labels and {len(probabilities)} predictions; one of each is needed.")
    if not bool(torch.isfinite(probabilities).all()):
        raise InputError("a predicted probability is NaN or infinite; the network did not train.")
    truth, scores = labels.cpu().numpy(), probabilities.double().cpu().numpy()
    present = sorted(set(truth.tolist()))
    if len(present) < 2:
        raise InputError(f"all {len(truth)} labels are of one class; an area under the ROC curve needs two.")
    if scores.shape[1] == 2:
        return float(roc_auc_score(truth, scores[:, 1]))
    areas = [float(roc_auc_score(truth == index, scores[:, index])) for index in present]
    return sum(areas) / len(areas)
