from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equivox.errors import InputError
from equivox.formats.poses import (
    POSE_COLUMNS,
    PoseRow,
    read_poses_csv,
    read_truth_csv,
    write_poses_csv,
    write_poses_json,
)
from equivox.formats.tables import read_table
from equivox.geometry.rotations import Pose, geodesic_angle, random_rotations

LANDMARKS = "id,file,qx,qy,qz,qw,tx,ty,tz,fold\n"


def pose(seed: int = 0) -> Pose:
    draw = torch.Generator().manual_seed(seed)
    shift = 100 * torch.randn(3, generator=draw, dtype=torch.float64)
    return Pose(random_rotations(1, generator=draw)[0], shift, source="head", target="world")


def rows() -> list[PoseRow]:
    return [
        PoseRow("in/a.nii.gz", 0, "ok", "", pose(1), 0.87654, 312.5, 1.25),
        PoseRow("in/a.nii.gz", 1, "low_confidence", 'said "no", twice\nover', pose(2), 0.2, 300.0, 1.0),
        PoseRow("in/b.nii", 0, "no_object", "nothing like a head"),
        PoseRow("in/c.nii", 0, "failed", "c.nii is empty, copy it again"),
    ]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_poses_come_back_from_the_table(tmp_path: Path, seed: int) -> None:
    write_poses_csv(tmp_path / "poses.csv", [PoseRow("a.nii", 0, "ok", "", pose(seed), 0.5)])
    (row,) = read_poses_csv(tmp_path / "poses.csv")
    assert row.world_from_head is not None
    assert float(geodesic_angle(row.world_from_head.rotation, pose(seed).rotation)) < 5e-9
    assert float((row.world_from_head.translation_mm - pose(seed).translation_mm).abs().max()) <= 5.1e-7


def test_every_column_and_status_comes_back(tmp_path: Path) -> None:
    write_poses_csv(tmp_path / "poses.csv", rows())
    header = (tmp_path / "poses.csv").read_text().splitlines()[0]
    assert header == (
        "input,frame,status,reason,qx,qy,qz,qw,tx_mm,ty_mm,tz_mm,"
        "euler_x_deg,euler_y_deg,euler_z_deg,confidence,mask_volume_ml,seconds"
    )
    again = read_poses_csv(tmp_path / "poses.csv")
    assert [(r.input, r.frame, r.status, r.reason) for r in again] == [
        (r.input, r.frame, r.status, r.reason) for r in rows()
    ]
    assert [r.world_from_head is None for r in again] == [False, False, True, True]
    assert again[0].confidence == 0.8765
    assert again[0].stem == "a"


def test_the_angles_in_the_table_make_the_rotation_again(tmp_path: Path) -> None:
    from scipy.spatial.transform import Rotation

    write_poses_csv(tmp_path / "poses.csv", rows()[:1])
    (row,) = read_table(tmp_path / "poses.csv", required=POSE_COLUMNS)
    angles = [row.number(f"euler_{axis}_deg") for axis in "xyz"]
    quaternion = [row.number(f"q{axis}") for axis in "xyzw"]
    assert quaternion[3] >= 0
    expected = pose(1).rotation.numpy()
    assert Rotation.from_euler("xyz", angles, degrees=True).as_matrix() == pytest.approx(expected, abs=1e-7)
    assert Rotation.from_quat(quaternion).as_matrix() == pytest.approx(expected, abs=1e-8)


def test_the_json_twin_holds_the_full_matrix(tmp_path: Path) -> None:
    write_poses_json(tmp_path / "poses.json", rows(), version="0.0")
    document = json.loads((tmp_path / "poses.json").read_text())
    assert document["schema"] == "equivox.poses/1"
    assert document["poses"][0]["world_from_head"] == pose(1).matrix().tolist()
    assert document["poses"][2]["world_from_head"] is None


