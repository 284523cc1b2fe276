"""`equivox images predict`: from files to ``predictions.csv``, ``predictions.json`` and ``run.json``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equivox.formats.pictures import find_pictures
from equivox.run.batch import RunChoice
from equivox.run.classification import ClassifyRun, FileClassifier, Progress, classify_files
from equivox.tasks.images.classifier import ImageModel, ImagePrediction, load_image_model, open_image_model
from equivox.tasks.images.contents import squares_of
from equivox.weights.folder import ModelFolder


def predict_images(
    inputs: Sequence[str | Path],
    out: Path,
    model: str,
    run: RunChoice | None = None,
    *,
    command: Sequence[str] = ("equivox", "images", "predict"),
    progress: Progress | None = None,
) -> ClassifyRun:
    """Classify every picture: see :func:`equivox.run.classification.classify_files`."""
    return classify_files(IMAGES, inputs, out, model, run, command=command, progress=progress)


def _classes(folder: ModelFolder) -> tuple[str, ...]:
    return open_image_model(folder).classes


def _answers(model: ImageModel, path: Path) -> list[tuple[str, ImagePrediction]]:
    named = squares_of(path, model.input)
    found = model.describe(model.logits([square for _, square in named]))
    return [(name, one) for (name, _), one in zip(named, found, strict=True)]


IMAGES = FileClassifier("equivox.images.run/1", find_pictures, _classes, load_image_model, _answers)
