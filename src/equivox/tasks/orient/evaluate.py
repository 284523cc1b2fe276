"""`equivox orient evaluate`: a model's orientations against those that a table holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import equivox
from equivox.errors import InputError
from equivox.formats.particles import read_particles
from equivox.geometry.point_groups import canonical_name, point_group
from equivox.metrics.orientation import (
    CHANCE_RAD,
    OrientationErrors,
    Reliability,
    ViewCoverage,
    orientation_angles,
    reliability,
    summarise_angles,
    view_coverage,
)
from equivox.nets.orientation_search import CONFIDENCE_DEG
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.evaluation_files import write_evaluation_files
from equivox.tasks.orient.model import OrientModel, load_orient_model
from equivox.tasks.orient.outputs import image_names
from equivox.tasks.orient.picture import Contrast
from equivox.tasks.orient.predict import PredictConfig, open_preparation
from equivox.tasks.orient.prepare import Preparation

CSV_NAME = "evaluation_errors.csv"
AT_ONCE = 50


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What `equivox orient evaluate` computes."""

    particles: str
    """Table whose images are looked at."""
    model: str
    """Name or folder of a model."""
    truth: str | None = None
    """Table with the poses, row for row; None: the particles' own."""
    symmetry: str | None = None
    """Point group, over the model's own."""
    contrast: Contrast | Literal["auto"] = "auto"
    """Whether particles are light or dark."""
    pixel_size_angstrom: float | None = None
    """Of the images, over what table and stack say."""
    project: str | None = None
    """Folder that image paths are relative to."""
    passthrough: tuple[str, ...] = ()
    """Of a ``.cs`` table."""

    def prediction(self) -> PredictConfig:
        """The same particles, to be predicted."""
        values = {name: value for name, value in asdict(self).items() if name != "truth"}
        return PredictConfig(**values)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return {**asdict(self), "passthrough": list(self.passthrough)}


