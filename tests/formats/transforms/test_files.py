"""Every transform format against SimpleITK and nitransforms at 1e-9, both ways, and what is said of broken files."""

from __future__ import annotations

import builtins
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import torch

import equivox
from equivox.errors import ConfigError, InputError, MissingExtraError
from equivox.formats.poses import PoseRow, read_truth_csv, write_poses_csv, write_poses_json
from equivox.formats.transforms.files import TransformSet, output_format, read_transforms, write_transforms
from equivox.formats.transforms.grid import Grid
from equivox.formats.transforms.itk_hdf5 import read_itk_hdf5
from equivox.formats.transforms.itk_matlab import is_matlab, read_itk_matlab, write_itk_matlab
from equivox.formats.transforms.x5 import read_x5, write_x5
from equivox.geometry.rotations import Pose, random_rotations, rotation_about

POINTS = np.array([[1.0, 2.0, 3.0], [-40.0, 25.5, 7.25], [0.0, 0.0, 0.0], [90.0, -80.0, 70.0]])
LPS = np.array([-1.0, -1.0, 1.0])
SAMPLES = Path(equivox.__file__).parent / "samples" / "fetal_epi"
ITK_NAMES = ("pose.tfm", "pose.txt", "pose.mat", "pose.h5", "pose.hdf5")


