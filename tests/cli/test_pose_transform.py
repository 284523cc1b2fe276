"""``equivox pose apply | convert | average``: their help's own examples, exit codes, JSON, one sentence per mistake."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from equivox.cli.main import main
from equivox.formats.poses import PoseRow, write_poses_csv
from equivox.formats.transforms.itk import read_itk, write_itk
from equivox.formats.transforms.pose_json import read_pose_json, write_pose_json
from equivox.geometry.rotations import Pose, rotation_about

POSE = Pose(rotation_about("z", 30.0), torch.tensor([5.0, -7.0, 11.0], dtype=torch.float64), "head", "world")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the examples of the help speak of, in the working folder."""
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
    for name in ("scan", "head_grid"):
        image = nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0]))
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, f"{name}.nii.gz")
    Path("poses").mkdir()
    np.save("poses/scan_pose.npy", POSE.matrix().numpy())
    np.save("poses/series_pose.npy", np.stack([POSE.matrix().numpy()] * 3))
    write_poses_csv("poses/poses.csv", [PoseRow("data/scan.nii.gz", 0, "ok", world_from_head=POSE)])
    write_itk("pose.tfm", POSE.matrix())
    for name in ("rater1.json", "rater2.json"):
        write_pose_json(name, POSE)
    return tmp_path


@pytest.mark.parametrize("command", ["apply", "convert", "average"])
def test_the_examples_of_the_help_run(place: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pose", command, "--help"]) == 0
    shown = capsys.readouterr().out.partition("For example:")[2].partition("╭")[0]
    examples = [f"equivox {rest}".strip() for rest in " ".join(shown.split()).split("equivox ")[1:]]
    assert len(examples) >= 2
    for example in examples:
        assert main(shlex.split(example)[1:]) == 0, example


def test_apply_prints_one_document_and_refuses_to_replace(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["pose", "apply", "scan.nii.gz", "pose.tfm", "--out", "o.nii", "--size", "9", "8", "7", "--json"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    document: dict[str, Any] = json.loads(out)
    assert document["schema"] == "equivox.pose-apply/1"
    assert document["results"][0]["shape"] == [9, 8, 7]
    assert "9 x 8 x 7 voxels: o.nii" in err
    assert main(arguments) == 2
    assert "o.nii exists already" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_frames_without_a_pose_make_the_exit_code_1(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image: Any = nibabel.load("scan.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.stack([image.get_fdata()] * 2, -1), image.affine), "series.nii")
    np.save("two.npy", np.stack([POSE.matrix().numpy(), np.full((4, 4), np.nan)]))
    assert main(["pose", "apply", "series.nii", "two.npy", "--out", "o.nii", "--size", "8", "--json"]) == 1
    out, err = capsys.readouterr()
    assert "frame 1: it has no pose" in json.loads(out)["errors"][0]["message"]
    assert "empty: series.nii, frame 1" in err


def test_convert_says_what_it_wrote(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pose", "convert", "rater1.json", "back.tfm", "--invert", "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)["results"][0]
    assert (result["fixed"], result["moving"], result["input_format"], result["format"]) == (
        "world",
        "head",
        "json",
        "itk",
    )
    assert "json to itk, head_from_world: back.tfm" in err
    torch.testing.assert_close(read_itk("back.tfm"), POSE.inverse().matrix())


def test_average_prints_the_spread(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turned = Pose(POSE.rotation @ rotation_about("x", 8.0), POSE.translation_mm + 1, "head", "world")
    write_pose_json("rater2.json", turned)
    assert main(["pose", "average", "rater1.json", "rater2.json", "--out", "mean.json"]) == 0
    err = capsys.readouterr().err
    assert "2 poses, world_from_head" in err
    assert "from the mean rotation: rms 4.000, median 4.000, max 4.000 degrees" in err
    assert "from the mean translation: rms 0.866, median 0.866, max 0.866 mm" in err
    expected = POSE.rotation @ rotation_about("x", 4.0)
    torch.testing.assert_close(read_pose_json("mean.json").rotation, expected)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("apply none.nii pose.tfm --out o.nii", 3, "none.nii does not exist"),
        ("apply scan.nii.gz none.tfm --out o.nii", 3, "none.tfm does not exist"),
        ("apply scan.nii.gz pose.tfm --out o.nii --plane oblique", 2, "oblique"),
        ("apply scan.nii.gz pose.tfm --out o.nii --size 0", 2, "--size is 0; it must be above 0"),
        ("apply scan.nii.gz pose.tfm --out o.nii --spacing-mm 1 2", 2, "--spacing-mm has 2 numbers"),
        ("apply head_grid.nii.gz poses/poses.csv --out o.nii", 3, "no inputs called head_grid.nii.gz"),
        ("convert pose.tfm o.mat", 2, "add --to itk or --to fsl"),
        ("convert pose.tfm o.mat --to fsl --moving scan.nii.gz", 2, "give them by --reference"),
        ("convert poses/series_pose.npy o.tfm --frame 3", 3, "there is no frame 3"),
        ("average rater1.json --out o.json", 2, "an average needs at least two"),
    ],
)
def test_a_mistake_is_one_sentence(
    place: Path, line: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pose", *line.split()]) == code
    err = capsys.readouterr().err
    assert said in " ".join(err.split())
    assert "Traceback" not in err
    assert not any(Path(name).exists() for name in ("o.nii", "o.mat", "o.tfm", "o.json"))
