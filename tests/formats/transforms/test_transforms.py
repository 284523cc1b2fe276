"""Transform files against fixed numbers, against SimpleITK and nitransforms, and against themselves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equivox.errors import InputError
from equivox.formats.transforms.fsl import read_fsl, write_fsl
from equivox.formats.transforms.grid import Grid
from equivox.formats.transforms.itk import read_itk, write_itk
from equivox.formats.transforms.lta import read_lta, write_lta
from equivox.formats.transforms.pose_json import read_pose_json, write_pose_json
from equivox.geometry.rotations import Pose, random_rotations, rotation_about

POINT = torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64)


def example() -> torch.Tensor:
    """R = Rz(30) Ry(20) Rx(10), t = (5, -7, 11) mm: the numeric example of the conventions page."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = rotation_about("z", 30.0) @ rotation_about("y", 20.0) @ rotation_about("x", 10.0)
    matrix[:3, 3] = torch.tensor([5.0, -7.0, 11.0])
    return matrix


def random_matrix(seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = random_rotations(1, generator=draw)[0]
    matrix[:3, 3] = 80 * torch.randn(3, generator=draw, dtype=torch.float64)
    return matrix


def plain_grid() -> Grid:
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([-50.0, -60.0, -40.0])
    return Grid(affine, (50, 60, 40), "plain.nii.gz")


def oblique_grid(*, left_handed: bool) -> Grid:
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = rotation_about("x", 33.0) @ rotation_about("z", -12.0)
    affine[:3, :3] *= torch.tensor([-1.25 if left_handed else 1.25, 1.5, 3.0], dtype=torch.float64)
    affine[:3, 3] = torch.tensor([12.5, -70.25, 31.0])
    return Grid(affine, (41, 52, 23), "oblique.nii.gz")


def image_of(grid: Grid) -> Any:
    return nibabel.Nifti1Image(np.zeros(grid.shape, dtype=np.uint8), grid.affine.numpy())


class TestITK:
    def test_the_file_holds_the_published_numbers(self, tmp_path: Path) -> None:
        write_itk(tmp_path / "pose.tfm", example())
        lines = (tmp_path / "pose.tfm").read_text().splitlines()
        assert lines[0] == "#Insight Transform File V1.0"
        assert lines[2] == "Transform: AffineTransform_double_3_3"
        parameters = [float(word) for word in lines[3].split()[1:]]
        expected = "0.813798 -0.440970 -0.378522 0.469846 0.882564 -0.018028 0.342020 -0.163176 0.925417 -5 7 11"
        assert parameters == pytest.approx([float(word) for word in expected.split()], abs=5e-7)
        mapped = read_itk(tmp_path / "pose.tfm") @ POINT
        assert mapped[:3].tolist() == pytest.approx([6.067425, -4.710941, 13.760581], abs=5e-7)

    @settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(seed=st.integers(0, 2**32))
    def test_every_bit_comes_back(self, tmp_path: Path, seed: int) -> None:
        matrix = random_matrix(seed)
        write_itk(tmp_path / "pose.tfm", matrix)
        assert torch.equal(read_itk(tmp_path / "pose.tfm"), matrix)

    @pytest.mark.parametrize("seed", range(3))
    def test_simpleitk_reads_back_the_same_mapping(self, tmp_path: Path, seed: int) -> None:
        sitk = pytest.importorskip("SimpleITK")
        matrix = random_matrix(seed)
        write_itk(tmp_path / "pose.tfm", matrix)
        transform = sitk.ReadTransform(str(tmp_path / "pose.tfm"))
        mapped_lps = np.array(transform.TransformPoint((-1.0, -2.0, 3.0)))  # LPS of the RAS point (1, 2, 3)
        expected = (matrix @ POINT)[:3].numpy() * [-1, -1, 1]
        np.testing.assert_allclose(mapped_lps, expected, atol=1e-12)

    def test_simpleitk_resamples_with_it_into_the_head_frame(self, tmp_path: Path) -> None:
        """A bright voxel at a world point appears at its head coordinates: the direction is right."""
        sitk = pytest.importorskip("SimpleITK")
        world_from_head = example()
        scan = np.zeros((41, 41, 41), dtype=np.float32)  # 1 mm, world (0, 0, 0) at its centre
        scan[20 + 6, 20 - 5, 20 + 14] = 1.0  # where head point (1, 2, 3) lies, rounded
        moving = sitk.GetImageFromArray(scan.transpose(2, 1, 0))
        moving.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # array axes run right, anterior, superior
        moving.SetOrigin((20, 20, -20))
        write_itk(tmp_path / "pose.tfm", world_from_head)
        transform = sitk.ReadTransform(str(tmp_path / "pose.tfm"))
        upright = sitk.Resample(moving, moving, transform, sitk.sitkLinear, 0.0)
        values = sitk.GetArrayFromImage(upright).transpose(2, 1, 0)
        brightest = np.array(np.unravel_index(values.argmax(), values.shape)) - 20
        assert np.abs(brightest - [1, 2, 3]).max() <= 1

    @pytest.mark.parametrize("kind", ["affine", "euler", "euler zyx", "versor", "translation"])
    def test_what_simpleitk_writes_is_read(self, tmp_path: Path, kind: str) -> None:
        sitk = pytest.importorskip("SimpleITK")
        transform: Any
        if kind == "affine":
            transform = sitk.AffineTransform(3)
            transform.SetMatrix((1.1, 0.2, 0, -0.1, 0.9, 0.3, 0, 0.1, 1.2))
        elif kind.startswith("euler"):
            transform = sitk.Euler3DTransform()
            transform.SetRotation(0.3, -0.5, 0.7)
            transform.SetComputeZYX(kind.endswith("zyx"))
        elif kind == "versor":
            transform = sitk.VersorRigid3DTransform()
            transform.SetRotation((1.0, 2.0, -1.0), 2.5)
        else:
            transform = sitk.TranslationTransform(3)
        if kind == "translation":
            transform.SetOffset((4.0, 5.0, -6.0))
        else:
            transform.SetTranslation((4.0, 5.0, -6.0))
            transform.SetCenter((10.0, -20.0, 30.0))
        sitk.WriteTransform(transform, str(tmp_path / "t.tfm"))
        mapped = read_itk(tmp_path / "t.tfm") @ POINT
        expected = np.array(transform.TransformPoint((-1.0, -2.0, 3.0))) * [-1, -1, 1]
        np.testing.assert_allclose(mapped[:3].numpy(), expected, atol=1e-6)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("hello", "is no ITK text transform"),
            ("#Insight Transform File V1.0\n", "holds 0 transforms"),
            ("BSplineTransform_double_3_3", "holds a BSplineTransform_double_3_3"),
            ("AffineTransform_double_2_2", "give a linear 3D transform"),
            ("1 2 3", "has 3 parameters where AffineTransform has 12"),
            ("1 0 0 0 1 0 0 0 one 0 0 0", "could not convert string to float"),
            ("1 0 0 0 1 0 0 0 0 0 0 0", "singular matrix"),
            ("nan 0 0 0 1 0 0 0 1 0 0 0", "NaN or infinite"),
        ],
    )
    def test_a_wrong_file_gets_one_sentence(self, tmp_path: Path, text: str, said: str) -> None:
        whole = "#Insight Transform File V1.0\n#Transform 0\nTransform: {}\nParameters: {}\nFixedParameters: 0 0 0\n"
        if "Transform_" in text:
            text = whole.format(text, "1 0 0 0 1 0 0 0 1 0 0 0")
        elif text[0] in "1n":
            text = whole.format("AffineTransform_double_3_3", text)
        (tmp_path / "t.tfm").write_text(text)
        with pytest.raises(InputError, match=said):
            read_itk(tmp_path / "t.tfm")


