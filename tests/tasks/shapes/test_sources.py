from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.errors import InputError
from equivox.formats.environments import read_environments
from equivox.tasks.shapes.config import DataConfig, InputConfig
from equivox.tasks.shapes.data import Points, of_split
from equivox.tasks.shapes.presets import shape_preset
from equivox.tasks.shapes.samples import ShapeSamples, reduced
from equivox.tasks.shapes.source_cath import part_of_split
from equivox.tasks.shapes.source_residues import ResidueSource
from equivox.tasks.shapes.sources import open_source
from equivox.tasks.shapes.train import training_parts

POINTS = InputConfig(kind="points", side=9, spacing=6.0, sigma=3.0)
MESH = InputConfig(kind="mesh", side=9, spacing=0.25, sigma=0.2, points=64)
VOXELS = InputConfig(kind="voxels", side=9)


def test_splits_play_the_published_parts_or_those_of_a_fold() -> None:
    assert [part_of_split(split, None) for split in (0, 6, 7, 8, 9)] == ["train", "train", "validation", "test", "test"]
    assert [part_of_split(split, 9) for split in (9, 0, 1)] == ["test", "validation", "train"]


def test_a_cath_set_gives_traces_about_their_mean(fixture_path: Callable[[str], Path]) -> None:
    source = open_source(DataConfig(data=str(fixture_path("shapes/cath/mini_10arch_ca.npz"))), POINTS)
    assert len(source.shapes) == 20
    assert len(of_split(source, "train")) == 14
    content = source.content(3)
    assert isinstance(content, Points)
    assert float(content.positions.mean(dim=0).abs().max()) < 1e-3
    marked = InputConfig(kind="points", side=9, channels=5, spacing=6.0, sigma=3.0, trace="chain")
    chain = open_source(DataConfig(data=str(fixture_path("shapes/cath/mini_10arch_ca.npz"))), marked).content(3)
    assert isinstance(chain, Points)
    assert int(chain.channel.max()) <= 4
    assert len(chain.positions) >= len(content.positions)


def test_a_task_that_the_file_has_not_is_refused(fixture_path: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="has no task '3class'; it has architecture"):
        open_source(DataConfig(data=str(fixture_path("shapes/cath/mini_10arch_ca.npz")), task="3class"), POINTS)


@pytest.mark.shared
def test_the_rebuilt_sets_have_their_published_parts(shared_path: Callable[[str], Path]) -> None:
    data = str(shared_path("data/proteins/cath_ca.npz"))
    for task, sizes in (("3class", (540, 74, 139)), ("10arch", (721, 103, 204))):
        source = open_source(DataConfig(data=data, task=task), POINTS)
        assert tuple(len(of_split(source, part)) for part in ("train", "validation", "test")) == sizes


@pytest.mark.shared
def test_an_environment_leaves_the_side_chain_out_and_turns_with_the_frame(shared_path: Callable[[str], Path]) -> None:
    found = read_environments(shared_path("data/proteins/environments.npz"))
    config, data = InputConfig(kind="environment", side=5, channels=4, spacing=1.0, sigma=0.6), DataConfig(data="")
    source = ResidueSource(found, config, data)
    assert [len(of_split(source, part)) for part in ("train", "validation", "test")] == [23240, 3338, 6614]
    laboratory = source.content(100)
    local = ResidueSource(found, replace(config, frame="local"), data).content(100)
    assert isinstance(laboratory, Points)
    assert isinstance(local, Points)
    assert torch.allclose(laboratory.positions.norm(dim=1), local.positions.norm(dim=1), atol=1e-3)
    assert float(local.positions.norm(dim=1).min()) > 1.0  # nothing lies where the C-beta would be
    assert not torch.allclose(laboratory.positions, local.positions)


def medmnist(path: Path, *, label: int = 0) -> Path:
    arrays = {}
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        images = np.zeros((count, 6, 6, 6), dtype=np.uint8)
        images[:, 2:4, 2:4, 2:4] = 255
        arrays[f"{split}_images"] = images
        arrays[f"{split}_labels"] = np.array([[row % 2] for row in range(count)], dtype=np.uint8)
    arrays["val_labels"][0] = label
    np.savez(path, **arrays)
    return path


def test_medmnist_volumes_come_between_0_and_1_on_the_grid(tmp_path: Path) -> None:
    source = open_source(DataConfig(data=str(medmnist(tmp_path / "m.npz"))), VOXELS)
    content = source.content(0)
    assert content.volume.shape == (1, 9, 9, 9)  # type: ignore[union-attr]
    assert float(content.volume.sum()) == pytest.approx(8.0)  # type: ignore[union-attr]
    assert [len(of_split(source, part)) for part in ("train", "validation", "test")] == [4, 2, 2]
    with pytest.raises(InputError, match="class 5 occurs in val and never in train"):
        open_source(DataConfig(data=str(medmnist(tmp_path / "n.npz", label=5))), VOXELS)


