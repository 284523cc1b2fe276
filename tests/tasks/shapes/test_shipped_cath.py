"""The shipped CATH model reads traces of any orientation; its certificate and card are whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from equivox.formats.cath import read_cath
from equivox.geometry.rotations import random_rotations
from equivox.tasks.shapes.classifier import ShapeModel, load_shape_model
from equivox.tasks.shapes.source_cath import trace_content


@pytest.fixture(scope="module")
def model() -> ShapeModel:
    """As users get it."""
    return load_shape_model("cath-10arch")


@pytest.mark.shared
def test_it_knows_its_own_training_domains_far_above_chance_and_keeps_its_mind_under_rotation(
    model: ShapeModel, shared_path: Callable[[str], Path]
) -> None:
    found = read_cath(shared_path("data/proteins/cath_ca.npz"))
    task = found.tasks["10arch"]
    chosen = list(range(0, len(task.domains), 12))
    contents = [trace_content(found.domain(int(task.domains[row])), model.input) for row in chosen]
    logits = model.logits(contents)
    right = (logits.argmax(1) == task.labels[chosen]).float().mean()
    assert float(right) > 0.5  # the largest class holds a quarter
    turned = model.logits(contents, rotations=random_rotations(len(chosen), generator=torch.Generator().manual_seed(3)))
    assert float((turned.argmax(1) == logits.argmax(1)).float().mean()) > 0.8


def test_its_certificate_holds_and_its_classes_are_architectures(model: ShapeModel) -> None:
    assert model.classes == ("1.10", "1.20", "2.30", "2.40", "2.60", "3.10", "3.20", "3.30", "3.40", "3.90")
    certificate = model.folder.certificate()
    assert certificate["cube_group"]["holds"]
    assert certificate["generic_angles"]["control_fails"]
    assert "CC BY 4.0" in (model.folder.path / "LICENSE").read_text()
