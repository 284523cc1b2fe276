"""The shipped Tetris model knows every piece in any orientation, having seen each in one; chance is 1 in 8."""

from __future__ import annotations

import pytest
import torch

from equivox.geometry.rotations import random_rotations
from equivox.tasks.shapes.classifier import ShapeModel, load_shape_model
from equivox.tasks.shapes.data import Grid
from equivox.tasks.shapes.source_tetris import PIECES, tetris_volume


@pytest.fixture(scope="module")
def model() -> ShapeModel:
    """As users get it."""
    return load_shape_model("tetris")


def test_every_piece_is_named_in_random_orientations(model: ShapeModel) -> None:
    draws = 3
    volumes = [Grid(tetris_volume(piece, 29, 4.0, False)) for piece in range(8)] * draws
    rotations = random_rotations(8 * draws, generator=torch.Generator().manual_seed(2024))
    answers = model.logits(volumes, rotations=rotations).argmax(1)
    right = (answers == torch.arange(8).repeat(draws)).float().mean()
    assert float(right) >= 0.9  # by chance more than 7 of 24 would be one in a hundred


def test_its_classes_are_the_pieces_and_its_certificate_holds(model: ShapeModel) -> None:
    assert model.classes == tuple(PIECES)
    found = model.folder.certificate()
    assert found["cube_group"]["holds"]
    assert found["generic_angles"]["control_fails"]
    assert max(found["generic_angles"]["relative_change_by_angle_deg"].values()) < 0.3
