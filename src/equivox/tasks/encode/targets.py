"""What is to be read out of codes: ages, sexes, diagnoses; who has one, who has none, and which folds they lie in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import ConfigError, InputError
from equivox.formats.subjects import Subject, number_of, text_of
from equivox.metrics.folds import grouped_folds, require_classes, require_no_leakage
from equivox.run.seeds import generator_for

Kind = Literal["number", "class"]
FEWEST = 10
"""Fewer scans than this teach nothing."""
FEW_VALUES = 6
"""A column of numbers with at most so many different values counts as classes."""


@dataclass(frozen=True)
class Targets:
    """Scans that have the target, and those that do not.

    Parameters
    ----------
    name
        Of the target.
    kind
        Numbers or classes.
    chosen
        Positions among all subjects.
    values
        Numbers, or indices of ``classes``.
    classes
        Names, sorted; empty for numbers.
    skipped
        (who, why).
    """

    name: str
    kind: Kind
    chosen: tuple[int, ...]
    values: Float[Tensor, " item"]
    classes: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]

    @property
    def labels(self) -> Int[Tensor, " item"]:
        """Class indices as whole numbers."""
        return self.values.long()


def read_targets(subjects: Sequence[Subject], name: str, *, kind: Kind | None = None) -> Targets:
    """The target of every scan: ``age``, ``sex``, ``diagnosis`` or any column of the table.

    Raises
    ------
    ConfigError
        If there is no such column.
    InputError
        If fewer than ten scans have it, or all have the same.
    """
    cells = [_cell(subject, name) for subject in subjects]
    if all(cell is None for cell in cells):
        known = sorted({column for subject in subjects for column in subject.values})
        raise ConfigError(
            f"the subjects have no {name!r}; the target is age, sex, diagnosis or a column"
            + (f" ({', '.join(known[:12])})." if known else ".")
        )
    present = [index for index, cell in enumerate(cells) if cell]
    skipped = [(subjects[index].name, f"has no {name}") for index, cell in enumerate(cells) if not cell]
    numbers = [number_of(cells[index] or "") for index in present]
    numeric = all(number is not None for number in numbers)
    if kind is None:
        kind = "number" if name == "age" or (numeric and len(set(numbers)) > FEW_VALUES) else "class"
    if kind == "number":
        kept = [(index, number) for index, number in zip(present, numbers, strict=True) if number is not None]
        skipped += [
            (subjects[index].name, f"has the {name} {cells[index]!r}, which is no number")
            for index, number in zip(present, numbers, strict=True)
            if number is None
        ]
        names: tuple[str, ...] = ()
        chosen, values = [index for index, _ in kept], [number for _, number in kept]
    else:
        names = tuple(sorted({cells[index] or "" for index in present}))
        chosen, values = present, [float(names.index(cells[index] or "")) for index in present]
    if len(chosen) < FEWEST:
        raise InputError(f"{len(chosen)} scans have a known {name}; a probe needs {FEWEST} or more.")
    if len(set(values)) < 2:
        only = names[0] if names else f"{values[0]:g}"
        raise InputError(f"every scan has the same {name} ({only}); there is nothing to tell apart.")
    return Targets(name, kind, tuple(chosen), torch.tensor(values, dtype=torch.float64), names, tuple(skipped))


def _cell(subject: Subject, name: str) -> str | None:
    """The target as text; empty if unknown, None if the subject has no such column."""
    if name == "age":
        return "" if subject.age is None else repr(subject.age)
    if name in ("sex", "diagnosis"):
        return str(getattr(subject, name))
    lower = {column.lower(): cell for column, cell in subject.values.items()}
    return text_of(lower[name.lower()]) if name.lower() in lower else None


def make_folds(
    subjects: Sequence[Subject], targets: Targets, *, count: int, repeats: int, seed: int, given: bool
) -> tuple[Int[Tensor, "repeat item"], str]:
    """Folds of the chosen scans in every repetition, and where they come from.

    With ``given``, the table's own columns ``fold0``, ``fold1``, ... are taken where it has them. Either way no group
    may lie in two folds, and every fold must hold every class.

    Raises
    ------
    InputError
        If folds leak, or one holds one class alone.
    """
    chosen = [subjects[index] for index in targets.chosen]
    groups = [subject.group or subject.id for subject in chosen]
    columns = sorted(
        (name for name in chosen[0].values if re.fullmatch(r"fold\d+", name)), key=lambda name: int(name[4:])
    )
    columns = [name for name in columns if all(text_of(subject.values.get(name, "")) for subject in chosen)]
    if given and columns:
        rows = []
        for name in columns:
            labels = [text_of(subject.values[name]) for subject in chosen]
            order = sorted(set(labels))
            rows.append(torch.tensor([order.index(label) for label in labels]))
        told = f"columns {', '.join(columns)} of the table"
    else:
        rows = [
            grouped_folds(
                groups, targets.values, count=count, generator=generator_for(seed, "folds", repeat),
                classes=targets.kind == "class",
            )
            for repeat in range(repeats)
        ]  # fmt: skip
        told = f"{repeats} x {count} folds, grouped by person, stratified by {targets.name}, seed {seed}"
    for number, row in enumerate(rows):
        if len(row.unique()) < 2:
            raise InputError(f"repetition {number} of the folds ({told}) has one fold; cross-validation needs two.")
        require_no_leakage(row, groups, what=columns[number] if given and columns else f"repetition {number}")
        if targets.kind == "class":
            require_classes(row, targets.labels, targets.classes)
    return torch.stack(rows), told