def random_matrix(seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = random_rotations(1, generator=draw)[0]
    matrix[:3, 3] = 80 * torch.randn(3, generator=draw, dtype=torch.float64)
    return matrix


def exact_matrix() -> torch.Tensor:
    """A transform whose every product fits into float32: nitransforms keeps LTA and image geometry in float32."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = rotation_about("x", 90.0) @ rotation_about("z", -90.0)
    matrix[:3, 3] = torch.tensor([12.5, -7.25, 31.0])
    return matrix


def plain_grid() -> Grid:
    affine = torch.diag(torch.tensor([2.0, 2.0, 4.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([-50.0, -60.0, -40.0])
    return Grid(affine, (50, 60, 40), "plain.nii.gz")


def oblique_grid(*, left_handed: bool = True) -> Grid:
    """Turned by the 3-4-5 triangle, so that float32 holds the affine exactly."""
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = torch.tensor([[0.75, -1.0, 0.0], [1.0, 0.75, 0.0], [0.0, 0.0, 2.0]])
    if left_handed:
        affine[:3, 0] *= -1
    affine[:3, 3] = torch.tensor([12.5, -70.25, 31.0])
    return Grid(affine, (41, 52, 23), "oblique.nii.gz")


def image_of(grid: Grid) -> Any:
    return nibabel.Nifti1Image(np.zeros(grid.shape, dtype=np.uint8), grid.affine.numpy())


def single(path: Path, **options: Any) -> torch.Tensor:
    (matrix,) = read_transforms(path, **options).matrices
    assert matrix is not None
    return matrix


def wrapped(matrix: torch.Tensor) -> TransformSet:
    return TransformSet(Path("in.npy"), "npy", (matrix,))


def mapped(matrix: torch.Tensor) -> np.ndarray[Any, Any]:
    return POINTS @ matrix[:3, :3].numpy().T + matrix[:3, 3].numpy()


@contextmanager
def quiet() -> Iterator[None]:
    """nitransforms warns where a transform has no reference image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class TestSimpleITK:
    @pytest.mark.parametrize("name", ITK_NAMES)
    @pytest.mark.parametrize("seed", range(3))
    def test_it_reads_what_we_write(self, tmp_path: Path, name: str, seed: int) -> None:
        sitk = pytest.importorskip("SimpleITK")
        matrix = random_matrix(seed)
        write_transforms(tmp_path / name, wrapped(matrix), "itk")
        transform = sitk.ReadTransform(str(tmp_path / name))
        found = np.array([transform.TransformPoint(tuple(point)) for point in POINTS * LPS]) * LPS
        np.testing.assert_allclose(found, mapped(matrix), atol=1e-9, rtol=0)

    @pytest.mark.parametrize("name", ["t.tfm", "t.mat", "t.h5"])
    @pytest.mark.parametrize("kind", ["affine", "euler", "versor", "translation"])
    def test_we_read_what_it_writes(self, tmp_path: Path, name: str, kind: str) -> None:
        sitk = pytest.importorskip("SimpleITK")
        transform: Any
        if kind == "affine":
            transform = sitk.AffineTransform(3)
            transform.SetMatrix((1.1, 0.2, 0, -0.1, 0.9, 0.3, 0, 0.1, 1.2))
        elif kind == "euler":
            transform = sitk.Euler3DTransform()
            transform.SetRotation(0.3, -0.5, 0.7)
        elif kind == "versor":
            transform = sitk.VersorRigid3DTransform()
            transform.SetRotation((1.0, 2.0, -1.0), 2.5)
        else:
            transform = sitk.TranslationTransform(3)
            transform.SetOffset((4.0, 5.0, -6.0))
        if kind != "translation":
            transform.SetTranslation((4.0, 5.0, -6.0))
            transform.SetCenter((10.0, -20.0, 30.0))
        sitk.WriteTransform(transform, str(tmp_path / name))
        expected = np.array([transform.TransformPoint(tuple(point)) for point in POINTS * LPS]) * LPS
        np.testing.assert_allclose(mapped(single(tmp_path / name)), expected, atol=1e-9, rtol=0)

    def test_members_of_a_composite_act_last_to_first(self, tmp_path: Path) -> None:
        sitk = pytest.importorskip("SimpleITK")
        euler, shift = sitk.Euler3DTransform(), sitk.TranslationTransform(3)
        euler.SetRotation(0.3, -0.5, 0.7)
        shift.SetOffset((4.0, 5.0, -6.0))
        composite = sitk.CompositeTransform([euler, shift])
        sitk.WriteTransform(composite, str(tmp_path / "c.h5"))
        expected = np.array([composite.TransformPoint(tuple(point)) for point in POINTS * LPS]) * LPS
        np.testing.assert_allclose(mapped(read_itk_hdf5(tmp_path / "c.h5")), expected, atol=1e-9, rtol=0)


class TestNitransforms:
    def test_x5_both_ways(self, tmp_path: Path) -> None:
        linear = pytest.importorskip("nitransforms.linear")
        matrix = random_matrix(4)
        write_x5(tmp_path / "ours.x5", matrix, fixed=oblique_grid())
        with quiet():
            read = linear.load(tmp_path / "ours.x5", fmt="X5")
            np.testing.assert_allclose(read.matrix, matrix.numpy(), atol=1e-9, rtol=0)
            np.testing.assert_allclose(read.reference.affine, oblique_grid().affine.numpy(), atol=1e-9, rtol=0)
            np.testing.assert_allclose(read.map(POINTS), mapped(matrix), atol=1e-9, rtol=0)
            linear.Affine(matrix.numpy()).to_filename(tmp_path / "theirs.x5", fmt="X5")
        torch.testing.assert_close(single(tmp_path / "theirs.x5"), matrix, atol=1e-9, rtol=0)

    def test_itk_text_both_ways(self, tmp_path: Path) -> None:
        linear = pytest.importorskip("nitransforms.linear")
        matrix = exact_matrix()  # nitransforms keeps the parameters in float32
        write_transforms(tmp_path / "ours.tfm", wrapped(matrix), "itk")
        with quiet():
            read = linear.load(tmp_path / "ours.tfm", fmt="itk")
            np.testing.assert_allclose(read.map(POINTS), mapped(matrix), atol=1e-9, rtol=0)
            linear.Affine(matrix.numpy()).to_filename(tmp_path / "theirs.tfm", fmt="itk")
        torch.testing.assert_close(single(tmp_path / "theirs.tfm"), matrix, atol=1e-9, rtol=0)

    @pytest.mark.parametrize("left_handed", [False, True])
    def test_fsl_both_ways(self, tmp_path: Path, left_handed: bool) -> None:
        linear = pytest.importorskip("nitransforms.linear")
        matrix, moving, fixed = exact_matrix(), oblique_grid(left_handed=left_handed), plain_grid()
        write_transforms(tmp_path / "ours.mat", wrapped(matrix), "fsl", moving=moving, fixed=fixed)
        images = {"reference": image_of(fixed), "moving": image_of(moving)}
        with quiet():
            read = linear.load(tmp_path / "ours.mat", fmt="fsl", **images)
            np.testing.assert_allclose(read.map(POINTS), mapped(matrix), atol=1e-9, rtol=0)
            theirs = linear.Affine(matrix.numpy(), reference=images["reference"])
            theirs.to_filename(tmp_path / "theirs.mat", fmt="fsl", moving=images["moving"])
        found = single(tmp_path / "theirs.mat", moving=moving, fixed=fixed)
        torch.testing.assert_close(found, matrix, atol=1e-9, rtol=0)

    def test_lta_both_ways(self, tmp_path: Path) -> None:
        linear = pytest.importorskip("nitransforms.linear")
        matrix, moving, fixed = exact_matrix(), oblique_grid(), plain_grid()
        write_transforms(tmp_path / "ours.lta", wrapped(matrix), "lta", moving=moving, fixed=fixed)
        with quiet():
            read = linear.load(tmp_path / "ours.lta", fmt="fs")
            np.testing.assert_allclose(read.map(POINTS), mapped(matrix), atol=1e-9, rtol=0)
            theirs = linear.Affine(matrix.numpy(), reference=image_of(fixed))
            theirs.to_filename(tmp_path / "theirs.lta", fmt="fs", moving=image_of(moving))
        torch.testing.assert_close(single(tmp_path / "theirs.lta"), matrix, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "itk") for name in ITK_NAMES), ("p.lta", "lta"), ("p.mat", "fsl"), ("p.x5", "x5"),
                       ("p.json", "json"), ("p.npy", "npy")],
)  # fmt: skip
def test_every_format_gives_the_transform_back(tmp_path: Path, name: str, kind: Any) -> None:
    matrix, grids = random_matrix(6), {"moving": oblique_grid(), "fixed": plain_grid()}
    write_transforms(tmp_path / name, wrapped(matrix), kind, **grids)
    read = read_transforms(tmp_path / name, **grids)
    assert (read.format, read.fixed, read.moving) == (kind, "head", "world")
    torch.testing.assert_close(read.matrices[0], matrix, atol=1e-10, rtol=0)


