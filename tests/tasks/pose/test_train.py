from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor

from equivox.errors import ConfigError, MissingExtraError, OutputError
from equivox.formats.nifti import read_mask, read_volume
from equivox.geometry.rotations import euler_xyz_from_rotation, random_rotations
from equivox.nets.readout import pool_axes, read_out
from equivox.run.training import network_weights
from equivox.tasks.load import load_model
from equivox.tasks.pose import augment_monai
from equivox.tasks.pose.augment_space import warp
from equivox.tasks.pose.loader import RotateSamples, SegmentSamples
from equivox.tasks.pose.losses import segmentation_loss
from equivox.tasks.pose.train import TrainRun, train_rotate, train_segment
from equivox.tasks.pose.train_config import (
    Preset,
    RotateTraining,
    SegmentTraining,
    rotate_preset,
    segment_preset,
)
from equivox.tasks.pose.train_courses import RotateCourse, SegmentCourse
from equivox.tasks.pose.train_layout import Annotated, RotateLayout, match_folders
from equivox.weights.folder import read_model_folder

SIDE = 22
PRESETS: tuple[Preset, ...] = ("published", "equivox")


@dataclass(frozen=True)
class Data:
    """Two folders of turned heads and the table of their rotations."""

    root: Path
    rows: dict[str, list[str]]

    def folders(self, fold: str) -> tuple[Path, Path]:
        return self.root / fold / "img", self.root / fold / "lab"

    @property
    def layout(self) -> RotateLayout:
        return RotateLayout(
            *self.folders("training"), *self.folders("validation"), tables=(self.root / "poses.csv",), results=None
        )