class TestLTA:
    def test_the_file_holds_the_published_numbers(self, tmp_path: Path) -> None:
        write_lta(tmp_path / "pose.lta", example(), moving=plain_grid(), fixed=plain_grid())
        lines = (tmp_path / "pose.lta").read_text().splitlines()
        first_row = [float(word) for word in lines[lines.index("1 4 4") + 1].split()]
        assert first_row == pytest.approx([0.813798, 0.469846, -0.342020, 2.982157], abs=5e-7)

    @settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(seed=st.integers(0, 2**32), left_handed=st.booleans())
    def test_the_matrix_comes_back(self, tmp_path: Path, seed: int, left_handed: bool) -> None:
        matrix = random_matrix(seed)
        write_lta(tmp_path / "p.lta", matrix, moving=oblique_grid(left_handed=left_handed), fixed=plain_grid())
        torch.testing.assert_close(read_lta(tmp_path / "p.lta"), matrix, atol=1e-12, rtol=1e-12)

    @pytest.mark.parametrize("left_handed", [False, True])
    def test_nitransforms_reads_the_same_mapping(self, tmp_path: Path, left_handed: bool) -> None:
        linear = pytest.importorskip("nitransforms.io.lta")
        matrix, moving, fixed = random_matrix(5), oblique_grid(left_handed=left_handed), plain_grid()
        write_lta(tmp_path / "p.lta", matrix, moving=moving, fixed=fixed)
        with (tmp_path / "p.lta").open() as file:
            read = linear.FSLinearTransform.from_fileobj(file)
        np.testing.assert_allclose(read.to_ras(), matrix.numpy(), atol=2e-5)  # it computes in float32

    @pytest.mark.parametrize("left_handed", [False, True])
    def test_nitransforms_finds_both_images_where_they_are(self, tmp_path: Path, left_handed: bool) -> None:
        io = pytest.importorskip("nitransforms.io.lta")
        moving, fixed = oblique_grid(left_handed=left_handed), plain_grid()
        write_lta(tmp_path / "p.lta", random_matrix(6), moving=moving, fixed=fixed)
        with (tmp_path / "p.lta").open() as file:
            read = io.FSLinearTransform.from_fileobj(file)
        np.testing.assert_allclose(read["src"].as_affine(), moving.affine.numpy(), atol=1e-5)
        np.testing.assert_allclose(read["dst"].as_affine(), fixed.affine.numpy(), atol=1e-5)

    def test_voxel_to_voxel_files_are_read(self, tmp_path: Path) -> None:
        matrix, moving, fixed = random_matrix(7), oblique_grid(left_handed=True), plain_grid()
        write_lta(tmp_path / "p.lta", matrix, moving=moving, fixed=fixed)
        stored = torch.linalg.inv(fixed.affine) @ torch.linalg.inv(matrix) @ moving.affine
        lines = (tmp_path / "p.lta").read_text().splitlines()
        start = lines.index("1 4 4") + 1
        lines[start : start + 4] = [" ".join(repr(number) for number in row) for row in stored.tolist()]
        lines[0] = "type      = 0"
        (tmp_path / "v.lta").write_text("\n".join(lines))
        torch.testing.assert_close(read_lta(tmp_path / "v.lta"), matrix, atol=1e-10, rtol=0)

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("type      = 1", "type      = 14", "is of type 14"),
            ("type      = 1", "kind      = 1", "is no LTA file"),
            ("nxforms   = 1", "nxforms   = 2", "holds 2 transforms"),
            ("1 4 4\n", "1 4 4\n1 2 3\n", "does not hold a 4x4 matrix"),
            ("src volume info", "other info", None),
        ],
    )
    def test_a_wrong_file_gets_one_sentence(self, tmp_path: Path, old: str, new: str, said: str | None) -> None:
        write_lta(tmp_path / "p.lta", example(), moving=plain_grid(), fixed=plain_grid())
        text = (tmp_path / "p.lta").read_text().replace(old, new, 1)
        if said is None:
            text, said = text.replace("type      = 1", "type      = 0"), "does not describe its src image"
        (tmp_path / "p.lta").write_text(text)
        with pytest.raises(InputError, match=said):
            read_lta(tmp_path / "p.lta")


