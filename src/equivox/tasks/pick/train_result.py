"""From a checkpoint to a model folder: calibration on the validation micrographs, card, certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import equivox
from equivox.metrics.picking import PickedMicrograph, pooled
from equivox.run.training import Fitted, network_weights
from equivox.run.training_folder import LICENSE_TEXT
from equivox.tasks.pick.calibrate import Calibration, fit_calibration
from equivox.tasks.pick.certificate import certify_picker
from equivox.tasks.pick.config import NETWORK, PickInput, PickSource, PickTraining
from equivox.tasks.pick.data import LabelledMicrograph, LabelledSet
from equivox.tasks.pick.judge import judged
from equivox.tasks.pick.scoring import find_candidates
from equivox.tasks.pick.train_course import PickCourse
from equivox.weights.folder import ModelFolder, write_model_folder
from equivox.weights.registry import build_network


@dataclass(frozen=True, slots=True)
class Judgement:
    """A network on labelled micrographs: every candidate, which are right, their area and best F1."""

    parts: tuple[PickedMicrograph, ...]
    area: float
    f1: float


def judge_network(
    network: nn.Module,
    micrographs: Sequence[LabelledMicrograph],
    radius_px: float,
    margins_px: Sequence[float],
    *,
    tolerance_px: float | None = None,
) -> Judgement:
    """Pick on every micrograph and match with its labels; by default within half a radius."""
    parts = []
    for one, margin in zip(micrographs, margins_px, strict=True):
        found = find_candidates(network, one.image, distance_px=radius_px, margin_px=margin, keep=one.keep)
        size = (one.image.shape[0], one.image.shape[1])
        parts.append(judged(found, one.labels_px, radius_px, tolerance_px=tolerance_px, size=size, margin_px=margin))
    curve = pooled(parts)
    return Judgement(tuple(parts), curve.area, curve.best_f1()[0])


def write_model(
    path: Path,
    settings: PickTraining,
    course: PickCourse,
    fitted: Fitted,
    *,
    sources: Sequence[PickSource],
    sets: Sequence[LabelledSet],
    size: PickInput,
    validation: Sequence[LabelledMicrograph],
    margins_px: Sequence[float],
    counts: Mapping[str, int],
    seed: int,
) -> ModelFolder:
    """Write the model folder of a training from its best epoch; an earlier one of the same training is replaced."""
    weights = network_weights(fitted.best)
    network = build_network(course.fields)
    network.load_state_dict(weights)
    network.eval()
    judgement = judge_network(network, validation, settings.radius_px, margins_px)
    calibration = Calibration()
    if settings.risk == "full":
        calibration = fit_calibration(
            torch.cat([part.score for part in judgement.parts]), torch.cat([part.right for part in judgement.parts])
        )
    name = path.resolve().parent.name
    return write_model_folder(
        path,
        name=name,
        task="pick",
        behaviour="equivox",
        networks={NETWORK: course.fields},
        weights={NETWORK: weights},
        card=_card(name, settings, course, sources, fitted, judgement, calibration, counts),
        certificate=certify_picker(network),
        license_text=LICENSE_TEXT,
        extra={
            "input": size.as_dict(),
            "output": {"calibration": calibration.as_dict()},
            "settings": {"edge_angstrom": settings.edge_angstrom},
            "provenance": {
                "trained_with": f"equivox {equivox.__version__}",
                "training": settings.as_dict(),
                "data": [one.as_dict() for one in sources],
                "contrast": [one.contrast for one in sets],
                "counts": dict(counts),
                "validation": {"average_precision": judgement.area, "f1": judgement.f1},
                "seed": seed,
                "epoch": fitted.best_epoch,
            },
            "license": "unknown",
        },
        overwrite=True,
    )


def _card(
    name: str,
    settings: PickTraining,
    course: PickCourse,
    sources: Sequence[PickSource],
    fitted: Fitted,
    judgement: Judgement,
    calibration: Calibration,
    counts: Mapping[str, int],
) -> str:
    """The README: what was trained on what, and what is not known."""
    parameters = sum(parameter.numel() for parameter in course.network.parameters())
    radii = ", ".join(f"{one.radius_angstrom:g} Å" for one in sources)
    probabilities = (
        f"Fitted on {calibration.picks} picks of the validation micrographs, {calibration.right} of them labelled: a "
        "probability says how likely a pick is to be labelled by whoever labelled these."
        if calibration.fitted
        else "Not calibrated: scores are the network's own, and probabilities mean little."
    )
    return f"""---
license: unknown
tags: [cryo-em, particle-picking, equivariance]
---
# {name}

A picker of {parameters} parameters for particles of radius {radii}, trained with equivox {equivox.__version__}.

## Intended use
Research on micrographs like those it was trained on. Look at the picks before you use them.

## Training
{counts["training_labels"]} labels on {counts["training_micrographs"]} micrographs ({settings.risk} risk); chosen from
{fitted.epochs} epochs by {counts["validation_labels"]} labels on {counts["validation_micrographs"]} others: epoch
{fitted.best_epoch}. Every setting is in `config.json`.

## Measured
On the validation micrographs, which chose the epoch (expect less elsewhere): average precision {judgement.area:.3f},
best F1 {judgement.f1:.3f}, picks within half a radius of a label. Labels that are missing count as false picks.

## Probabilities
{probabilities}

## Input
Micrographs are brought to {settings.radius_px:g} pixels per particle radius; dark and bright particles alike.

## Limits
How well it picks other particles is not measured: use `equivox pick evaluate` on micrographs that took no part.
"""
