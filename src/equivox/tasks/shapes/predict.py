"""`equivox shapes predict`: from files to ``predictions.csv``, ``predictions.json`` and ``run.json``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equivox.formats.shape_files import find_shapes
from equivox.run.batch import RunChoice
from equivox.run.classification import ClassifyRun, FileClassifier, Progress, classify_files
from equivox.tasks.shapes.classifier import ShapeModel, ShapePrediction, load_shape_model, open_shape_model
from equivox.weights.folder import ModelFolder


def predict_shapes(
    inputs: Sequence[str | Path],
    out: Path,
    model: str,
    run: RunChoice | None = None,
    *,
    command: Sequence[str] = ("equivox", "shapes", "predict"),
    progress: Progress | None = None,
) -> ClassifyRun:
    """Classify every object in every file: see :func:`equivox.run.classification.classify_files`."""
    return classify_files(SHAPES, inputs, out, model, run, command=command, progress=progress)


def _classes(folder: ModelFolder) -> tuple[str, ...]:
    return open_shape_model(folder).classes


def _answers(model: ShapeModel, path: Path) -> list[tuple[str, ShapePrediction]]:
    return [(one.object, one) for one in model.predict(path)]


SHAPES = FileClassifier("equivox.shapes.run/1", find_shapes, _classes, load_shape_model, _answers)
