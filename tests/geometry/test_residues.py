"""Frames, origins and boxes of residues are those of "box v1"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from equivox.errors import GeometryError
from equivox.geometry.density import gaussian_density
from equivox.geometry.residues import box_atoms, residue_frames
from equivox.geometry.rotations import random_rotations

Find = Callable[[str], Path]


@pytest.fixture(scope="module")
def stored(fixture_path: Find) -> dict[str, Any]:
    return dict(np.load(fixture_path("shapes/environment/boxes.npz")))


def chain(stored: dict[str, Any]) -> dict[str, torch.Tensor]:
    names = stored["atom_names"][stored["atom_name"]]
    elements = stored["atom_elements"][stored["atom_name"]]
    positions = torch.as_tensor(stored["xyz"])
    owner = stored["residue_of_atom"]
    rows = stored["residue_index"]
    three = torch.stack(
        [positions[[int(np.flatnonzero((owner == r) & (names == a))[0]) for r in rows]] for a in (b"N", b"CA", b"C")]
    )
    own = torch.tensor([[int(np.flatnonzero(owner == r)[0]), int(np.flatnonzero(owner == r)[-1]) + 1] for r in rows])
    return {
        "positions": positions,
        "channel": torch.as_tensor(np.searchsorted(np.array([b"C", b"N", b"O", b"S"]), elements)),
        "backbone": torch.as_tensor(np.isin(names, [b"N", b"CA", b"C", b"O"])),
        "own": own,
        "chain": torch.tensor([[0, len(positions)]] * 3),
        "three": three,
    }


def test_frames_and_boxes_of_the_fixture(stored: dict[str, Any]) -> None:
    atoms = chain(stored)
    frame, origin = residue_frames(*atoms.pop("three"))
    for k in range(3):
        assert_close(frame[k], torch.as_tensor(stored[f"frame_{k}"]), atol=1e-6, rtol=0)
        assert_close(origin[k], torch.as_tensor(stored[f"origin_{k}"]), atol=1e-6, rtol=0)
    points, channel = box_atoms(**atoms, origin=origin, rotation=frame)
    inside = (points.abs() < 10).all(dim=-1)
    counts = torch.stack([((channel == c) & inside).sum(dim=1) for c in range(4)], dim=1)
    assert counts.tolist() == [stored[f"counts_{k}"].tolist() for k in range(3)]
    box = gaussian_density(points, channel, channels=4, side=20, spacing=1.0, sigma=0.6, normalization="analytic")
    inner = (slice(None), slice(None), *[slice(1, -1)] * 3)
    expected = torch.stack([torch.as_tensor(stored[f"box_{k}"]) for k in range(3)])
    assert_close(box.float()[inner], expected[inner], atol=1e-5, rtol=0)
    assert_close(box.float(), expected, atol=1e-4, rtol=0)  # the stored box leaves out what is beyond 12 Å


def test_a_box_in_the_own_frame_does_not_know_how_the_protein_lies(stored: dict[str, Any]) -> None:
    atoms = chain(stored)
    rotation = random_rotations(1, generator=torch.Generator().manual_seed(3))[0]
    boxes = []
    for turn, shift in ((torch.eye(3, dtype=torch.float64), 0.0), (rotation, 30.0)):
        moved = {**atoms, "positions": atoms["positions"] @ turn.T + shift}
        frame, origin = residue_frames(*(moved.pop("three") @ turn.T + shift))
        points, channel = box_atoms(**moved, origin=origin, rotation=frame)
        boxes.append(gaussian_density(points, channel, channels=4, side=20, spacing=1.0, sigma=0.6))
    assert_close(boxes[0], boxes[1], atol=1e-7, rtol=0)


def test_laboratory_boxes_turn_with_quarter_turns(stored: dict[str, Any]) -> None:
    atoms = chain(stored)
    _, origin = residue_frames(*atoms.pop("three"))
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    plain, turned = (
        gaussian_density(
            *box_atoms(**atoms, origin=origin, rotation=rotation), channels=4, side=21, spacing=1.0, sigma=0.6
        )
        for rotation in (None, turn.expand(3, 3, 3))
    )
    assert_close(plain.rot90(1, dims=(2, 3)), turned, atol=1e-7, rtol=0)


def test_the_side_chain_and_the_order_of_atoms_do_not_count(stored: dict[str, Any]) -> None:
    atoms = chain(stored)
    frame, origin = residue_frames(*atoms.pop("three"))
    first, last = atoms["own"][0].tolist()
    changed = atoms["positions"].clone()
    side_chain = [i for i in range(first, last) if not atoms["backbone"][i]]
    assert side_chain
    changed[side_chain] += 1.5
    order = torch.arange(len(changed))
    order[first:last] = order[first:last].flip(0)
    fields = [
        gaussian_density(
            *box_atoms(
                positions, atoms["channel"][at], atoms["backbone"][at], own=atoms["own"][:1], chain=atoms["chain"][:1],
                origin=origin[:1], rotation=frame[:1],
            ), channels=4, side=20, spacing=1.0, sigma=0.6,
        )
        for positions, at in ((atoms["positions"], slice(None)), (changed[order], order))
    ]  # fmt: skip
    assert_close(fields[0], fields[1], atol=1e-12, rtol=0)


def test_three_atoms_on_a_line_have_no_frame() -> None:
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    with pytest.raises(GeometryError, match="on one line"):
        residue_frames(*line)