def test_the_inverse_swaps_the_frames(tmp_path: Path) -> None:
    matrix = random_matrix(7)
    write_transforms(tmp_path / "p.json", wrapped(matrix).inverse(), "json")
    read = read_transforms(tmp_path / "p.json")
    assert (read.fixed, read.moving, read.named) == ("world", "head", True)
    torch.testing.assert_close(read.inverse().matrices[0], matrix, atol=1e-12, rtol=0)


def test_a_series_goes_through_npy_and_nothing_else(tmp_path: Path) -> None:
    series = TransformSet(Path("in.npy"), "npy", (random_matrix(1), None, random_matrix(2)))
    write_transforms(tmp_path / "s.npy", series, "npy")
    read = read_transforms(tmp_path / "s.npy")
    assert np.load(tmp_path / "s.npy").shape == (3, 4, 4)
    assert [matrix is None for matrix in read.matrices] == [False, True, False]
    assert torch.equal(read.frame(2).matrices[0], series.matrices[2])
    with pytest.raises(ConfigError, match="has 3 poses and a itk file holds one"):
        write_transforms(tmp_path / "s.tfm", series, "itk")
    with pytest.raises(InputError, match="no pose for frame 1"):
        read.frame(1)
    with pytest.raises(InputError, match="no frame 3"):
        read.frame(3)


