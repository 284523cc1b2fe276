"""Labelled things that a classifier learns from or is asked about: their classes, and what is said of bad ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from equivox.errors import InputError


@runtime_checkable
class Labelled(Protocol):
    """One thing with its name and its class."""

    @property
    def id(self) -> str:
        """Unique among its like."""

    @property
    def label(self) -> int:
        """Index among the classes; -1 where it is not known."""


def class_counts(things: Sequence[Labelled], chosen: Sequence[int], classes: int) -> list[int]:
    """Things of each class."""
    counts = [0] * classes
    for index in chosen:
        counts[things[index].label] += 1
    return counts


def part_digest(things: Sequence[Labelled], chosen: Sequence[int], what: str) -> str:
    """A text that changes when other things, or other labels, take part; ``what`` names them, in the plural."""
    text = "\n".join(f"{things[index].id} {things[index].label}" for index in chosen)
    return f"{len(chosen)} {what}, {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def require_learnable(
    name: str, classes: Sequence[str], things: Sequence[Labelled], parts: Mapping[str, Sequence[int]], what: str
) -> list[str]:
    """What a user should know about the classes of the parts ``training`` and ``validation``.

    Parameters
    ----------
    name
        Of the data.
    classes
        Names, in the order of the labels.
    things, parts
        All things, and the positions of those of each part.
    what
        Names a thing, in the singular.

    Raises
    ------
    InputError
        If there is one class only, or one of validation does not occur in training.
    """
    seen = {things[index].label for index in parts["training"]}
    unseen = sorted({things[index].label for index in parts["validation"]} - seen)
    if unseen:
        raise InputError(
            f"{name}: class {classes[unseen[0]]!r} occurs in validation and never in training; it cannot be learnt: "
            "give examples of it, or leave it out."
        )
    if len(seen) < 2:
        raise InputError(f"{name} has {what}s of one class only for training; a classifier needs two or more.")
    absent = [title for label, title in enumerate(classes) if label not in seen]
    return (
        [f"No {what} for training is of the class {', '.join(absent)}; it will never be predicted."] if absent else []
    )


def known_labels(
    name: str, classes: Sequence[str], things: Sequence[Labelled], chosen: Sequence[int], known: Sequence[str]
) -> Int[Tensor, " thing"]:
    """Classes of things among those that a model ``known``.

    Raises
    ------
    InputError
        If one is of a class that the model does not know.
    """
    places = {title: place for place, title in enumerate(known)}
    for index in chosen:
        title = classes[things[index].label]
        if title not in places:
            raise InputError(
                f"{name}: {things[index].id} is of the class {title!r}, which the model has not seen; it knows "
                f"{', '.join(known)}."
            )
    return torch.tensor([places[classes[things[index].label]] for index in chosen])


def left_out_notes(lost: Sequence[str], what: str) -> list[str]:
    """What is said of things that could not be used, with the first one's reason."""
    return [f"{len(lost)} {what} are left out, for example: {lost[0]}"] if lost else []
