"""MRC files: every variant that programs write, every fault that files have."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivox.errors import InputError
from equivox.formats.mrc import read_mrc, require_finite, write_mrc

FIXTURES = Path(__file__).parents[1] / "fixtures"
CRYO = json.loads((FIXTURES / "cryoem" / "expected.json").read_text())
SMALL = json.loads((FIXTURES / "projection2d" / "formats" / "expected.json").read_text())
IMAGES = [name for name in CRYO if name.startswith("mrc/")]
BROKEN = {name: entry["behaviour"] for name, entry in CRYO.items() if name.startswith("mrc_broken/")}
REFUSED = [name for name, behaviour in BROKEN.items() if behaviour == "error"]
WORDS = {
    "truncated_data": "truncated", "truncated_header": "700 bytes", "empty": "0 bytes", "not_mrc": "no MRC file",
    "wrong_mode": "mode 99", "mode4_complex": "complex", "negative_dims": "-64", "huge_dims": "damaged",
    "bad_map_id": "XXXX", "negative_nsymbt": "-8", "nsymbt_too_large": "1000000", "nan_data": "4 samples",
    "inf_data": "inf", "truncated.mrc.gz": "truncated",
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_image_is_as_expected(name: str) -> None:
    expected: dict[str, Any] = CRYO[name]
    image = read_mrc(FIXTURES / "cryoem" / name)
    shape = next((tuple(value) for key, value in expected.items() if key.startswith("shape")), None)
    assert shape is None or image.data.shape == shape
    data = np.asarray(image.data, dtype=np.float64)
    if "mode" in expected:
        assert image.mode == expected["mode"]
    if "pixel_size_A" in expected:
        assert image.pixel_size_angstrom == pytest.approx(expected["pixel_size_A"], rel=1e-6)
    if "mean" in expected:
        assert data.mean() == pytest.approx(expected["mean"], rel=1e-6)
        assert data[12, 40] == expected["value_y12_x40"]
    for key in ("argmax_yx", "argmax_zyx"):
        if key in expected:
            assert list(np.unravel_index(data.argmax(), data.shape)) == expected[key]
    if "value" in expected:
        assert data.max() == pytest.approx(expected["value"])
    if "first" in expected:
        assert (data.flat[0], data.flat[-1]) == pytest.approx((expected["first"], expected["last"]))
    if "nsymbt" in expected:
        assert image.header.extended_bytes == expected["nsymbt"]


def test_different_pixel_sizes_along_x_and_y_are_said_and_not_averaged() -> None:
    image = read_mrc(FIXTURES / "cryoem" / "mrc/aniso_pixel.mrc")
    assert image.pixel_size_angstrom is None
    assert image.voxel_size_angstrom is not None
    assert image.voxel_size_angstrom[:2] == pytest.approx((8.0, 8.4))
    assert "8 x 8.4" in image.warnings[0]


@pytest.mark.parametrize("name", [name for name in SMALL if ".mrc" in name])
def test_small_file_is_as_expected(name: str) -> None:
    expected = SMALL[name]
    image = read_mrc(FIXTURES / "projection2d" / "formats" / name)
    assert list(image.data.shape) == expected["shape_zyx_or_yx"]
    assert image.data.dtype.newbyteorder("=") == np.dtype(expected["dtype"])
    assert float(image.data.astype(np.float64).sum()) == pytest.approx(expected["sum"], rel=1e-6)
    assert np.asarray(image.data).reshape(-1)[: len(expected["first_row"])].tolist() == expected["first_row"]
    assert image.voxel_size_angstrom == pytest.approx(tuple(expected["voxel_A"]), rel=1e-6)
    assert image.header.intervals == tuple(expected["mxyz"])


def test_a_stale_mx_is_said_with_both_pixel_sizes() -> None:
    image = read_mrc(FIXTURES / "projection2d" / "formats" / "mode2_stale_mx.mrc")
    assert image.pixel_size_angstrom == 1.0
    assert "1 Å as read or 8 Å" in image.warnings[0]


@pytest.mark.parametrize("name", REFUSED)
def test_damaged_file_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(InputError) as error:
        read_mrc(FIXTURES / "cryoem" / name)
    text = str(error.value)
    key = Path(name).name if name.endswith(".gz") else Path(name).stem
    assert WORDS[key] in text
    assert Path(name).name in text
    assert "\n" not in text


@pytest.mark.parametrize(("name", "word"), [("zero_pixel", "no usable pixel size"), ("nan_pixel", "no usable pixel")])
def test_an_unknown_pixel_size_is_none_and_said(name: str, word: str) -> None:
    image = read_mrc(FIXTURES / "cryoem" / "mrc_broken" / f"{name}.mrc")
    assert image.pixel_size_angstrom is None
    assert word in image.warnings[0]


@pytest.mark.parametrize(("name", "word"), [("bad_machine_stamp", "00 00 00 00"), ("trailing_bytes", "100 bytes")])
def test_what_can_be_read_with_doubt_is_read_and_said(name: str, word: str) -> None:
    image = read_mrc(FIXTURES / "cryoem" / "mrc_broken" / f"{name}.mrc")
    whole = read_mrc(FIXTURES / "cryoem" / "mrc" / "micrograph_mode2.mrc")
    assert np.array_equal(image.data, whole.data)
    assert word in image.warnings[0]


def test_statistics_of_the_header_are_never_used() -> None:
    image = read_mrc(FIXTURES / "cryoem" / "mrc_broken" / "wrong_stats.mrc")
    assert image.warnings == ()
    assert np.array_equal(image.data, read_mrc(FIXTURES / "cryoem" / "mrc" / "micrograph_mode2.mrc").data)


def test_plain_files_are_mapped_and_not_read() -> None:
    path = FIXTURES / "cryoem" / "mrc" / "micrograph_mode2.mrc"
    assert isinstance(read_mrc(path).data.base, np.memmap | None)
    assert isinstance(read_mrc(path).data, np.memmap)
    assert not isinstance(read_mrc(path, mmap=False).data, np.memmap)


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 7), st.integers(1, 9)),
        st.tuples(st.integers(2, 4), st.integers(1, 5), st.integers(1, 6)),
    ),
    kind=st.sampled_from(["i1", "i2", "u2", "f2", "f4"]),
    seed=st.integers(0, 2**31),
    ending=st.sampled_from([".mrc", ".mrcs", ".mrc.gz"]),
)
def test_round_trip_keeps_samples_type_and_pixel_size(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], kind: str, seed: int, ending: str
) -> None:
    data = (np.random.default_rng(seed).normal(size=shape) * 50).clip(-100, 100)
    data = (data.clip(0) if kind == "u2" else data).astype(kind)
    path = tmp_path_factory.mktemp("mrc") / f"a{ending}"
    write_mrc(path, data, pixel_size_angstrom=1.234)
    back = read_mrc(path)
    assert back.warnings == ()
    assert back.data.dtype == np.dtype(kind)
    expected = data[None] if ending == ".mrcs" and data.ndim == 2 else data
    assert np.array_equal(back.data, expected)
    assert back.pixel_size_angstrom == pytest.approx(1.234, rel=1e-6)
    assert back.kind == ("stack" if ending == ".mrcs" else "image" if data.ndim == 2 else "volume")


def test_mrcfile_reads_what_we_write_and_finds_it_valid(tmp_path: Path) -> None:
    mrcfile = pytest.importorskip("mrcfile")
    data = np.random.default_rng(1).normal(size=(5, 6, 8)).astype(np.float32)
    for name, kind in (("a.mrc", "volume"), ("a.mrcs", "stack")):
        write_mrc(tmp_path / name, data, pixel_size_angstrom=2.5)
        assert mrcfile.validate(tmp_path / name)
        with mrcfile.open(tmp_path / name) as file:
            assert np.array_equal(file.data, data)
            assert float(file.voxel_size.x) == pytest.approx(2.5)
            assert file.is_image_stack() == (kind == "stack")


def test_permuted_axes_come_back_in_order(tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    write_mrc(tmp_path / "a.mrc", data, pixel_size_angstrom=1.0)
    content = bytearray((tmp_path / "a.mrc").read_bytes())
    content[64:76] = struct.pack("<3i", 2, 3, 1)  # columns along y, rows along z, sections along x
    (tmp_path / "b.mrc").write_bytes(content)
    turned = read_mrc(tmp_path / "b.mrc").data
    assert turned.shape == (3, 4, 2)
    assert turned[1, 2, 0] == data[0, 1, 2]


def test_four_bit_pixels_are_unpacked_low_nibble_first(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrc", np.zeros((2, 3), np.int8), pixel_size_angstrom=1.0)
    head = bytearray((tmp_path / "a.mrc").read_bytes()[:1024])
    head[12:16] = struct.pack("<i", 101)
    (tmp_path / "a.mrc").write_bytes(bytes(head) + bytes([0x21, 0x03, 0x54, 0x06]))
    assert read_mrc(tmp_path / "a.mrc").data.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_bytes_of_old_imod_files_are_unsigned(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrc", np.array([[-1, 1]], np.int8), pixel_size_angstrom=1.0)
    content = bytearray((tmp_path / "a.mrc").read_bytes())
    content[152:160] = struct.pack("<2i", 1146047817, 0)
    (tmp_path / "a.mrc").write_bytes(content)
    image = read_mrc(tmp_path / "a.mrc")
    assert image.data.tolist() == [[255, 1]]
    assert "unsigned" in image.warnings[0]


def test_a_file_that_is_only_named_gz_is_read_as_what_it_is(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrc", np.ones((3, 3), np.float32), pixel_size_angstrom=1.0)
    (tmp_path / "b.mrc").write_bytes(gzip.compress((tmp_path / "a.mrc").read_bytes()))
    assert read_mrc(tmp_path / "b.mrc").data.sum() == 9


def test_an_array_without_a_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="int64"):
        write_mrc(tmp_path / "a.mrc", np.zeros((2, 2), np.int64), pixel_size_angstrom=1.0)
    assert list(tmp_path.iterdir()) == []


def test_not_a_number_is_found_in_the_last_sample() -> None:
    data = np.zeros((3, 4, 5), np.float32)
    data[2, 3, 4] = np.nan
    with pytest.raises(InputError, match=r"\[2, 3, 4\]"):
        require_finite(data, "here")


def test_real_micrographs_read_as_their_notes_say(shared_path: Callable[[str], Path]) -> None:
    folder = shared_path("data/cryoem/bgal_10017")
    image = read_mrc(sorted(folder.glob("*.mrc"))[0])
    assert image.data.dtype == np.int8
    assert image.pixel_size_angstrom == pytest.approx(7.997778)
    assert image.data.shape == (864, 864)
