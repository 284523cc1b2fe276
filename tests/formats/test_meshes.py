"""Every mesh of the fixture comes out right, every broken one is refused with a sentence."""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.errors import InputError, MissingExtraError
from equivox.formats.meshes import Mesh, read_mesh, require_mesh

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "shapes" / "mesh"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
GOOD = sorted(name for name, entry in EXPECTED.items() if entry["ok"])
BAD = sorted(name for name, entry in EXPECTED.items() if not entry["ok"])
ONE_SENTENCE = re.compile(r"^[^\n]+[.]$")


@pytest.mark.parametrize("name", GOOD)
def test_good_files(name: str) -> None:
    expected = EXPECTED[name]
    mesh = read_mesh(FOLDER / name)
    used = mesh.used().shape[0]
    assert expected["vertices"] in (mesh.vertices.shape[0], used)
    assert mesh.faces.shape[0] == expected["triangles"]
    assert mesh.area() == pytest.approx(expected["area"], abs=1e-6)
    if "volume" in expected:
        assert abs(mesh.volume()) == pytest.approx(expected["volume"], abs=1e-6)
    assert mesh.used().max(dim=0).values.tolist() == pytest.approx([1, 2, 3], abs=1e-6)  # never the unused vertex


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str) -> None:
    with pytest.raises(InputError) as caught:
        read_mesh(FOLDER / name)
    assert name in str(caught.value)
    assert ONE_SENTENCE.match(str(caught.value))


@pytest.mark.parametrize("name", GOOD)
def test_a_file_cut_anywhere_is_refused_or_whole(name: str, tmp_path: Path) -> None:
    """What is lost may only be trailing blanks or comments; then the mesh is as before."""
    data = (FOLDER / name).read_bytes()
    whole = read_mesh(FOLDER / name)
    for share in (0.15, 0.5, 0.8, 0.95):
        cut = tmp_path / f"cut{(FOLDER / name).suffix}"
        cut.write_bytes(data[: int(len(data) * share)])
        mesh = None
        with contextlib.suppress(InputError):
            mesh = read_mesh(cut)
        if mesh is not None:  # only OBJ makes no promise of how many faces follow
            assert cut.suffix == ".obj"
            assert mesh.faces.shape[0] <= whole.faces.shape[0]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 1e30\n3 0 1 2\n", "far beyond"),
        ("OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 inf\n3 0 1 2\n3 0 1 3\n", "three finite coordinates"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n", "no triangle with an area"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n2 0 1\n", "at least 3 corners"),
        ("OFF BINARY\n", "binary OFF"),
        ("OFF\n-3 1 0\n", "counts of vertices"),
    ],
)
def test_more_bad_off(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "bad.off"
    path.write_text(text)
    with pytest.raises(InputError, match=part):
        read_mesh(path)


def test_a_vertex_far_from_all_others_is_said(tmp_path: Path) -> None:
    rows = "".join(f"{x} {y} {z}\n" for x in (0, 1) for y in (0, 1) for z in (0, 1))
    path = tmp_path / "far.off"
    path.write_text(f"OFF\n9 3 0\n{rows}1e6 0 0\n3 0 1 2\n3 3 4 5\n3 6 7 8\n")
    with pytest.raises(InputError, match="times farther"):
        read_mesh(path)


@pytest.mark.parametrize("name", GOOD)
def test_damaged_bytes_give_a_sentence_or_a_mesh(name: str, tmp_path: Path) -> None:
    draw = random.Random(name)
    for _ in range(12):
        data = bytearray((FOLDER / name).read_bytes())
        for _ in range(draw.choice([1, 4])):
            data[draw.randrange(len(data))] = draw.choice([draw.randrange(256), ord(draw.choice("0189-. \nN"))])
        path = tmp_path / f"damaged{(FOLDER / name).suffix}"
        path.write_bytes(bytes(data))
        with contextlib.suppress(InputError):
            require_mesh(read_mesh(path), where="damaged")


def test_missing_folder_and_other_formats(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_mesh(tmp_path / "none.off")
    with pytest.raises(InputError, match="is a folder"):
        read_mesh(tmp_path)
    (tmp_path / "scene.gltf").write_text("{}")
    with pytest.raises(InputError, match="not a mesh by its name"):
        read_mesh(tmp_path / "scene.gltf")


def test_pentagons_become_three_triangles(tmp_path: Path) -> None:
    angle = np.arange(5) * 2 * np.pi / 5
    rows = "".join(f"{np.cos(a)} {np.sin(a)} 0\n" for a in angle)
    (tmp_path / "five.off").write_text(f"OFF\n5 1 0\n{rows}5 0 1 2 3 4\n")
    mesh = read_mesh(tmp_path / "five.off")
    assert mesh.faces.shape[0] == 3
    assert mesh.area() == pytest.approx(2.5 * np.sin(2 * np.pi / 5), abs=1e-9)


def test_arrays_are_checked_too() -> None:
    points = torch.eye(3)
    with pytest.raises(InputError, match="no vertex 3"):
        require_mesh(Mesh(points, torch.tensor([[0, 1, 3]])), where="mine")
    with pytest.raises(InputError, match="NaN"):
        require_mesh(Mesh(points * torch.nan, torch.tensor([[0, 1, 2]])), where="mine")


def test_without_trimesh_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, fixture_path: Callable[[str], Path]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trimesh", None)
    with pytest.raises(MissingExtraError, match=r"equivox\[shapes\]"):
        read_mesh(FOLDER / "cuboid_tris.off")
