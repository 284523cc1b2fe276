"""``pose template``: a head template from scans whose poses are known, put into a model in place of its own.

A few subjects suffice: the search knows every rotation, so only what a head looks like has to be learned. That makes it
the way to another scanner or sequence: correct some poses, or take those that were right, and make a template of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import equivox
from equivox.errors import ConfigError, InputError
from equivox.formats.atomic import require_absent
from equivox.formats.nifti import open_scan
from equivox.formats.poses import read_poses_csv, read_truth_csv
from equivox.formats.tables import read_header
from equivox.geometry.rotations import Pose, geodesic_angle
from equivox.nets.head_template import HeadTemplate
from equivox.tasks.pose.estimator import read_settings
from equivox.tasks.pose.register import RegisterConfig, register_head
from equivox.tasks.pose.rotate import head_cube
from equivox.tasks.pose.template import make_template
from equivox.weights.folder import ModelFolder, find_model, read_weights, write_model_folder

Progress = Callable[[int, int, str], None]
FOLDS = 5
SUBJECT_COLUMNS = ("subject", "fetus", "participant_id")


@dataclass(frozen=True, slots=True)
class KnownPose:
    """One frame of a scan whose pose is known.

    Parameters
    ----------
    name
        Of the scan, with the frame where it is not the first.
    path, frame
        Where it is.
    subject
        Scans of one subject count together.
    world_from_head
        The pose.
    brain_volume_ml
        Volume of the brain, for its size.
    """

    name: str
    path: Path
    frame: int
    subject: str
    world_from_head: Pose
    brain_volume_ml: float


@dataclass(frozen=True, slots=True)
class AdaptedTemplate:
    """A model with a new template, and how well templates of the other subjects find each subject's poses.

    Parameters
    ----------
    model
        The folder that was written.
    scans
        Names of what the template was made of.
    subjects
        How many.
    left_out
        Rows without a usable pose, and why.
    errors_deg
        Per scan, by a template of the other subjects, against the pose given; empty for a single subject.
    """

    model: ModelFolder
    scans: tuple[str, ...]
    subjects: int
    left_out: tuple[str, ...]
    errors_deg: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": str(self.model.path), "sha256": self.model.sha256, "scans": list(self.scans),
            "subjects": self.subjects, "left_out": list(self.left_out),
            "errors_deg": [round(error, 2) for error in self.errors_deg],
        }  # fmt: skip


def adapt_template(
    poses: Path,
    out: Path,
    *,
    join: str = "fetal-head-epi",
    scans: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> AdaptedTemplate:
    """Make a template of scans with known poses and write a model that uses it.

    Parameters
    ----------
    poses
        ``poses.csv`` of ``pose predict`` (rows that are ``ok`` count), or a landmark table with ``id, file, qx ... qw,
        tx, ty, tz, mask_volume_ml`` and, if scans of one subject are to count together, ``subject``.
    out
        Model folder to write.
    join
        Model that finder, rotation network and settings are taken from.
    scans
        Folder of the scans, if they do not lie where the table says.
    overwrite
        Replace a model that is there.
    progress
        Called with (done, total, name).

    Raises
    ------
    InputError
        If no row can be used, or a scan is missing or broken.
    ConfigError
        If the joined model does not work with templates.
    OutputError
        If the folder is there already.
    """
    other = find_model(join)
    if other.config["behaviour"] != "equivox" or "locate" not in other.config["networks"]:
        raise ConfigError(
            f"--join {join} does not find heads by a template; join fetal-head-epi or a model made of it."
        )
    require_absent([out], overwrite=overwrite)
    config = read_settings(other.config.get("settings", {}), where=other.path).register
    known, left_out = read_known_poses(poses, scans)
    cubes: list[tuple[Tensor, Tensor]] = []
    for number, one in enumerate(known):
        cubes.append(head_cube(open_scan(one.path).frame(one.frame), one.world_from_head.translation_mm))
        if progress is not None:
            progress(number + 1, len(known), one.name)
    template = _template_of(known, cubes, config)
    errors = _held_out(known, cubes, config)
    weights = read_weights(other)
    fields = {name: dict(part) for name, part in other.config["networks"].items()}
    fields["template"] = {"architecture": "head_template"}
    before = weights.get("template")
    template.brain = template.brain if before is None else before["brain"]
    weights["template"] = dict(template.state_dict())
    subjects = len({one.subject for one in known})
    kept = ("input", "output", "settings", "license")
    extra: dict[str, Any] = {key: other.config[key] for key in kept if key in other.config}
    extra["provenance"] = {
        "made_with": f"equivox {equivox.__version__}", "joined_from": {"name": other.name, "sha256": other.sha256},
        "template": {"scans": [one.name for one in known], "subjects": subjects},
    }  # fmt: skip
    model = write_model_folder(
        out, name=out.resolve().name, task="pose", behaviour="equivox", networks=fields, weights=weights,
        card=_card(out.resolve().name, other, known, subjects, errors),
        certificate={k: v for k, v in other.certificate().items() if k != "template_at_generic_angles"},
        license_text=(other.path / "LICENSE").read_text(encoding="utf-8"), extra=extra, overwrite=overwrite,
    )  # fmt: skip
    return AdaptedTemplate(model, tuple(one.name for one in known), subjects, tuple(left_out), tuple(errors))


def read_known_poses(path: Path, scans: Path | None = None) -> tuple[list[KnownPose], list[str]]:
    """Rows of a table that carry a pose and a brain's volume, and what was left out and why.

    Raises
    ------
    InputError
        If the table is broken, a scan is missing, or nothing is left.
    """
    known: list[KnownPose] = []
    left_out: list[str] = []
    if {"input", "status"} <= set(read_header(path)):
        for row in read_poses_csv(path):
            name = row.stem if row.frame == 0 else f"{row.stem}, frame {row.frame}"
            if row.status != "ok" or row.world_from_head is None:
                left_out.append(f"{name}: {row.status}")
                continue
            where = _scan(Path(row.input), path, scans)
            known.append(KnownPose(name, where, row.frame, _subject(row.stem), row.world_from_head, row.mask_volume_ml))
    else:
        for true in read_truth_csv(path):
            assert true.world_from_head is not None  # a landmark table has a pose in every row
            column = next((name for name in SUBJECT_COLUMNS if true.columns.get(name)), None)
            subject = _subject(true.id) if column is None else true.columns[column]
            where = _scan(Path(true.file), path, scans)
            known.append(KnownPose(true.id, where, true.frame, subject, true.world_from_head, _volume(true.columns)))
    for one in [one for one in known if not one.brain_volume_ml > 0]:
        known.remove(one)
        left_out.append(f"{one.name}: no volume of the brain (column mask_volume_ml)")
    if not known:
        raise InputError(
            f"{path} holds no pose that can be used ({'; '.join(left_out[:3]) or 'no rows'}); rows need the status ok, "
            "or a pose and mask_volume_ml."
        )
    return known, left_out


def _scan(path: Path, table: Path, scans: Path | None) -> Path:
    """Where a scan is: in the folder given, where the table says, or beside the table."""
    places = [scans / path.name] if scans is not None else [path, table.parent / path]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError(f"{places[0]} (of {table}) does not exist; name the folder of the scans with --scans.")
    return found


def _subject(stem: str) -> str:
    """A BIDS name's subject, else the whole name: every scan for itself."""
    found = re.match(r"sub-[A-Za-z0-9]+", stem)
    return found.group() if found else stem