def turned_head(rotation: Tensor) -> tuple[Tensor, Tensor]:
    """An ellipsoid of three unequal axes with a bright face, turned about the grid's centre."""
    axis = torch.arange(SIDE) - (SIDE - 1) / 2
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    labels = ((x / 5) ** 2 + (y / 7) ** 2 + (z / 4) ** 2 < 1).float()
    image = 10.0 + 60.0 * labels + 60.0 * torch.exp(-(x**2 + (y - 6) ** 2 + (z + 1) ** 2) / 8)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = rotation
    return warp(image[None], matrix)[0], warp(labels[None], matrix, interpolation="nearest")[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    root = tmp_path_factory.mktemp("heads")
    draw = torch.Generator().manual_seed(5)
    rows: dict[str, list[str]] = {}
    for fold, count in (("training", 3), ("validation", 2)):
        rows[fold] = []
        for index in range(count):
            rotation = random_rotations(1, generator=draw)[0]
            name = f"{fold[0]}{index}"
            for folder, values in zip(("img", "lab"), turned_head(rotation), strict=True):
                path = root / fold / folder / f"{name}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                image = nibabel.Nifti1Image(values.numpy().astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0]))
                image.header.set_xyzt_units("mm")
                nibabel.save(image, path)
            angles = torch.rad2deg(euler_xyz_from_rotation(rotation.mT)).tolist()  # rows: from array to head
            rows[fold].append(",".join([name, *(f"{angle:.6f}" for angle in angles)]))
    lines = [f"{row},{fold}" for fold in rows for row in rows[fold]]
    (root / "poses.csv").write_text("\n".join(["frame_id,rot_x,rot_y,rot_z,fold", *lines]) + "\n")
    return Data(root, rows)


def tiny_segment(preset: Preset = "equivox", **values: Any) -> SegmentTraining:
    small = {"crop_size_voxels": 16, "n_levels": 2, "unet_feat": 4, "n_output_channels": 2, "n_epochs": 2}
    return segment_preset(preset).with_values(**{**small, "batch_size": 2, **values})


def tiny_rotate(preset: Preset = "equivox", **values: Any) -> RotateTraining:
    small = {"image_size_voxels": 8, "n_levels": 1, "kernel_size": 3, "multiplier": 1, "n_epochs": 2}
    return rotate_preset(preset).with_values(**{**small, "batch_size": 2, **values})


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "curves.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def on_cpu(out: Path, **values: Any) -> TrainRun:
    return TrainRun(out=out, device="cpu", **values)


def test_overfitting_the_segmentation_finds_the_heads(data: Data, tmp_path: Path) -> None:
    settings = tiny_segment(n_epochs=25, lr=0.02, crop_size_voxels=24, rotation_deg=0.0, translation_mm=0.0)
    settings = settings.with_values(scaling_lower_bound=1.0, scaling_upper_bound=1.0, alpha_min=0.0, alpha_max=0.0)
    folders = data.folders("training")
    train_segment(folders, folders, settings, on_cpu(tmp_path))
    rows = rows_of(tmp_path)
    best = min(float(row["val_loss"]) for row in rows)
    assert best < 0.4 * float(rows[0]["val_loss"])
    assert max(float(row["val_dice_class_1"]) for row in rows) > 0.8


def test_overfitting_the_rotation_makes_its_loss_fall(data: Data, tmp_path: Path) -> None:
    settings = tiny_rotate(n_epochs=30, lr=0.04, rotation_deg=0.0, shift_voxels=0.0, noise_std=0.0, batch_size=3)
    settings = settings.with_values(
        validate_every_n_epoch=10, alpha_min=0.0, alpha_max=0.0, gamma_min=0.0, gamma_max=0.0, max_bias=0.0
    )
    folders = data.folders("training")
    table = tmp_path / "training.csv"
    table.write_text("\n".join(["frame_id,rot_x,rot_y,rot_z", *data.rows["training"]]) + "\n")
    layout = RotateLayout(*folders, *folders, tables=(table, table), results=None)
    train_rotate(layout, settings, on_cpu(tmp_path / "out"))
    rows = rows_of(tmp_path / "out")
    assert min(float(row["train_loss"]) for row in rows) < 0.75 * float(rows[0]["train_loss"])
    assert [bool(row["val_rotation_error_deg"]) for row in rows] == [epoch % 10 == 9 for epoch in range(30)]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("network", ["segment", "rotate"])
def test_f13_a_resumed_training_is_bit_equal(data: Data, tmp_path: Path, network: str, preset: Preset) -> None:
    def run(epochs: int, out: str, *, resume: bool = False) -> None:
        choice = on_cpu(tmp_path / out, seed=4, resume=resume)
        if network == "segment":
            settings = tiny_segment(preset, n_epochs=epochs)
            train_segment(data.folders("training"), data.folders("validation"), settings, choice)
        else:
            train_rotate(data.layout, tiny_rotate(preset, n_epochs=epochs), choice)

    run(3, "whole")
    run(1, "parts")
    run(3, "parts", resume=True)
    assert (tmp_path / "whole" / "curves.csv").read_bytes() == (tmp_path / "parts" / "curves.csv").read_bytes()
    for checkpoint in ("best.ckpt", "last.ckpt"):
        whole, parts = (network_weights(tmp_path / out / "checkpoints" / checkpoint) for out in ("whole", "parts"))
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
    models = [(tmp_path / out / "model" / "model.safetensors") for out in ("whole", "parts")]
    assert models[0].stat().st_size > 1000
    weights = [read_model_folder(path.parent).config["weights_sha256"] for path in models]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("preset", PRESETS)
def test_validation_does_not_depend_on_the_batch_size(data: Data, tmp_path: Path, preset: Preset) -> None:
    found = []
    for batch_size in (1, 2, 3):
        out = tmp_path / str(batch_size)
        settings = tiny_rotate(preset, n_epochs=1, batch_size=batch_size, lr=1e-12)  # the network stays as it is
        train_rotate(data.layout, settings, on_cpu(out))
        found.append([float(value) for name, value in rows_of(out)[0].items() if name.startswith("val_")])
    assert len(found[0]) == 5
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)


def test_validation_of_the_segmentation_does_not_depend_on_the_batch_size(data: Data, tmp_path: Path) -> None:
    found = []
    for batch_size in (1, 2):
        out = tmp_path / str(batch_size)
        settings = tiny_segment(n_epochs=1, batch_size=batch_size, lr=1e-12)
        train_segment(data.folders("training"), data.folders("training"), settings, on_cpu(out))
        found.append([float(value) for name, value in rows_of(out)[0].items() if name.startswith("val_")])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_trained_is_what_predict_uses(data: Data, tmp_path: Path, preset: Preset) -> None:
    folders = data.folders("training"), data.folders("validation")
    # the U-Net's cube holds the whole volume: what lies outside it is cut off at inference
    settings = tiny_segment(preset, n_epochs=1, crop_size_voxels=24)
    segment = train_segment(*folders, settings, on_cpu(tmp_path / "seg"))
    run = on_cpu(tmp_path / "rot", join=str(segment.model.path))
    trained = train_rotate(data.layout, tiny_rotate(preset, n_epochs=1), run)
    model = load_model(tmp_path / "rot" / "model")
    assert sorted(model.folder.config["networks"]) == ["rotate", "segment"]
    assert model.folder.config["behaviour"] == ("published" if preset == "published" else "mended")
    pair = match_folders(*data.folders("validation"))[0]
    volume = read_volume(pair.image)
    estimate = model.estimate(volume, mask=read_mask(pair.label, volume))
    # the estimator crops as the validation does: the same network sees the same cube
    examples = [Annotated(pair, (0.0, 0.0, 0.0))]
    sample = RotateSamples(examples, tiny_rotate(preset), training=False, seed=0).sample(0, 0)
    network = read_model_folder(trained.model.path).networks()["rotate"]
    with torch.no_grad():
        expected = read_out(pool_axes(network(sample["image"][None]))).rotation[0]
    assert torch.allclose(estimate.require_pose().rotation.float(), expected, atol=2e-3)
    record = json.loads((tmp_path / "rot" / "run.json").read_text())
    assert record["outcome"] == "done"
    assert record["model"]["sha256"] == trained.model.sha256


