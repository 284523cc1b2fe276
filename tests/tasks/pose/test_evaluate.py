from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from equivox.errors import InputError, OutputError
from equivox.formats.nifti import write_volume
from equivox.formats.poses import PoseRow, TruthRow, write_poses_csv
from equivox.geometry.rotations import Pose, random_rotations, rotation_about
from equivox.geometry.space import Volume
from equivox.tasks.pose.config import EvaluateConfig
from equivox.tasks.pose.consistency import Consistency
from equivox.tasks.pose.evaluate import evaluate_poses, write_evaluation
from equivox.tasks.pose.evaluate_page import flip_lines, render_evaluation, summary_lines
from equivox.tasks.pose.heldout import demo_rows, demo_table, read_heldout
from equivox.tasks.pose.matching import match_rows

COUNT = 12


def truth_poses() -> list[Pose]:
    rotations = random_rotations(COUNT, generator=torch.Generator().manual_seed(3))
    shift = torch.tensor([10.0, -20.0, 30.0], dtype=torch.float64)
    return [Pose(rotation, shift + index, "head", "world") for index, rotation in enumerate(rotations)]


def name(index: int) -> str:
    return f"fet-{index // 2:02d}_run-{index % 2 + 1}"


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Twelve stacks of six fetuses in three folds; one stack's landmarks are in doubt."""
    lines = ["id,file,fetus,leak_group,fold,ga_weeks,dz,motion_index,flags,qx,qy,qz,qw,tx,ty,tz"]
    for index, pose in enumerate(truth_poses()):
        flags = "landmark_asymmetry|other" if index == 11 else ""
        group = "ABC"[index // 4]
        numbers = [*pose.quaternion_xyzw().tolist(), *pose.translation_mm.tolist()]
        lines.append(
            f"{name(index)},img/{name(index)}_epi.nii.gz,fet-{index // 2:02d},{group},{index // 4},"
            f"{26 + index},{3.0 if index % 2 else 4.5},{0.7 if index < 6 else 1.3},{flags},"
            + ",".join(f"{value:.12f}" for value in numbers)
        )
    path = tmp_path / "truth.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def predicted(tmp_path: Path, errors: Sequence[torch.Tensor | None]) -> Path:
    """A table whose rows are off by the given rotations (in the head's frame) and by 3 mm; None: no head found."""
    rows = []
    for index, (pose, error) in enumerate(zip(truth_poses(), errors, strict=True)):
        file = f"scans/{name(index)}_epi.nii.gz"
        if error is None:
            rows.append(PoseRow(file, 0, "no_object", "Nothing looks like a head."))
            continue
        shifted = pose.translation_mm + torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64)
        rows.append(PoseRow(file, 0, "ok", "", Pose(pose.rotation @ error, shifted, "head", "world"), 0.9, 300.0, 1.0))
    folder = tmp_path / "poses"
    folder.mkdir(exist_ok=True)
    write_poses_csv(folder / "poses.csv", rows)
    return folder


def test_known_errors_come_out_and_a_flip_is_said_aloud(tmp_path: Path, truth: Path) -> None:
    errors: list[torch.Tensor | None] = [rotation_about("x", 8.0)] * COUNT
    errors[2] = rotation_about("y", 180.0)
    errors[5] = None
    folder = predicted(tmp_path, errors)
    result = evaluate_poses(EvaluateConfig(predicted=folder, truth=truth, resamples=200))
    primary, everything = result.summaries["primary"], result.summaries["all"]
    assert (primary.stacks, everything.stacks, primary.subjects) == (11, 12, 6)
    assert primary.by_stack["rotation_median_deg"].value == pytest.approx(8.0, abs=1e-4)
    assert primary.by_stack["share_below_10_deg"].value == pytest.approx(9 / 11)  # one flip, one without an answer
    assert primary.by_stack["share_flipped"].value == pytest.approx(1 / 11)
    assert (primary.flips, primary.without_answer, primary.flips_by_axis) == (1, 1, {"x": 0, "y": 1, "z": 0})
    assert primary.by_stack["center_median_mm"].value == pytest.approx(3.0, abs=1e-4)
    assert primary.by_stack["pitch_median_deg"].value == pytest.approx(8.0, abs=1e-4)
    assert result.summaries["primary_calibrated"].by_stack["rotation_median_deg"].value < 0.01
    assert result.offsets_deg["0"] == pytest.approx(8.0, abs=1e-3)
    lines = flip_lines(result)
    assert len(lines) == 1
    assert lines[0].startswith("FLIPPED  fet-01_run-1: 180° off")
    assert "front-back" in lines[0]
    assert "11" in summary_lines(result)[1]


