from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from equivox.errors import ConfigError, InputError
from equivox.tasks.pose.train_layout import (
    ROTATE_ENDINGS,
    Annotation,
    annotate,
    match_folders,
    read_annotations,
    sort_paths,
)

HEADER = "frame_id,rot_x,rot_y,rot_z,fold\n"


def folder_of(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).write_bytes(b"x")
    return path


def table_of(path: Path, text: str) -> Path:
    file = path / "annotations.csv"
    file.write_text(text)
    return file


def test_f11_the_form_with_one_table(tmp_path: Path) -> None:
    paths = [Path(name) for name in ("ti", "tl", "vi", "vl", "a.csv", "out")]
    layout = sort_paths(paths)
    assert (layout.training_images, layout.validation_labels) == (Path("ti"), Path("vl"))
    assert layout.tables == (Path("a.csv"),)
    assert layout.results == Path("out")
    assert sort_paths(paths[:5]).results is None


@pytest.mark.parametrize(
    "order",
    [
        ("ti", "tl", "vi", "vl", "t.csv", "v.csv", "out"),
        ("ti", "tl", "t.csv", "vi", "vl", "v.csv", "out"),
    ],
)
def test_f11_the_form_with_two_tables_wherever_they_stand(order: tuple[str, ...]) -> None:
    layout = sort_paths([Path(name) for name in order])
    assert layout.tables == (Path("t.csv"), Path("v.csv"))
    assert (layout.training_labels, layout.validation_images) == (Path("tl"), Path("vi"))
    assert layout.results == Path("out")


@pytest.mark.parametrize("names", [("ti", "tl", "vi", "vl"), ("ti", "tl", "a.csv"), ("a.csv", "b.csv", "c.csv") * 2])
def test_f11_other_numbers_of_paths_say_what_is_wanted(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"folders and \d \.csv files; give TRAIN_IMAGES"):
        sort_paths([Path(name) for name in names])


def test_f11_a_single_table_without_fold_says_how_to_mend_it(tmp_path: Path) -> None:
    table = table_of(tmp_path, "frame_id,rot_x,rot_y,rot_z\na,1,2,3\n")
    with pytest.raises(InputError, match=r"no column 'fold'; add one .* or give two"):
        read_annotations(table, need_fold=True)
    assert read_annotations(table, need_fold=False) == [Annotation("a", (1.0, 2.0, 3.0), None)]


def test_the_published_example_reads(fixture_path: Callable[[str], Path]) -> None:
    rows = read_annotations(fixture_path("e3pose/25_annotations_example.csv"), need_fold=True)
    assert [row.fold for row in rows] == ["training"] * 3 + ["validation"] * 2
    assert rows[3].frame_id == "s03_f00"
    assert rows[3].angles_deg == pytest.approx((40.725944, 43.787916, -156.843623))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column frame_id, rot_x, rot_y, rot_z, fold; it has none"),
        ("filename,rot_x,rot_y,rot_z,fold\na,1,2,3,training\n", r"lacks the column frame_id .*filename"),
        ("frame_id,rotx,rot_y,rot_z,fold\na,1,2,3,training\n", r"lacks the column rot_x \(did you mean 'rotx'\?\)"),
        ("frame_id,rot_x,rot_x,rot_y,rot_z,fold\n", "has the column 'rot_x' more than once"),
        (HEADER, "has no rows below its header"),
        (HEADER + "a,1,2,3,training\na,1,2,3,validation\n", "'a' stands in lines 2 and 3; keep one"),
        (HEADER + "a,1,two,3,training\n", "line 2: rot_y is 'two'; give an angle in degrees"),
        (HEADER + "a,1,nan,3,training\n", "line 2: rot_y is 'nan'"),
        (HEADER + "a,1,2,,training\n", "line 2: rot_z is ''"),
        (HEADER + "a,1,2,3,test\n", "line 2: fold is 'test'; write training or validation"),
        (HEADER + "a,1,2,3\n", "line 2: 4 cells under 5 columns"),
        (HEADER + ",1,2,3,training\n", "line 2: frame_id is empty"),
    ],
)
def test_a_broken_table_says_where_and_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_annotations(table_of(tmp_path, text), need_fold=True)
    assert caught.value.exit_code == 3


