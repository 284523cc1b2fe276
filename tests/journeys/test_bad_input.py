"""A user's mistakes: one sentence each, the right exit code, and the other inputs done."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from equivox.cli.main import main
from equivox.formats.poses import POSE_COLUMNS, read_poses_csv

QUICK = ("--no-report", "--viewer", "none", "--device", "cpu")


def image(data: np.ndarray, affine: np.ndarray | None = None) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(data.astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0]) if affine is None else affine)


def some(shape: tuple[int, ...] = (12, 12, 12)) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def save(data: np.ndarray, affine: np.ndarray | None = None) -> Callable[[Path], None]:
    return lambda path: nibabel.save(image(data, affine), path)


def with_nan() -> np.ndarray:
    data = some()
    data[1, 2, 3] = np.nan
    return data


def truncated(path: Path) -> None:
    nibabel.save(image(some()), path)
    path.write_bytes(path.read_bytes()[:-100])


def affine_in_header(affine: np.ndarray) -> Callable[[Path], None]:
    """Write the affine into the header as it is, past nibabel's own checks."""

    def write(path: Path) -> None:
        nibabel.save(image(some()), path)
        raw = bytearray(path.read_bytes())
        raw[252:256] = np.array([0, 1], dtype="<i2").tobytes()  # qform_code 0, sform_code 1
        raw[280:328] = affine[:3].astype("<f4").tobytes()
        path.write_bytes(bytes(raw))

    return write


