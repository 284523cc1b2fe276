"""The published pipeline from file to 4x4 (fixture 24), and every mend of it that inference knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.errors import ConfigError, GeometryError, InputError
from equivox.formats.nifti import read_volume
from equivox.geometry.rotations import geodesic_angle, rotation_about
from equivox.geometry.space import Volume
from equivox.nets.pose import PoseNet
from equivox.nets.unet import UNet
from equivox.tasks.pose.estimate import Estimator
from equivox.tasks.pose.published import PublishedEstimator, PublishedSettings
from equivox.tasks.pose.published_frames import published_matrix
from equivox.tasks.pose.published_grid import (
    bounding_box,
    centered_cube,
    covering_input,
    object_box,
    rotation_input,
    segmentation_input,
)
from equivox.weights.folder import ModelFolder
from equivox.weights.importing import ImportSettings, import_published

FindFixture = Callable[[str], Path]
CASES = ["iso3_ras", "iso3_las_det_minus1", "aniso_oblique"]
LEFT_HANDED = "iso3_las_det_minus1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, fixture_path: FindFixture) -> ModelFolder:
    """The tiny checkpoints, imported."""
    return import_published(
        fixture_path("e3pose/23_unet_tiny.ckpt"),
        fixture_path("e3pose/23_e3cnn_tiny.pth"),
        tmp_path_factory.mktemp("models") / "tiny",
        settings=ImportSettings(segment_size=32, rotate_size=16),
    )


@pytest.fixture(scope="module")
def published(folder: ModelFolder) -> PublishedEstimator:
    return PublishedEstimator.from_folder(folder, behaviour="published")


@pytest.fixture(scope="module")
def mended(folder: ModelFolder) -> PublishedEstimator:
    return PublishedEstimator.from_folder(folder.path)


@pytest.fixture(scope="module")
def expected(fixture_path: FindFixture) -> dict[str, np.ndarray]:
    with np.load(fixture_path("e3pose/24_pipeline/expected_poses.npz")) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def volumes(fixture_path: FindFixture) -> dict[str, Volume]:
    return {case: read_volume(fixture_path(f"e3pose/24_pipeline/{case}.nii.gz")) for case in CASES}


def _assert_pose(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours[:3, :3], theirs[:3, :3], atol=1e-4)
    np.testing.assert_allclose(ours[:3, 3], theirs[:3, 3], atol=1e-4)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scanner_space", [False, True])
@pytest.mark.parametrize("inverse", [False, True])
def test_the_saved_matrix_is_the_original_one_under_every_flag(
    case: str,
    scanner_space: bool,
    inverse: bool,
    published: PublishedEstimator,
    volumes: dict[str, Volume],
    expected: dict[str, np.ndarray],
) -> None:
    matrix = published.published_matrix(volumes[case], scanner_space=scanner_space, input_to_canonical=inverse)
    assert matrix is not None
    assert matrix.dtype == torch.float64
    assert float(torch.linalg.det(matrix[:3, :3])) == pytest.approx(1.0)
    right = expected[f"{case}__scanner{int(scanner_space)}_inverse{int(inverse)}"]
    if case == LEFT_HANDED and scanner_space:  # the original's is a reflection (F4)
        assert np.linalg.det(right[:3, :3]) == pytest.approx(-1.0, abs=1e-6)
        right = expected[f"{case}__world_pose_after_RAS_reorientation"]
        right = np.linalg.inv(right) if inverse else right
    _assert_pose(matrix.numpy(), right)


@pytest.mark.parametrize("case", CASES)
def test_intermediate_arrays_are_the_original_ones(
    case: str, published: PublishedEstimator, volumes: dict[str, Volume], fixture_path: FindFixture
) -> None:
    path = fixture_path("e3pose/24_pipeline/expected_poses.npz").parent
    with np.load(path / "expected_poses.npz") as file:
        shape = file[f"{case}__mask_shape"]
        mask = np.unpackbits(file[f"{case}__mask"])[: int(np.prod(shape))].reshape(shape)
        affine, nine = file[f"{case}__unet_affine"], file[f"{case}__nine"]
    found = published._find(volumes[case], None)
    assert not isinstance(found, str)
    np.testing.assert_array_equal(found.mask.numpy(), mask == 1)
    np.testing.assert_allclose(found.image.affine.numpy(), affine, atol=1e-9)
    crop, _ = rotation_input(found.image.data[0], found.mask, size=16)
    with torch.inference_mode():
        ours = published.rotate.axes(crop[None, None])[0]
    # the read-out normalises, and so does the comparison: the pseudovector's length is free
    np.testing.assert_allclose(ours[3:].numpy(), nine[3:], atol=1e-4)
    np.testing.assert_allclose(ours[:3] / ours[:3].norm(), nine[:3] / np.linalg.norm(nine[:3]), atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_the_networks_inputs_are_the_original_ones(
    case: str, published: PublishedEstimator, volumes: dict[str, Volume], shared_path: FindFixture
) -> None:
    with np.load(shared_path("fixtures/e3pose/24_pipeline/expected.npz")) as file:
        unet_input, e3_input = file[f"{case}__unet_input"], file[f"{case}__e3_input"]
    np.testing.assert_allclose(segmentation_input(volumes[case], size=32).data[0].numpy(), unet_input, atol=1e-5)
    found = published._find(volumes[case], None)
    assert not isinstance(found, str)
    crop, _ = rotation_input(found.image.data[0], found.mask, size=16)
    assert crop.shape == e3_input.shape
    np.testing.assert_allclose(crop.numpy(), e3_input, atol=1e-5)


@pytest.mark.parametrize("behaviour", ["published", "mended"])
def test_f4_a_left_handed_affine_gives_a_proper_rotation_and_the_same_pose(
    behaviour: str, published: PublishedEstimator, mended: PublishedEstimator, volumes: dict[str, Volume]
) -> None:
    estimator = published if behaviour == "published" else mended
    stored_left = estimator.estimate(volumes[LEFT_HANDED]).require_pose()
    stored_right = estimator.estimate(volumes[LEFT_HANDED].reorient("RAS")).require_pose()
    torch.testing.assert_close(stored_left.matrix(), stored_right.matrix(), atol=1e-6, rtol=0)
    assert float(torch.linalg.det(stored_left.rotation)) == pytest.approx(1.0)


def test_f6_the_default_is_a_world_pose_that_ignores_how_the_file_is_stored(
    mended: PublishedEstimator, volumes: dict[str, Volume]
) -> None:
    first = mended.estimate(volumes["iso3_ras"]).require_pose()
    for codes in ("LPS", "SAR", "IPL", "LAS"):
        again = mended.estimate(volumes["iso3_ras"].reorient(codes)).require_pose()
        torch.testing.assert_close(again.matrix(), first.matrix(), atol=1e-6, rtol=0)
    shifted = volumes["iso3_ras"].affine.clone()
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3], turn[:3, 3] = rotation_about("z", 20.0), torch.tensor([5.0, -7.0, 11.0])
    moved = mended.estimate(replace(volumes["iso3_ras"], affine=turn @ shifted)).require_pose()
    torch.testing.assert_close(moved.matrix(), turn @ first.matrix(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("behaviour", ["published", "mended"])
def test_f7_where_no_object_is_found_the_answer_says_so(
    behaviour: str, published: PublishedEstimator, mended: PublishedEstimator
) -> None:
    estimator = published if behaviour == "published" else mended
    noise = torch.rand(1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    volume = Volume(noise, torch.diag(torch.tensor([3.0, 3, 3, 1], dtype=torch.float64)))
    result = estimator.estimate(volume)
    assert result.status == "no_object"
    assert result.world_from_head is None
    assert "0.8 is asked for" in result.reason
    assert estimator.published_matrix(volume) is None


def test_f7_a_speck_is_no_object(mended: PublishedEstimator, volumes: dict[str, Volume]) -> None:
    volume = volumes["iso3_ras"]
    speck = torch.zeros_like(volume.data)
    middle = [side // 2 for side in volume.shape]
    speck[0, middle[0], middle[1], middle[2]] = 1
    result = mended.estimate(volume, mask=replace(volume, data=speck))
    assert result.status == "no_object"
    assert "too small to crop" in result.reason


def test_f8_what_cannot_have_a_pose_is_refused(mended: PublishedEstimator) -> None:
    affine = torch.diag(torch.tensor([3.0, 3, 3, 1], dtype=torch.float64))
    with pytest.raises(InputError, match="same value 7 everywhere"):
        mended.estimate(Volume(torch.full((1, 16, 16, 16), 7.0), affine))
    holes = torch.rand(1, 16, 16, 16)
    holes[0, 3, 3, 3] = float("nan")
    with pytest.raises(InputError, match="NaN or infinite"):
        mended.estimate(Volume(holes, affine))
    with pytest.raises(InputError, match="2 channels"):
        mended.estimate(Volume(torch.rand(2, 16, 16, 16), affine))
    sheared = affine.clone()
    sheared[0, 1] = 0.5
    with pytest.raises(GeometryError, match="sheared"):
        Volume(torch.rand(1, 16, 16, 16), sheared)


def test_f9_no_result_carries_a_gradient(mended: PublishedEstimator, volumes: dict[str, Volume]) -> None:
    pose = mended.estimate(volumes["iso3_ras"]).require_pose()
    assert not pose.rotation.requires_grad
    assert all(parameter.grad is None for parameter in mended.rotate.parameters())


def test_f16_a_unet_of_two_classes_needs_no_third_threshold() -> None:
    torch.manual_seed(0)
    settings = PublishedSettings(segment_size=32, rotate_size=16)
    rotate = PoseNet(poolings=1, kernel_size=3, multiplier=1)
    estimator = PublishedEstimator(UNet(classes=2, levels=2, features=2), rotate, settings=settings)
    assert estimator.thresholds == (0.9, 0.8)
    volume = Volume(torch.rand(1, 20, 20, 20), torch.diag(torch.tensor([3.0, 3, 3, 1], dtype=torch.float64)))
    assert estimator.estimate(volume).status == "no_object"
    with pytest.raises(ConfigError, match="2 classes and the settings 3 thresholds"):
        PublishedEstimator(
            UNet(classes=2, levels=2, features=2), rotate, settings=replace(settings, thresholds=(0.9, 0.8, -1.0))
        )
    with pytest.raises(ConfigError, match="30 voxels is not a multiple of 4"):
        PublishedEstimator(UNet(classes=2, levels=3, features=2), rotate, settings=replace(settings, segment_size=30))


def test_f19_the_mended_crop_is_always_a_cube_centred_on_the_mask() -> None:
    index = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"))
    image = 1.0 + index[0] + 0.1 * index[1] + 0.01 * index[2]
    mask = torch.zeros(24, 24, 24, dtype=torch.bool)
    mask[0:8, 9:15, 15:24] = True
    clipped, _ = rotation_input(image, mask, size=16)
    assert len(set(clipped.shape)) > 1
    imaged = torch.ones_like(mask)
    cube = centered_cube(image, mask, imaged, size=16)
    assert cube.shape == (16, 16, 16)
    assert torch.equal(cube[0], cube[1])  # beyond the edge the outermost plane goes on
    inner = torch.zeros_like(mask)
    inner[8:17, 8:17, 8:17] = True
    centered = centered_cube(image, inner, imaged, size=15)
    span = float(centered.max() - centered.min())
    assert span == pytest.approx(1.0)
    assert float(centered[7, 7, 7]) == pytest.approx(0.5, abs=1e-5)
    assert object_box(inner).shape == (14, 14, 14)
    assert bounding_box(inner).start == (8, 8, 8)


def test_f26_the_mended_mask_is_where_the_object_itself_is_likely(
    mended: PublishedEstimator, volumes: dict[str, Volume]
) -> None:
    found = mended._find(volumes["iso3_ras"], None)
    assert not isinstance(found, str)
    with torch.inference_mode():
        probabilities = torch.softmax(mended.segment(found.image.data[None])[0], 0)
    assert float(probabilities[1][found.mask].min()) >= 0.8
    assert found.probability == pytest.approx(float(probabilities[1][found.mask].mean()))


def test_the_unets_channels_lie_together_and_the_numbers_stay(mended: PublishedEstimator, folder: ModelFolder) -> None:
    assert mended.segment.encoder[0].second.weight.is_contiguous(memory_format=torch.channels_last_3d)
    plain = folder.networks()["segment"].eval()
    image = torch.rand(1, 1, 16, 32, 24, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        torch.testing.assert_close(mended.segment(image), plain(image), atol=1e-6, rtol=1e-5)


def test_f27_every_estimate_carries_its_quality(mended: PublishedEstimator, volumes: dict[str, Volume]) -> None:
    volume = volumes["iso3_ras"]
    result = mended.estimate(volume)
    assert isinstance(mended, Estimator)
    assert 0 < result.confidence <= 1
    assert result.singular_values is not None
    x, y, z = result.singular_values
    assert x >= y >= z >= 0
    assert result.confidence == pytest.approx(x * y * z, abs=1e-4)
    assert result.spread_deg is not None
    assert 0 < result.spread_deg < 180
    assert result.details["components"] >= 1
    assert result.details["border_distance_mm"] > 0
    assert result.mask is not None
    assert result.mask.shape == volume.shape
    voxel_ml = float(torch.linalg.det(volume.affine[:3, :3]).abs()) / 1000
    assert float(result.mask.data.sum()) * voxel_ml == pytest.approx(result.mask_volume_ml, rel=0.05)
    assert result.seconds > 0


def test_a_mask_that_is_given_replaces_the_segmentation(mended: PublishedEstimator, volumes: dict[str, Volume]) -> None:
    volume = volumes["aniso_oblique"]
    own = mended.estimate(volume)
    assert own.mask is not None
    again = mended.estimate(volume, mask=own.mask)
    assert float((again.require_pose().translation_mm - own.require_pose().translation_mm).norm()) < 1.5
    ball = torch.zeros_like(volume.data)
    ball[0, 5:12, 5:12, 5:10] = 1
    moved = mended.estimate(volume, mask=replace(volume, data=ball))
    wanted = volume.world_from_voxel(torch.tensor([8.0, 8.0, 7.0]))
    assert float((moved.require_pose().translation_mm - wanted).norm()) < 3.0
    with pytest.raises(InputError, match="another grid"):
        mended.estimate(volume, mask=own.mask.crop([0, 0, 0], [5, 5, 5]))
    with pytest.raises(InputError, match="is empty"):
        mended.estimate(volume, mask=replace(volume, data=torch.zeros_like(volume.data)))


def test_an_object_at_the_edge_is_a_warning(mended: PublishedEstimator, volumes: dict[str, Volume]) -> None:
    volume = volumes["iso3_ras"]
    everywhere = replace(volume, data=torch.ones_like(volume.data))
    assert any("touches the edge" in note for note in mended.estimate(volume, mask=everywhere).warnings)


def test_no_part_of_a_large_field_of_view_is_cut_off_in_silence() -> None:
    affine = torch.diag(torch.tensor([3.0, 3, 3, 1], dtype=torch.float64))
    data = torch.rand(1, 40, 20, 20)
    covered = covering_input(Volume(data, affine), voxel_size_mm=3.0, size=32, divisor=4)
    assert covered.shape == (40, 32, 32)
    assert segmentation_input(Volume(data, affine), size=32).shape == (32, 32, 32)
    with pytest.raises(InputError, match="covers 900 mm"):
        covering_input(Volume(torch.rand(1, 300, 2, 2), affine), voxel_size_mm=3.0, size=32, divisor=4)


def test_published_frames_of_a_pose_invert_each_other(mended: PublishedEstimator, volumes: dict[str, Volume]) -> None:
    for case in CASES:
        pose = mended.estimate(volumes[case]).require_pose()
        for scanner_space in (False, True):
            there = published_matrix(pose, volumes[case].affine, scanner_space=scanner_space)
            back = published_matrix(pose, volumes[case].affine, scanner_space=scanner_space, input_to_canonical=True)
            torch.testing.assert_close(there @ back, torch.eye(4, dtype=torch.float64), atol=1e-9, rtol=0)
            assert float(torch.linalg.det(there[:3, :3])) == pytest.approx(1.0)
        world = published_matrix(pose, volumes[case].affine, scanner_space=True)
        assert float(geodesic_angle(world[:3, :3], pose.rotation)) < 1e-6
