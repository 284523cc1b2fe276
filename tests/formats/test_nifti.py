from __future__ import annotations

import gzip
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from equivox.errors import GeometryError, InputError, MissingExtraError, OutputError
from equivox.formats.nifti import open_scan, read_mask, read_volume, without_ending, write_volume
from equivox.geometry.rotations import rotation_about
from equivox.geometry.space import Volume

SHAPE = (7, 6, 5)


def oblique(size: tuple[float, float, float] = (1.25, 1.5, 3.0), *, left_handed: bool = False) -> np.ndarray:
    rotation = (rotation_about("z", 25.0) @ rotation_about("x", -40.0)).numpy()
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(size) * np.array([-1 if left_handed else 1, 1, 1])
    affine[:3, 3] = (-31.5, 12.25, 80.0)
    return affine


def values(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).normal(100.0, 20.0, shape).astype(np.float32)


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None, **header: Any) -> Path:
    image = nibabel.Nifti1Image(data, oblique() if affine is None else affine)
    image.header.set_xyzt_units("mm", "sec")
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


def overwrite_bytes(path: Path, offset: int, content: bytes) -> Path:
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mgh", ".mgz"])
@pytest.mark.parametrize("left_handed", [False, True])
def test_a_scan_is_read_as_it_is(tmp_path: Path, ending: str, left_handed: bool) -> None:
    affine, data = oblique(left_handed=left_handed), values()
    path = tmp_path / f"scan{ending}"
    kind = nibabel.MGHImage if ending.startswith(".mg") else nibabel.Nifti1Image
    nibabel.save(kind(data, affine), path)
    volume = read_volume(path)
    assert volume.data.shape == (1, *SHAPE)
    assert volume.data.dtype == torch.float32
    assert volume.affine.dtype == torch.float64
    np.testing.assert_array_equal(volume.data[0].numpy(), data)
    np.testing.assert_allclose(volume.affine.numpy(), affine, atol=2e-5)  # headers hold float32
    assert volume.name == path.name
    assert float(torch.linalg.det(volume.affine[:3, :3])) * (-1 if left_handed else 1) > 0