ZERO = np.zeros((4, 4))
SINGULAR = np.array([[3.0, 3, 0, 0], [0, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
SHEARED = np.array([[3.0, 1.5, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
INFINITE = np.diag([3.0, np.inf, 3.0, 1.0])
BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "does not exist"),
    "empty": (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    "truncated": (truncated, "is truncated"),
    "text": (lambda path: path.write_text("hello, this is no image at all"), "is not a NIfTI or MGH file"),
    "nan": (save(with_nan()), "NaN"),
    "infinite": (save(np.where(some() == 7, np.inf, some())), "infinite"),
    "constant": (save(np.full((12, 12, 12), 5.0)), "the same value 5"),
    "flat": (save(some((12, 12))), "is 2D"),
    "five": (save(some((6, 6, 6, 2, 2))), "is 5D"),
    "one slice": (save(some((12, 12, 1))), "one slice"),
    "zero affine": (affine_in_header(ZERO), "singular affine"),
    "singular affine": (affine_in_header(SINGULAR), "singular affine"),
    "sheared affine": (affine_in_header(SHEARED), "sheared affine"),
    "infinite affine": (affine_in_header(INFINITE), "affine with NaN or infinite"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_one_bad_file_is_one_sentence_and_exit_code_3(
    kind: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, sentence = BAD_FILES[kind]
    path = tmp_path / "bad.nii"
    make(path)
    code = main(["pose", "predict", str(path), "--out", str(tmp_path / "out"), *QUICK])
    rows = read_poses_csv(tmp_path / "out/poses.csv")
    said = capsys.readouterr().err
    assert code == 3
    assert [row.status for row in rows] == ["failed"]
    assert sentence in rows[0].reason
    assert rows[0].reason.endswith(".")
    assert "\n" not in rows[0].reason
    assert "Traceback" not in said
    assert rows[0].reason in said


def test_all_bad_files_together_do_not_stop_the_good_one(
    home: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for number, (make, _) in enumerate(BAD_FILES.values()):
        paths.append(tmp_path / f"bad{number}.nii")
        make(paths[-1])
    middle = len(paths) // 2
    inputs = [*paths[:middle], scans / "iso3_ras.nii.gz", *paths[middle:]]
    code = main(["pose", "predict", *map(str, inputs), "--out", str(tmp_path / "out"), "--json", *QUICK])
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert code == 1
    assert len(document["results"]) == len(inputs)
    assert [error["input"] for error in document["errors"]] == [str(path) for path in paths]
    assert document["results"][middle]["status"] in ("ok", "low_confidence")
    assert (tmp_path / "out/iso3_ras_pose.npy").is_file()
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["outcome"] == "some_failed"
    assert len(record["failures"]) == len(paths)


def test_a_dicom_folder_is_told_of_dcm2niix(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "dicom"
    folder.mkdir()
    (folder / "IM0001").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100)
    code = main(["pose", "predict", str(folder), "--out", str(tmp_path / "out"), *QUICK])
    assert code == 3
    assert "dcm2niix" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text.replace("qw", "w_q"), "lacks the column"),
        (lambda text: text.replace("confidence", "status", 1), "column 'status' twice"),
        (lambda text: text + text.splitlines()[1] + "\n", "stood already in line"),
        (lambda text: text.replace(",ok,", ",fine,"), "allowed are ok"),
        (lambda text: text.replace("0.500000000", "half", 1), "a number is needed"),
        (lambda text: "", "is empty"),
    ],
)
def test_tables_that_cannot_be_used_are_told_where(
    change: Callable[[str], str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "a.nii.gz,0,ok,,0.500000000,0.500000000,0.500000000,0.500000000,1,2,3,90,0,90,0.9,300,1"
    good = ",".join(POSE_COLUMNS) + "\n" + line + "\n"
    (tmp_path / "poses.csv").write_text(change(good))
    (tmp_path / "truth.csv").write_text(good)
    code = main(["pose", "evaluate", str(tmp_path / "poses.csv"), str(tmp_path / "truth.csv")])
    said = capsys.readouterr().err
    assert code == 3
    assert sentence in said
    assert "poses.csv" in said
    assert "Traceback" not in said


def test_ids_that_do_not_match_are_listed_and_none_at_all_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = "0.5,0.5,0.5,0.5,1,2,3,90,0,90,0.9,300,1"
    header = ",".join(POSE_COLUMNS)
    (tmp_path / "poses.csv").write_text(f"{header}\na.nii.gz,0,ok,,{numbers}\nextra.nii.gz,0,ok,,{numbers}\n")
    (tmp_path / "truth.csv").write_text(f"{header}\na.nii.gz,0,ok,,{numbers}\nb.nii.gz,0,ok,,{numbers}\n")
    options = ["--resamples", "10", "--out", str(tmp_path / "evaluation")]
    assert main(["pose", "evaluate", str(tmp_path / "poses.csv"), str(tmp_path / "truth.csv"), *options]) == 0
    said = capsys.readouterr().err
    assert "not matched: predicted extra.nii.gz" in said
    assert "not matched: truth b" in said
    (tmp_path / "truth.csv").write_text(f"{header}\nother.nii.gz,0,ok,,{numbers}\n")
    assert main(["pose", "evaluate", str(tmp_path / "poses.csv"), str(tmp_path / "truth.csv"), *options]) != 0


def test_results_in_the_way_are_not_replaced(
    home: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/poses.csv").write_text("mine")
    code = main(["pose", "predict", str(scans / "iso3_ras.nii.gz"), "--out", str(tmp_path / "out"), *QUICK])
    assert code == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "out/poses.csv").read_text() == "mine"


def test_an_unknown_model_and_a_broken_one_are_exit_code_4(
    home: Path, tiny_model: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["pose", "predict", str(scans / "iso3_ras.nii.gz"), "--out", str(tmp_path / "out"), *QUICK]
    assert main([*common, "--model", "fetal-head"]) == 4
    assert "did you mean 'fetal-head-epi'" in capsys.readouterr().err
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    assert main([*common, "--model", str(broken)]) == 4
    assert "damaged" in capsys.readouterr().err
    assert not (tmp_path / "out/poses.csv").exists()


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(scans: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the aligned volume does not fit, the rest does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    arguments = ["pose", "predict", str(scans / "iso3_ras.nii.gz"), "--out", str(tmp_path / "out"), "--write-aligned"]
    words = [*arguments, "--model", str(tiny_model), *QUICK]
    script = f"import sys; from equivox.cli.main import main; sys.exit(main({words!r}))"
    done = subprocess.run([sys.executable, "-c", script], preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot be written (File too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").rglob("*aligned*"))
    assert not list((tmp_path / "out").rglob(".writing-*"))