def test_strata_split_the_primary_set(tmp_path: Path, truth: Path) -> None:
    folder = predicted(tmp_path, [rotation_about("z", float(index)) for index in range(COUNT)])
    strata = evaluate_poses(EvaluateConfig(predicted=folder, truth=truth, resamples=20)).strata
    assert strata["motion index ≤ 1"].stacks + strata["motion index > 1"].stacks == 11
    assert strata["slices of 3 mm"].stacks == 5  # the sixth is flagged
    assert strata["younger than 30 weeks"].stacks == 4
    assert strata["motion index ≤ 1"].by_stack["rotation_median_deg"].value == pytest.approx(2.5, abs=1e-4)
    assert strata["status ok"].stacks == 11


def test_baselines_are_beside_and_what_is_missing_is_told(tmp_path: Path, truth: Path) -> None:
    folder = predicted(tmp_path, [rotation_about("z", 1.0)] * COUNT)
    result = evaluate_poses(EvaluateConfig(predicted=folder, truth=truth, resamples=20))
    assert result.baselines["random rotation"].median_deg == pytest.approx(132.3, abs=0.05)
    assert result.baselines["mean rotation of the other folds"].stacks == 11
    assert any("mask axes" in note and "--write-mask" in note for note in result.notes)
    grid = torch.stack(torch.meshgrid(*[torch.arange(40.0, dtype=torch.float64) * 3 - 58.5] * 3, indexing="ij"), -1)
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = -58.5
    inside = ((grid @ truth_poses()[0].rotation) / torch.tensor([43.0, 50.0, 34.0])).norm(dim=-1) < 1
    write_volume(folder / f"{name(0)}_epi_mask.nii.gz", Volume(inside[None].float(), affine), dtype="uint8")
    again = evaluate_poses(EvaluateConfig(predicted=folder, truth=truth, resamples=20))
    oracle = again.baselines["mask axes, signs by an oracle"]
    assert oracle.stacks == 1
    assert oracle.median_deg < 2.0


def test_one_fold_alone_is_not_calibrated_and_says_why(tmp_path: Path, truth: Path) -> None:
    text = truth.read_text().splitlines()
    truth.write_text("\n".join(text[:5]) + "\n")  # four stacks, all of fold 0
    folder = predicted(tmp_path, [rotation_about("z", 1.0)] * COUNT)
    result = evaluate_poses(EvaluateConfig(predicted=folder, truth=truth, resamples=20))
    assert result.calibrated is None
    assert "primary_calibrated" not in result.summaries
    assert any("Not calibrated" in note for note in result.notes)
    assert sum("no such file or id" in line for line in result.unmatched) == 8


