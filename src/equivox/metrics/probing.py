"""Linear read-outs with nested cross-validation: ridge for numbers, logistic regression for classes.

The same grid of penalties, the same folds and the same standardisation for every set of features. Features are
standardised with the training part's mean and SD; the penalty is chosen by folds within the training part, of whole
groups; the outer fold is touched once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.metrics.folds import grouped_folds

PENALTIES = tuple(10.0 ** (-2.0 + 7.0 * step / 21.0) for step in range(22))
"""Of the sum of squares (or the log loss) of standardised features: 1e-2 to 1e5."""
LOGISTIC_PENALTIES = PENALTIES[::2]
"""Every second one: a fit takes Newton steps where a ridge path is one decomposition."""
INNER_FOLDS = 5
NEWTON_STEPS = 25


class LinearReadout:
    """A read-out that was fitted: ``predict`` maps features to numbers, or to one logit per class but the first."""

    def __init__(self, mean: Tensor, scale: Tensor, weights: Tensor, intercept: Tensor, penalty: float) -> None:
        self.mean, self.scale, self.weights, self.intercept, self.penalty = mean, scale, weights, intercept, penalty

    def predict(self, features: Float[Tensor, "item feature"]) -> Float[Tensor, "item output"]:
        """Numbers (one output) or logits (one per class for several classes, one for two)."""
        return ((features.double() - self.mean) / self.scale) @ self.weights + self.intercept


def fit_ridge(
    features: Float[Tensor, "item feature"],
    targets: Float[Tensor, " item"],
    groups: Sequence[Hashable],
    *,
    generator: torch.Generator,
    penalties: Sequence[float] = PENALTIES,
) -> LinearReadout:
    """Ridge regression; the penalty with the smallest mean absolute error over inner folds."""
    folds = _inner(groups, targets, generator, classes=False)
    errors = torch.zeros(len(penalties), dtype=torch.float64)
    for fold in folds.unique().tolist():
        kept = folds != fold
        mean, scale = _standard(features[kept])
        train, test = (features[kept].double() - mean) / scale, (features[~kept].double() - mean) / scale
        weights, intercept = _ridge_path(train, targets[kept].double(), penalties)
        predicted = test @ weights + intercept
        errors += (predicted - targets[~kept].double()[:, None]).abs().sum(0)
    best = int(errors.argmin())
    mean, scale = _standard(features)
    weights, intercept = _ridge_path((features.double() - mean) / scale, targets.double(), [penalties[best]])
    return LinearReadout(mean, scale, weights, intercept, penalties[best])


def fit_logistic(
    features: Float[Tensor, "item feature"],
    labels: Int[Tensor, " item"],
    groups: Sequence[Hashable],
    *,
    classes: int,
    generator: torch.Generator,
    penalties: Sequence[float] = LOGISTIC_PENALTIES,
) -> LinearReadout:
    """Logistic regression with classes of equal weight; the penalty with the smallest log loss over inner folds.

    Two classes have one logit; more have one each, one class against the rest.
    """
    folds = _inner(groups, labels.double(), generator, classes=True)
    columns = [1] if classes == 2 else list(range(classes))
    losses = torch.zeros(len(penalties), dtype=torch.float64)
    for fold in folds.unique().tolist():
        kept = folds != fold
        mean, scale = _standard(features[kept])
        train, test = (features[kept].double() - mean) / scale, (features[~kept].double() - mean) / scale
        for column in columns:
            own, other = (labels[kept] == column).double(), (labels[~kept] == column).double()
            for place, (weights, intercept) in enumerate(_logistic_path(train, own, penalties)):
                logits = test @ weights + intercept
                loss = torch.nn.functional.binary_cross_entropy_with_logits(
                    logits, other, weight=_balanced(own, other), reduction="sum"
                )
                losses[place] += loss
    best = int(losses.argmin())
    mean, scale = _standard(features)
    standard = (features.double() - mean) / scale
    fitted = [_logistic_path(standard, (labels == column).double(), [penalties[best]])[0] for column in columns]
    weights = torch.stack([weight for weight, _ in fitted], dim=1)
    return LinearReadout(mean, scale, weights, torch.stack([one for _, one in fitted]), penalties[best])


def predicted_classes(logits: Float[Tensor, "item output"]) -> Int[Tensor, " item"]:
    """Class of every item: by the sign of the only logit, or the largest of several."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)


def _inner(groups: Sequence[Hashable], targets: Tensor, generator: torch.Generator, *, classes: bool) -> Tensor:
    count = min(INNER_FOLDS, len(set(groups)))
    return grouped_folds(groups, targets.double(), count=count, generator=generator, classes=classes)


def _standard(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and SD per feature; an SD of next to nothing counts as 1, so that a constant feature stays 0."""
    values = features.double()
    scale = values.std(dim=0, correction=0)
    tiny = scale <= 1e-9 * values.abs().mean(dim=0).clamp_min(1e-300)
    return values.mean(dim=0), torch.where(tiny, torch.ones_like(scale), scale)


def _ridge_path(train: Tensor, targets: Tensor, penalties: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Weights (feature, penalty) and intercepts (penalty) by one singular value decomposition."""
    level = targets.mean()
    left, values, right = torch.linalg.svd(train, full_matrices=False)
    projected = left.mT @ (targets - level)
    grid = torch.tensor(penalties, dtype=torch.float64)
    shrunk = values[:, None] / (values[:, None].square() + grid) * projected[:, None]
    return right.mT @ shrunk, level.expand(len(penalties))


def _balanced(reference: Tensor, labels: Tensor) -> Tensor:
    """Weight of each item so that both classes of ``reference`` count as much, mean 1."""
    positive = float(reference.mean())
    positive = min(max(positive, 1e-3), 1 - 1e-3)
    return torch.where(labels > 0.5, 0.5 / positive, 0.5 / (1 - positive))


def _logistic_path(train: Tensor, labels: Tensor, penalties: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """Weights and intercept for each penalty by Newton's method in the span of the items, strong penalties first."""
    left, values, right = torch.linalg.svd(train, full_matrices=False)
    reduced = left * values
    design = torch.cat([reduced, torch.ones(len(train), 1, dtype=torch.float64)], dim=1)
    weight = _balanced(labels, labels)
    start = torch.zeros(design.shape[1], dtype=torch.float64)
    found: dict[float, Tensor] = {}
    for penalty in sorted(penalties, reverse=True):
        ridge = torch.full((design.shape[1],), penalty, dtype=torch.float64)
        ridge[-1] = 1e-8
        theta = start
        for _ in range(NEWTON_STEPS):
            share = torch.sigmoid(design @ theta)
            slope = design.mT @ (weight * (share - labels)) + ridge * theta
            curve = (design * (weight * share * (1 - share) + 1e-10)[:, None]).mT @ design + torch.diag(ridge)
            step = torch.linalg.solve(curve, slope)
            theta = theta - step / max(1.0, float(step.norm()) / 10.0)
            if float(step.abs().max()) < 1e-7 * max(1.0, float(theta.abs().max())):
                break
        found[penalty] = start = theta
    return [(right.mT @ found[penalty][:-1], found[penalty][-1]) for penalty in penalties]