def test_both_networks_can_be_joined_in_either_order(data: Data, tmp_path: Path) -> None:
    rotate = train_rotate(data.layout, tiny_rotate(n_epochs=1), on_cpu(tmp_path / "rot"))
    folders = data.folders("training"), data.folders("validation")
    joined = train_segment(*folders, tiny_segment(n_epochs=1), on_cpu(tmp_path / "seg", join=str(rotate.model.path)))
    assert joined.model.config["settings"]["rotate_size"] == 8
    assert joined.model.config["input"]["size"] == 16
    with pytest.raises(ConfigError, match="holds rotate, no network named 'segment'"):
        train_rotate(data.layout, tiny_rotate(), on_cpu(tmp_path / "again", join=str(rotate.model.path)))


def test_a_run_is_not_resumed_with_other_settings_nor_replaced_unasked(data: Data, tmp_path: Path) -> None:
    train_rotate(data.layout, tiny_rotate(n_epochs=1), on_cpu(tmp_path))
    with pytest.raises(ConfigError, match=r"begun with another lr \(0.001 then, 0.5 now\)"):
        train_rotate(data.layout, tiny_rotate(lr=0.5), on_cpu(tmp_path, resume=True))
    with pytest.raises(ConfigError, match="begun with another seed"):
        train_rotate(data.layout, tiny_rotate(), on_cpu(tmp_path, resume=True, seed=1))
    with pytest.raises(OutputError, match="exists already; pass --overwrite"):
        train_rotate(data.layout, tiny_rotate(), on_cpu(tmp_path))
    again = train_rotate(data.layout, tiny_rotate(n_epochs=1), on_cpu(tmp_path, overwrite=True))
    assert again.fitted.epochs == 1


def test_f18_the_device_is_an_option(data: Data, tmp_path: Path) -> None:
    trained = train_rotate(data.layout, tiny_rotate(n_epochs=1), on_cpu(tmp_path / "cpu"))
    assert str(trained.device.device) == "cpu"
    with pytest.raises(ConfigError, match="names no device"):
        train_rotate(data.layout, tiny_rotate(), TrainRun(out=tmp_path / "no", device="gpu"))


def test_without_monai_only_our_preset_asks_for_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai", None)
    monkeypatch.setitem(sys.modules, "monai.transforms", None)
    with pytest.raises(MissingExtraError, match=r'pip install "equivox\[train\]"'):
        augment_monai._monai()