@pytest.fixture
def folder(tmp_path: Path, fixture_path: Callable[[str], Path]) -> Path:
    """Two classes of four cuboids each, dealt into parts, one of them broken, and a file without a class."""
    root = tmp_path / "cuboids"
    names = ["cuboid_tris.off", "cuboid_quads.off", "cuboid_binary.stl", "cuboid_ascii.ply"]
    for label in ("flat", "long"):
        for part, files in (("train", names[:2]), ("val", names[2:3]), ("test", names[3:])):
            (root / label / part).mkdir(parents=True)
            for name in files:
                shutil.copy(fixture_path(f"shapes/mesh/{name}"), root / label / part / name)
    shutil.copy(fixture_path("shapes/mesh/no_faces.off"), root / "flat" / "train")
    shutil.copy(fixture_path("shapes/mesh/cuboid_tris.off"), root / "lost.off")
    return root


def test_folders_are_classes_and_bad_files_are_told(folder: Path) -> None:
    source = open_source(DataConfig(data=str(folder)), MESH)
    assert source.classes == ("flat", "long")
    assert [len(of_split(source, part)) for part in ("train", "validation", "test")] == [4, 2, 2]
    problems = " ".join(source.problems)  # type: ignore[attr-defined]
    assert "no_faces.off" in problems
    assert "lost.off has no label" in problems
    _, warnings = training_parts(source, shape_preset("shapes-equivox"), seed=0)
    assert "2 files are left out" in warnings[0]


def test_a_table_names_files_and_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(
        "file,label,split\nflat/train/cuboid_tris.off,a,train\nlong/val/cuboid_binary.stl,b,test\nghost.off,a,train\n"
    )
    source = open_source(DataConfig(data=str(folder), labels=str(table)), MESH)
    assert Counter(shape.split for shape in source.shapes) == {"train": 1, "test": 1}
    assert any("ghost.off" in problem for problem in source.problems)  # type: ignore[attr-defined]


def test_a_class_that_training_has_not_is_refused(folder: Path) -> None:
    shutil.move(folder / "long" / "train" / "cuboid_tris.off", folder / "long" / "val")
    shutil.move(folder / "long" / "train" / "cuboid_quads.off", folder / "long" / "val")
    source = open_source(DataConfig(data=str(folder)), MESH)
    with pytest.raises(InputError, match="class 'long' occurs in validation and never in training"):
        training_parts(source, shape_preset("shapes-equivox"), seed=0)


def test_shrec17_folders_are_read_by_their_tables(tmp_path: Path, fixture_path: Callable[[str], Path]) -> None:
    for split, ids in (("train", ("000001", "000002", "000003")), ("val", ("000004",))):
        (tmp_path / f"{split}_perturbed").mkdir()
        rows = [f"{name},0269115{6 + row % 2},0269115{6 + row % 2},m{row},{split}" for row, name in enumerate(ids)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["id,synsetId,subSynsetId,modelId,split", *rows]) + "\n")
        for name in ids[:2]:
            shutil.copy(fixture_path("shapes/mesh/cuboid_tris.obj"), tmp_path / f"{split}_perturbed" / f"{name}.obj")
    source = open_source(DataConfig(data=str(tmp_path), perturbed=True), MESH)
    assert source.classes == ("02691156", "02691157")
    assert [shape.split for shape in source.shapes] == ["train", "train", "validation"]
    problems = " ".join(source.problems)  # type: ignore[attr-defined]
    assert "model 000003" in problems
    assert "no test.csv" in problems


def test_data_that_are_no_objects_are_one_sentence(tmp_path: Path, folder: Path) -> None:
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not whole")
    (tmp_path / "empty").mkdir()
    for data, config, message in (
        ("nowhere", MESH, "nowhere does not exist"),
        ("other.npz", MESH, "holds something; known are CATH sets"),
        ("broken.npz", MESH, "is no whole .npz archive"),
        ("empty", MESH, "holds no shape"),
    ):
        path = data if data == "nowhere" else str(tmp_path / data)
        with pytest.raises(InputError, match=message):
            open_source(DataConfig(data=path), config)
    with pytest.raises(InputError, match="holds meshes, the network's input is of the kind 'points'"):
        open_source(DataConfig(data=str(folder)), POINTS)


def test_every_epoch_has_its_own_order_and_a_balanced_one_has_equal_classes(
    fixture_path: Callable[[str], Path],
) -> None:
    source = open_source(DataConfig(data=str(fixture_path("shapes/cath/mini_10arch_ca.npz"))), POINTS)
    chosen = list(range(20))
    settings = shape_preset("cath-equivox").with_values(balanced=True, input=POINTS, drop_last=False)
    samples = ShapeSamples(source, chosen, settings, training=True, seed=1)
    labels = Counter(source.shapes[index].label for index in samples.order(0))
    assert set(labels.values()) == {min(Counter(shape.label for shape in source.shapes).values())}
    plain = ShapeSamples(source, chosen, settings.with_values(balanced=False), training=True, seed=1)
    assert sorted(plain.order(0)) == chosen
    assert plain.order(0) != plain.order(1)
    assert plain.order(0) == ShapeSamples(source, chosen, plain.settings, training=True, seed=1).order(0)
    assert len(ShapeSamples(source, chosen, plain.settings.with_values(drop_last=True), training=True, seed=1)) == 16


def test_a_reduction_keeps_every_class(fixture_path: Callable[[str], Path]) -> None:
    source = open_source(DataConfig(data=str(fixture_path("shapes/cath/mini_10arch_ca.npz"))), POINTS)
    kept = reduced(source, range(20), 4, seed=0)
    assert {source.shapes[index].label for index in kept} == {shape.label for shape in source.shapes}
    assert len(kept) < 20
    assert kept == reduced(source, range(20), 4, seed=0)
