"""How a classifier takes turned objects: accuracy over sets of orientations, change of the logits against the angle.

Points turn as coordinates, exactly. Volumes are resampled (but for the turns of the cube), which changes the logits of
any network; how much is measured beside it: there and back again by the same turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.geometry.rotations import cube_group, random_rotations, rotation_about, rotation_from_vector
from equivox.metrics.classification import accuracy, balanced_accuracy, confusion, logit_change, logit_spread
from equivox.run.seeds import draw_uniform, generator_for
from equivox.tasks.shapes.classifier import ShapeModel
from equivox.tasks.shapes.data import Content, Grid, ShapeSource, rotate_volume

ANGLES_DEG = (0.0, 5.0, 10.0, 15.0, 30.0, 45.0, 60.0, 90.0, 120.0, 150.0, 180.0)
"""Of the curve; about a random axis per object."""
CHUNK = 128
"""Objects held in memory together."""
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class OrientationResult:
    """Answers over one set of orientations.

    Parameters
    ----------
    name
        Which set.
    draws
        Orientations per object.
    accuracy, balanced_accuracy
        Means over draws.
    spread
        Standard deviation of the accuracy over draws; None for one draw.
    worst
        Accuracy of the worst draw.
    change
        RMS change of the logits against the object as it lies, relative to their spread over objects.
    """

    name: str
    draws: int
    accuracy: float
    balanced_accuracy: float
    spread: float | None
    worst: float
    change: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """At one angle: accuracy, change of the logits, and the change by resampling alone (None: nothing is resampled)."""

    angle_deg: float
    accuracy: float
    change: float
    floor: float | None


@dataclass(frozen=True, slots=True)
class RotationReport:
    """Everything about turned objects, over ``objects`` of them, the curve over ``curve_objects``."""

    objects: int
    curve_objects: int
    orientations: tuple[OrientationResult, ...]
    curve: tuple[CurvePoint, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def report_rotations(
    model: ShapeModel,
    source: ShapeSource,
    chosen: Sequence[int],
    labels: Int[Tensor, " object"],
    *,
    draws: int,
    curve_objects: int,
    seed: int,
    progress: Progress | None = None,
) -> RotationReport:
    """Ask a model about objects in many orientations.

    Parameters
    ----------
    model, source, chosen, labels
        Who is asked, about which objects, and the true classes among the model's.
    draws
        Random orientations per object, uniform on SO(3) and about the vertical axis.
    curve_objects
        Objects of the curve, evenly from those chosen.
    seed
        Of all orientations.
    progress
        Called with (done, total, what) after each draw.
    """
    still = logits_of(model, source, chosen)
    size = logit_spread(still)
    count = len(chosen)
    group = cube_group().float()
    plans: list[tuple[str, list[Tensor]]] = [
        ("as they lie", []),
        ("24 turns of the cube", [turn.expand(count, 3, 3) for turn in group]),
        (
            f"about the vertical axis ({model.input.up})",
            [_upright(count, model.input.up, seed, d) for d in range(draws)],
        ),
        (
            "random, SO(3)",
            [random_rotations(count, generator=generator_for(seed, "report", d)).float() for d in range(draws)],
        ),
    ]
    few = list(range(0, count, max(1, count // max(1, min(curve_objects, count)))))[:curve_objects]
    total = sum(len(turns) for _, turns in plans) + len(ANGLES_DEG)
    done = 0

    def tell(what: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, what)

    results = []
    for name, turns in plans:
        found = [] if turns else [still]
        for turn in turns:
            found.append(logits_of(model, source, chosen, rotations=turn))
            tell(name)
        results.append(_orientation(name, torch.stack(found), still, labels, size))
    curve = []
    places, truth, before = [chosen[place] for place in few], labels[few], still[few]
    for angle in ANGLES_DEG:
        curve.append(_curve_point(model, source, places, truth, before, size, angle, seed))
        tell(f"{angle:g} degrees")
    return RotationReport(count, len(few), tuple(results), tuple(curve))


def logits_of(
    model: ShapeModel,
    source: ShapeSource,
    chosen: Sequence[int],
    *,
    rotations: Float[Tensor, "object 3 3"] | None = None,
    progress: Progress | None = None,
) -> Float[Tensor, "object classes"]:
    """Logits of some objects of a source, each in its own rotation if there are any."""
    found = []
    for start in range(0, len(chosen), CHUNK):
        part = slice(start, start + CHUNK)
        contents = [source.content(index) for index in chosen[part]]
        found.append(model.logits(contents, rotations=None if rotations is None else rotations[part]))
        if progress is not None:
            progress(min(start + CHUNK, len(chosen)), len(chosen), "as they lie")
    return torch.cat(found) if found else torch.zeros(0, len(model.classes))


def _curve_point(
    model: ShapeModel,
    source: ShapeSource,
    places: Sequence[int],
    labels: Tensor,
    before: Tensor,
    size: float,
    angle: float,
    seed: int,
) -> CurvePoint:
    """Every object turned by one angle about its own random axis."""
    draw = generator_for(seed, "axis")
    axes = torch.nn.functional.normalize(torch.randn(len(places), 3, generator=draw, dtype=torch.float64), dim=1)
    turns = rotation_from_vector(axes * torch.deg2rad(torch.tensor(angle, dtype=torch.float64))).float()
    contents = [source.content(index) for index in places]
    logits = model.logits(contents, rotations=turns)
    floor = None
    if isinstance(contents[0], Grid):
        floor = logit_change(
            model.logits([_there_and_back(c, r) for c, r in zip(contents, turns, strict=True)]), before, size
        )
    right = float((logits.argmax(dim=1) == labels).double().mean())
    return CurvePoint(angle, right, logit_change(logits, before, size), floor)


def _there_and_back(content: Content, rotation: Tensor) -> Content:
    assert isinstance(content, Grid)
    return Grid(rotate_volume(rotate_volume(content.volume, rotation), rotation.mT))


def _orientation(name: str, logits: Tensor, still: Tensor, labels: Tensor, size: float) -> OrientationResult:
    """Numbers of (draw, object, class)."""
    tables = [confusion(labels, draw.argmax(dim=1), classes=logits.shape[2]) for draw in logits]
    shares = torch.tensor([accuracy(table) for table in tables], dtype=torch.float64)
    balanced = torch.tensor([balanced_accuracy(table) for table in tables], dtype=torch.float64)
    return OrientationResult(
        name=name,
        draws=len(tables),
        accuracy=float(shares.mean()),
        balanced_accuracy=float(balanced.mean()),
        spread=float(shares.std()) if len(tables) > 1 else None,
        worst=float(shares.min()),
        change=logit_change(logits, still, size),
    )


def _upright(count: int, axis: str, seed: int, draw: int) -> Float[Tensor, "object 3 3"]:
    generator = generator_for(seed, "upright", draw)
    return torch.stack(
        [rotation_about(axis, draw_uniform(0.0, 360.0, generator=generator)) for _ in range(count)]
    ).float()
