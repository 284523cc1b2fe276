"""How a classifier takes turned pictures: the square's symmetries, and accuracy and logits against the angle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from equivox.metrics.classification import accuracy, balanced_accuracy, confusion, logit_change, logit_spread
from equivox.tasks.images.classifier import ImageModel

ANGLES_DEG = (0.0, 5.0, 10.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0, 120.0, 135.0, 150.0, 180.0)
SQUARE = tuple((90.0 * quarter, mirror) for mirror in (False, True) for quarter in range(4))
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class TurnResult:
    """Answers over one set of turns.

    Parameters
    ----------
    name
        Which set.
    draws
        Turns per picture.
    accuracy, balanced_accuracy, cross_entropy
        Means over turns.
    worst
        Accuracy of the worst turn.
    change
        RMS change of the logits against the upright picture, relative to their spread over pictures.
    """

    name: str
    draws: int
    accuracy: float
    balanced_accuracy: float
    cross_entropy: float
    worst: float
    change: float


@dataclass(frozen=True, slots=True)
class AnglePoint:
    """At one angle: accuracy and change of the logits."""

    angle_deg: float
    accuracy: float
    change: float


@dataclass(frozen=True, slots=True)
class TurnReport:
    """Everything about turned pictures, over ``pictures`` of them."""

    pictures: int
    sets: tuple[TurnResult, ...]
    curve: tuple[AnglePoint, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def report_turns(
    model: ImageModel,
    squares: Sequence[Tensor],
    labels: Int[Tensor, "picture"],
    *,
    progress: Progress | None = None,
) -> TurnReport:
    """Ask a model about the same pictures, turned in many ways.

    Parameters
    ----------
    model, squares, labels
        Who is asked, about which pictures, and the true classes.
    progress
        Called with (done, total, what) after each turn.
    """
    total = len(SQUARE) + len(ANGLES_DEG)
    done = 0

    def ask(angle: float, mirror: bool, what: str) -> Tensor:
        nonlocal done
        found = model.logits(squares, angle_deg=angle, mirror=mirror)
        done += 1
        if progress is not None:
            progress(done, total, what)
        return found

    square = [ask(angle, mirror, "turns and mirrors of the square") for angle, mirror in SQUARE]
    upright = square[0]
    size = logit_spread(upright)
    turned = {angle: ask(angle, False, f"{angle:g} degrees") for angle in ANGLES_DEG}
    between = [logits for angle, logits in turned.items() if angle % 90.0]
    sets = (
        _result("upright", [upright], upright, labels, size),
        _result("turns and mirrors of the square", square, upright, labels, size),
        _result("angles between", between, upright, labels, size),
    )
    curve = tuple(
        AnglePoint(angle, float((logits.argmax(dim=1) == labels).double().mean()), logit_change(logits, upright, size))
        for angle, logits in turned.items()
    )
    return TurnReport(len(squares), sets, curve)


def _result(name: str, found: Sequence[Tensor], upright: Tensor, labels: Tensor, size: float) -> TurnResult:
    classes = upright.shape[1]
    tables = [confusion(labels, logits.argmax(dim=1), classes=classes) for logits in found]
    entropies = [float(torch.nn.functional.cross_entropy(logits.double(), labels)) for logits in found]
    return TurnResult(
        name=name,
        draws=len(found),
        accuracy=sum(map(accuracy, tables)) / len(tables),
        balanced_accuracy=sum(map(balanced_accuracy, tables)) / len(tables),
        cross_entropy=sum(entropies) / len(entropies),
        worst=min(map(accuracy, tables)),
        change=max(logit_change(logits, upright, size) for logits in found),
    )
