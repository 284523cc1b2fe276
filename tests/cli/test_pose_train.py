"""The command line of both trainings: names, refusals, exit codes. What training does is tested with the task."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from equivox.cli.main import main
from equivox.cli.pose_train import RotateOptions, SegmentOptions, app
from equivox.cli.speaking import given_values as _values
from equivox.errors import ConfigError
from equivox.tasks.pose.train_config import (
    Preset,
    RotateTraining,
    SegmentTraining,
    rotate_preset,
    segment_preset,
)

FOLDERS = ["ti", "tl", "vi", "vl"]
PUBLISHED_SEGMENT = {
    "--batchsize": "4", "--flipping": None, "--crop_size": "128", "--scaling_lower_bound": "0.5",
    "--scaling_upper_bound": "1.3", "--rotation": "180", "--translation": "10", "--randomise_res": None,
    "--img_res": "3.0", "--max_res_iso": "8.0", "--max_bias": "0.5", "--noise_std": "0.03", "--norm_perc": "0.005",
    "--gamma_min": "-0.8", "--gamma_max": "0.0", "--sigma_min": "1.5", "--sigma_max": "2.3", "--alpha_min": "0.5",
    "--alpha_max": "1.5", "--n_levels": "4", "--unet_feat": "16", "--feat_mult": "2", "--activation": "elu",
    "--n_output_channels": "3", "--lr": "1e-4", "--weight_decay": "0", "--class_weights": "1 8 2",
    "--dice_weight": "1.0", "--n_epochs": "1000", "--resume": None,
}  # fmt: skip
PUBLISHED_ROTATE = {
    "--image_size": "64", "--rotation": "90", "--shift": "0", "--img_res": "3.0", "--max_bias": "0.5",
    "--max_res_iso": "7.5", "--gamma_min": "-2.0", "--gamma_max": "0.1", "--sigma_min": "2.3", "--sigma_max": "4.6",
    "--alpha_min": "0.5", "--alpha_max": "1.5", "--norm_perc": "0.005", "--n_levels": "4", "--kernel_size": "5",
    "--batch_size": "1", "--lr": "0.01", "--weight_decay": "3e-5", "--momentum": "0.99", "--n_epochs": "100000",
    "--validate_every_n_epoch": "1", "--resume": None,
}  # fmt: skip


def tokens(options: dict[str, str | None]) -> list[str]:
    return [word for name, value in options.items() for word in [name, *(value.split() if value else [])]]


def test_every_published_option_of_segment_has_its_published_default() -> None:
    _, bound, *_ = app.parse_args(
        ["segment", *FOLDERS, "out", *tokens(PUBLISHED_SEGMENT)], exit_on_error=False, print_error=False
    )
    given = bound.arguments["options"]
    settings = segment_preset("published").with_values(**_values(given))
    differing = {
        field.name
        for field in fields(settings)
        if getattr(settings, field.name) != getattr(segment_preset("published"), field.name)
    }
    assert differing == {"flipping", "randomise_res", "class_weights"}  # given here, off or none by default
    assert settings.class_weights == (1.0, 8.0, 2.0)
    assert bound.arguments["run"].resume


def test_every_published_option_of_rotate_has_its_published_default() -> None:
    _, bound, *_ = app.parse_args(
        ["rotate", *FOLDERS, "a.csv", "out", *tokens(PUBLISHED_ROTATE)], exit_on_error=False, print_error=False
    )
    assert rotate_preset("published").with_values(**_values(bound.arguments["options"])) == rotate_preset("published")
    assert len(bound.arguments["paths"]) == 6


def test_every_setting_is_an_option_and_every_option_a_setting() -> None:
    for options, training in ((SegmentOptions, SegmentTraining), (RotateOptions, RotateTraining)):
        assert {f.name for f in fields(options)} == {f.name for f in fields(training)} - {"preset"}


def test_our_preset_mends_what_the_published_one_keeps() -> None:
    for ours, theirs in (
        (segment_preset("equivox"), segment_preset("published")),
        (rotate_preset("equivox"), rotate_preset("published")),
    ):
        assert ours.alpha_max <= 1.0 < theirs.alpha_max
        assert (ours.band_boundary, theirs.band_boundary) == ("3d", "in_plane")
        assert (ours.band_position, theirs.band_position) == ("uniform", "edge_heavy")
        assert ours.rotation_deg == 180.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha_max": 1.5}, "alpha_max is 1.5; above 1"),
        ({"gamma_min": 1.0}, "gamma_min is 1.0 and gamma_max is 0.5"),
        ({"norm_perc": 0.5}, "norm_perc is 0.5"),
        ({"rotation_deg": 200.0}, "no rotation turns by more than 180"),
        ({"max_voxel_size_mm": 1.0}, "max_res_iso is 1.0 mm, below img_res 3.0 mm"),
        ({"lr": 0.0}, "lr is 0.0; give a number above 0"),
        ({"class_weights": (1.0, 2.0)}, "class_weights has 2 numbers for 3 classes"),
        ({"crop_size_voxels": 50}, "crop_size is 50 voxels; 4 levels need a multiple of 8"),
        ({"n_output_channels": 1}, "background and object are two"),
    ],
)
def test_settings_out_of_range_are_one_sentence(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        segment_preset("equivox").with_values(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"momentum": 1.0}, "momentum is 1.0"), ({"image_size_voxels": 8}, "4 poolings need at least 16")],
)
def test_settings_of_rotate_out_of_range(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rotate_preset("equivox").with_values(**values)


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown setting 'batchsize'"):
        rotate_preset("equivox").with_values(batchsize=3)


def fold(root: Path, name: str, *files: str) -> str:
    folder = root / name
    folder.mkdir()
    for file in files:
        (folder / file).write_bytes(b"x")
    return str(folder)


@pytest.mark.parametrize("preset", ["published", "equivox"])
def test_f14_an_option_that_would_do_nothing_is_refused(preset: Preset, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--max_res_iso", "6", "--no-randomise-res", "--preset", preset]
    assert main(["pose", "train", "segment", *FOLDERS, "out", *words]) == 2
    assert "does nothing without --randomise_res" in capsys.readouterr().err


def test_wrong_usage_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["segment", *FOLDERS], "the results' folder was not given"),
        (["segment", *FOLDERS, "a", "--out", "b"], "was given twice"),
        (["rotate", *FOLDERS, "--out", "b"], "got 4 folders and 0 .csv files"),
        (["rotate", *FOLDERS, "a.csv"], "the results' folder was not given"),
        (["segment", *FOLDERS, "a", "--down_op", "lowpass"], "--down_op"),
        (["segment", *FOLDERS, "a", "--lr", "fast"], "fast"),
    ):
        assert main(["pose", "train", *words]) == 2, words
        assert message in capsys.readouterr().err, words


def test_data_that_cannot_be_used_exits_3_with_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [
        fold(tmp_path, "ti", "a.nii"), fold(tmp_path, "tl", "b.nii"),
        fold(tmp_path, "vi", "c.nii"), fold(tmp_path, "vl", "c.nii"),
    ]  # fmt: skip
    assert main(["pose", "train", "segment", *folders, "--out", str(tmp_path / "o")]) == 3
    assert "no label in" in capsys.readouterr().err
    table = tmp_path / "a.csv"
    table.write_text("frame_id,rot_x,rot_y,rot_z\na,1,2,3\n")
    assert main(["pose", "train", "rotate", *folders, str(table), "--out", str(tmp_path / "o")]) == 3
    assert "no column 'fold'" in capsys.readouterr().err
    table.write_text("frame_id,rot_x,rot_y,rot_z,fold\na,1,2,x,training\n")
    assert main(["pose", "train", "rotate", *folders, str(table), "--out", str(tmp_path / "o")]) == 3
    error = capsys.readouterr().err
    assert "line 2: rot_z is 'x'; give an angle in degrees" in error
    assert "Traceback" not in error
    assert not (tmp_path / "o").exists()


def test_help_and_wrong_settings_load_no_torch() -> None:
    code = (
        "import sys\nfrom equivox.cli.main import main\n"
        "for words in (['--help'], ['segment', '--help'], ['rotate', '--help']):\n"
        "    try: main(['pose', 'train', *words])\n    except SystemExit: pass\n"
        "assert main(['pose', 'train', 'segment', 'a', 'b', 'c', 'd', 'e', '--lr', '-1']) == 2\n"
        "heavy = {'torch', 'lightning', 'monai', 'numpy'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "TRAIN_IMAGES TRAIN_LABELS VAL_IMAGES VAL_LABELS" in done.stdout