def test_the_affine_keeps_every_bit_of_the_header(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", values())
    stored = nibabel.load(path).header.get_sform()
    assert np.array_equal(open_scan(path).affine.numpy(), stored)


def test_big_endian_scaled_and_nifti2_files_are_read(tmp_path: Path) -> None:
    stored = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    image = nibabel.Nifti1Image(stored, oblique(), nibabel.Nifti1Header(endianness=">"))
    image.header.set_slope_inter(0.5, -3.0)
    nibabel.save(image, tmp_path / "big.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "big.nii").data[0].numpy(), stored * 0.5 - 3.0)
    nibabel.save(nibabel.Nifti2Image(stored, oblique()), tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "two.nii.gz").data[0].numpy(), stored)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mgz"])
def test_frames_of_a_series_come_one_by_one(tmp_path: Path, ending: str) -> None:
    data = values((*SHAPE, 4))
    path = tmp_path / f"series{ending}"
    kind = nibabel.MGHImage if ending.startswith(".mg") else nibabel.Nifti1Image
    nibabel.save(kind(data, oblique()), path)
    scan = open_scan(path)
    assert (scan.frame_count, scan.shape, scan.is_series) == (4, SHAPE, True)
    for index in (0, 3, 1, 2):
        np.testing.assert_array_equal(scan.frame(index).data[0].numpy(), data[..., index])
    with pytest.raises(InputError, match="has 4 frame"):
        scan.frame(4)
    with pytest.raises(InputError, match="holds 4 frames"):
        read_volume(path)


def test_a_trailing_axis_of_length_one_is_no_series(tmp_path: Path) -> None:
    assert open_scan(save(tmp_path / "a.nii", values((*SHAPE, 1, 1)))).frame_count == 1


def test_sform_goes_before_qform_goes_before_voxel_sizes(tmp_path: Path) -> None:
    sform, qform = oblique(), np.diag([2.0, 2.0, 2.0, 1.0])
    image = nibabel.Nifti1Image(values(), None)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(sform, code=2)
    image.set_qform(qform, code=1)
    nibabel.save(image, tmp_path / "both.nii")
    image.set_sform(sform, code=0)
    nibabel.save(image, tmp_path / "q.nii")
    image.set_qform(qform, code=0)
    nibabel.save(image, tmp_path / "none.nii")
    both, q, none = (open_scan(tmp_path / name) for name in ("both.nii", "q.nii", "none.nii"))
    assert [s.affine_source for s in (both, q, none)] == ["sform", "qform", "voxel sizes"]
    np.testing.assert_allclose(both.affine.numpy(), sform, atol=2e-5)
    np.testing.assert_allclose(q.affine.numpy(), qform, atol=1e-6)
    np.testing.assert_allclose(none.affine.numpy(), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert not both.warnings
    assert not q.warnings
    assert "says nothing of its orientation" in none.warnings[0]


def test_metres_and_microns_become_millimetres_with_a_warning(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(values(), np.diag([0.002, 0.002, 0.003, 1.0]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "m.nii")
    image.header.set_xyzt_units(0)
    nibabel.save(image, tmp_path / "unknown.nii")
    scan = open_scan(tmp_path / "m.nii")
    assert scan.voxel_size_mm == pytest.approx((2.0, 2.0, 3.0))
    assert "converted to millimetres" in scan.warnings[0]
    assert "does not name its unit" in open_scan(tmp_path / "unknown.nii").warnings[0]


def bad_file(folder: Path, kind: str) -> Path:
    """A file of each kind that must be refused."""
    whole = save(folder / "whole.nii", values())
    if kind == "missing":
        return folder / "nowhere.nii.gz"
    if kind == "folder":
        (folder / "folder.nii").mkdir()
        return folder / "folder.nii"
    if kind == "empty":
        (folder / "e.nii.gz").write_bytes(b"")
        return folder / "e.nii.gz"
    if kind == "empty gzip":
        (folder / "e.nii.gz").write_bytes(gzip.compress(b""))
        return folder / "e.nii.gz"
    if kind == "truncated":
        (folder / "t.nii").write_bytes(whole.read_bytes()[:700])
        return folder / "t.nii"
    if kind == "truncated header":
        (folder / "t.nii").write_bytes(whole.read_bytes()[:100])
        return folder / "t.nii"
    if kind == "truncated gzip":
        packed = save(folder / "t.nii.gz", values((20, 20, 20)))
        packed.write_bytes(packed.read_bytes()[:5000])
        return packed
    if kind == "flipped bit":
        packed = save(folder / "t.nii.gz", values((20, 20, 20)))
        return overwrite_bytes(packed, packed.stat().st_size - 6, b"\xff\x00\xff")
    if kind == "text":
        (folder / "notes.nii").write_text("not a scan at all\n" * 100)
        return folder / "notes.nii"
    if kind == "text called mgh":
        (folder / "notes.mgh").write_text("not a scan at all\n" * 100)
        return folder / "notes.mgh"
    if kind == "truncated mgz":
        nibabel.save(nibabel.MGHImage(values(), oblique()), folder / "t.mgh")
        (folder / "t.mgz").write_bytes(gzip.compress((folder / "t.mgh").read_bytes()[:600]))
        return folder / "t.mgz"
    if kind == "other ending":
        (folder / "photo.png").write_bytes(b"\x89PNG")
        return folder / "photo.png"
    if kind == "gzip by content":
        (folder / "g.nii").write_bytes(gzip.compress(whole.read_bytes()))
        return folder / "g.nii"
    if kind == "gzip by name":
        (folder / "g.nii.gz").write_bytes(whole.read_bytes())
        return folder / "g.nii.gz"
    if kind == "dicom":
        (folder / "slice.dcm").write_bytes(b"\0" * 128 + b"DICM")
        return folder / "slice.dcm"
    if kind == "2d":
        return save(folder / "d.nii", values((7, 6)))
    if kind == "5d":
        return save(folder / "d.nii", values((7, 6, 5, 2, 3)))
    if kind == "one slice":
        return save(folder / "d.nii", values((7, 6, 1)))
    if kind == "no voxels":
        return overwrite_bytes(whole, 40, struct.pack("<8h", 3, 7, 0, 5, 1, 1, 1, 1))
    if kind == "colours":
        return save(folder / "rgb.nii", np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))
    if kind == "complex":
        return save(folder / "c.nii", values().astype(np.complex64))
    if kind == "nan":
        data = values()
        data[1, 2, 3], data[0, 0, 0] = np.nan, np.inf
        return save(folder / "n.nii", data)
    if kind == "constant":
        return save(folder / "c.nii", np.full(SHAPE, 7.0, dtype=np.float32))
    if kind == "unreadable type":
        return overwrite_bytes(whole, 70, struct.pack("<h", 9999))
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "nowhere.nii.gz does not exist"),
        ("folder", "is a folder, not a file"),
        ("empty", "is empty (0 bytes)"),
        ("empty gzip", "is not a NIfTI or MGH file"),
        ("truncated", "is truncated (700 of 1192 bytes)"),
        ("truncated header", "is not a NIfTI or MGH file"),
        ("truncated gzip", "is truncated or damaged"),
        ("flipped bit", "is truncated or damaged"),
        ("text", "is not a NIfTI or MGH file"),
        ("text called mgh", "is not a NIfTI or MGH file"),
        ("truncated mgz", "is truncated (600 of 1124 bytes)"),
        ("other ending", "is not a NIfTI or MGH file"),
        ("gzip by content", "is gzip-compressed although its name says otherwise; rename it to g.nii.gz"),
        ("gzip by name", "is not gzip-compressed although its name says otherwise; rename it to g.nii"),
        ("dicom", "dcm2niix"),
        ("2d", "is 2D (7 x 6)"),
        ("5d", "is 5D (7 x 6 x 5 x 2 x 3)"),
        ("one slice", "has one slice (7 x 6 x 1 voxels)"),
        ("no voxels", "holds no voxels"),
        ("colours", "holds colours"),
        ("complex", "holds values of type complex64"),
        ("nan", "has 2 voxels (0.95 %) that are NaN"),
        ("constant", "holds the same value 7 in every voxel"),
        ("unreadable type", "is not a NIfTI or MGH file"),
    ],
)
def test_a_bad_file_gets_one_sentence(tmp_path: Path, kind: str, said: str) -> None:
    path = bad_file(tmp_path, kind)
    with pytest.raises(InputError) as caught:
        read_volume(path)
    sentence = str(caught.value)
    assert said in sentence
    assert str(path) in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_an_nan_in_one_frame_names_that_frame(tmp_path: Path) -> None:
    data = values((*SHAPE, 3))
    data[0, 0, 0, 1] = np.nan
    scan = open_scan(save(tmp_path / "s.nii.gz", data))
    scan.frame(0)
    scan.frame(2)
    with pytest.raises(InputError, match=r"s\.nii\.gz, frame 1, has 1 voxels"):
        scan.frame(1)


