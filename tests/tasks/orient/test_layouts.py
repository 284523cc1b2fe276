"""Tables of RELION 3.0, 3.1, 5 and cryoSPARC that describe the same particles get the same answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from equivox.errors import InputError
from equivox.tasks.orient.model import load_orient_model
from equivox.tasks.orient.predict import PredictConfig, open_preparation
from equivox.tasks.orient.stacks import open_stack

LAYOUTS = ("star/relion30.star", "star/relion31_messy.star", "star/relion5.star", "cs/particles.cs")


def test_every_layout_gives_the_same_pictures(little_model: Path, shared_path: Callable[[str], Path]) -> None:
    folder = shared_path("fixtures/cryoem")
    model = load_orient_model(str(little_model))
    found = []
    for name in LAYOUTS:
        config = PredictConfig(particles=str(folder / name), model=str(little_model), project=str(folder / "mrc"))
        preparation = open_preparation(config, model)
        assert preparation.imaging is not None
        pictures, usable = preparation.pictures(range(12))
        assert bool(usable.all())
        found.append(pictures)
    for other in found[1:]:
        assert_close(other, found[0], atol=1e-4, rtol=1e-4)
    assert float((found[0][0] - found[0][1]).abs().max()) > 0.1


def test_the_transfer_is_used_and_can_be_left_alone(little_model: Path, shared_path: Callable[[str], Path]) -> None:
    from dataclasses import replace

    from equivox.tasks.orient.prepare import prepare_stack

    folder = shared_path("fixtures/cryoem")
    stack = open_stack(folder / LAYOUTS[1], project=folder / "mrc")
    picture = load_orient_model(str(little_model)).picture
    flipped = prepare_stack(stack, picture, contrast="light").pictures([0, 5])[0]
    bare = prepare_stack(stack, replace(picture, transfer="none"), contrast="light").pictures([0, 5])[0]
    beside = prepare_stack(stack, replace(picture, transfer="channel"), contrast="light").pictures([0, 5])[0]
    assert float((flipped - bare).abs().max()) > 0.1
    assert beside.shape == (2, 2, 25, 25)
    assert_close(beside[:, :1], bare)
    assert int(torch.isfinite(beside).all())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("image_index_beyond.star", "row 12, names image 99 of stack.mrcs, which holds 12"),
        ("missing_optics_block.star", "no block data_optics"),
        ("unknown_optics_group.star", "optics group 7 is not in data_optics"),
        ("mixed_pixel_sizes.star", "mixes pixel sizes"),
        ("image_index_zero.star", "counted from 1"),
    ],
)
def test_tables_that_contradict_themselves_or_their_stack_are_refused(
    name: str, said: str, shared_path: Callable[[str], Path]
) -> None:
    folder = shared_path("fixtures/cryoem")
    with pytest.raises(InputError, match=said):
        open_stack(folder / "star_broken" / name, project=folder / "mrc")