def test_without_lightning_the_command_names_the_extra_and_exits_5(data: Data, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['lightning'] = None; sys.modules['lightning.pytorch'] = None\n"
        "from equivox.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    paths = [*data.folders("training"), *data.folders("validation"), tmp_path / "out"]
    command = [sys.executable, "-c", code, "pose", "train", "segment", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert 'pip install "equivox[train]"' in done.stderr


SEGMENT_CHANGES: dict[str, Any] = {
    "preset": None, "n_epochs": None, "batch_size": None, "validate_every_n_epoch": None,  # seen by the schedule
    "lr": 0.5, "weight_decay": 0.25, "rotation_deg": 10.0, "voxel_size_mm": 2.0, "max_voxel_size_mm": 30.0,
    "max_bias": 2.0, "noise_std": 0.3, "norm_perc": 0.2, "gamma_min": -3.0, "gamma_max": 2.0, "sigma_min_mm": 0.1,
    "sigma_max_mm": 20.0, "alpha_min": 0.05, "alpha_max": 0.6, "flipping": "other", "crop_size_voxels": 20,
    "scaling_lower_bound": 0.2, "scaling_upper_bound": 3.0, "translation_mm": 25.0, "randomise_res": "other",
    "n_levels": 3, "unet_feat": 6, "feat_mult": 3, "activation": "relu", "norm": "other", "n_output_channels": 4,
    "class_weights": (1.0, 3.0), "dice_weight": 5.0, "band_boundary": "other", "band_position": "other",
}  # fmt: skip
ROTATE_CHANGES: dict[str, Any] = {
    **{name: value for name, value in SEGMENT_CHANGES.items() if name in {f.name for f in fields(RotateTraining)}},
    "image_size_voxels": 10, "shift_voxels": 1.5, "momentum": 0.5, "n_levels": 2, "kernel_size": 5, "multiplier": 2,
    "object_symmetry": "none",
}  # fmt: skip
OTHER = {
    True: False,
    False: True,
    "batch": "group",
    "group": "batch",
    "3d": "in_plane",
    "in_plane": "3d",
    "uniform": "edge_heavy",
    "edge_heavy": "uniform",
}


def fingerprint(settings: SegmentTraining | RotateTraining, data: Data) -> list[object]:
    """Everything that a setting can change, as numbers: samples, network, loss, optimiser."""
    pairs = match_folders(*data.folders("training"))
    course: SegmentCourse | RotateCourse
    samples: SegmentSamples | RotateSamples
    if isinstance(settings, SegmentTraining):
        course, samples = SegmentCourse(settings, seed=0), SegmentSamples(pairs, settings, training=True, seed=0)
        logits = torch.linspace(-1, 1, 8 * settings.n_output_channels).view(1, -1, 2, 2, 2)
        loss = segmentation_loss(
            logits, torch.ones(1, 2, 2, 2).long(),
            class_weights=course.class_weights, dice_weight=settings.dice_weight,
        ).total.tolist()  # fmt: skip
    else:
        course = RotateCourse(settings, seed=0)
        examples = [Annotated(pair, (10.0, 20.0, 30.0)) for pair in pairs]
        samples, loss = RotateSamples(examples, settings, training=True, seed=0), []
    drawn = [samples.sample(epoch, 0) for epoch in range(6)]
    sums = [
        float((value.double() * torch.arange(value.numel()).view(value.shape)).sum())
        for d in drawn
        for value in d.values()
    ]
    with torch.no_grad():
        side = 16
        out = course.network(torch.linspace(0, 1, side**3).sin().view(1, 1, side, side, side))
    optimizer = {k: str(v) for k, v in course.optimizer().defaults.items()}
    return [
        sums,
        float(out.double().square().sum()),
        sum(p.numel() for p in course.network.parameters()),
        loss,
        optimizer,
    ]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("network", ["segment", "rotate"])
def test_f14_there_is_no_setting_that_does_nothing(data: Data, network: str, preset: Preset) -> None:
    settings: SegmentTraining | RotateTraining
    if network == "segment":
        settings, changes = tiny_segment(preset, randomise_res=True), SEGMENT_CHANGES
    else:
        settings, changes = tiny_rotate(preset, shift_voxels=0.5, image_size_voxels=16), ROTATE_CHANGES
    assert set(changes) == {field.name for field in fields(settings)}
    before = fingerprint(settings, data)
    assert fingerprint(settings, data) == before
    for name, value in changes.items():
        if value is None:
            continue
        other = OTHER[getattr(settings, name)] if value == "other" else value
        changed = replace(settings, **{name: other})
        assert fingerprint(changed, data) != before, f"{name}={other} changes nothing with preset {preset}"


def test_the_command_trains_and_speaks_json(
    data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from equivox.cli.main import main

    paths = [*data.folders("training"), *data.folders("validation"), data.root / "poses.csv", tmp_path / "rot"]
    sizes = ["--image_size", "8", "--n_levels", "1", "--kernel_size", "3", "--multiplier", "1", "--n_epochs", "1"]
    command = [
        "pose",
        "train",
        "rotate",
        *map(str, paths),
        *sizes,
        "--device",
        "cpu",
        "--json",
        "--preset",
        "published",
    ]
    assert main(command) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["schema"] == "equivox.pose-train/1"
    assert document["results"][0]["monitor"] == "val_loss"
    assert Path(document["results"][0]["model"]) == tmp_path / "rot" / "model"
    assert "[1/1] train_loss" in printed.err
    assert "val_rotation_error_deg" in printed.err
    assert main([*command, "--resume"]) == 0  # nothing left to do: the model is written again
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err


def test_tensorboard_files_are_written_on_request(data: Data, tmp_path: Path) -> None:
    train_rotate(data.layout, tiny_rotate("published", n_epochs=1), on_cpu(tmp_path, tensorboard=True))
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