@dataclass(frozen=True, eq=False)
class OrientationEvaluation:
    """All numbers of one evaluation; arrays are of the particles that could be compared."""

    config: EvaluateConfig
    model: dict[str, str]
    device: DeviceChoice
    symmetry: str
    index: list[int]
    names: list[str]
    plain_rad: Float[Tensor, "particle"]
    reduced_rad: Float[Tensor, "particle"]
    confidence: Float[Tensor, "particle"]
    rotations: Float[Tensor, "particle 3 3"]
    plain: OrientationErrors
    reduced: OrientationErrors
    constant_rad: float
    honesty: Reliability
    coverage: ViewCoverage
    shift_error_angstrom: float | None
    left_out: int
    preparation: Preparation
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values (schema ``equivox.orient.evaluation/1``)."""
        return {
            "schema": "equivox.orient.evaluation/1",
            "version": equivox.__version__,
            "config": self.config.as_dict(),
            "model": self.model,
            "device": self.device.as_dict(),
            "symmetry": self.symmetry,
            "particles": len(self.index),
            "left_out": self.left_out,
            "errors": self.reduced.as_dict(),
            "errors_without_symmetry": self.plain.as_dict(),
            "constant_guess_rad": self.constant_rad,
            "chance_rad": CHANCE_RAD,
            "confidence": self.honesty.as_dict(),
            "views": {
                "empty_bins": self.coverage.empty, "fullest": self.coverage.fullest, "evenness": self.coverage.evenness,
            },
            "median_shift_error_angstrom": self.shift_error_angstrom,
            "notes": list(self.notes),
        }  # fmt: skip


def evaluate_orientations(
    config: EvaluateConfig, *, device: str = "auto", progress: Callable[[int, int], None] | None = None
) -> OrientationEvaluation:
    """Ask a model about particles whose poses are known.

    Raises
    ------
    InputError
        If the particles or the truth cannot be used, have no poses, or differ in number.
    ModelFolderError
        If the model is missing or broken.
    """
    choice = choose_device(device)
    model = load_orient_model(config.model, str(choice.device), config.symmetry)
    preparation = open_preparation(config.prediction(), model)
    stack = preparation.stack
    known = stack.particles if config.truth is None else read_particles(config.truth)
    if known.count != stack.particles.count:
        raise InputError(
            f"{config.truth} has {known.count} particles and {config.particles} {stack.particles.count}; the truth "
            f"must have the same rows in the same order."
        )
    truth = known.require_rotations()
    answers, confidence, shifts, usable = _answers(model, preparation, progress)
    if not bool(usable.any()):
        raise InputError(f"{config.particles}: no image can be used (blank or NaN).")
    group = point_group(model.picture.symmetry)
    plain = orientation_angles(truth[usable], answers[usable])
    reduced = orientation_angles(truth[usable], answers[usable], group=group)
    names = image_names(stack.particles)
    index = torch.nonzero(usable)[:, 0].tolist()
    shift_error = None
    if shifts is not None and known.origin_angstrom is not None:
        apart = shifts[usable].double() + torch.from_numpy(known.origin_angstrom)[usable]
        shift_error = float(apart.norm(dim=-1).median())
    right = torch.rad2deg(reduced) <= CONFIDENCE_DEG
    return OrientationEvaluation(
        config=config,
        model=model.folder.as_dict(),
        device=choice,
        symmetry=canonical_name(model.picture.symmetry),
        index=index,
        names=[names[place] for place in index],
        plain_rad=plain,
        reduced_rad=reduced,
        confidence=confidence[usable],
        rotations=answers[usable],
        plain=summarise_angles(plain),
        reduced=summarise_angles(reduced),
        constant_rad=_constant_guess(truth[usable], group),
        honesty=reliability(confidence[usable], right),
        coverage=view_coverage(answers[usable]),
        shift_error_angstrom=shift_error,
        left_out=len(stack) - len(index),
        preparation=preparation,
        notes=(*stack.warnings, *preparation.notes),
    )


def write_evaluation(evaluation: OrientationEvaluation, out: Path, *, page: str, overwrite: bool) -> list[Path]:
    """Write ``evaluation.json``, ``evaluation_errors.csv`` and the page; returns their paths.

    Raises
    ------
    OutputError
        If a file is there already and ``overwrite`` is not given, or the folder cannot be written.
    """
    columns = zip(
        evaluation.index, evaluation.names, torch.rad2deg(evaluation.reduced_rad).tolist(),
        torch.rad2deg(evaluation.plain_rad).tolist(), evaluation.confidence.tolist(), strict=True,
    )  # fmt: skip
    return write_evaluation_files(
        out, evaluation.as_dict(), page, table=CSV_NAME, overwrite=overwrite,
        header=["index", "image", "error_deg", "error_without_symmetry_deg", "confidence"],
        rows=[[index, name, *(f"{value:.4f}" for value in values)] for index, name, *values in columns],
    )  # fmt: skip


def _answers(
    model: OrientModel, preparation: Preparation, progress: Callable[[int, int], None] | None
) -> tuple[Tensor, Tensor, Tensor | None, Bool[Tensor, "particle"]]:
    """Best pose, confidence and shift [Å] of every particle, and whose images could be used."""
    total = len(preparation.stack)
    poses, told, moved, good = [], [], [], []
    for start in range(0, total, AT_ONCE):
        stop = min(start + AT_ONCE, total)
        pictures, usable = preparation.pictures(range(start, stop))
        found = model.answer(pictures)
        poses.append(found.rotations[:, 0])
        told.append(found.confidence[:, 0])
        good.append(usable)
        if found.shifts_px is not None:
            moved.append(found.shifts_px[:, 0] * model.picture.pixel_size_angstrom)
        if progress is not None:
            progress(stop, total)
    return torch.cat(poses), torch.cat(told), torch.cat(moved) if moved else None, torch.cat(good)


def _constant_guess(truth: Tensor, group: Tensor) -> float:
    """Mean error of the best of a hundred true poses as the answer to everything: what any model must beat."""
    step = max(1, len(truth) // 100)
    guesses = truth[::step][:100]
    means = [float(orientation_angles(truth, guess.expand_as(truth), group=group).mean()) for guess in guesses]
    return min(means)
