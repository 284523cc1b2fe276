from __future__ import annotations

import json
from pathlib import Path

import pytest

from equivox.errors import OutputError
from equivox.formats.atomic import atomic_path, require_absent, require_folder, write_json, write_text


def half_written(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt


def write_to_a_full_disk(path: Path) -> None:
    with atomic_path(path), Path("/dev/full").open("w") as full:
        full.write("x")


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt):
        half_written(tmp_path / "a.txt")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_the_temporary_name_keeps_the_ending(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "deep" / "a.nii.gz") as temporary:
        assert temporary.name.endswith("a.nii.gz")
        assert temporary.parent == tmp_path / "deep"
        temporary.write_bytes(b"x")
    assert (tmp_path / "deep" / "a.nii.gz").read_bytes() == b"x"


def test_json_has_no_nan_and_a_failed_document_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    write_json(tmp_path / "b.json", {"µ": 1})
    assert json.loads((tmp_path / "b.json").read_text()) == {"µ": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be written \(Not a directory\)|cannot be written \(File exists\)"):
        write_text(tmp_path / "file" / "a.txt", "")
    with pytest.raises(OutputError, match="is a file; --out names a folder"):
        require_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be written"):
        require_folder("/proc/nowhere")
    assert require_folder(tmp_path / "new" / "deep").is_dir()
    assert list((tmp_path / "new" / "deep").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left on device"):
        write_to_a_full_disk(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_results_are_not_replaced_unasked(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "")
    write_text(tmp_path / "b", "")
    require_absent([tmp_path / "c"], overwrite=False)
    require_absent([tmp_path / "a"], overwrite=True)
    with pytest.raises(
        OutputError, match=r"a \(and 1 more\) exists already; pass --overwrite to replace them or choose"
    ):
        require_absent([tmp_path / "a", tmp_path / "b", tmp_path / "c"], overwrite=False)