def test_a_table_that_is_not_text_or_not_there(tmp_path: Path) -> None:
    binary = tmp_path / "a.csv"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    for path in (binary, tmp_path / "none.csv"):
        with pytest.raises(InputError, match="cannot be read as a table"):
            read_annotations(path, need_fold=True)


def test_f12_volumes_and_labels_are_matched_by_name_not_by_order(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "i", "b.nii.gz", "a.nii.gz", "c.nii", "notes.txt")
    labels = folder_of(tmp_path / "l", "c.nii.gz", "a.nii", "b.nii.gz")
    pairs = match_folders(images, labels)
    assert [(p.id, p.image.name, p.label.name) for p in pairs] == [
        ("c", "c.nii", "c.nii.gz"),  # every .nii before every .nii.gz, as published
        ("a", "a.nii.gz", "a.nii"),
        ("b", "b.nii.gz", "b.nii.gz"),
    ]


def test_f12_what_does_not_match_is_listed(tmp_path: Path) -> None:
    images, labels = folder_of(tmp_path / "i", "a.nii", "b.nii"), folder_of(tmp_path / "l", "x.nii", "y.nii")
    with pytest.raises(InputError, match=r"no label in .* for 'a', 'b' and no volume in .* for the label 'x', 'y'"):
        match_folders(images, labels)


def test_f12_a_long_list_is_cut(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "i", *(f"v{i}.nii" for i in range(9)), "z.nii")
    labels = folder_of(tmp_path / "l", "z.nii")
    with pytest.raises(InputError, match="'v4' and 4 more"):
        match_folders(images, labels)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    images, labels = folder_of(tmp_path / "i", "a.nii", "a.nii.gz"), folder_of(tmp_path / "l", "a.nii")
    with pytest.raises(InputError, match=r"a\.nii and a\.nii\.gz .* share the name 'a'"):
        match_folders(images, labels)


def test_folders_that_hold_nothing_or_are_none(tmp_path: Path) -> None:
    empty, labels = folder_of(tmp_path / "i", "readme.md"), folder_of(tmp_path / "l", "a.nii")
    with pytest.raises(InputError, match=r"holds no file that ends in \.nii, \.nii\.gz"):
        match_folders(empty, labels)
    with pytest.raises(InputError, match="is not a folder"):
        match_folders(tmp_path / "none", labels)
    folder_of(tmp_path / "z", "a.npz", "b.mgz")
    assert len(match_folders(tmp_path / "z", tmp_path / "z", endings=ROTATE_ENDINGS)) == 2


def test_f12_volumes_without_a_row_are_listed_and_rows_without_a_volume_returned(tmp_path: Path) -> None:
    pairs = match_folders(folder_of(tmp_path / "i", "a.nii", "b.nii"), folder_of(tmp_path / "l", "a.nii", "b.nii"))
    rows = [Annotation("a", (1.0, 2.0, 3.0), "training"), Annotation("c", (0.0, 0.0, 0.0), "training")]
    with pytest.raises(InputError, match="has no row for 'b'"):
        annotate(pairs, rows, fold="training", table=Path("t.csv"))
    rows.append(Annotation("b", (4.0, 5.0, 6.0), "training"))
    examples, unused = annotate(pairs, rows, fold="training", table=Path("t.csv"))
    assert [example.angles_deg for example in examples] == [(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)]
    assert unused == ["c"]


def test_a_row_of_the_other_fold_is_refused(tmp_path: Path) -> None:
    pairs = match_folders(folder_of(tmp_path / "i", "a.nii"), folder_of(tmp_path / "l", "a.nii"))
    rows = [Annotation("a", (1.0, 2.0, 3.0), "validation")]
    with pytest.raises(InputError, match="does not mark 'a' as 'training'"):
        annotate(pairs, rows, fold="training", table=Path("t.csv"))