def test_files_are_whole_and_json_has_no_nan(tmp_path: Path, truth: Path) -> None:
    errors: list[torch.Tensor | None] = [rotation_about("x", 3.0)] * COUNT
    errors[1] = None
    folder = predicted(tmp_path, errors)
    config = EvaluateConfig(predicted=folder, truth=truth, resamples=20, consistency=True)
    lost = float("nan")
    checked = {
        "a": Consistency((1.0, 20.0), (2.0,), 3.0, (4.0,), lost),
        "b": Consistency((), (), lost, (), lost, reason="no head"),
    }
    result = evaluate_poses(config, consistency=lambda rows: checked)
    page = render_evaluation(result)
    paths = write_evaluation(result, folder, page=page, overwrite=False)
    assert [path.name for path in paths] == ["evaluation.json", "evaluation_errors.csv", "evaluation.html"]
    document = json.loads(paths[0].read_text(), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert document["stacks"][1]["rotation_error_deg"] is None
    assert document["consistency"]["a"]["rotation_cube"]["share_above_10_deg"] == 0.5
    assert "not a medical device" in page
    assert "no pose: no head" in page
    assert len(paths[1].read_text().splitlines()) == COUNT + 1
    with pytest.raises(OutputError, match="--overwrite"):
        write_evaluation(result, folder, page=page, overwrite=False)


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path, truth: Path) -> None:
    folder = predicted(tmp_path, [rotation_about("z", float(index)) for index in range(COUNT)])
    config = EvaluateConfig(predicted=folder, truth=truth, resamples=300)
    assert evaluate_poses(config).as_dict() == evaluate_poses(config).as_dict()


def row(file: str, frame: int = 0) -> PoseRow:
    return PoseRow(file, frame, "ok", "", truth_poses()[0], 1.0, 1.0, 1.0)


def true(identifier: str, file: str, frame: int = 0) -> TruthRow:
    return TruthRow(identifier, file, frame, truth_poses()[0])


def test_rows_match_by_file_name_before_the_id() -> None:
    matched = match_rows([row("x/a_scan.nii.gz")], [true("a", "other.nii.gz"), true("b", "img/a_scan.nii.gz")])
    assert matched.pairs[0][1].id == "b"
    assert matched.unmatched == ("truth a: not predicted",)


def test_an_id_matches_only_whole_and_the_longest_wins() -> None:
    table = [true("fet-1", "-"), true("fet-10", "--"), true("fet-10_run-2", "---")]
    found = match_rows([row("fet-10_run-2_epi.nii.gz"), row("fet-10.nii"), row("fet-1_x.nii")], table)
    assert [pair[1].id for pair in found.pairs] == ["fet-10_run-2", "fet-10", "fet-1"]
    with pytest.raises(InputError, match="none of 1 predicted rows"):
        match_rows([row("fet-1x.nii.gz")], table)


def test_frames_must_agree_and_no_truth_serves_twice() -> None:
    found = match_rows(
        [row("a.nii.gz", 0), row("a.nii.gz", 1), row("a_2.nii.gz", 0)], [true("a", "a.nii.gz"), true("b", "b.nii.gz")]
    )
    assert len(found.pairs) == 1
    assert [line.split(":")[0] for line in found.unmatched] == [
        "predicted a.nii.gz, frame 1", "predicted a_2.nii.gz", "truth b",
    ]  # fmt: skip
    assert "already matched with a.nii.gz" in found.unmatched[1]


def test_the_demo_puts_the_held_out_error_beside_the_seen_one(tmp_path: Path, truth: Path) -> None:
    errors = [rotation_about("x", 5.0)] * COUNT
    errors[1] = rotation_about("z", 175.0)
    evaluation = evaluate_poses(EvaluateConfig(predicted=predicted(tmp_path, errors), truth=truth, resamples=20))
    model = tmp_path / "model"
    model.mkdir()
    assert read_heldout(model) == {}
    lines = ["id,fold,rotation_error_deg,center_error_mm", f"{name(0)},0,21.5,6.25", f"{name(2)},1,nan,"]
    (model / "heldout.csv").write_text("\n".join(lines))
    rows = demo_rows(evaluation, model)
    assert rows[2].heldout_rotation_error_deg is None
    table = demo_table(rows[:2])
    assert table[1].split() == [name(0), "ok", "0.90", "5.0°", "3.0", "mm", "21.5°", "6.2", "mm"]
    assert table[2].endswith("FLIPPED")
    assert "not known" in table[2]