def test_the_shared_landmark_table_is_read(shared_path: Callable[[str], Path]) -> None:
    truth = read_truth_csv(shared_path("data/fetal/epi/poses.csv"))
    assert len(truth) == 29
    assert truth[0].id == "fet-01_run-1"
    assert truth[0].columns["leak_group"] == "A"
    assert truth[0].world_from_head is not None
    assert truth[0].world_from_head.translation_mm.tolist() == [14.538, 25.616, -17.743]


def test_our_own_table_serves_as_truth(tmp_path: Path) -> None:
    write_poses_csv(tmp_path / "poses.csv", rows())
    assert [(r.id, r.frame) for r in read_truth_csv(tmp_path / "poses.csv")] == [("a", 0), ("a", 1), ("b", 0), ("c", 0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; a header line with id, file"),
        ("id,file,qx,qy,qz,qw,tx,ty\n", "lacks the column tz"),
        ("id,file,qx,qy,qz,qw,tx,ty,Tz \n", "is 'Tz' meant?"),
        ("id,file,qx,qx,qz,qw,tx,ty,tz\n", "has the column 'qx' twice"),
        ("id;file;qx;qy;qz;qw;tx;ty;tz\n", "is separated by semicolons"),
        (LANDMARKS + "a,a.nii,0,0,0,1,0,0,0\n", "line 2, has 9 cells where the header has 10"),
        (LANDMARKS + "a,a.nii,0,0,0,1,0,0,0,1\na,b.nii,0,0,0,1,0,0,0,1\n", "line 3: id = a stood already in line 2"),
        (LANDMARKS + "a,a.nii,0,zero,0,1,0,0,0,1\n", "line 2, column qy, holds 'zero'; a number is needed"),
        (LANDMARKS + "a,a.nii,0,0,0,1,nan,0,0,1\n", "column tx, holds 'nan'; a finite number is needed"),
        (LANDMARKS + "a,a.nii,0,0,0,1,,0,0,1\n", "column tx, is empty"),
        (LANDMARKS + ",a.nii,0,0,0,1,0,0,0,1\n", "column id, is empty"),
        (LANDMARKS + "a,a.nii,0,0,0,0,0,0,0,1\n", "a quaternion of length 0"),
        (LANDMARKS + "a,a.nii,90,0,45,1,0,0,0,1\n", "a rotation has length 1"),
        (LANDMARKS + '"a,a.nii,0,0,0,1,0,0,0,1\n', "is no CSV table"),
    ],
)
def test_a_wrong_table_gets_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_truth_csv(tmp_path / "truth.csv")
    assert said in str(caught.value)
    assert str(tmp_path / "truth.csv") in str(caught.value)


def test_other_wrong_files_get_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(b"id,file\n\xe9\xff,a")
    for name, said in [("no.csv", "does not exist"), (".", "is not a file"), ("latin.csv", "is no UTF-8 text")]:
        with pytest.raises(InputError, match=said):
            read_truth_csv(tmp_path / name)


def test_our_own_table_is_read_strictly(tmp_path: Path) -> None:
    write_poses_csv(tmp_path / "poses.csv", rows()[:2])
    good = (tmp_path / "poses.csv").read_text()
    for old, new, said in [
        ("low_confidence", "fine", "column status, holds 'fine'; allowed are ok"),
        (",1,low", ",0,low", "stood already in line 2"),
        (",0,ok", ",0.5,ok", "a whole number is needed"),
        ("confidence,mask", "certainty,mask", "lacks the column confidence"),
    ]:
        assert old in good
        (tmp_path / "bad.csv").write_text(good.replace(old, new, 1))
        with pytest.raises(InputError, match=said):
            read_poses_csv(tmp_path / "bad.csv")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    text = "\ufeff" + LANDMARKS + "a,a.nii,0,0,0,1,0,0,0,1\n"
    (tmp_path / "t.csv").write_bytes(text.replace("\n", "\r\n").encode())
    assert read_truth_csv(tmp_path / "t.csv")[0].id == "a"