def sheared() -> np.ndarray:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[0, 1] = 0.5
    return affine


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.zeros((3, 4)), "singular affine"),
        (np.diag([2.0, 2.0, 0.0, 1.0])[:3], "singular affine"),
        (np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]), "singular affine"),
        (sheared()[:3], "sheared affine (two voxel axes are 14.04 degrees off a right angle)"),
        (np.array([[np.nan, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]), "NaN or infinite"),
        (np.array([[1, 0, 0, np.inf], [0, 1, 0, 0], [0, 0, 1, 0]]), "NaN or infinite"),
    ],
    ids=["zero", "flat", "dependent", "sheared", "nan", "inf"],
)
def test_a_bad_affine_gets_one_sentence(tmp_path: Path, rows: np.ndarray, said: str) -> None:
    path = save(tmp_path / "a.nii", values())
    overwrite_bytes(path, 280, np.asarray(rows, dtype="<f4").tobytes())  # srow_x, srow_y, srow_z
    with pytest.raises(GeometryError) as caught:
        open_scan(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_quaternion_that_is_no_rotation_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", values(), sform_code=0, qform_code=1)
    overwrite_bytes(path, 256, np.array([0.9, 0.9, 0.9], dtype="<f4").tobytes())
    with pytest.raises(InputError, match="its header is broken"):
        open_scan(path)


class TestMask:
    def volume(self) -> Volume:
        return Volume(torch.from_numpy(values())[None], torch.from_numpy(oblique()), name="scan.nii.gz")

    def test_a_mask_on_the_scan_s_grid_becomes_zero_and_one(self, tmp_path: Path) -> None:
        marked = np.zeros(SHAPE, dtype=np.uint8)
        marked[2:4, 1:3, 2] = 3
        mask = read_mask(save(tmp_path / "m.nii.gz", marked), self.volume())
        assert set(mask.data.unique().tolist()) == {0.0, 1.0}
        assert float(mask.data.sum()) == 4

    def test_a_mask_of_a_series_is_taken_frame_by_frame(self, tmp_path: Path) -> None:
        marked = np.zeros((*SHAPE, 2), dtype=np.uint8)
        marked[0, 0, 0, 0] = marked[:2, 0, 0, 1] = 1
        path = save(tmp_path / "m.nii", marked)
        assert [float(read_mask(path, self.volume(), frame=f).data.sum()) for f in (0, 1)] == [1.0, 2.0]

    @pytest.mark.parametrize(
        ("marked", "affine", "said"),
        [
            (np.zeros(SHAPE, np.uint8), oblique(), "is empty"),
            (np.ones(SHAPE, np.uint8), oblique(), "covers every voxel"),
            (np.ones((7, 6, 4), np.uint8), oblique(), "lies on another grid (7 x 6 x 4 voxels"),
            (np.ones(SHAPE, np.uint8), oblique((1.25, 1.5, 3.1)), "of 1.25 x 1.5 x 3.1 mm"),
            (np.ones(SHAPE, np.uint8), oblique(left_handed=True), "lies on another grid"),
        ],
    )
    def test_a_wrong_mask_gets_one_sentence(
        self, tmp_path: Path, marked: np.ndarray, affine: np.ndarray, said: str
    ) -> None:
        with pytest.raises(InputError) as caught:
            read_mask(save(tmp_path / "m.nii", marked, affine), self.volume())
        assert said in str(caught.value)


class TestWrite:
    @pytest.mark.parametrize("left_handed", [False, True])
    def test_what_is_written_is_read_back(self, tmp_path: Path, left_handed: bool) -> None:
        volume = Volume(torch.from_numpy(values())[None], torch.from_numpy(oblique(left_handed=left_handed)))
        write_volume(tmp_path / "deep" / "v.nii.gz", volume)
        again = open_scan(tmp_path / "deep" / "v.nii.gz")
        assert torch.equal(again.frame().data, volume.data)
        assert float((again.affine - volume.affine).abs().max()) < 2e-5
        assert not again.warnings
        header = nibabel.load(tmp_path / "deep" / "v.nii.gz").header
        np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-4)

    def test_a_series_is_written_frame_by_frame(self, tmp_path: Path) -> None:
        frames = [Volume(torch.full((1, *SHAPE), float(i)), torch.from_numpy(oblique())) for i in (0, 1, 254)]
        write_volume(tmp_path / "s.nii", frames, dtype="uint8")
        stored = nibabel.load(tmp_path / "s.nii")
        assert stored.get_data_dtype() == np.uint8
        assert np.asarray(stored.dataobj)[0, 0, 0].tolist() == [0, 1, 254]

    def test_integers_that_do_not_fit_are_refused(self, tmp_path: Path) -> None:
        volume = Volume(torch.full((1, *SHAPE), 300.0), torch.from_numpy(oblique()))
        with pytest.raises(ValueError, match="do not fit uint8"):
            write_volume(tmp_path / "v.nii", volume, dtype="uint8")

    def test_a_full_disk_is_one_sentence_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(image: Any, path: Path) -> None:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(nibabel, "save", full)
        with pytest.raises(OutputError, match="No space left on device"):
            write_volume(tmp_path / "v.nii", Volume(torch.zeros(1, *SHAPE), torch.from_numpy(oblique())))
        assert list(tmp_path.iterdir()) == []


def test_without_nibabel_the_sentence_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.nii", values())
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingExtraError, match=r"equivox\[mri\]") as caught:
        open_scan(path)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("name", "stem"), [("a.nii.gz", "a"), ("a.b.nii", "a.b"), ("c.MGZ", "c"), ("d.txt", "d.txt"), ("x.mgh", "x")]
)
def test_the_stem_is_the_name_without_the_scan_s_ending(name: str, stem: str) -> None:
    assert without_ending(name) == stem


def test_every_shared_stack_is_read_on_its_own_grid(shared_path: Callable[[str], Path]) -> None:
    folder = shared_path("data/fetal/epi")
    for path in sorted((folder / "img").glob("*.nii.gz"))[:5]:
        scan = open_scan(path)
        assert scan.affine_source in ("sform", "qform")
        assert scan.frame().data.shape == (1, *scan.shape)
