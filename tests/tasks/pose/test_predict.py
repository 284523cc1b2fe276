from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from equivox.errors import ConfigError, InputError, OutputError
from equivox.formats.nifti import open_scan
from equivox.formats.poses import POSE_COLUMNS, read_poses_csv
from equivox.formats.transforms.fsl import read_fsl
from equivox.formats.transforms.grid import Grid
from equivox.formats.transforms.itk import read_itk
from equivox.formats.transforms.lta import read_lta
from equivox.formats.transforms.pose_json import read_pose_json
from equivox.geometry.rotations import geodesic_angle
from equivox.geometry.space import sample_at
from equivox.run.items import Interrupted
from equivox.tasks.load import load_model
from equivox.tasks.pose.config import PredictConfig
from equivox.tasks.pose.predict import PredictRun, RunChoice, predict_poses
from equivox.weights.importing import ImportSettings, import_published

CASES = ("iso3_ras", "iso3_las_det_minus1", "aniso_oblique")
Predict = Callable[..., PredictRun]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, fixture_path: Callable[[str], Path]) -> Path:
    """The published checkpoints of fixture 23 as a model folder: small, trained, not good."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    import_published(
        fixture_path("e3pose/23_unet_tiny.ckpt"), fixture_path("e3pose/23_e3cnn_tiny.pth"), folder,
        settings=ImportSettings(segment_size=32, rotate_size=16),
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def scans(fixture_path: Callable[[str], Path]) -> Path:
    return fixture_path("e3pose/24_pipeline")


@pytest.fixture(scope="module")
def expected(fixture_path: Callable[[str], Path]) -> np.lib.npyio.NpzFile:
    return np.load(fixture_path("e3pose/24_pipeline/expected_poses.npz"))


@pytest.fixture
def predict(tiny_model: Path, tmp_path: Path) -> Predict:
    """Run on the tiny model into ``tmp_path / out`` without pictures, unless told otherwise."""

    def call(inputs: list[Path], run: RunChoice | None = None, *, out: str = "out", **options: object) -> PredictRun:
        chosen = {"model": str(tiny_model), "report": False, "viewer": "none", **options}
        config = PredictConfig(**chosen)  # type: ignore[arg-type]
        return predict_poses(inputs, tmp_path / out, config, run or RunChoice(device="cpu"))

    return call


def series(path: Path, source: Path, frames: int = 3, broken: int | None = None) -> Path:
    """The scan of ``source`` repeated as a 4D file; frame ``broken`` holds a NaN."""
    image = nibabel.load(source)
    data = np.stack([np.asarray(image.get_fdata(), dtype=np.float32)] * frames, axis=-1)
    if broken is not None:
        data[3, 3, 3, broken] = np.nan
    nibabel.save(nibabel.Nifti1Image(data, image.affine), path)
    return path


def test_table_json_and_matrix_say_the_same(predict: Predict, scans: Path, tmp_path: Path) -> None:
    run = predict([scans])
    out = tmp_path / "out"
    rows = read_poses_csv(out / "poses.csv")
    assert (out / "poses.csv").read_text().splitlines()[0] == ",".join(POSE_COLUMNS)
    document = json.loads((out / "poses.json").read_text())
    assert run.exit_code == 0
    assert [Path(row.input).name for row in rows] == sorted(f"{name}.nii.gz" for name in CASES)
    for row, record in zip(rows, document["poses"], strict=True):
        assert row.world_from_head is not None
        matrix = np.load(out / f"{row.stem}_pose.npy")
        assert matrix.shape == (4, 4)
        np.testing.assert_allclose(record["world_from_head"], matrix, atol=2e-9)
        np.testing.assert_allclose(row.world_from_head.matrix().numpy(), matrix, atol=2e-6)
        assert record["quaternion_xyzw"][3] >= 0
        assert 0 <= row.confidence <= 1
    record = json.loads((out / "run.json").read_text())
    assert record["outcome"] == "done"
    assert record["model"]["sha256"] == run.model["sha256"]
    assert all(len(entry["sha256"]) == 64 for entry in record["inputs"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("frame", ["voxel", "world"])
@pytest.mark.parametrize("direction", ["canonical-to-input", "input-to-canonical"])
def test_published_matrices_are_the_originals(
    predict: Predict, scans: Path, expected: np.lib.npyio.NpzFile, tmp_path: Path, case: str, frame: str, direction: str
) -> None:
    predict([scans / f"{case}.nii.gz"], published=True, frame=frame, direction=direction)
    found = np.load(tmp_path / "out" / f"{case}_pose.npy")
    flags = f"{case}__scanner{int(frame == 'world')}_inverse{int(direction == 'input-to-canonical')}"
    wanted = expected[flags]
    if frame == "world" and case == "iso3_las_det_minus1":  # the original's answer is a reflection there (flaw F4)
        wanted = expected[f"{case}__world_pose_after_RAS_reorientation"]
        wanted = wanted if direction == "canonical-to-input" else np.linalg.inv(wanted)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_published_defaults_to_the_voxel_frame(
    predict: Predict, scans: Path, expected: np.lib.npyio.NpzFile, tmp_path: Path
) -> None:
    predict([scans / "iso3_ras.nii.gz"], published=True)
    wanted = expected["iso3_ras__scanner0_inverse0"]
    np.testing.assert_allclose(np.load(tmp_path / "out/iso3_ras_pose.npy"), wanted, atol=1e-4)


def test_our_voxel_frame_is_a_true_map_into_voxel_indices(predict: Predict, scans: Path, tmp_path: Path) -> None:
    scan = open_scan(scans / "aniso_oblique.nii.gz")
    world = predict([scan.path]).rows[0].world_from_head
    predict([scan.path], out="voxel", frame="voxel")
    assert world is not None
    point = torch.tensor([3.0, -8.0, 5.0], dtype=torch.float64)
    voxel = torch.from_numpy(np.load(tmp_path / "voxel/aniso_oblique_pose.npy")) @ torch.cat([point, torch.ones(1)])
    torch.testing.assert_close(scan.frame(0).world_from_voxel(voxel[:3]), world.apply(point), atol=1e-6, rtol=0)


@pytest.mark.parametrize("direction", ["canonical-to-input", "input-to-canonical"])
def test_simpleitk_reads_the_transform_back_to_the_same_mapping(
    predict: Predict, scans: Path, tmp_path: Path, direction: str
) -> None:
    sitk = pytest.importorskip("SimpleITK")
    pose = predict([scans / "aniso_oblique.nii.gz"], direction=direction).rows[0].world_from_head
    assert pose is not None
    transform = sitk.ReadTransform(str(tmp_path / "out/aniso_oblique_pose.tfm"))
    mapping = pose if direction == "canonical-to-input" else pose.inverse()
    for point in ([0.0, 0.0, 0.0], [10.0, -20.0, 30.0], [-7.0, 1.5, 2.0]):
        x, y, z = mapping.apply(torch.tensor(point, dtype=torch.float64)).tolist()
        lps = transform.TransformPoint((-point[0], -point[1], point[2]))
        assert lps == pytest.approx((-x, -y, z), abs=1e-6)


def test_every_transform_format_reads_back_to_the_pose(predict: Predict, scans: Path, tmp_path: Path) -> None:
    scan = scans / "aniso_oblique.nii.gz"
    volume = open_scan(scan).frame(0)
    pose = predict([scan], out="itk").rows[0].world_from_head
    assert pose is not None
    for kind in ("lta", "fsl", "json"):
        predict([scan], out=kind, transform_format=kind)
    grid = open_scan(tmp_path / "fsl/head_grid.nii.gz")
    head = Grid(grid.affine, grid.shape)
    stem = "aniso_oblique_pose"
    found = {
        "itk": read_itk(tmp_path / f"itk/{stem}.tfm"),
        "lta": read_lta(tmp_path / f"lta/{stem}.lta"),
        "fsl": read_fsl(tmp_path / f"fsl/{stem}.mat", moving=Grid.of(volume), fixed=head),
        "json": read_pose_json(tmp_path / f"json/{stem}.json").matrix(),
    }
    for matrix in found.values():
        torch.testing.assert_close(matrix, pose.matrix(), atol=1e-5, rtol=0)


def test_mask_lies_on_the_scan_and_the_aligned_volume_in_the_head(
    predict: Predict, scans: Path, tmp_path: Path
) -> None:
    scan = open_scan(scans / "aniso_oblique.nii.gz")
    row = predict([scan.path], write_mask=True, write_aligned=True).rows[0]
    pose = row.world_from_head
    assert pose is not None
    mask = open_scan(tmp_path / "out/aniso_oblique_mask.nii.gz")
    torch.testing.assert_close(mask.affine, scan.affine, atol=1e-4, rtol=0)
    assert mask.shape == scan.shape
    inside = mask.frame(0)
    centroid = inside.world_from_voxel(inside.data[0].nonzero().double()).mean(0)
    assert float((centroid - pose.translation_mm).norm()) < 3.0
    aligned = open_scan(tmp_path / "out/aniso_oblique_aligned.nii.gz").frame(0)
    point = torch.tensor([[4.0, -3.0, 2.0]], dtype=torch.float64)  # on the grid's centre to within half a voxel
    i, j, k = aligned.voxel_from_world(point)[0].round().long().tolist()
    head_point = aligned.world_from_voxel(torch.tensor([[float(i), float(j), float(k)]]))
    expected = sample_at(scan.frame(0), pose.apply(head_point)[:, None, None])[0, 0, 0, 0]
    assert float(aligned.data[0, i, j, k]) == pytest.approx(float(expected), rel=1e-4)


def test_a_series_has_one_pose_per_frame_and_a_bad_frame_stops_no_other(
    predict: Predict, scans: Path, tmp_path: Path
) -> None:
    path = series(tmp_path / "series.nii.gz", scans / "iso3_ras.nii.gz", broken=1)
    run = predict([path], write_mask=True)
    assert [row.status == "failed" for row in run.rows] == [False, True, False]
    assert "frame 1" in run.rows[1].reason
    assert "NaN" in run.rows[1].reason
    assert run.exit_code == 1
    matrices = np.load(tmp_path / "out/series_pose.npy")
    assert matrices.shape == (3, 4, 4)
    assert np.isnan(matrices[1]).all()
    np.testing.assert_allclose(matrices[0], matrices[2])
    names = sorted(path.name for path in (tmp_path / "out").glob("*.tfm"))
    assert names == ["series_frame-000_pose.tfm", "series_frame-002_pose.tfm"]
    assert nibabel.load(tmp_path / "out/series_mask.nii.gz").shape[3] == 3


def test_python_gives_what_the_command_writes(predict: Predict, scans: Path, tiny_model: Path, tmp_path: Path) -> None:
    scan = scans / "aniso_oblique.nii.gz"
    predict([scan])
    result = load_model(tiny_model).predict(scan)
    written = json.loads((tmp_path / "out/items/aniso_oblique.json").read_text())["frames"][0]
    same = result.as_dict()
    for key in set(same) - {"seconds"}:
        assert written[key] == same[key], key


def test_noise_has_no_head_and_says_so(
    predict: Predict, tmp_path: Path, scans: Path, generator: torch.Generator
) -> None:
    noise = torch.rand(24, 24, 24, generator=generator).numpy()
    nibabel.save(nibabel.Nifti1Image(noise, np.diag([3.0, 3.0, 3.0, 1.0])), tmp_path / "noise.nii.gz")
    run = predict([tmp_path / "noise.nii.gz", scans / "iso3_ras.nii.gz"])
    assert run.rows[0].status == "no_object"
    assert run.rows[0].reason.endswith(".")
    assert run.rows[1].status in ("ok", "low_confidence")
    assert run.exit_code == 1
    assert not (tmp_path / "out/noise_pose.npy").exists()
    assert not (tmp_path / "out/noise_pose.tfm").exists()


def test_a_given_mask_replaces_the_localisation(predict: Predict, scans: Path, tmp_path: Path) -> None:
    scan = open_scan(scans / "iso3_ras.nii.gz")
    data = np.zeros(scan.shape, dtype=np.uint8)
    data[10:16, 12:18, 8:14] = 1
    nibabel.save(nibabel.Nifti1Image(data, scan.affine.numpy()), tmp_path / "mask.nii.gz")
    row = predict([scan.path], mask=str(tmp_path / "mask.nii.gz")).rows[0]
    assert row.world_from_head is not None
    center = scan.frame(0).world_from_voxel(torch.tensor([12.5, 14.5, 10.5]).double())
    assert float((row.world_from_head.translation_mm - center).norm()) < 2.0


def test_masks_in_a_folder_are_found_by_name_and_their_absence_is_told(
    predict: Predict, scans: Path, tmp_path: Path
) -> None:
    scan = open_scan(scans / "iso3_ras.nii.gz")
    data = np.zeros(scan.shape, dtype=np.uint8)
    data[10:16, 12:18, 8:14] = 1
    (tmp_path / "masks").mkdir()
    nibabel.save(nibabel.Nifti1Image(data, scan.affine.numpy()), tmp_path / "masks/iso3_ras_mask.nii.gz")
    run = predict([scan.path, scans / "aniso_oblique.nii.gz"], mask=str(tmp_path / "masks"))
    assert run.rows[0].status in ("ok", "low_confidence")
    assert run.rows[1].status == "failed"
    assert "name it aniso_oblique_mask.nii.gz" in run.rows[1].reason


def test_one_mask_file_for_two_scans_is_refused(predict: Predict, scans: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one file and there are 2 inputs"):
        predict([scans / "iso3_ras.nii.gz", scans / "aniso_oblique.nii.gz"], mask=str(tmp_path / "mask.nii.gz"))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda scan: np.zeros(scan.shape, np.uint8), "is empty"),
        (lambda scan: np.ones(scan.shape, np.uint8), "covers every voxel"),
        (lambda scan: np.eye(7, dtype=np.uint8)[None].repeat(7, 0), "lies on another grid"),
    ],
)
def test_masks_that_cannot_be_meant_are_refused(
    predict: Predict, scans: Path, tmp_path: Path, make: Callable[[object], np.ndarray], sentence: str
) -> None:
    scan = open_scan(scans / "iso3_ras.nii.gz")
    nibabel.save(nibabel.Nifti1Image(make(scan), scan.affine.numpy()), tmp_path / "mask.nii.gz")
    run = predict([scan.path], mask=str(tmp_path / "mask.nii.gz"))
    assert run.rows[0].status == "failed"
    assert sentence in run.rows[0].reason
    assert run.exit_code == 3


def test_equal_stems_give_different_files(predict: Predict, scans: Path, tmp_path: Path) -> None:
    image = nibabel.load(scans / "iso3_ras.nii.gz")
    for name in ("a.nii", "a.nii.gz"):
        nibabel.save(image, tmp_path / name)
    predict([tmp_path / "a.nii", tmp_path / "a.nii.gz"])
    assert sorted(path.name for path in (tmp_path / "out").glob("*.npy")) == ["a_nii_gz_pose.npy", "a_nii_pose.npy"]


def results(out: Path) -> dict[str, bytes]:
    """Every file whose bytes a rerun must reproduce (not the clock's)."""
    kept = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and name not in ("run.json", "report.html", "poses.json") and not name.startswith("items/"):
            content = path.read_bytes()
            if name == "poses.csv":  # all but the last column, which is a time
                content = b"\n".join(line.rpartition(b",")[0] for line in content.splitlines())
            kept[name] = content
    return kept


def test_interrupted_and_resumed_gives_the_files_of_one_run(
    predict: Predict, scans: Path, tmp_path: Path, tiny_model: Path
) -> None:
    inputs = [scans / f"{case}.nii.gz" for case in CASES]
    predict(inputs, out="whole", report=True, write_mask=True)

    def stop(done: int, total: int, outcome: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    config = PredictConfig(model=str(tiny_model), viewer="none", write_mask=True)
    with pytest.raises(Interrupted):
        predict_poses(inputs, tmp_path / "cut", config, RunChoice(device="cpu"), progress=stop)
    assert json.loads((tmp_path / "cut/run.json").read_text())["outcome"] == "interrupted"
    assert len(read_poses_csv(tmp_path / "cut/poses.csv")) == 2
    (tmp_path / "cut/.writing-12345678-x_pose.npy").write_bytes(b"half")
    run = predict(inputs, RunChoice(device="cpu", resume=True), out="cut", report=True, write_mask=True)
    assert [outcome.resumed for outcome in run.outcomes] == [True, True, False]
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    assert (tmp_path / "cut/report.html").is_file()


@pytest.mark.parametrize("damage", ["file cut", "file gone", "marker cut", "other option", "other input"])
def test_resume_does_again_what_is_not_whole(predict: Predict, scans: Path, tmp_path: Path, damage: str) -> None:
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes((scans / "iso3_ras.nii.gz").read_bytes())
    predict([scan])
    out = tmp_path / "out"
    resume = RunChoice(device="cpu", resume=True)
    assert predict([scan], resume).outcomes[0].resumed
    options: dict[str, object] = {}
    if damage == "file cut":
        (out / "scan_pose.npy").write_bytes((out / "scan_pose.npy").read_bytes()[:40])
    elif damage == "file gone":
        (out / "scan_pose.tfm").unlink()
    elif damage == "marker cut":
        (out / "items/scan.json").write_text((out / "items/scan.json").read_text()[:100])
    elif damage == "other option":
        options["write_mask"] = True
    else:
        scan.write_bytes((scans / "aniso_oblique.nii.gz").read_bytes())
    run = predict([scan], resume, **options)
    assert not run.outcomes[0].resumed
    assert np.load(out / "scan_pose.npy").shape == (4, 4)
    assert (out / "scan_pose.tfm").is_file()


def test_results_are_replaced_only_when_asked_for_and_then_wholly(
    predict: Predict, scans: Path, tmp_path: Path
) -> None:
    predict([scans / "iso3_ras.nii.gz"], write_mask=True)
    with pytest.raises(OutputError, match="--overwrite"):
        predict([scans / "aniso_oblique.nii.gz"])
    (tmp_path / "out/my notes.txt").write_text("stay")
    predict([scans / "aniso_oblique.nii.gz"], RunChoice(device="cpu", overwrite=True))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "aniso_oblique_pose.npy" in names
    assert not any(name.startswith("iso3_ras") for name in names)
    assert "my notes.txt" in names


def test_a_folder_that_is_a_file_is_refused_before_any_work(predict: Predict, scans: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="--out names a folder"):
        predict([scans])


def test_an_unreadable_reference_is_refused_before_any_work(predict: Predict, scans: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        predict([scans], reference=str(tmp_path / "none.nii.gz"), transform_format="lta")


@pytest.mark.slow
def test_two_workers_write_the_files_of_one(predict: Predict, scans: Path, tmp_path: Path) -> None:
    predict([scans], out="one")
    predict([scans], RunChoice(device="cpu", workers=2), out="two")
    assert results(tmp_path / "one") == results(tmp_path / "two")


def test_turning_the_storage_does_not_turn_the_head(predict: Predict, scans: Path, tmp_path: Path) -> None:
    """The same scan with other array axes is the same world: the mended behaviour gives one pose."""
    image = nibabel.load(scans / "iso3_ras.nii.gz")
    turned = nibabel.as_closest_canonical(image).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    nibabel.save(turned, tmp_path / "turned.nii.gz")
    first, second = (
        predict([path], out=path.stem).rows[0] for path in (scans / "iso3_ras.nii.gz", tmp_path / "turned.nii.gz")
    )
    assert first.world_from_head is not None
    assert second.world_from_head is not None
    angle = geodesic_angle(first.world_from_head.rotation[None], second.world_from_head.rotation[None])
    assert math.degrees(float(angle[0])) < 0.05
