"""Inputs and labels: nothing is lost in silence, and one bad name stops nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from equivox.errors import InputError
from equivox.formats.shape_files import find_shapes, kind_of, labelled_files, stem_of

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "shapes"


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def test_kinds() -> None:
    assert kind_of(FOLDER / "mesh" / "cuboid_tris.off") == "mesh"
    assert kind_of(FOLDER / "mesh" / "cuboid_big.ply") == "mesh"
    assert kind_of(FOLDER / "mesh" / "points_only.ply") == "points"
    assert kind_of(FOLDER / "pdb" / "plain.cif") == "structure"
    assert kind_of(Path("1abc.PDB.gz")) == "structure"
    assert stem_of(Path("1abc.pdb.gz")) == "1abc"
    assert stem_of(Path("readme")) == "readme"
    with pytest.raises(InputError, match="no shape by its name"):
        kind_of(Path("scan.nii"))


def test_inputs_of_every_sort(tmp_path: Path) -> None:
    touch(tmp_path / "one" / "a.off", tmp_path / "one" / "deep" / "b.pdb.gz", tmp_path / "two" / "a.off")
    touch(tmp_path / "two" / ".hidden.off", tmp_path / "two" / "notes.txt", tmp_path / "two" / "a.obj")
    (tmp_path / "bare").mkdir()
    found = find_shapes(
        [tmp_path / "one", str(tmp_path / "two" / "*.o*"), tmp_path / "one" / "a.off", tmp_path / "bare",
         tmp_path / "two" / "c.off", str(tmp_path / "no*.stl")]
    )  # fmt: skip
    assert [entry.stem for entry in found[:4]] == ["one_a", "b", "a_obj", "two_a"]
    problems = [entry.problem for entry in found if entry.problem]
    assert len(found) == 7
    for part, text in zip(("holds no shape", "does not exist", "No file"), problems, strict=True):
        assert part in text
    with pytest.raises(InputError, match="No input was given"):
        find_shapes([])


def test_labels_from_folders(tmp_path: Path) -> None:
    touch(tmp_path / "chair" / "train" / "chair_0001.off", tmp_path / "chair" / "test" / "chair_0002.off")
    touch(tmp_path / "sofa" / "sofa_0001.off", tmp_path / "stray.off")
    found, rest = labelled_files(tmp_path)
    assert [(entry.label, entry.split) for entry in found] == [("chair", "test"), ("chair", "train"), ("sofa", "")]
    assert [path.name for path in rest] == ["stray.off"]


def test_labels_from_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    touch(folder / "a.off", folder / "b.off", folder / "x" / "c.off", folder / "y" / "c.off", folder / "extra.off")
    table = tmp_path / "labels.csv"
    table.write_text("file,label,split\na,0001,train\nb.off,2,test\nc,3,test\ny/c.off,3,test\nlost,4,train\n")
    found, rest = labelled_files(folder, table)
    assert [(entry.path.name, entry.label, entry.split) for entry in found if not entry.problem] == [
        ("a.off", "0001", "train"), ("b.off", "2", "test"), ("c.off", "3", "test"),
    ]  # fmt: skip
    problems = [entry.problem for entry in found if entry.problem]
    assert "fits 2 files" in problems[0]
    assert "holds no file lost" in problems[1]
    assert sorted(path.relative_to(folder).as_posix() for path in rest) == ["extra.off", "x/c.off"]


def test_no_label_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        labelled_files(tmp_path / "none")
    with pytest.raises(InputError, match="holds no shape"):
        labelled_files(tmp_path)
    touch(tmp_path / "a.off")
    with pytest.raises(InputError, match="no class folders"):
        labelled_files(tmp_path)
    (tmp_path / "labels.csv").write_text("file,label\nb,1\n")
    with pytest.raises(InputError, match="no line of"):
        labelled_files(tmp_path, tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("name,label\na,1\n")
    with pytest.raises(InputError, match="file"):
        labelled_files(tmp_path, tmp_path / "labels.csv")
