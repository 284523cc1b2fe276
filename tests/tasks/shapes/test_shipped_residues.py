"""The shipped model of residue environments beats chance on chains it has not seen; certificate and card are whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from equivox.tasks.shapes.classifier import ShapeModel, load_shape_model
from equivox.tasks.shapes.config import DataConfig
from equivox.tasks.shapes.data import of_split
from equivox.tasks.shapes.source_residues import ResidueSource


@pytest.fixture(scope="module")
def model() -> ShapeModel:
    """As users get it."""
    return load_shape_model("residue-environment")


@pytest.mark.shared
def test_it_knows_residues_of_superfamilies_it_has_not_seen_far_above_chance(
    model: ShapeModel, shared_path: Callable[[str], Path]
) -> None:
    path = shared_path("data/proteins/environments.npz")
    source = ResidueSource.from_file(path, model.input, DataConfig(data=str(path)))
    chosen = of_split(source, "test")[::40]
    guess = model.logits([source.content(row) for row in chosen]).argmax(1).tolist()
    right = [answer == source.shapes[row].label for answer, row in zip(guess, chosen, strict=True)]
    assert len(right) > 100
    assert sum(right) / len(right) > 0.2  # always the commonest of the 20 is right once in eleven or so


def test_its_certificate_holds_and_its_classes_are_amino_acids(model: ShapeModel) -> None:
    assert "".join(model.classes) == "ACDEFGHIKLMNPQRSTVWY"
    certificate = model.folder.certificate()
    assert certificate["cube_group"]["holds"]
    generic = certificate["generic_angles"]
    assert generic["control_fails"]
    for angle in ("45", "90", "180"):
        moved = generic["relative_change_by_angle_deg"][angle]
        assert moved < 0.5 * generic["plain_network_by_angle_deg"][angle]
    assert "CC BY 4.0" in (model.folder.path / "LICENSE").read_text()