class TestTables:
    def table(self, folder: Path) -> list[PoseRow]:
        poses = [Pose.from_matrix(random_matrix(seed), source="head", target="world") for seed in range(3)]
        rows = [
            PoseRow("data/a.nii.gz", 0, "ok", world_from_head=poses[0]),
            PoseRow("data/b.nii.gz", 1, "no_object", "nothing there"),
            PoseRow("data/b.nii.gz", 0, "ok", world_from_head=poses[1]),
            PoseRow("more/a.nii", 0, "ok", world_from_head=poses[2]),
        ]
        write_poses_csv(folder / "poses.csv", rows)
        write_poses_json(folder / "poses.json", rows, version="0")
        return rows

    @pytest.mark.parametrize(("name", "tolerance"), [("poses.csv", 1e-6), ("poses.json", 1e-15)])
    def test_rows_are_found_by_name_and_ordered_by_frame(self, tmp_path: Path, name: str, tolerance: float) -> None:
        self.table(tmp_path)
        read = read_transforms(tmp_path / name, row="elsewhere/b.nii")
        assert len(read.matrices) == 2
        assert read.matrices[1] is None
        torch.testing.assert_close(read.matrices[0], random_matrix(1), atol=tolerance, rtol=0)
        exact = read_transforms(tmp_path / name, row="more/a.nii")
        torch.testing.assert_close(exact.matrices[0], random_matrix(2), atol=tolerance, rtol=0)

    def test_a_table_of_landmark_poses_serves_too(self) -> None:
        """That of the scans which come with the package."""
        read = read_transforms(SAMPLES / "poses.csv", row="fet-05_run-1_epi.nii.gz")
        truth = next(row for row in read_truth_csv(SAMPLES / "poses.csv") if row.id == "fet-05_run-1")
        assert truth.world_from_head is not None
        assert torch.equal(single(SAMPLES / "poses.csv", row="fet-05_run-1_epi.nii.gz"), truth.world_from_head.matrix())
        assert read.named

    @pytest.mark.parametrize("name", ["poses.csv", "poses.json"])
    def test_a_row_that_is_not_clear_is_refused(self, tmp_path: Path, name: str) -> None:
        self.table(tmp_path)
        with pytest.raises(InputError, match=r"several inputs .*; name one by --row"):
            read_transforms(tmp_path / name)
        with pytest.raises(InputError, match=r"no inputs called c\.nii"):
            read_transforms(tmp_path / name, row="c.nii")
        with pytest.raises(InputError, match="2 inputs called a"):
            read_transforms(tmp_path / name, row="a")


