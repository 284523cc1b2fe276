"""Which persons are left out together when an encoder is finetuned by folds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from equivox.errors import ConfigError, InputError
from equivox.formats.subjects import Subject, text_of
from equivox.metrics.folds import grouped_folds, require_distinct, require_no_leakage
from equivox.run.record import file_sha256
from equivox.run.seeds import generator_for


@dataclass(frozen=True, slots=True)
class FoldChoice:
    """Where folds come from, and which of them are trained.

    Parameters
    ----------
    column
        Of the subjects' table; empty: folds are drawn.
    count
        Folds that are drawn.
    only
        Label of the one fold that is trained; None: all, and then the numbers over all.
    """

    column: str = ""
    count: int = 5
    only: str | None = None

    @classmethod
    def parse(cls, text: str) -> FoldChoice:
        """``fold0`` or ``5``, with ``:LABEL`` for one fold alone.

        Raises
        ------
        ConfigError
            If it names nothing, or fewer than two folds.

        Examples
        --------
        >>> FoldChoice.parse("fold0:3")
        FoldChoice(column='fold0', count=5, only='3')
        """
        name, _, only = text.partition(":")
        name, only = name.strip(), only.strip()
        if not name or (":" in text and not only):
            raise ConfigError(f"--fold is {text!r}; give a column of the table or a number of folds, as fold0 or 5:2.")
        if not re.fullmatch(r"\d+", name):
            return cls(column=name, only=only or None)
        if int(name) < 2:
            raise ConfigError(f"--fold {name} makes no test of anything; give 2 or more folds, or a column's name.")
        return cls(count=int(name), only=only or None)


def choose_folds(
    subjects: Sequence[Subject], fold: FoldChoice, targets: Sequence[str], seed: int, notes: list[str]
) -> tuple[tuple[Subject, ...], list[str], str]:
    """Scans that have a fold, the label of each, and where folds come from; nobody lies in two.

    Parameters
    ----------
    subjects
        Scans of which a target is known.
    fold
        The choice.
    targets
        Drawn folds are alike in the first.
    seed
        Of drawn folds; those of `equivox encode probe` with the same seed (first repetition) are the same.
    notes
        Sentences are added.

    Raises
    ------
    ConfigError
        If the table has no such column.
    InputError
        If there is one fold only, a person lies in two, or one image stands under two people.
    """
    if fold.column:
        labels = [text_of(one.values.get(fold.column, "")) for one in subjects]
        if not any(labels):
            known = sorted({name for one in subjects for name in one.values if name.startswith("fold")})
            raise ConfigError(
                f"--fold {fold.column} is no column of the table"
                + (f"; there are {', '.join(known)}." if known else ": give a number to draw folds by person, as 5.")
            )
        missing = labels.count("")
        if missing:
            notes.append(f"{missing} scans have no {fold.column} and take no part.")
        chosen = tuple(one for one, label in zip(subjects, labels, strict=True) if label)
        labels = [label for label in labels if label]
        told = f"column {fold.column} of the table"
        if any(not re.fullmatch(r"[\w.-]+", label) for label in labels):
            odd = next(label for label in labels if not re.fullmatch(r"[\w.-]+", label))
            raise InputError(f"{fold.column} has the value {odd!r}; folds are called by letters, digits, _ . and -.")
    else:
        chosen = tuple(subjects)
        first = targets[0]
        values = [one.age if first == "age" else getattr(one, first) for one in chosen]
        if first == "age":
            numbers = [value for value in values if isinstance(value, float)]
            middle = sum(numbers) / max(1, len(numbers))
            levels = torch.tensor([value if isinstance(value, float) else middle for value in values])
        else:
            names = sorted(set(values), key=str)
            levels = torch.tensor([float(names.index(value)) for value in values])
        drawn = grouped_folds(
            [one.group or one.id for one in chosen], levels, count=fold.count,
            generator=generator_for(seed, "folds", 0), classes=first != "age",
        )  # fmt: skip
        labels = [str(one) for one in drawn.tolist()]
        told = f"{fold.count} folds, grouped by person, stratified by {first}, seed {seed}"
    groups = [one.group or one.id for one in chosen]
    order = sorted(set(labels))
    if len(order) < 2:
        raise InputError(f"{told} has one fold ({', '.join(order) or 'none'}); cross-validation needs two or more.")
    require_no_leakage(torch.tensor([order.index(label) for label in labels]), groups, what=told)
    prints = [file_sha256(one.path) for one in chosen if one.path is not None]
    require_distinct(prints, groups, [one.name for one in chosen])
    return chosen, labels, told