class TestFSL:
    def test_the_file_holds_the_published_numbers(self, tmp_path: Path) -> None:
        write_fsl(tmp_path / "pose.mat", example(), moving=plain_grid(), fixed=plain_grid())
        expected = [
            [0.813798, -0.469846, 0.342020, 20.465527],
            [0.440970, 0.882564, 0.163176, -14.059563],
            [-0.378522, 0.018028, 0.925417, 8.124713],
            [0.0, 0.0, 0.0, 1.0],
        ]
        np.testing.assert_allclose(np.loadtxt(tmp_path / "pose.mat"), expected, atol=5e-7)

    @settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(seed=st.integers(0, 2**32), left_handed=st.booleans(), swapped=st.booleans())
    def test_the_matrix_comes_back(self, tmp_path: Path, seed: int, left_handed: bool, swapped: bool) -> None:
        grids = [oblique_grid(left_handed=left_handed), plain_grid()]
        moving, fixed = reversed(grids) if swapped else grids
        matrix = random_matrix(seed)
        write_fsl(tmp_path / "p.mat", matrix, moving=moving, fixed=fixed)
        torch.testing.assert_close(read_fsl(tmp_path / "p.mat", moving=moving, fixed=fixed), matrix, atol=1e-10, rtol=0)

    @pytest.mark.parametrize("left_handed", [False, True])
    def test_nitransforms_reads_the_same_mapping(self, tmp_path: Path, left_handed: bool) -> None:
        linear = pytest.importorskip("nitransforms.linear")
        matrix, moving, fixed = random_matrix(8), oblique_grid(left_handed=left_handed), plain_grid()
        write_fsl(tmp_path / "p.mat", matrix, moving=moving, fixed=fixed)
        read = linear.load(tmp_path / "p.mat", fmt="fsl", reference=image_of(fixed), moving=image_of(moving))
        np.testing.assert_allclose(read.matrix, matrix.numpy(), atol=1e-4)  # the images' affines are float32

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("1 0 0\n", "must hold four rows of four numbers"),
            ("a b\n", "must hold four rows"),
            ("0 0 0 0\n" * 4, "singular"),
        ],
    )
    def test_a_wrong_file_gets_one_sentence(self, tmp_path: Path, text: str, said: str) -> None:
        (tmp_path / "p.mat").write_text(text)
        with pytest.raises(InputError, match=said):
            read_fsl(tmp_path / "p.mat", moving=plain_grid(), fixed=plain_grid())