class TestBrokenFiles:
    def test_fsl_without_its_images(self, tmp_path: Path) -> None:
        (tmp_path / "p.mat").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
        with pytest.raises(ConfigError, match="means nothing without its two images"):
            read_transforms(tmp_path / "p.mat", moving=plain_grid())
        for kind in ("fsl", "lta"):
            with pytest.raises(ConfigError, match="describes its two images"):
                write_transforms(tmp_path / f"o.{kind}", wrapped(random_matrix(0)), kind)  # type: ignore[arg-type]
            assert not (tmp_path / f"o.{kind}").exists()

    @pytest.mark.parametrize("name", ["p.mat", "p.h5", "p.x5", "p.npy"])
    def test_a_binary_file_cut_anywhere_gets_one_sentence(self, tmp_path: Path, name: str) -> None:
        kind = {"p.x5": "x5", "p.npy": "npy"}.get(name, "itk")
        write_transforms(tmp_path / name, wrapped(random_matrix(0)), kind)  # type: ignore[arg-type]
        whole = (tmp_path / name).read_bytes()
        for share in (0.03, 0.1, 0.3, 0.6, 0.9):
            (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises((InputError, ConfigError), match=r"; "):
                read_transforms(tmp_path / name)

    def test_a_matlab_header_that_promises_too_much(self, tmp_path: Path) -> None:
        write_itk_matlab(tmp_path / "p.mat", random_matrix(0))
        content = (tmp_path / "p.mat").read_bytes()
        assert is_matlab(content)
        assert not is_matlab(struct.pack("<5i", 0, 2**30, 1, 0, 27) + content[20:])
        (tmp_path / "p.mat").write_bytes(content + struct.pack("<5i", 0, 2**30, 1, 0, 27))
        with pytest.raises(InputError, match="no binary ITK transform"):
            read_itk_matlab(tmp_path / "p.mat")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"Type": "nonlinear"}, "holds a nonlinear transform"),
            ({"Format": "X6"}, "is no X5 file"),
            ({"Transform": np.zeros((4, 4))}, "holds no transform"),
            ({"Transform": np.eye(3)}, r"shape \(3, 3\)"),
            ({"Second": True}, "holds 2 transforms"),
        ],
    )
    def test_an_x5_file_of_another_kind(self, tmp_path: Path, change: dict[str, Any], said: str) -> None:
        write_x5(tmp_path / "p.x5", random_matrix(0))
        with h5py.File(tmp_path / "p.x5", "r+") as file:
            group = file["TransformGroup/0"]
            if "Type" in change:
                group.attrs["Type"] = change["Type"]
            if "Format" in change:
                file.attrs["Format"] = change["Format"]
            if "Transform" in change:
                del group["Transform"]
                group["Transform"] = change["Transform"]
            if "Second" in change:
                file["TransformGroup/1"] = group
        with pytest.raises(InputError, match=said):
            read_x5(tmp_path / "p.x5")

    def test_itk_hdf5_that_is_not_linear(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "p.h5", "w") as file:
            group = file.create_group("TransformGroup/0")
            group["TransformType"] = [b"DisplacementFieldTransform_double_3_3"]
            group["TransformParameters"] = np.zeros(3 * 30**3)
            group["TransformFixedParameters"] = np.zeros(18)
        with pytest.raises(InputError, match="81000 numbers"):
            read_itk_hdf5(tmp_path / "p.h5")
        with h5py.File(tmp_path / "e.h5", "w") as file:
            file["x"] = 1
        with pytest.raises(InputError, match="no TransformGroup"):
            read_transforms(tmp_path / "e.h5")

    @pytest.mark.parametrize(
        ("array", "said"),
        [
            (np.eye(3), r"shape \(3, 3\)"),
            (np.array([{}], dtype=object), "no whole NumPy array"),
            (np.full((4, 4), np.nan), "holds no transform"),
            (np.zeros((2, 4, 4)), "frame 0, holds no transform"),
            (np.eye(4).astype(complex), "type complex128"),
        ],
    )
    def test_arrays_that_are_no_transform(self, tmp_path: Path, array: Any, said: str) -> None:
        np.save(tmp_path / "p.npy", array)
        with pytest.raises(InputError, match=said):
            read_transforms(tmp_path / "p.npy")

    def test_json_keeps_rigid_poses_only(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="holds no rigid pose"):
            write_transforms(
                tmp_path / "p.json", wrapped(2 * random_matrix(0).diag().diag().abs() + torch.eye(4)), "json"
            )

    def test_other_files(self, tmp_path: Path) -> None:
        for name, content, said in (
            ("none.tfm", None, "does not exist"),
            ("empty.tfm", b"", "is empty"),
            ("text.txt", b"hello", "is no transform that can be read"),
            ("text.tfm", b"hello", "is no ITK text transform"),
            ("text.json", b"hello", "is no JSON"),
            ("t.json", b'{"schema": "equivox.poses/1"}', "no table of poses"),
        ):
            if content is not None:
                (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=said):
                read_transforms(tmp_path / name)

    @pytest.mark.parametrize("name", ["p.h5", "p.x5"])
    def test_without_h5py_the_extra_is_named(self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        write_transforms(tmp_path / name, wrapped(random_matrix(0)), "x5" if name.endswith("x5") else "itk")
        original = builtins.__import__

        def without(module: str, *args: Any, **options: Any) -> Any:
            if module == "h5py":
                raise ImportError(module)
            return original(module, *args, **options)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(MissingExtraError, match=r"equivox\[mri\]"):
            read_transforms(tmp_path / name)
        with pytest.raises(MissingExtraError, match=r"equivox\[mri\]"):
            write_transforms(tmp_path / f"o{name}", wrapped(random_matrix(0)), "x5" if name.endswith("x5") else "itk")


@pytest.mark.parametrize(
    ("name", "chosen", "said"),
    [
        ("p.mat", None, "may be ITK's or FSL's"),
        ("p.xyz", None, "names no format"),
        ("p.lta", "itk", "does not end like a file of --to itk"),
    ],
)
def test_an_output_whose_format_is_not_clear(name: str, chosen: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        output_format(name, chosen)
