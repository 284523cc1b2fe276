from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equivox.errors import GeometryError, InputError
from equivox.formats.trajectories import read_trajectories, write_trajectories
from equivox.geometry.rotations import random_rotations, rotation_about
from equivox.geometry.trajectories import Trajectory, chained


def example(generator: torch.Generator, count: int = 6) -> Trajectory:
    shifts = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return Trajectory(torch.arange(count, dtype=torch.float64), random_rotations(count, generator=generator), shifts)


def test_a_turn_between_two_rows_is_even() -> None:
    turn = torch.stack([torch.eye(3, dtype=torch.float64), rotation_about("y", 80.0)])
    trajectory = Trajectory(torch.tensor([0.0, 4.0]).double(), turn, torch.tensor([[0.0, 0, 0], [8, 0, 0]]).double())
    rotations, shifts = trajectory.at(torch.tensor([1.0, 4.0]).double())
    torch.testing.assert_close(rotations[0], rotation_about("y", 20.0))
    torch.testing.assert_close(rotations[1], turn[1])
    assert shifts[0].tolist() == [2, 0, 0]


def test_a_table_comes_back(generator: torch.Generator, tmp_path: Path) -> None:
    whole = {"a": example(generator), "b": example(generator, 3)}
    write_trajectories(tmp_path / "motion.csv", whole)
    back = read_trajectories(tmp_path / "motion.csv")
    assert list(back) == ["a", "b"]
    torch.testing.assert_close(back["a"].rotations, whole["a"].rotations, atol=1e-9, rtol=0)
    torch.testing.assert_close(back["b"].translations_mm, whole["b"].translations_mm, atol=1e-9, rtol=0)


def test_chained_parts_go_on_where_the_last_one_ended(generator: torch.Generator) -> None:
    first, second = example(generator), example(generator)
    whole = chained([first, second], 12.0)
    assert float(whole.times_s[-1]) == 15.0
    torch.testing.assert_close(whole.rotations[6], second.rotations[1] @ first.rotations[-1])
    torch.testing.assert_close(whole.translations_mm[10], second.translations_mm[-1] + first.translations_mm[-1])


def test_what_cannot_be_a_trajectory_is_refused(generator: torch.Generator, tmp_path: Path) -> None:
    good = example(generator)
    with pytest.raises(GeometryError, match="must increase"):
        Trajectory(good.times_s.flip(0), good.rotations, good.translations_mm)
    with pytest.raises(GeometryError, match="no place at 9 s"):
        good.at(torch.tensor([9.0]).double())
    still = Trajectory(torch.zeros(1).double(), torch.eye(3).double()[None], torch.zeros(1, 3).double())
    with pytest.raises(GeometryError, match="cannot be made longer"):
        chained([still], 3.0)
    table = tmp_path / "motion.csv"
    for text, sentence in (
        ("sample,t,tx,ty,tz\n0,0,0,0,0\n", "rx"),
        ("sample,t,tx,ty,tz,rx,ry,rz\n0,0,0,0,0,zero,0,0\n", "zero"),
        ("sample,t,tx,ty,tz,rx,ry,rz\n0,1,0,0,0,0,0,0\n0,0,0,0,0,0,0,0\n", "must increase"),
        ("sample,t,tx,ty,tz,rx,ry,rz\n", "rows"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=sentence):
            read_trajectories(table)