class TestJSON:
    def test_a_pose_comes_back_bit_by_bit(self, tmp_path: Path) -> None:
        pose = Pose.from_matrix(example(), source="head", target="world")
        write_pose_json(tmp_path / "p.json", pose, input="scan.nii.gz")
        again = read_pose_json(tmp_path / "p.json")
        assert torch.equal(again.matrix(), pose.matrix())
        assert (again.source, again.target) == ("head", "world")
        assert '"input": "scan.nii.gz"' in (tmp_path / "p.json").read_text()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{", "is no JSON"),
            ("[]", "has the schema 'list'"),
            ('{"schema": "other"}', "has the schema 'other'"),
            ('{"schema": "equivox.pose/1"}', "lacks the key 'rotation'"),
            (
                '{"schema": "equivox.pose/1", "source": "a", "target": "b", "translation_mm": [0, 0, 0], '
                '"rotation": [[1, 0, 0], [0, 1, 0], [0, 0, -1]]}',
                "holds no rigid pose: rotation of b_from_a has determinant",
            ),
        ],
    )
    def test_a_wrong_file_gets_one_sentence(self, tmp_path: Path, text: str, said: str) -> None:
        (tmp_path / "p.json").write_text(text)
        with pytest.raises(InputError, match=said):
            read_pose_json(tmp_path / "p.json")


@pytest.mark.parametrize("read", [read_itk, read_lta, read_pose_json])
def test_a_missing_file_is_one_sentence(tmp_path: Path, read: Any) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_matrix_that_is_none_is_not_written(tmp_path: Path, bad: float) -> None:
    matrix = example()
    matrix[0, 3] = bad
    with pytest.raises(ValueError, match="finite 4x4"):
        write_itk(tmp_path / "p.tfm", matrix)
    with pytest.raises(ValueError, match="invertible"):
        write_itk(tmp_path / "p.tfm", example() * torch.tensor([[0.0], [0], [0], [1]], dtype=torch.float64))
    assert not list(tmp_path.iterdir())
