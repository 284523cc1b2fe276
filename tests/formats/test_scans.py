from __future__ import annotations

import sys
from pathlib import Path

import pytest

from equivox.errors import InputError, MissingExtraError
from equivox.formats.scans import find_scans


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def found(root: Path, *inputs: str) -> list[str]:
    entries = find_scans([str(root / text) if text else str(root) for text in inputs])
    assert not [entry.problem for entry in entries if entry.problem]
    return [entry.path.relative_to(root).as_posix() for entry in entries]


def test_files_come_in_the_order_given_and_once(tmp_path: Path) -> None:
    touch(tmp_path, "b.nii.gz", "a.nii")
    assert found(tmp_path, "b.nii.gz", "a.nii", "*.nii*", "./b.nii.gz") == ["b.nii.gz", "a.nii"]


def test_a_folder_gives_its_scans_sorted_and_leaves_masks_and_others_out(tmp_path: Path) -> None:
    touch(tmp_path, "s2.nii", "s1.nii.gz", "s3.mgz", "s1_mask.nii.gz", "notes.txt", ".hidden.nii", "deep/s4.nii")
    assert found(tmp_path, "") == ["s1.nii.gz", "s2.nii", "s3.mgz"]
    assert found(tmp_path, "s1_mask.nii.gz") == ["s1_mask.nii.gz"], "naming a file takes it"
    assert found(tmp_path, "**/*.nii") == ["deep/s4.nii", "s2.nii"]


def test_a_bids_root_gives_anat_and_func_of_every_subject(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "dataset_description.json",
        "sub-02/anat/sub-02_T2w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_run-1_T2w.nii.gz",
        "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz",
        "sub-01/ses-a/dwi/sub-01_ses-a_dwi.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_desc-brain_mask.nii.gz",
        "derivatives/equivox/sub-01/anat/sub-01_T2w.nii.gz",
    )
    first = [
        "sub-01/ses-a/anat/sub-01_ses-a_run-1_T2w.nii.gz",
        "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz",
    ]
    assert found(tmp_path, "") == [*first, "sub-02/anat/sub-02_T2w.nii.gz"]
    assert found(tmp_path, "sub-01") == first


@pytest.mark.parametrize(
    ("names", "text", "said"),
    [
        (["a.nii.gz"], "b.nii.gz", "b.nii.gz does not exist; did you mean a.nii.gz?"),
        ([], "nothing.nii", "nothing.nii does not exist; check the path."),
        ([], "*.nii", "No file matches"),
        (["readme.txt"], ".", "holds no scan (.nii.gz, .nii, .mgz, .mgh)"),
        (["deep/a.nii"], ".", "give a glob like"),
        (["series/IM0001.dcm"], ".", "dcm2niix"),
    ],
)
def test_a_name_that_leads_to_no_scan_is_one_sentence_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], text: str, said: str
) -> None:
    good = touch(tmp_path / "good", "g.nii") / "g.nii"
    work = touch(tmp_path / "work", *names)
    work.mkdir(exist_ok=True)
    monkeypatch.chdir(work)
    problem, scan = find_scans([text, good])
    assert said in problem.problem
    assert problem.problem.endswith((".", "?"))
    assert scan.path == good
    assert not scan.problem


def test_a_dicom_folder_is_known_by_its_content_too(tmp_path: Path) -> None:
    (tmp_path / "0001").write_bytes(b"\0" * 128 + b"DICM...")
    (entry,) = find_scans([tmp_path])
    assert f"dcm2niix -z y -o OUT {tmp_path}" in entry.problem


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["a.nii", "a.nii.gz"], ["a_nii", "a_nii_gz"]),
        (["a.nii", "b.nii", "a.mgz"], ["a_nii", "b", "a_mgz"]),
        (["one/x.nii", "two/x.nii"], ["one_x", "two_x"]),
        (["p/one/img/x.nii", "p/two/img/x.nii"], ["one_img_x", "two_img_x"]),
        (["A.nii", "sub/a.nii"], ["{folder}_A", "sub_a"]),
    ],
)
def test_inputs_of_one_stem_get_distinct_output_names(tmp_path: Path, names: list[str], stems: list[str]) -> None:
    touch(tmp_path, *names)
    entries = find_scans([tmp_path / name for name in names])
    assert [entry.stem for entry in entries] == [stem.format(folder=tmp_path.name) for stem in stems]


def test_stems_stay_distinct_when_the_first_remedy_makes_a_new_clash(tmp_path: Path) -> None:
    names = ["a.nii", "a.nii.gz", "a_nii.nii", "q/a.nii"]
    touch(tmp_path, *names)
    stems = [entry.stem.casefold() for entry in find_scans([tmp_path / name for name in names])]
    assert len(set(stems)) == 4


def test_no_input_is_a_mistake() -> None:
    with pytest.raises(InputError, match="No input was given"):
        find_scans([])


def test_a_folder_without_rights_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, *rest: object) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refused)  # root, who runs the tests in containers, may read everything
    (entry,) = find_scans([tmp_path])
    assert entry.problem == f"{tmp_path} cannot be searched (Permission denied); check its rights."


def test_without_the_reader_the_extra_is_named_before_any_scan_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingExtraError, match=r"equivox\[mri\]"):
        find_scans([touch(tmp_path, "a.nii")])
