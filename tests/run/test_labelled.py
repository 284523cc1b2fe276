"""Labelled things: what a classifier can learn from, and what a model is asked about."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from equivox.errors import InputError
from equivox.run.labelled import class_counts, known_labels, left_out_notes, part_digest, require_learnable

CLASSES = ("ring", "disk", "star")


@dataclass(frozen=True)
class Thing:
    id: str
    label: int


THINGS = [Thing("a", 0), Thing("b", 1), Thing("c", 1), Thing("d", 2)]


def test_a_part_has_counts_and_a_digest_of_names_and_labels() -> None:
    assert class_counts(THINGS, [0, 1, 2], 3) == [1, 2, 0]
    digest = part_digest(THINGS, [0, 1], "things")
    assert digest.startswith("2 things, ")
    assert digest != part_digest(THINGS, [0, 2], "things")
    assert digest != part_digest([Thing("a", 1), *THINGS[1:]], [0, 1], "things")


def test_classes_that_cannot_be_learnt_are_refused() -> None:
    parts = {"training": [0, 1], "validation": [2]}
    assert require_learnable("set", CLASSES, THINGS, parts, "thing") == [
        "No thing for training is of the class star; it will never be predicted."
    ]
    assert require_learnable("set", CLASSES[:2], THINGS, parts, "thing") == []
    with pytest.raises(InputError, match="'star' occurs in validation and never in training"):
        require_learnable("set", CLASSES, THINGS, {"training": [0, 1], "validation": [3]}, "thing")
    with pytest.raises(InputError, match="things of one class only"):
        require_learnable("set", CLASSES, THINGS, {"training": [1], "validation": [2]}, "thing")


def test_a_model_is_asked_by_its_own_order_of_classes() -> None:
    assert known_labels("set", CLASSES, THINGS, [0, 1, 3], ("star", "ring", "disk")).tolist() == [1, 2, 0]
    with pytest.raises(InputError, match="set: d is of the class 'star', which the model has not seen; it knows ring"):
        known_labels("set", CLASSES, THINGS, [0, 3], ("ring", "disk"))
    assert left_out_notes([], "files") == []
    assert left_out_notes(["x is torn.", "y"], "files") == ["2 files are left out, for example: x is torn."]
