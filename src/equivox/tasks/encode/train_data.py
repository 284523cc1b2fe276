"""From a data set to the scans for training and for validation, and what they are to predict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.subjects import Subject
from equivox.run.seeds import generator_for
from equivox.tasks.encode.inputs import find_inputs
from equivox.tasks.encode.train_course import TargetScale
from equivox.tasks.encode.train_samples import ScanSet

TRAINING = frozenset({"train", "training", "unlabelled", "unlabeled"})
VALIDATION = frozenset({"val", "valid", "validation", "dev"})


@dataclass(frozen=True, slots=True)
class Parts:
    """Scans for training and validation; no person is in both.

    Parameters
    ----------
    training, validation
        The scans.
    notes
        What a user should know.
    """

    training: ScanSet
    validation: ScanSet
    notes: tuple[str, ...]


def find_parts(
    inputs: Sequence[str | Path],
    *,
    images: Path | str | None = None,
    layout: str = "auto",
    share_validation: float,
    seed: int,
) -> Parts:
    """Scans of a data set, by its column ``split`` (train, unlabelled; val) where there is one, else drawn by person.

    Rows of any other split (test) take no part. Where the column has none for validation, they are drawn from training.

    Raises
    ------
    InputError
        If fewer than two persons are left, or a person is in both parts.
    """
    subjects, notes = find_subjects(inputs, images=images, layout=layout)
    splits = [one.values.get("split", "").strip().lower() for one in subjects]
    if any(splits):
        training = [one for one, split in zip(subjects, splits, strict=True) if split in TRAINING]
        validation = [one for one, split in zip(subjects, splits, strict=True) if split in VALIDATION]
        rest = len(subjects) - len(training) - len(validation)
        if rest:
            notes.append(f"{rest} scans of other splits take no part.")
        if training and not validation:
            whole = len(training)
            training, validation = draw_validation(training, share_validation, seed)
            notes.append(
                f"The column split names no scans for validation; {len(validation)} of {whole} for training, drawn by "
                f"person, are kept for it."
            )
    else:
        training, validation = draw_validation(subjects, share_validation, seed)
        notes.append(f"{len(validation)} of {len(subjects)} scans, drawn by person, are kept for validation.")
    return checked_parts(training, validation, notes)


def find_subjects(
    inputs: Sequence[str | Path], *, images: Path | str | None = None, layout: str = "auto"
) -> tuple[list[Subject], list[str]]:
    """Every scan of a data set that can be opened, and sentences about those that cannot."""
    found = find_inputs(inputs, images=images, layout=layout)
    notes = list(found.notes)
    subjects: list[Subject] = []
    for entry in found.entries:
        if entry.scan.problem:
            notes.append(f"{entry.scan.path.name} is left out: {entry.scan.problem}")
        elif entry.subject is not None:
            subjects.append(entry.subject)
        else:
            name = entry.scan.path.name.removesuffix(".gz").removesuffix(".nii")
            subjects.append(Subject(id=name, path=entry.scan.path, group=name))
    if found.skipped:
        notes.append(
            f"{len(found.skipped)} rows are left out, for example {found.skipped[0][0]}: {found.skipped[0][1]}"
        )
    return subjects, notes


def checked_parts(training: Sequence[Subject], validation: Sequence[Subject], notes: Sequence[str]) -> Parts:
    """Two parts without a person in common.

    Raises
    ------
    InputError
        If one is empty, or a person is in both.
    """
    for name, part in (("training", training), ("validation", validation)):
        if not part:
            raise InputError(f"there are no scans for {name}; look at the column split, or give more scans.")
    both = {one.group or one.id for one in training} & {one.group or one.id for one in validation}
    if both:
        raise InputError(f"{sorted(both)[0]} is in training and in validation; keep every person in one part.")
    return Parts(ScanSet(tuple(training)), ScanSet(tuple(validation)), tuple(notes))


def draw_validation(subjects: Sequence[Subject], share: float, seed: int) -> tuple[list[Subject], list[Subject]]:
    """Persons (or families) for validation by the seed, at least one."""
    groups = sorted({one.group or one.id for one in subjects})
    if len(groups) < 2:
        raise InputError(f"{len(groups)} person(s) found; training needs two or more: one is kept for validation.")
    order = torch.randperm(len(groups), generator=generator_for(seed, "split")).tolist()
    kept = {groups[place] for place in order[: max(1, round(share * len(groups)))]}
    training = [one for one in subjects if (one.group or one.id) not in kept]
    return training, [one for one in subjects if (one.group or one.id) in kept]


def fit_scale(scans: ScanSet, targets: tuple[str, ...]) -> tuple[TargetScale, dict[str, tuple[float, ...]]]:
    """Mean and spread of age, classes, and inverse frequencies, from the training scans alone.

    Raises
    ------
    InputError
        If a target is known of too few scans, or has one class only.
    """
    mean, deviation = 0.0, 1.0
    classes: tuple[str, ...] = ()
    weights: dict[str, tuple[float, ...]] = {}
    if "age" in targets:
        ages = torch.tensor([one.age for one in scans.subjects if one.age is not None], dtype=torch.float64)
        if len(ages) < 2 or float(ages.std()) == 0.0:
            raise InputError(
                f"age is known of {len(ages)} training scan(s) with a spread; two different ones are needed."
            )
        mean, deviation = float(ages.mean()), float(ages.std())
    if "sex" in targets:
        weights["sex"] = _balance([one.sex for one in scans.subjects], ("F", "M"), "sex")
    if "diagnosis" in targets:
        classes = tuple(sorted({one.diagnosis for one in scans.subjects if one.diagnosis}))
        weights["diagnosis"] = _balance([one.diagnosis for one in scans.subjects], classes, "diagnosis")
    return TargetScale(mean, deviation, classes), weights


def _balance(values: Sequence[str], classes: tuple[str, ...], name: str) -> tuple[float, ...]:
    counts = Counter(value for value in values if value)
    if len(classes) < 2 or any(counts[one] == 0 for one in classes):
        seen = ", ".join(sorted(counts)) or "none"
        raise InputError(f"{name} has fewer than two classes among the training scans ({seen}); it cannot be learnt.")
    total = sum(counts.values())
    return tuple(total / (len(classes) * counts[one]) for one in classes)


def target_rows(scans: ScanSet, targets: tuple[str, ...], scale: TargetScale) -> list[Mapping[str, Tensor]]:
    """Per scan every target and whether it is known; an unknown diagnosis of validation counts as not known."""
    rows: list[Mapping[str, Tensor]] = []
    for one in scans.subjects:
        row: dict[str, Tensor] = {}
        for name in targets:
            value, known = 0.0, False
            if name == "age" and one.age is not None:
                value, known = (one.age - scale.age_mean) / scale.age_sd, True
            elif name == "sex" and one.sex:
                value, known = float(one.sex == "M"), True
            elif name == "diagnosis" and one.diagnosis in scale.classes:
                value, known = float(scale.classes.index(one.diagnosis)), True
            row[name], row[f"{name}_known"] = torch.tensor(value), torch.tensor(float(known))
        rows.append(row)
    return rows