def _volume(columns: Any) -> float:
    try:
        return float(columns.get("mask_volume_ml") or 0)
    except ValueError:
        return 0.0


def _template_of(
    known: Sequence[KnownPose], cubes: Sequence[tuple[Tensor, Tensor]], config: RegisterConfig
) -> HeadTemplate:
    rotations: Float[Tensor, "scan 3 3"] = torch.stack([one.world_from_head.rotation.double() for one in known])
    volumes, subjects = [one.brain_volume_ml for one in known], [one.subject for one in known]
    return make_template(cubes, rotations, volumes, subjects, config)


def _held_out(
    known: Sequence[KnownPose], cubes: Sequence[tuple[Tensor, Tensor]], config: RegisterConfig
) -> list[float]:
    """Angle to the pose given, of every scan by a template of other subjects (up to five parts, each left out once)."""
    subjects = list(dict.fromkeys(one.subject for one in known))
    if len(subjects) < 2:
        return []
    part = {subject: index % min(FOLDS, len(subjects)) for index, subject in enumerate(subjects)}
    templates: dict[int, HeadTemplate] = {}
    errors: list[float] = []
    for one, (cube, valid) in zip(known, cubes, strict=True):
        own = part[one.subject]
        if own not in templates:
            rest = [index for index, other in enumerate(known) if part[other.subject] != own]
            templates[own] = _template_of([known[i] for i in rest], [cubes[i] for i in rest], config)
        found = register_head(templates[own], cube, valid, one.brain_volume_ml, torch.zeros(0, 3, 3), config)
        errors.append(float(torch.rad2deg(geodesic_angle(found.rotation, one.world_from_head.rotation.double()))))
    return errors


def _card(name: str, other: ModelFolder, known: Sequence[KnownPose], subjects: int, errors: Sequence[float]) -> str:
    """README.md of the new model."""
    if errors:
        found = torch.tensor(errors)
        near = int((found < 20).sum())
        measured = (
            "Every scan by a template of other subjects, at the pose's own centre and size: median "
            f"{float(found.median()):.1f} degrees from the pose given, {near} of {len(errors)} below 20. "
            "That says how alike the heads are, not how right the poses given are."
        )
    else:
        measured = "Nothing: one subject cannot be held out."
    return f"""---
library_name: equivox
tags: [pose-estimation, equivariance]
---

# {name}

`{other.name}` with another head template, made by `equivox pose template`: {len(known)} scans, {subjects} subjects.

## Intended use

Scans like these. For research only. Networks, settings, confidence and the template's brain are `{other.name}`'s:
**the confidence was calibrated on its scans, not on these.**

## Measured

{measured}
"""
