"""Simulated stacks as files: what training reads says the same as the poses, and a run can be repeated and resumed."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from equivox.errors import ConfigError, InputError, OutputError
from equivox.formats.nifti import open_scan, read_volume
from equivox.formats.poses import read_truth_csv
from equivox.run.batch import RunChoice
from equivox.simulate.stack_config import StackSimulation
from equivox.tasks.pose.loader import RotateSamples, head_from_ras, rotation_of
from equivox.tasks.pose.train_config import rotate_preset
from equivox.tasks.pose.train_layout import annotate, match_folders, read_annotations
from equivox.tasks.simulate.head import HeadOutcome, simulate_heads_to_files
from equivox.tasks.simulate.head_one import array_angles_deg

SMALL = StackSimulation(thick_slices=0.0, head_voxel_mm=4.0, mode_weights=(0.0, 0.0, 1.0, 0.0), cut_head=0.0)
CPU = RunChoice(device="cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("heads")
    run = simulate_heads_to_files(out, SMALL, CPU, count=2, validation=1, seed=5)
    assert run.exit_code == 0
    return out


def test_annotations_and_poses_say_the_same(made: Path) -> None:
    truth = {row.id: row for row in read_truth_csv(made / "poses.csv")}
    for row in read_annotations(made / "annotations.csv", need_fold=True):
        volume = read_volume(made / truth[row.frame_id].file)
        pose = truth[row.frame_id].world_from_head
        assert pose is not None
        seen = head_from_ras(rotation_of(row.angles_deg), volume)
        torch.testing.assert_close(seen, pose.rotation.mT @ volume.reorient("RAS").direction, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mirrored", [False, True])
def test_angles_of_left_handed_arrays_are_a_rotation_that_training_undoes(
    mirrored: bool, generator: torch.Generator
) -> None:
    from equivox.geometry.rotations import random_rotations

    rotation, direction = random_rotations(2, generator=generator)
    if mirrored:
        direction = direction * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    found = rotation_of(array_angles_deg(direction, rotation))
    assert float(torch.linalg.det(found)) == pytest.approx(1.0)
    wanted = rotation.mT @ direction
    if mirrored:
        wanted = wanted * torch.tensor([[-1.0], [1.0], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)


def test_training_reads_the_folders(made: Path) -> None:
    pairs = match_folders(made / "training" / "img", made / "training" / "lab")
    rows = read_annotations(made / "annotations.csv", need_fold=True)
    examples, unused = annotate(pairs, rows, fold="training", table=made / "annotations.csv")
    assert unused == []
    settings = rotate_preset("equivox").with_values(image_size_voxels=24)
    sample = RotateSamples(examples, settings, training=False, seed=0).sample(0, 0)
    assert tuple(sample["image"].shape) == (1, 24, 24, 24)
    torch.testing.assert_close(torch.linalg.det(sample["head_from_image"]), torch.tensor(1.0))


def test_the_centre_of_the_table_lies_in_the_brain(made: Path) -> None:
    for row in read_truth_csv(made / "poses.csv"):
        volume = read_volume(made / row.file)
        labels = open_scan(made / row.file.replace("/img/", "/lab/")).labels()
        assert row.world_from_head is not None
        i, j, k = volume.voxel_from_world(row.world_from_head.translation_mm).round().long().tolist()
        assert int(labels[i, j, k]) == 1


def test_parameters_are_written_for_every_stack(made: Path) -> None:
    with (made / "parameters.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["frame_id"] for row in rows] == ["sim-00000", "sim-00001", "val-00000"]
    for row in rows:
        drawn = json.loads((made / "parameters" / f"{row['frame_id']}.json").read_text())["drawn"]
        assert drawn["subject"]["mode"] == "procedural"
        assert float(row["noise_ratio"]) == pytest.approx(drawn["acquisition"]["noise_ratio"], abs=1e-3)
        assert len(drawn["motion"]["turn_from_label_deg"]) == int(row["nz"])
    text = (made / "README.md").read_text()
    assert "| noise_ratio | 11 to 24 |" in text
    assert json.loads((made / "run.json").read_text())["seed"] == 5


def test_more_stacks_change_no_earlier_one_and_resume_keeps_what_is_whole(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "more"
    simulate_heads_to_files(out, SMALL, CPU, count=1, validation=0, seed=5)
    first = read_volume(made / "training" / "img" / "sim-00000.nii.gz")
    assert torch.equal(first.data, read_volume(out / "training" / "img" / "sim-00000.nii.gz").data)
    states: dict[str, bool] = {}

    def note(done: int, total: int, outcome: HeadOutcome) -> None:
        states[outcome.job.id] = outcome.resumed

    simulate_heads_to_files(out, SMALL, replace(CPU, resume=True), count=2, validation=0, seed=5, progress=note)
    assert states == {"sim-00000": True, "sim-00001": False}


def test_what_is_there_is_not_replaced_unasked(made: Path) -> None:
    with pytest.raises(OutputError, match="exists already; pass --overwrite"):
        simulate_heads_to_files(made, SMALL, CPU, count=2, validation=1, seed=5)
    with pytest.raises(OutputError, match=r"sim-00001.nii.gz and \d+ more are of an earlier run"):
        simulate_heads_to_files(made, SMALL, replace(CPU, overwrite=True), count=1, validation=1, seed=5)


def test_counts_and_templates_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--count is 0"):
        simulate_heads_to_files(tmp_path / "a", SMALL, count=0)
    with pytest.raises(ConfigError, match="--validation is -1"):
        simulate_heads_to_files(tmp_path / "a", SMALL, count=1, validation=-1)
    with pytest.raises(InputError, match="is not a folder"):
        simulate_heads_to_files(tmp_path / "a", SMALL, count=1, templates=tmp_path / "none")
    with pytest.raises(InputError, match="holds no template of 24 weeks or more"):
        simulate_heads_to_files(tmp_path / "a", SMALL, count=1, templates=tmp_path)
    assert not (tmp_path / "a").exists()
