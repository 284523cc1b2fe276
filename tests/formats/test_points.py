"""Point clouds: every kind is read, every broken one refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from equivox.errors import InputError
from equivox.formats.points import read_points

MESHES = Path(__file__).resolve().parents[1] / "fixtures" / "shapes" / "mesh"


def test_every_kind_gives_the_same_points(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(9, 3)).round(4)
    np.save(tmp_path / "a.npy", np.concatenate([points, np.ones((9, 2))], axis=1))
    rows = [" ".join(map(str, row)) for row in points.tolist()]
    (tmp_path / "b.xyz").write_text("\n".join(rows) + "\n")
    (tmp_path / "c.xyz").write_text("9\na comment 1 2 3\n" + "\n".join(f"C {row} 0.5" for row in rows) + "\n\n")
    (tmp_path / "d.xyz").write_text("\n".join(row.replace(" ", ",") + ",7 # noted" for row in rows))
    header = (
        "ply\nformat ascii 1.0\nelement vertex 9\n" + "".join(f"property float {a}\n" for a in "xyz") + "end_header\n"
    )
    (tmp_path / "e.ply").write_text(header + "\n".join(rows) + "\n")
    for name in ("a.npy", "b.xyz", "c.xyz", "d.xyz", "e.ply"):
        cloud = read_points(tmp_path / name)
        assert_close(cloud.positions, torch.from_numpy(points), atol=1e-6, rtol=0)
        assert cloud.elements == (("C",) * 9 if name == "c.xyz" else ())


def test_points_of_the_fixture() -> None:
    assert read_points(MESHES / "points_only.ply").positions.shape[0] > 0
    assert read_points(MESHES / "cuboid_little.ply").positions.shape == (8, 3)  # a mesh's vertices


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.xyz", b"", "is empty"),
        ("a.xyz", b"\n\n", "holds no point"),
        ("a.xyz", b"1 2\n", "three coordinates"),
        ("a.xyz", b"1 2 nan\n1 2 3\n", "NaN or infinite"),
        ("a.xyz", b"1 2 three\n", "three coordinates"),
        ("a.xyz", b"Xq 1 2 3\n", "'XQ' is no chemical element"),
        ("a.xyz", b"C 1 2 3\n1 2 3\n", "in 1 of 2 rows"),
        ("a.xyz", b"3\ncomment\nC 1 2 3\n", "after 1 of 3 points"),
        ("a.xyz", b"\xff\xfe\x00\x01", "not a text file"),
        ("a.npy", b"\x93NUMPY\x01\x00v\x00{'desc", "no whole .npy"),
        ("a.ply", b"ply\nformat ascii 1.0\n", "no whole PLY header"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nend_header\n1\n", "after 1 of 2 rows"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex many\nend_header\n1\n", "a count is needed"),
        ("a.las", b"LASF", "no point cloud by its name"),
        ("a.xyz", b"0 0 0\n1 0 0\n0 1 0\n1e7 0 0\n", "times farther"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, part: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=part) as caught:
        read_points(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_arrays(tmp_path: Path) -> None:
    for array, part in (
        (np.zeros((4, 2)), "shape \\(4, 2\\)"),
        (np.zeros((0, 3)), "no point"),
        (np.array(["a"]), "<U1"),
    ):
        np.save(tmp_path / "bad.npy", array)
        with pytest.raises(InputError, match=part):
            read_points(tmp_path / "bad.npy")
