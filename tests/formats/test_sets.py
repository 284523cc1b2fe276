"""Archives of domains, volumes and meshes: read whole, refused with a sentence when they contradict themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from equivox.errors import InputError
from equivox.formats.archives import read_arrays
from equivox.formats.cath import read_cath
from equivox.formats.medmnist import read_medmnist
from equivox.formats.toyshapes import read_mesh_set

Find = Callable[[str], Path]
Change = Callable[[dict[str, Any]], None]


def rewritten(source: Path, target: Path, change: Change) -> Path:
    arrays = dict(np.load(source))
    change(arrays)
    np.savez(target, **arrays)
    return target


def small_medmnist(path: Path, **changed: np.ndarray[Any, Any]) -> Path:
    draw = np.random.default_rng(0)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        arrays[f"{split}_images"] = draw.integers(0, 256, (count, 6, 6, 6), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count)[:, None] % 2).astype(np.uint8)
    np.savez(path, **(arrays | changed))
    return path


def small_mesh_set(path: Path, **changed: np.ndarray[Any, Any]) -> Path:
    """Two tetrahedra of two classes."""
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float16)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], dtype=np.uint16)
    arrays = {
        "vertices": np.concatenate([points, 2 * points]), "faces": np.concatenate([faces, faces]),
        "vertex_offset": np.array([0, 4, 8]), "face_offset": np.array([0, 4, 8]), "label": np.array([0, 1]),
        "sublabel": np.array([0, 0]), "split": np.array([0, 2]), "class_names": np.array(["a", "b"]),
        "split_names": np.array(["train", "val", "test"]), "rotation_xyzw": np.array([[0, 0, 0, 1.0], [1, 0, 0, 0]]),
    }  # fmt: skip
    np.savez(path, **(arrays | changed))
    return path


def test_the_published_layout_of_cath(fixture_path: Find) -> None:
    path = fixture_path("shapes/cath/mini_10arch_ca.npz")
    stored = dict(np.load(path))
    domains = read_cath(path)
    assert len(domains) == 20
    assert domains.split.tolist() == [s for s in range(10) for _ in range(2)]
    for i in (0, 7, 19):
        expected = stored["positions"][i, : stored["n_atoms"][i]]
        assert_close(domains.domain(i), torch.as_tensor(expected, dtype=torch.float32))
    task = domains.task()
    assert task.name == "architecture"
    names = [".".join(map(str, row)) for row in stored["labels"]]
    assert [task.classes[label] for label in task.labels.tolist()] == names
    assert list(task.classes) == sorted(set(names), key=lambda name: tuple(map(int, name.split("."))))


def test_the_rebuilt_cath_set(shared_path: Find) -> None:
    domains = read_cath(shared_path("data/proteins/cath_ca.npz"))
    assert len(domains) == 1112
    assert domains.positions.shape == (169109, 3)
    assert torch.bincount(domains.split).tolist() == [112, 112, *[111] * 8]
    assert domains.domain(3).mean(dim=0).abs().max() < 0.02
    three, ten = domains.task("3class"), domains.task("10arch")
    assert torch.bincount(three.labels).tolist() == [251, 251, 251]
    assert ten.classes[:2] == ("1.10", "1.20")
    assert torch.bincount(ten.labels).tolist() == [170, 78, 37, 54, 125, 52, 30, 165, 257, 60]
    with pytest.raises(InputError, match="None is none of them"):
        domains.task()


def test_medmnist_official_splits(shared_path: Find) -> None:
    glands = read_medmnist(shared_path("data/shapes/adrenalmnist3d.npz"))
    assert [len(glands.splits[s].labels) for s in ("train", "val", "test")] == [1188, 98, 298]
    assert (glands.side, glands.classes) == (28, 2)
    assert float(glands.splits["train"].labels.double().mean()) == pytest.approx(0.218, abs=5e-4)


def test_toyshapes(shared_path: Find) -> None:
    shapes = read_mesh_set(shared_path("data/shapes/toyshapes.npz"))
    assert len(shapes) == 600
    assert [len(shapes.rows(split)) for split in shapes.splits] == [420, 60, 120]
    radius = torch.stack([mesh.used().norm(dim=1).max() for mesh in shapes.meshes])
    assert_close(radius, torch.ones(600), atol=2e-3, rtol=0)
    assert_close(torch.linalg.det(shapes.rotations), torch.ones(600, dtype=torch.float64))
    assert shapes.meshes[61].name == "bed_001"
    with pytest.raises(InputError, match="'holdout' is none of them"):
        shapes.rows("holdout")


def test_a_small_mesh_set(tmp_path: Path) -> None:
    shapes = read_mesh_set(small_mesh_set(tmp_path / "two.npz"))
    assert [mesh.volume() for mesh in shapes.meshes] == pytest.approx([1 / 6, 8 / 6])
    assert shapes.rows("test").tolist() == [1]


def _without(name: str) -> Change:
    return lambda arrays: arrays.pop(name)


def _with(name: str, index: Any, value: Any) -> Change:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name][index] = value

    return change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (_without("n_atoms"), "lacks n_atoms"),
        (_with("positions", (3, 0, 1), np.nan), "NaN or infinite"),
        (_with("positions", (3, 0, 1), 3e5), "domain .*_0003, has a coordinate beyond"),
        (_with("n_atoms", 2, 0), "n_atoms runs from 0"),
        (_with("n_atoms", 2, 9999), "9999"),
        (_with("atom_types", (0, 0), b"N"), "atoms named CA, N"),
        (_with("split_start_indices", 4, 99), "do not divide"),
        (lambda arrays: arrays.update(labels=arrays["labels"][:5]), "5 entries for 20 domains"),
        (lambda arrays: arrays.update({k: v[:0] for k, v in arrays.items()}), "holds no domain"),
        (lambda arrays: arrays.update(labels=np.zeros((20, 7), int)), "7 columns"),
    ],
)
def test_a_cath_set_that_contradicts_itself(fixture_path: Find, tmp_path: Path, change: Change, part: str) -> None:
    path = rewritten(fixture_path("shapes/cath/mini_10arch_ca.npz"), tmp_path / "bad.npz", change)
    with pytest.raises(InputError, match=part) as caught:
        read_cath(path)
    assert "bad.npz" in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"val_labels": np.zeros((3, 1), np.uint8)}, "3 entries for 2 volumes"),
        ({"test_labels": np.full((2, 1), 7, np.uint8)}, "class 7 occurs in test and never in train"),
        ({"train_labels": np.zeros((4, 14), np.uint8)}, "multi-label"),
        ({"train_images": np.zeros((4, 28, 28), np.uint8)}, "4 axes"),
        ({"train_images": np.zeros((4, 6, 6, 6), np.float32)}, "float32"),
        ({"train_images": np.zeros((4, 6, 6, 5), np.uint8)}, "at least one cube"),
        ({"test_images": np.zeros((2, 8, 8, 8), np.uint8)}, "one size"),
    ],
)
def test_a_medmnist_archive_that_contradicts_itself(tmp_path: Path, changed: dict[str, Any], part: str) -> None:
    assert read_medmnist(small_medmnist(tmp_path / "good.npz")).classes == 2
    with pytest.raises(InputError, match=part):
        read_medmnist(small_medmnist(tmp_path / "bad.npz", **changed))


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"faces": np.full((8, 3), 4, np.uint16)}, r"faces \(mesh 0\), holds 4"),
        ({"vertex_offset": np.array([0, 4, 9])}, "does not divide the 8 rows"),
        ({"label": np.array([0, 2])}, "class_names has entries 0 to 1"),
        ({"rotation_xyzw": np.zeros((2, 4))}, "no quaternion"),
        ({"split": np.array([0])}, "1 entries for 2 meshes"),
    ],
)
def test_a_mesh_set_that_contradicts_itself(tmp_path: Path, changed: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        read_mesh_set(small_mesh_set(tmp_path / "bad.npz", **changed))


@pytest.mark.parametrize("read", [read_cath, read_medmnist, read_mesh_set])
def test_no_archive_at_all(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    whole = small_medmnist(tmp_path / "whole.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:700])
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "bare.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    np.savez(tmp_path / "objects.npz", n_atoms=np.array([{}], dtype=object))
    for name, part in {
        "none.npz": "does not exist", "empty.npz": "is empty", "cut.npz": "no whole .npz", "text.npz": "no whole .npz",
        "bare.npy": "one bare array", "other.npz": "lacks", "objects.npz": "no whole .npz", ".": "is a folder",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=part) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = small_medmnist(tmp_path / "bits.npz")
    data = bytearray(path.read_bytes())
    data[500] ^= 0x40
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="no whole"):
        read_arrays(path, {}, what="an archive")
