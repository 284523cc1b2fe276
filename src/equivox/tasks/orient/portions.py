"""Work of one item of a prediction: some particles in, their answers out, kept on disk for ``--resume``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from equivox.formats.atomic import atomic_path
from equivox.tasks.orient.model import OrientModel
from equivox.tasks.orient.prepare import Preparation

AT_ONCE = 50
"""Pictures that go through the network together."""


@dataclass(frozen=True, slots=True, eq=False)
class Portion:
    """What was found for some particles; rows of particles whose image cannot be used mean nothing."""

    start: int
    rotations: Tensor
    confidence: Tensor
    merit: Tensor
    entropy: Tensor
    shifts_px: Tensor | None
    usable: Tensor


@dataclass(frozen=True, slots=True)
class PortionJob:
    """Some particles, how many answers each gets, and where the result is kept."""

    start: int
    stop: int
    answers: int
    path: Path
    digest: str


def predict_portion(state: tuple[OrientModel, Preparation], job: PortionJob) -> Portion:
    """Find the answers and keep them."""
    model, preparation = state
    parts, good = [], []
    for start in range(job.start, job.stop, AT_ONCE):
        pictures, usable = preparation.pictures(range(start, min(start + AT_ONCE, job.stop)))
        parts.append(model.answer(pictures, answers=job.answers))
        good.append(usable)
    shifts = [part.shifts_px[:, 0] for part in parts if part.shifts_px is not None]
    portion = Portion(
        start=job.start,
        rotations=torch.cat([part.rotations for part in parts]),
        confidence=torch.cat([part.confidence for part in parts]),
        merit=torch.cat([part.log_density for part in parts]),
        entropy=torch.cat([part.entropy for part in parts]),
        shifts_px=torch.cat(shifts) if shifts else None,
        usable=torch.cat(good),
    )
    write_portion(job, portion)
    return portion


def write_portion(job: PortionJob, portion: Portion) -> None:
    """Keep a result, whole or not at all."""
    arrays = {
        name: getattr(portion, name).numpy()
        for name in ("rotations", "confidence", "merit", "entropy", "shifts_px", "usable")
        if getattr(portion, name) is not None
    }
    with atomic_path(job.path) as temporary, temporary.open("wb") as file:
        np.savez(file, digest=np.array(job.digest), **arrays)


def read_portion(job: PortionJob) -> Portion | None:
    """An earlier whole result of the same particles under the same model and options."""
    try:
        with np.load(job.path, allow_pickle=False) as file:
            if str(file["digest"]) != job.digest:
                return None
            found = {name: torch.from_numpy(file[name]) for name in file.files if name != "digest"}
    except (OSError, ValueError, KeyError):
        return None
    if len(found.get("usable", ())) != job.stop - job.start:
        return None
    shifts = found.pop("shifts_px", None)
    return Portion(start=job.start, shifts_px=shifts, **found)
